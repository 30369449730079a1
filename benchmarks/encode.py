"""Encoding throughput: images to codes, batch 1, 100 and 10,000, jaxret beside PyTorch.

    python benchmarks/encode.py [--quick] [--json=FILE]

The encoder of Torres 2018 (784-500-100-10) on bytes that lie in memory, as a server would have
them: scaling to [0, 1] is part of the work, and so is handing the codes back to the host.
"""

import numpy as np
import timing

HIDDEN, LATENT = (500, 100), 10


def ours():
    """(encode, weights): the jitted encoder, and its weights for the peer to share."""
    import jax

    from jaxret import hashers, models
    from jaxret.evaluate import encode_in_batches
    from jaxret.hashers import latents

    latent = latents.gaussian(LATENT)
    model = models.dense_autoencoder((28, 28, 1), latent.head_size, HIDDEN)
    vae = hashers.make_vae(model, latent, (28, 28, 1))
    params = vae.trainer.init(jax.random.key(0), {"learning_rate": 1e-3}).params
    mean = jax.jit(vae.mean)
    layers = [*params["encoder"].values(), params["head"]]
    weights = [(np.asarray(layer["kernel"]), np.asarray(layer["bias"])) for layer in layers]

    def encode(images):
        # Many images go in batches of 1000, whose activations stay in a cache, as in evaluate.
        if len(images) > 1000:
            return np.asarray(encode_in_batches(mean, params, images))
        return np.asarray(mean(params, images))

    return encode, weights


def pytorch(weights):
    """The same encoder, with the same weights."""
    import torch
    from torch import nn

    modules = []
    for kernel, bias in weights:
        linear = nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias.copy()))
        modules += [linear, nn.ReLU()]
    encoder = nn.Sequential(*modules[:-1]).eval()

    @torch.inference_mode()
    def encode(images):
        x = torch.from_numpy(images).reshape(len(images), -1).float() / 255
        return encoder(x)[:, :LATENT].numpy()

    return encode


def main() -> None:
    """Time and write."""
    options = timing.parser(__doc__).parse_args()
    print(timing.machine())
    encode, weights = ours()
    try:
        import torch

        peer_name, peer = f"PyTorch {torch.__version__} eager", pytorch(weights)
    except ImportError:
        print("PyTorch is not installed: no peer")
        peer_name, peer = None, None

    rows = []
    for batch, calls in ((1, 500), (100, 200), (10_000, 5)):
        images = np.random.default_rng(0).integers(0, 256, (batch, 28, 28, 1)).astype(np.uint8)
        calls = max(1, calls // (5 if options.quick else 1))

        def repeat(function, images=images, calls=calls):
            return lambda: [function(images) for _ in range(calls)]

        equal = bool(np.allclose(encode(images), peer(images), atol=1e-4)) if peer else None
        timed = [repeat(encode)] + ([repeat(peer)] if peer else [])
        seconds = [[t / calls for t in taken] for taken in timing.in_turn(*timed, repeats=9)]
        row = timing.summary(
            f"encode 784-500-100-10, batch {batch}",
            seconds[0],
            peer_name,
            seconds[1] if peer else None,
            equal,
        )
        row["codes_per_second"] = batch / row["seconds"]
        print(f"{timing.line(row)}  {row['codes_per_second']:,.0f} codes/s", flush=True)
        rows.append(row)
    timing.write(options.json, rows)


if __name__ == "__main__":
    main()
