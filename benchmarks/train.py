"""Training throughput: a VAE of Torres 2018's size and convolutional autoencoders, beside PyTorch.

    python benchmarks/train.py [--quick] [--json=FILE]

MNIST-sized random images (throughput does not depend on what they show), 784-500-100-10, batch
100, Adam, 75-epoch settings; a run is one epoch. Convolutional autoencoders have batches of 128; a
run is 50 of these. PyTorch, where it is installed, runs eagerly on tensors indexed directly, its
fastest way without a compiler, and convolves in its own layout and as channels_last; both use every
core.
"""

import itertools

import numpy as np
import timing

SHAPE = (28, 28, 1)
HIDDEN, LATENT, BATCH = (500, 100), 10, 100
# (a name of jaxret.models.MODELS, channels, the head's size, the loss); Sahu, model C, is the first
CONVOLUTIONAL = (
    ("conv_up", (16, 8, 8), None, "bce"),
    ("conv_dense_transposed", (16, 32), 32, "mse"),
)
CONV_BATCH, CONV_STEPS = 128, 50


def ours(images: np.ndarray, runs: int, scan: bool):
    """A function that trains one epoch, of so many runs at once, and waits for it."""
    import jax
    import jax.numpy as jnp

    from jaxret import hashers, models, train
    from jaxret.hashers import latents

    latent = latents.gaussian(LATENT)
    model = models.dense_autoencoder((28, 28, 1), latent.head_size, HIDDEN)
    trainer = hashers.make_vae(model, latent, (28, 28, 1)).trainer
    make = train.make_epoch if scan else train.make_epoch_loop
    epoch = make(trainer.step, len(images), BATCH)
    hyper = {"learning_rate": 1e-3, "beta": 1.0, "temperature": 1.0}
    if runs == 1:
        hyper = {name: jnp.float32(value) for name, value in hyper.items()}
        state = trainer.init(jax.random.key(0), hyper)
        epoch = jax.jit(epoch) if scan else epoch
    else:
        hyper = {name: jnp.full(runs, value) for name, value in hyper.items()}
        state = train.sweep_init(trainer, jax.random.split(jax.random.key(0), runs), hyper)
        epoch = jax.jit(jax.vmap(epoch, (0, 0, None, None)))
    images, labels = jnp.asarray(images), jnp.zeros(len(images), jnp.int32)

    def one_epoch():
        nonlocal state
        state, terms = epoch(state, hyper, images, labels)
        jax.block_until_ready((state.params, terms))
        return float(terms["loss"][..., -50:].mean())

    return one_epoch


def pytorch(images: np.ndarray):
    """The same in PyTorch, eagerly, with the images as one float tensor that is indexed."""
    import torch
    from torch import nn
    from torch.nn import functional

    def dense(sizes):
        layers = []
        for wide, narrow in itertools.pairwise(sizes):
            linear = nn.Linear(wide, narrow)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        return layers

    encoder = nn.Sequential(*dense([784, *HIDDEN]), nn.Linear(HIDDEN[-1], 2 * LATENT))
    decoder = nn.Sequential(*dense([LATENT, *reversed(HIDDEN)]), nn.Linear(HIDDEN[0], 784))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    data = torch.from_numpy(images.reshape(len(images), -1))

    def one_epoch():
        order = torch.randperm(len(data))
        losses = []
        for start in range(0, len(data) - BATCH + 1, BATCH):
            x = data[order[start : start + BATCH]].float() / 255
            mean, log_variance = encoder(x).chunk(2, dim=1)
            z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
            nll = functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
            kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()
            loss = (nll + kl) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return float(torch.stack(losses)[-50:].mean())

    return one_epoch


def autoencoder(images: np.ndarray, name: str, channels, head_size, loss: str):
    """(model, params, epoch): a convolutional autoencoder, and a function that trains it."""
    import jax
    import jax.numpy as jnp

    from jaxret import hashers, models, train

    made = hashers.make_autoencoder(models.MODELS[name](SHAPE, head_size, channels), SHAPE, loss)
    hyper = {"learning_rate": jnp.float32(1e-3)}
    state = made.trainer.init(jax.random.key(0), hyper)
    params, images = state.params, jnp.asarray(images)
    scan = jax.default_backend() != "cpu"
    make = train.make_epoch if scan else train.make_epoch_loop
    epoch = make(made.trainer.step, len(images), CONV_BATCH)
    epoch = jax.jit(epoch) if scan else epoch
    labels = jnp.zeros(len(images), jnp.int32)

    def one_epoch():
        nonlocal state
        state, terms = epoch(state, hyper, images, labels)
        jax.block_until_ready((state.params, terms))

    return made, params, one_epoch


def pytorch_autoencoder(images, params, name: str, loss: str, channels_last: bool):
    """(rebuild, epoch): the same in PyTorch, with the same weights at first."""
    import peers
    import torch
    from torch import nn
    from torch.nn import functional

    layout = torch.channels_last if channels_last else torch.contiguous_format
    transposed = name.endswith("transposed")
    model = nn.Sequential(peers.encoder(params), peers.conv_decoder(params, SHAPE, transposed)).to(
        memory_format=layout
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    @torch.inference_mode()
    def rebuild(images):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return torch.sigmoid(model(x)).permute(0, 2, 3, 1).numpy()

    def one_epoch():
        order = torch.randperm(len(data))
        for start in range(0, len(data) - CONV_BATCH + 1, CONV_BATCH):
            x = data[order[start : start + CONV_BATCH]].float() / 255
            if loss == "bce":
                error = functional.binary_cross_entropy_with_logits(model(x), x)
            else:
                error = functional.mse_loss(torch.sigmoid(model(x)), x)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()

    return rebuild, one_epoch


def convolutional_rows(images: np.ndarray, repeats: int) -> list[dict]:
    """The autoencoders of CONVOLUTIONAL; equal: with the same weights they rebuild the same."""
    import jax

    rows = []
    for name, channels, head_size, loss in CONVOLUTIONAL:
        made, params, ours = autoencoder(images, name, channels, head_size, loss)
        rebuilt = np.asarray(jax.jit(made.reconstruct)(params, images[:100]))
        epochs, equal = {}, {}
        for peer, channels_last in _layouts().items():
            rebuild, epochs[peer] = pytorch_autoencoder(images, params, name, loss, channels_last)
            equal[peer] = bool(np.allclose(rebuilt, rebuild(images[:100]), atol=1e-4))
        what = f"{name} {'-'.join(map(str, channels))}, code of {made.code_size}"
        rows += timing.beside(
            f"train {what}, batch {CONV_BATCH}", ours, epochs, equal=equal, work=len(images),
            repeats=repeats,
        )  # fmt: skip
    return rows


def _layouts() -> dict[str, bool]:
    try:
        import torch
    except ImportError:
        return {}
    name = f"PyTorch {torch.__version__} eager"
    return {name: False, f"{name}, channels_last": True}


def main() -> None:
    """Time and write."""
    options = timing.parser(__doc__).parse_args()
    print(timing.machine())
    num_images, repeats = (10_000, 5) if options.quick else (60_000, 7)
    images = np.random.default_rng(0).integers(0, 256, (num_images, 28, 28, 1)).astype(np.uint8)
    try:
        import torch

        peer_name, peer = f"PyTorch {torch.__version__} eager", pytorch(images)
    except ImportError:
        print("PyTorch is not installed: no peer")
        peer_name, peer = None, None

    rows = []
    for name, runs, scan in (
        ("scan over an epoch", 1, True),
        ("jitted step in a loop", 1, False),
        ("scan, vmap over 8 runs", 8, True),
    ):
        run = ours(images, runs, scan)
        seconds = timing.in_turn(*([run] if peer is None else [run, peer]), repeats=repeats)
        # A run of 8 does 8 epochs' work: seconds are per epoch of one model.
        row = timing.summary(
            f"train VAE 784-500-100-10, batch 100: {name}",
            [taken / runs for taken in seconds[0]],
            peer_name,
            seconds[1] if peer else None,
            # Training is random: equal says that the losses agree within 1 %.
            abs(run() / peer() - 1) < 0.01 if peer and runs == 1 else None,
        )
        row["images_per_second"] = num_images / row["seconds"]
        if peer:
            row["peer_images_per_second"] = num_images / row["peer_seconds"]
        print(f"{timing.line(row)}  {row['images_per_second']:,.0f} images/s", flush=True)
        rows.append(row)
    few = images[: CONV_BATCH * (10 if options.quick else CONV_STEPS)]
    rows += convolutional_rows(few, repeats)
    timing.write(options.json, rows)


if __name__ == "__main__":
    main()
