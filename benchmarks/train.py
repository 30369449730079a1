"""Training throughput: a VAE of Torres 2018's size, jaxret beside PyTorch.

    python benchmarks/train.py [--quick] [--json=FILE]

MNIST-sized random images (throughput does not depend on what they show), 784-500-100-10, batch
100, Adam, 75-epoch settings. A run is one epoch. PyTorch, where it is installed, runs eagerly on
tensors indexed directly, its fastest way without a compiler; both use every core.
"""

import itertools

import numpy as np
import timing

HIDDEN, LATENT, BATCH = (500, 100), 10, 100


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
    timing.write(options.json, rows)


if __name__ == "__main__":
    main()
