"""Encoding throughput: images to codes, batch 1, 100 and 10,000, jaxret beside PyTorch.

    python benchmarks/encode.py [--quick] [--json=FILE]

The encoder of Torres 2018 (784-500-100-10), convolutional ones, and DRHN-1's (Jimenez 2017), on
bytes that lie in memory, as a server would have them: scaling to [0, 1] is part of the work, and so
is handing the codes back to the host. PyTorch convolves in its own layout and as channels_last.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import timing

SHAPE, COLOUR, LATENT = (28, 28, 1), (32, 32, 3), 10
DRHN = "DRHN-1, 48 bits"


def dense():
    """(encode, params): jitted, of the VAE of Torres 2018."""
    import jax

    from jaxret import hashers, models
    from jaxret.hashers import latents

    latent = latents.gaussian(LATENT)
    model = models.dense_autoencoder(SHAPE, latent.head_size, (500, 100))
    vae = hashers.make_vae(model, latent, SHAPE)
    return jax.jit(vae.mean), vae.trainer.init(jax.random.key(0), {"learning_rate": 1e-3}).params


def convolutional(name: str, channels: tuple[int, ...], head_size: int | None):
    """(encode, params): jitted, of an autoencoder of jaxret.models.MODELS."""
    import jax

    from jaxret import hashers, models, train

    model = models.MODELS[name](SHAPE, head_size, channels)
    made = hashers.make_autoencoder(model, SHAPE)
    init = made.trainer.init(jax.random.key(0), {"learning_rate": 1e-3})
    return jax.jit(made.encode, compiler_options=train.convolution_options()), init.params


def deep_hash():
    """(encode, variables): jitted, of DRHN-1 with 48 bits."""
    import jax

    from jaxret import hashers, models, train

    mean = np.full(COLOUR, 0.5, np.float32)
    made = hashers.make_hashnet(models.HashNet(1, 48, 10), mean)
    hyper = {"learning_rate": 0.1, "weight_decay": 0.0, "step": 0, "steps": 1}
    encode = jax.jit(made.encode, compiler_options=train.convolution_options())
    return encode, hashers.weights(made.trainer.init(jax.random.key(0), hyper))


CASES = {
    "784-500-100-10": dense,
    "conv_up 16-8-8, no head (Sahu, C)": lambda: convolutional("conv_up", (16, 8, 8), None),
    "conv_dense_transposed 16-32, 32": lambda: convolutional("conv_dense_transposed", (16, 32), 32),
    DRHN: deep_hash,
}


def random_images(case: str, n: int) -> np.ndarray:
    """As many images as asked for, as a case takes them, u8[n h w c]."""
    shape = (n, *(COLOUR if case == DRHN else SHAPE))
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def to_host(encode, params):
    """A function of images; many go in batches, whose activations stay in a cache."""
    from jaxret.evaluate import encode_in_batches

    def codes(images):
        if len(images) > 1000:
            return np.asarray(encode_in_batches(encode, params, images))
        return np.asarray(encode(params, images))

    return codes


def pytorch(params, channels_last: bool):
    """The same encoder, with the same weights; of a VAE's head only the means."""
    import peers
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    make = peers.hash_encoder if "trunk" in params.get("params", {}) else peers.encoder
    encoder = make(params).eval().to(memory_format=layout)

    def batch(images):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return encoder(x.contiguous(memory_format=layout))

    @torch.inference_mode()
    def codes(images):
        return torch.cat([batch(part) for part in np.split(images, max(1, len(images) // 1000))])

    return lambda images: codes(images).numpy()


def main() -> None:
    """Time and write."""
    options = timing.parser(__doc__).parse_args()
    print(timing.machine())
    rows = []
    for case, make in CASES.items():
        encode, params = make()
        ours, peers = to_host(encode, params), peers_of(params)
        for batch, calls in ((1, 500), (100, 50), (10_000, 1)):
            images = random_images(case, batch)
            codes = ours(images)
            rows += timing.beside(
                f"encode {case}, batch {batch}",
                partial(ours, images),
                {name: partial(peer, images) for name, peer in peers.items()},
                equal={
                    name: bool(np.allclose(codes, peer(images)[:, : codes.shape[1]], atol=1e-4))
                    for name, peer in peers.items()
                },
                work=batch,
                calls=max(1, calls // (5 if options.quick else 1)),
                repeats=5 if options.quick else 9,
            )
    timing.write(options.json, rows)


def peers_of(params) -> dict[str, Callable]:
    """PyTorch's encoders by name; none where it is not installed."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no peer")
        return {}
    name = f"PyTorch {torch.__version__} eager"
    found = {name: pytorch(params, False)}
    if "Conv_0" in params.get("encoder", ["Conv_0"]):
        found[f"{name}, channels_last"] = pytorch(params, True)
    return found


if __name__ == "__main__":
    main()
