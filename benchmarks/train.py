"""Training throughput: a VAE of Torres 2018's size, convolutional autoencoders, DRHN; and PyTorch.

    python benchmarks/train.py [--quick] [--json=FILE]

MNIST-sized random images (throughput does not depend on what they show), 784-500-100-10, batch
100, Adam, 75-epoch settings; a run is one epoch. Convolutional autoencoders have batches of 128; a
run is 50 of these. DRHN-1 of Jimenez 2017 with 48 bits, by its published recipe: a run is 10 steps
of 128. PyTorch, where it is installed, runs eagerly on tensors indexed directly, its fastest way
without a compiler, and convolves in its own layout and as channels_last; both use every core.
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
CONV_BATCH, CONV_STEPS, DRHN_STEPS = 128, 50, 10


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


def deep_hash(images: np.ndarray, labels: np.ndarray):
    """(encode, params, epoch): DRHN-1 as published, and a function that trains it."""
    import functools

    import jax
    import jax.numpy as jnp

    from jaxret import augment, hashers, models, train

    made = hashers.make_hashnet(
        models.HashNet(1, 48, 10),
        hashers.mean_image(images),
        view=functools.partial(augment.mirror_and_crop, pad=4),
    )
    names = {"learning_rate": 0.1, "weight_decay": 2e-4, "label_smoothing": 0.0, "steps": 1e4}
    hyper = {name: jnp.float32(value) for name, value in (names | {"classification": 1.0}).items()}
    state = made.trainer.init(jax.random.key(0), hyper)
    variables, images, labels = hashers.weights(state), jnp.asarray(images), jnp.asarray(labels)
    scan = jax.default_backend() != "cpu"
    make = train.make_epoch if scan else train.make_epoch_loop
    epoch = make(made.trainer.step, len(images), CONV_BATCH)
    epoch = jax.jit(epoch) if scan else epoch

    def one_epoch():
        nonlocal state
        state, terms = epoch(state, hyper, images, labels)
        jax.block_until_ready((state.params, terms))

    return made.encode, variables, one_epoch


def pytorch_deep_hash(images, labels, variables, channels_last: bool):
    """(encode, epoch): the same in PyTorch, with the same weights at first."""
    import peers
    import torch
    from torch.nn import functional

    layout = torch.channels_last if channels_last else torch.contiguous_format
    encoder, classifier = peers.hashnet(variables["params"])
    encoder = encoder.to(memory_format=layout)
    mean = torch.from_numpy(np.array(variables["mean"])).permute(2, 0, 1)[None]
    parameters = [*encoder.parameters(), *classifier.parameters()]
    decayed = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 2e-4}, {"params": others}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    data = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    classes = torch.from_numpy(labels).long()

    @torch.inference_mode()
    def encode(images):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean
        return encoder.eval()(x.contiguous(memory_format=layout)).numpy()

    def view(x):
        """One place for all images of a batch, which is less work than one for each."""
        left, top = torch.randint(0, 9, (2,)).tolist()
        x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
        return functional.pad(x, (4, 4, 4, 4))[:, :, top : top + 32, left : left + 32]

    def one_epoch():
        encoder.train()
        order = torch.randperm(len(data))
        for start in range(0, len(data) - CONV_BATCH + 1, CONV_BATCH):
            rows = order[start : start + CONV_BATCH]
            x = view(data[rows].float() / 255 - mean).contiguous(memory_format=layout)
            logits = classifier(torch.sigmoid(encoder(x)))
            error = functional.cross_entropy(logits, classes[rows])
            optimizer.zero_grad()
            error.backward()
            optimizer.step()

    return encode, one_epoch


def deep_hash_rows(steps: int, repeats: int) -> list[dict]:
    """DRHN-1; equal: with the same weights it gives the same codes."""
    import jax

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (CONV_BATCH * steps, 32, 32, 3)).astype(np.uint8)
    labels = random.integers(0, 10, len(images)).astype(np.int32)
    encode, variables, ours = deep_hash(images, labels)
    codes = np.asarray(jax.jit(encode)(variables, images[:100]))
    epochs, equal = {}, {}
    for peer, channels_last in _layouts().items():
        theirs, epochs[peer] = pytorch_deep_hash(images, labels, variables, channels_last)
        equal[peer] = bool(np.allclose(codes, theirs(images[:100]), atol=1e-3))
    return timing.beside(
        f"train DRHN-1, 48 bits, batch {CONV_BATCH}", ours, epochs, equal=equal, work=len(images),
        repeats=repeats,
    )  # fmt: skip


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
    rows += deep_hash_rows(2 if options.quick else DRHN_STEPS, repeats)
    timing.write(options.json, rows)


if __name__ == "__main__":
    main()
