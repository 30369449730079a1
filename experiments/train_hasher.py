"""Train a deep residual hashing network; search by the Hamming distance of its codes; score it.

    python experiments/train_hasher.py --dataset=cifar10 --workdir=runs/drhn1

DRHN-n of Jimenez 2017. The defaults are the published recipe, for one block per group; its flagfile
and ours lie in experiments/jimenez2017. Beside the retrieval scores metrics.json has the
classifier's accuracy on the queries, and on the first 10,000 training images as accuracy/train.
"""

import dataclasses

import harness
import report
import table
from harness import flag

# What training may minimise; each is a flag, its weight. See jaxret.hashers.hashnet.TERMS.
TERMS = ("classification", "quantisation", "cubic", "balance", "pairwise", "central")


@dataclasses.dataclass(frozen=True)
class HasherConfig(harness.Config):
    """Flags; the defaults are the settings of Jimenez 2017 and of the recipe it was built on."""

    epochs: int = flag(86, "passes over the training images; two of them are one of the thesis's")
    batch_size: int = flag(128, "images per step")
    learning_rate: float = flag(0.1, "of gradient descent with momentum 0.9, at its highest")
    depth: int = flag(1, "n of DRHN-n: residual blocks per group, 1 to 16")
    bits: int = flag(48, "bits per code")
    bn_order: str = flag(
        "natural", "conv-BN-ReLU with ReLU after each sum, or as equation 4.4 of the thesis has it",
        ("natural", "paper"),
    )  # fmt: skip
    relaxation: str = flag(
        "sigmoid", "what the classifier sees of the hash layer: its sigmoid, or its sign (with the "
        "gradient passed on, as in GreedyHash)", ("sigmoid", "sign"),
    )  # fmt: skip
    classification: float = flag(1.0, "weight of the classifier's cross-entropy;")
    quantisation: float = flag(0.0, "of log cosh(|u| - 1), u in [-1, 1] the code (DHN);")
    cubic: float = flag(0.0, "of ||u| - 1|^3 (GreedyHash, with --relaxation=sign);")
    balance: float = flag(0.0, "of the square of each bit's mean over the batch;")
    pairwise: float = flag(0.0, "of the likelihood of which pairs are alike (DHN);")
    central: float = flag(
        0.0, "of the cross-entropy with the class's hash centre (CSQ); 0: not used"
    )
    label_smoothing: float = flag(0.0, "share of the label that goes to all classes alike")
    weight_decay: float = flag(2e-4, "added to the gradient: so much of weights and BN's factors")
    nesterov: bool = flag(False, "Nesterov's momentum")
    schedule: str = flag(
        "drops", "of the learning rate: drops to a tenth, or up and down in straight lines, or up "
        "and then down by a cosine", ("drops", "one_cycle", "cosine"),
    )  # fmt: skip
    drops: str = flag("82,122", "drops: after which epochs")
    warmup: float = flag(0.2, "one_cycle, cosine: share of the run in which the rate goes up")
    mirror: bool = flag(True, "train on images mirrored at random,")
    crop: float = flag(
        0.125, "moved by up to so much of their side (4 pixels of 32), 0 coming in,"
    )  # fmt: skip
    cutout: float = flag(0.0, "and with a square of so much of their side put to 0")
    ema: float = flag(
        0.0, "encode by the mean of weights that keeps so much each step; 0: the last"
    )
    dtype: str = flag("float32", "of convolutions; weights and statistics are float32",
                      ("float32", "bfloat16"))  # fmt: skip
    data_parallel: bool = flag(False, "split each batch over all devices")
    watch: bool = flag(
        False, "after each epoch log (and at the end draw) the classifier's loss and accuracy on "
        "the queries and on the first 10,000 training images",
    )  # fmt: skip
    eval_k: int = flag(1000, "K of map@K/retrieved and precision@K")

    # How many devices share the work is no more part of what is computed than where it is written.
    ELSEWHERE = (*harness.Config.ELSEWHERE, "data_parallel", "watch")

    def check(self) -> None:
        """See harness.Config."""
        super().check()
        for name in ("depth", "bits", "eval_k"):
            harness.at_least(self, name, 1)
        if self.depth > 16:
            raise ValueError(f"--depth must lie between 1 and 16, got {self.depth}")
        harness.positive_integers("drops", self.drops)
        for name in (*TERMS, "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be at least 0, got {getattr(self, name)}")
        for name in ("label_smoothing", "warmup", "crop", "cutout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} must lie from 0 to below 1, got {getattr(self, name)}")
        if not self.terms():
            raise ValueError(f"one of --{', --'.join(TERMS)} must be above 0")

    def terms(self) -> tuple[str, ...]:
        """What training minimises."""
        return tuple(name for name in TERMS if getattr(self, name) > 0)

    def hyper(self) -> dict[str, float]:
        """The scalars of training, which a sweep may vary."""
        names = ("learning_rate", "weight_decay", "label_smoothing", *self.terms())
        names += ("ema",) if self.ema else ()
        return {name: getattr(self, name) for name in names}


def build(config: HasherConfig, mean, num_classes: int):
    """The network that the flags describe, for images with this mean."""
    import jax.numpy as jnp

    from jaxret import hashers, models

    model = models.HashNet(
        config.depth, config.bits, num_classes, config.bn_order, jnp.dtype(config.dtype)
    )
    return hashers.make_hashnet(
        model,
        mean,
        relaxation=config.relaxation,
        terms=config.terms(),
        schedule=schedule(config),
        nesterov=config.nesterov,
        view=view(config, mean.shape),
        average=config.ema > 0,
    )


def schedule(config: HasherConfig):
    """The learning rate's factor, by the share of the run that is done."""
    from jaxret.hashers import hashnet

    if config.schedule == "drops":
        epochs = harness.positive_integers("drops", config.drops)
        return hashnet.drops(*(epoch / config.epochs for epoch in epochs))
    return {"one_cycle": hashnet.one_cycle, "cosine": hashnet.cosine}[config.schedule](
        config.warmup
    )


def view(config: HasherConfig, image_shape: tuple[int, int, int]):
    """The changes of images that the flags describe: (key, x) -> x."""
    import jax

    from jaxret import augment

    pad, hole = (round(share * min(image_shape[:2])) for share in (config.crop, config.cutout))

    def changed(key, x):
        crop_key, hole_key = jax.random.split(key)
        x = augment.mirror_and_crop(crop_key, x, pad=pad, mirror=config.mirror)
        return augment.cutout(hole_key, x, size=hole) if hole else x

    return changed if config.mirror or pad or hole else None


def make_encode(config: HasherConfig, model):
    """An image's code, jitted: (params, images) -> f32[n b]."""
    import jax

    from jaxret import train

    del config
    return jax.jit(model.encode, compiler_options=train.convolution_options())


def by_scan(config: HasherConfig) -> bool:
    """Whether an epoch is one program; not on CPU (see train.make_epoch_loop)."""
    import jax

    del config
    return jax.default_backend() != "cpu"


def classified(model, encode, params, images) -> dict[str, float]:
    """The classifier's loss on an ImageSet, and the share that it names rightly."""
    import jax.numpy as jnp
    import optax

    from jaxret.evaluate import encode_in_batches

    codes = encode_in_batches(encode, params, images.images)
    logits, labels = model.classify_codes(params, codes), jnp.asarray(images.labels)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, axis=1) == labels
    return {"loss": float(loss.mean()), "accuracy": float(right.mean())}


def of_parts(model, encode, params, protocol) -> dict[str, float]:
    """The classifier's loss and accuracy on queries and on some training images."""
    from jaxret.data.sets import take

    parts = {"train": take(protocol.train, slice(10_000)), "test": protocol.query}
    scores = {part: classified(model, encode, params, of) for part, of in parts.items()}
    return {
        f"{name}/{part}": of[name] for name in ("loss", "accuracy") for part, of in scores.items()
    }


def score(config: HasherConfig, model, trained: report.Trained) -> dict[str, float]:
    """Retrieval and accuracy."""
    found = of_parts(model, trained.encode, trained.params, trained.protocol)
    return report.score(trained, config.eval_k) | {
        "accuracy": found["accuracy/test"],
        "accuracy/train": found["accuracy/train"],
    }


CONFIG = HasherConfig


def run_rows(configs, protocol, overlap, together):
    """See table.train_rows."""
    from jaxret.hashers import mean_image

    mean, num_classes = mean_image(protocol.train.images), len(protocol.train.class_names)
    return table.train_rows(
        configs,
        protocol,
        overlap,
        together,
        build=lambda config, image_shape: (build(config, mean, num_classes), "hamming"),
        make_encode=make_encode,
        score=score,
        by_scan=by_scan,
    )


def main(config: HasherConfig) -> None:
    """One run."""
    import jax

    from jaxret import hashers

    protocol, overlap = harness.load_data(config)
    mean, num_classes = (
        hashers.mean_image(protocol.train.images),
        len(protocol.train.class_names),
    )
    model = build(config, mean, num_classes)
    mesh = None
    if config.data_parallel:
        mesh = jax.make_mesh(
            (jax.device_count(),), ("images",), axis_types=(jax.sharding.AxisType.Auto,)
        )
    encode = make_encode(config, model)

    def watch(state):
        return of_parts(model, encode, hashers.weights(state), protocol) if config.watch else {}

    workdir = harness.Workdir(config)
    state, history = harness.train(
        workdir,
        model.trainer,
        config.hyper(),
        protocol.train,
        config,
        scan=by_scan(config),
        mesh=mesh,
        watch=watch,
    )
    trained = report.Trained(protocol, overlap, encode, hashers.weights(state), "hamming")
    metrics = score(config, model, trained)
    report.draw(workdir, trained, history)
    report.finish(workdir, config, trained, metrics, report.training_record(history))


if __name__ == "__main__":
    harness.run(HasherConfig, main)
