"""Training throughput: a VAE of Torres 2018's size, convolutional autoencoders, DRHN; and PyTorch.

    python benchmarks/train.py [--quick] [--json=FILE]

Images are random: throughput does not depend on what they show. A run of the VAE (784-500-100-10,
batch 100, Adam) is one epoch of 60,000 images of MNIST's size. A run of a convolutional autoencoder
is 50 batches of 128, a run of DRHN-1 (Jimenez 2017, 48 bits, as published) 10 batches of 128.
PyTorch, where it is installed, runs eagerly on tensors that are indexed directly, its fastest way
without a compiler; it convolves in its own layout and as channels_last. Both use every core.
"""

import itertools

import numpy as np
import timing
from epochs import one_epoch

SHAPE = (28, 28, 1)
HIDDEN, LATENT, BATCH = (500, 100), 10, 100
# (a name of jaxret.models.MODELS, channels, the head's size or 0, the loss); first Sahu's model C
CONVOLUTIONAL = (
    ("conv_up", (16, 8, 8), 0, "bce"),
    ("conv_dense_transposed", (16, 32), 32, "mse"),
)
CONV_BATCH, CONV_STEPS, DRHN_STEPS = 128, 50, 10


def pytorch(images: np.ndarray):
    """Return a function that trains one epoch of the VAE in PyTorch and gives the mean loss."""
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


def autoencoder(images: np.ndarray, name: str, channels, head_size: int, loss: str):
    """Return (hasher, params, epoch) of a convolutional autoencoder of jaxret."""
    import jax

    import jaxret
    from jaxret import hashers, train

    hasher = jaxret.autoencoder_hasher(
        head_size, SHAPE, model=name, channels=channels, loss=loss, batch_size=CONV_BATCH
    )
    params = hashers.weights(train.start(hasher.training, jax.random.key(0), images))
    return hasher, params, one_epoch([hasher.training], images)


def pytorch_autoencoder(images, params, name: str, loss: str, channels_last: bool):
    """Return (rebuild, epoch) of the same autoencoder in PyTorch, starting from our weights."""
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
    """Return rows of CONVOLUTIONAL; `equal`: with the same weights both rebuild the same images."""
    rows = []
    for name, channels, head_size, loss in CONVOLUTIONAL:
        hasher, params, ours = autoencoder(images, name, channels, head_size, loss)
        rebuilt = np.asarray(hasher.decode(params, hasher.encode(params, images[:100])))
        epochs, equal = {}, {}
        for peer, channels_last in _layouts().items():
            rebuild, epochs[peer] = pytorch_autoencoder(images, params, name, loss, channels_last)
            equal[peer] = bool(np.allclose(rebuilt, rebuild(images[:100]), atol=1e-4))
        code_size = hasher.encode(params, images[:1]).shape[1]
        what = f"{name} {'-'.join(map(str, channels))}, code of {code_size}"
        rows += timing.compare(
            f"train {what}, batch {CONV_BATCH}", ours, epochs, equal=equal, work=len(images),
            repeats=repeats,
        )  # fmt: skip
    return rows


def deep_hash(images: np.ndarray, labels: np.ndarray):
    """Return (hasher, params, epoch) of DRHN-1 as published."""
    import jax

    import jaxret
    from jaxret import hashers, train

    settings = hashers.recipes.DRHN_PUBLISHED.settings | {"batch_size": CONV_BATCH}
    hasher = jaxret.deep_hasher(48, 10, images.shape[1:], 1, **settings)
    params = hashers.weights(train.start(hasher.training, jax.random.key(0), images))
    return hasher, params, one_epoch([hasher.training], images, labels)


def pytorch_deep_hash(images, labels, variables, channels_last: bool):
    """Return (encode, epoch) of the same network in PyTorch, starting from our weights."""
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

    def augment(x):
        """Crop all images of a batch at one place, which is less work than a place for each."""
        left, top = torch.randint(0, 9, (2,)).tolist()
        x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
        return functional.pad(x, (4, 4, 4, 4))[:, :, top : top + 32, left : left + 32]

    def one_epoch():
        encoder.train()
        order = torch.randperm(len(data))
        for start in range(0, len(data) - CONV_BATCH + 1, CONV_BATCH):
            rows = order[start : start + CONV_BATCH]
            x = augment(data[rows].float() / 255 - mean).contiguous(memory_format=layout)
            logits = classifier(torch.sigmoid(encoder(x)))
            error = functional.cross_entropy(logits, classes[rows])
            optimizer.zero_grad()
            error.backward()
            optimizer.step()

    return encode, one_epoch


def deep_hash_rows(steps: int, repeats: int) -> list[dict]:
    """Return the rows of DRHN-1; `equal`: with the same weights both give the same codes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (CONV_BATCH * steps, 32, 32, 3)).astype(np.uint8)
    labels = random.integers(0, 10, len(images)).astype(np.int32)
    hasher, params, ours = deep_hash(images, labels)
    codes = np.asarray(hasher.encode(params, images[:100]))
    epochs, equal = {}, {}
    for peer, channels_last in _layouts().items():
        encode, epochs[peer] = pytorch_deep_hash(images, labels, params, channels_last)
        equal[peer] = bool(np.allclose(codes, encode(images[:100]), atol=1e-3))
    return timing.compare(
        f"train DRHN-1, 48 bits, batch {CONV_BATCH}", ours, epochs, equal=equal, work=len(images),
        repeats=repeats,
    )  # fmt: skip


def vae_rows(images: np.ndarray, repeats: int, vmap_runs: int = 8) -> list[dict]:
    """Return the rows of the VAE: by scan, by a loop, and several runs in one program."""
    import jaxret

    training = jaxret.vae_hasher(LATENT, SHAPE, hidden=HIDDEN, batch_size=BATCH).training
    peers = {}
    for name, channels_last in _layouts().items():
        if not channels_last:
            peers[name] = pytorch(images)
    rows = []
    for name, runs, scan in (
        ("scan over an epoch", 1, True),
        ("jitted step in a loop", 1, False),
        (f"scan, vmap over {vmap_runs} runs", vmap_runs, True),
    ):
        ours = one_epoch([training] * runs, images, scan=scan)
        seconds, *theirs = timing.in_turn(ours, *peers.values(), repeats=repeats)
        peer_name, peer = next(iter(peers.items()), (None, None))
        row = timing.summary(
            f"train VAE 784-500-100-10, batch {BATCH}: {name}",
            [taken / runs for taken in seconds],  # of one run's epoch
            peer_name,
            theirs[0] if theirs else None,
            # Training is random: equal says that the losses agree within 1 %.
            abs(ours() / peer() - 1) < 0.01 if peer and runs == 1 else None,
        )
        row["images_per_second"] = len(images) / row["seconds"]
        if peer:
            row["peer_images_per_second"] = len(images) / row["peer_seconds"]
        print(f"{timing.line(row)}  {row['images_per_second']:,.0f} images/s", flush=True)
        rows.append(row)
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
    timing.installed("torch")
    num_images, repeats = (10_000, 3) if options.quick else (60_000, 7)
    images = np.random.default_rng(0).integers(0, 256, (num_images, *SHAPE)).astype(np.uint8)
    rows = vae_rows(images, repeats)
    timing.write(options.json, rows)
    few = images[: CONV_BATCH * (10 if options.quick else CONV_STEPS)]
    rows += convolutional_rows(few, repeats)
    timing.write(options.json, rows)
    rows += deep_hash_rows(2 if options.quick else DRHN_STEPS, repeats)
    timing.write(options.json, rows)


if __name__ == "__main__":
    main()
