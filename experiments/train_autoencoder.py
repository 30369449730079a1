"""Train one of the autoencoder zoo, plain or variational; search with its codes; score it, draw it.

    python experiments/train_autoencoder.py --model=conv_dense_up --latent_dim=32 --workdir=runs/c32

The models are those of jaxret.models.MODELS, or your own: --model=mine.py:small calls the function
small of the file mine.py as those are called, with the images' shape and the head's size, for a
jaxret.models.Autoencoder. Beside the retrieval scores metrics.json has the
reconstruction errors of training and query images, means over pixels: mse/train, mse/test,
bce/train, bce/test; of a variational one also mse784_plus_kl, by one sample of each posterior:
784 times the squared error per pixel, whatever the image's size, and the divergence in nats.
"""

import dataclasses
import functools
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import report
import table
from harness import flag

MODELS = (
    "dense", "conv_up", "conv_transposed", "conv_dense_up", "conv_dense_transposed", "gru", "lstm",
    "attention",
)  # fmt: skip
VIEWS = ("shift", "degrees", "zoom")


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(harness.Config):
    """Flags."""

    model: str = flag(
        "dense", f"encoder and decoder: {', '.join(MODELS)}, or FILE.py:FUNCTION for your own"
    )  # fmt: skip
    variational: bool = flag(False, "a latent that is drawn, and its divergence from a prior")
    latent: str = flag(
        "gaussian", "the variational latent", ("gaussian", "clipped", "bernoulli")
    )  # fmt: skip
    bit_gradient: str = flag(
        "straight_through", "bernoulli: that of a bit's expectation, or of a relaxed sample",
        ("straight_through", "concrete"),
    )  # fmt: skip
    latent_dim: int = flag(
        32, "numbers per code, from a linear layer; 0: no such layer, the code is what the encoder "
        "gives (its last layer or map), which conv_up and conv_transposed need",
    )  # fmt: skip
    hidden: str = flag("", "widths of dense or recurrent layers; none: the model's own")
    channels: str = flag("16,8,8", "conv: of each block of the encoder; the decoder mirrors them")
    pool: str = flag("max", "conv: how a block is pooled", ("max", "average"))
    batch_norm: bool = flag(False, "conv: normalise by batch statistics")
    dropout: float = flag(0.0, "conv: share of the encoder's numbers that are dropped in training")
    patch: str = flag("4,4", "attention: height and width of a patch; 1,28 for MNIST's rows")
    width: int = flag(32, "attention: numbers per patch")
    depth: int = flag(2, "attention: blocks on either side")
    loss: str = flag("bce", "of a pixel: cross-entropy or squared error", ("bce", "mse"))
    optimizer: str = flag("adam", "adadelta has a learning rate of 1", ("adam", "adadelta"))
    learning_rate_end: float = flag(0.0, "what it goes to, geometrically; 0: it stays")
    beta: float = flag(1.0, "variational: weight of the KL divergence")
    shift: float = flag(0.0, "the encoder is trained on images moved by up to so many pixels,")
    degrees: float = flag(0.0, "turned by up to so many degrees,")
    zoom: float = flag(0.0, "and scaled by up to 1 + so much; the decoder rebuilds them unchanged")
    eval_k: int = flag(2, "K of map@K/retrieved and precision@K")

    def check(self) -> None:
        """See harness.Config."""
        super().check()
        if self.model not in MODELS and ".py:" not in self.model:
            known = ", ".join(MODELS)
            raise ValueError(
                f"--model must be one of {known} or FILE.py:FUNCTION, got {self.model!r}"
            )
        harness.at_least(self, "latent_dim", 0)
        for name in ("width", "depth", "eval_k"):
            harness.at_least(self, name, 1)
        if self.variational and not self.latent_dim:
            raise ValueError("--variational needs --latent_dim of at least 1, got 0")
        if self.hidden:
            harness.positive_integers("hidden", self.hidden)
        harness.positive_integers("channels", self.channels)
        if len(harness.positive_integers("patch", self.patch)) != 2:
            raise ValueError(f"--patch must be two numbers such as 4,4, got {self.patch!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"--dropout must lie from 0 to below 1, got {self.dropout}")
        for name in ("beta", "learning_rate_end", *VIEWS):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be at least 0, got {getattr(self, name)}")

    def hyper(self) -> dict[str, float]:
        """The scalars of training."""
        scalars = {
            "learning_rate": self.learning_rate,
            "learning_rate_end": self.learning_rate_end or self.learning_rate,
        }
        return scalars | ({"beta": self.beta, "temperature": 1.0} if self.variational else {})


def network(config: AutoencoderConfig, image_shape: tuple[int, int, int], head_size: int | None):
    """The model that the flags describe."""
    from jaxret import models

    def integers(name):
        return harness.positive_integers(name, getattr(config, name))

    if config.model not in MODELS:
        return own_model(config.model)(image_shape, head_size)

    options = {"hidden": integers("hidden")} if config.hidden else {}
    if config.model.startswith("conv"):
        options |= {"channels": integers("channels"), "pool": config.pool}
        options |= {"batch_norm": config.batch_norm, "dropout": config.dropout}
    if config.model == "attention":
        options = {"patch": integers("patch"), "width": config.width, "depth": config.depth}
    return models.MODELS[config.model](image_shape, head_size, **options)


@functools.cache  # a module's class must stay the same, or all is compiled again
def own_model(name: str) -> Callable:
    """The function of a file that FILE.py:FUNCTION names."""
    file, _, function = name.rpartition(":")
    found = runpy.run_path(file)
    if function not in found:
        raise ValueError(f"--model: {file} has no function {function!r}")
    return found[function]


def build(config: AutoencoderConfig, image_shape: tuple[int, int, int]):
    """The autoencoder that the flags describe, and the distance of its codes."""
    import jax

    from jaxret import augment, hashers

    changes = {name: getattr(config, name) for name in VIEWS}
    view = functools.partial(augment.affine, **changes) if any(changes.values()) else None
    optimizer = hashers.OPTIMIZERS[config.optimizer]
    if not config.variational:
        model = network(config, image_shape, config.latent_dim or None)
        made = hashers.make_autoencoder(model, image_shape, config.loss, optimizer, view)
        return made, "euclidean"
    latent = hashers.LATENTS[config.latent](config)
    model = network(config, image_shape, latent.head_size)
    likelihood = {"bce": "bernoulli", "mse": "squared"}[config.loss]
    made = hashers.make_vae(model, latent, image_shape, likelihood, optimizer, view)
    jax.eval_shape(made.trainer.init, jax.random.key(0), config.hyper())  # refuse before writing
    return made, latent.distance


def make_encode(config: AutoencoderConfig, model):
    """An image's code, jitted: (params, images) -> f32[n b]."""
    import jax

    from jaxret import train

    options = None if by_scan(config) else train.convolution_options()
    return jax.jit(model.mean if config.variational else model.encode, compiler_options=options)


def by_scan(config: AutoencoderConfig) -> bool:
    """Whether an epoch is one program.

    Not on CPU for convolutions (see train.make_epoch_loop), which a user's own model may have.
    """
    import jax

    plain = config.model in MODELS and not config.model.startswith("conv")
    return jax.default_backend() != "cpu" or plain


def errors(config: AutoencoderConfig, model, trained: report.Trained) -> dict[str, float]:
    """Reconstruction errors of training and query images, means over pixels and images."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxret import evaluate, hashers

    names, latent = ["mse", "bce"], None
    if config.variational:
        names.append("mse784_plus_kl")
        latent = hashers.LATENTS[config.latent](config)

    @jax.jit
    def of_batch(params, images):
        found = hashers.pixel_errors(images, model.reconstruct(params, images))
        if latent is not None:
            drawn = model.decode(params, model.sample(params, images))
            squared = hashers.pixel_errors(images, drawn)["mse"]
            found["mse784_plus_kl"] = 784 * squared + latent.kl(model.parameters(params, images))
        return jnp.stack([found[name] for name in names], axis=1)

    named = {}
    for part, images in (("train", trained.protocol.train), ("test", trained.protocol.query)):
        rows = evaluate.encode_in_batches(of_batch, trained.params, images.images)
        means = np.asarray(rows, np.float64).mean(axis=0)
        named |= {f"{name}/{part}": float(mean) for name, mean in zip(names, means, strict=True)}
    if config.variational:  # the figure that is published is of images that did not train
        named["mse784_plus_kl"] = named["mse784_plus_kl/test"]
    return named


def score(config: AutoencoderConfig, model, trained: report.Trained) -> dict[str, float]:
    """Retrieval, reconstruction, and how long a code is."""
    code = trained.encode(trained.params, trained.protocol.query.images[:1])
    return (
        report.score(trained, config.eval_k)
        | errors(config, model, trained)
        | {"code_size": code.shape[1]}
    )


def finished(workdir: str, data_dir: str = "") -> tuple[AutoencoderConfig, Any, Any, Any]:
    """A finished run: its flags, its model, the trained params, and the protocol's images."""
    import jax

    from jaxret import checkpoint, hashers

    path = Path(workdir)
    flags = json.loads((path / "metrics.json").read_text())["config"]
    config = AutoencoderConfig(**flags | {"data_dir": data_dir})
    protocol, _ = harness.load_data(config)
    model, _ = build(config, protocol.train.images.shape[1:])
    with checkpoint.Checkpoints(path / "checkpoints", config.identity()) as checkpoints:
        state = checkpoints.restore(model.trainer.init(jax.random.key(0), config.hyper()))
    return config, model, hashers.weights(state), protocol


CONFIG = AutoencoderConfig
run_rows = functools.partial(
    table.train_rows, build=build, make_encode=make_encode, score=score, by_scan=by_scan
)


def main(config: AutoencoderConfig) -> None:
    """One run."""
    import jax.numpy as jnp
    import numpy as np

    from jaxret import hashers, viz

    protocol, overlap = harness.load_data(config)
    model, distance = build(config, protocol.train.images.shape[1:])
    workdir = harness.Workdir(config)
    state, history = harness.train(
        workdir, model.trainer, config.hyper(), protocol.train, config, scan=by_scan(config)
    )
    params = hashers.weights(state)
    trained = report.Trained(protocol, overlap, make_encode(config, model), params, distance)
    metrics = score(config, model, trained)

    examples = protocol.query.images[:12]
    rebuilt = np.asarray(model.reconstruct(params, jnp.asarray(examples)))
    workdir.plot("reconstructions", viz.reconstructions(examples, rebuilt))
    _draw_codes(workdir, config, model, trained)
    report.draw(workdir, trained, history)
    record = report.training_record(history)
    if config.variational and config.loss == "bce":
        record["elbo_nats"] = -(history[-1]["nll"] + history[-1]["kl"])
    report.finish(workdir, config, trained, metrics, record)


def _draw_codes(workdir, config: AutoencoderConfig, model, trained: report.Trained) -> None:
    """What the decoder makes of codes: between two images, over a plane, and drawn at random."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxret import viz

    def grid(name, z, shape, title):
        images = np.asarray(model.decode(trained.params, jnp.asarray(z)))
        workdir.plot(name, viz.image_grid(images.reshape(*shape, *images.shape[1:]), title))

    images = trained.protocol.query.images
    z = np.asarray(trained.encode(trained.params, jnp.asarray(images[:16])))
    steps = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None]
    between = (1 - steps) * z[:8, None] + steps * z[8:, None]
    grid("interpolation", between.reshape(-1, z.shape[1]), (8, 8), "from one image to another")
    if z.shape[1] == 2:
        some = np.asarray(trained.encode(trained.params, jnp.asarray(images[:1000])))
        low, high = np.quantile(some, (0.02, 0.98), axis=0).astype(np.float32)
        across, up = np.linspace(low, high, 20).T
        plane = np.stack(np.meshgrid(across, up[::-1]), axis=2).reshape(-1, 2)
        grid("manifold", plane, (20, 20), "decoded from a grid over the codes")
    if config.variational:
        drawn = model.generate(trained.params, jax.random.key(config.seed), 100)
        drawn = np.asarray(drawn).reshape(10, 10, *drawn.shape[1:])
        workdir.plot("samples", viz.image_grid(drawn, "decoded from the prior"))


if __name__ == "__main__":
    harness.run(AutoencoderConfig, main)
