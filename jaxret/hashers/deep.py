"""Deep residual hashing: Jimenez 2017, and losses that shape its bits.

SCHEDULES, RELAXATIONS and TERMS name what a recipe is made of.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from jaxret import augment, losses, relax, train
from jaxret.models import HashNet
from jaxret.models.layers import check_choice

from . import network
from .base import (
    Hasher,
    OfImages,
    check_numbers,
    check_whole,
    image_shape_of,
    settings_from,
    trained,
)
from .objective import Term, select, weighted_sum
from .pixels import Images, scale
from .vae import Augment

# From the share of a run that is done, 0 to 1, to a factor of its learning rate.
Schedule = Callable[[Float[Array, ""]], Float[Array, ""]]
MOMENTUM = 0.9


def drops(*places: float) -> Schedule:
    """Divide the learning rate by 10 at each of these shares of the run."""
    return lambda done: 0.1 ** jnp.sum(done >= jnp.asarray(places))


def one_cycle(warmup: float) -> Schedule:
    """Go linearly from 0 to 1 in a share of the run, then linearly to 0 (Smith 2018)."""
    return lambda done: _rising(done, warmup) * (1 - _falling(done, warmup))


def cosine(warmup: float) -> Schedule:
    """Go linearly from 0 to 1 in a share of the run, then by half a cosine to 0.

    Loshchilov 2017, without restarts.
    """
    return lambda done: _rising(done, warmup) * (1 + jnp.cos(math.pi * _falling(done, warmup))) / 2


def _rising(done, warmup):
    return jnp.minimum(done / warmup, 1.0) if warmup else 1.0


def _falling(done, warmup):
    return jnp.maximum(done - warmup, 0.0) / (1 - warmup)


# name -> schedule, from the settings
SCHEDULES: dict[str, Callable[["DeepSettings"], Schedule]] = {
    "drops": lambda settings: drops(*(epoch / settings.epochs for epoch in settings.drops)),
    "one_cycle": lambda settings: one_cycle(settings.warmup),
    "cosine": lambda settings: cosine(settings.warmup),
    "constant": lambda settings: jnp.ones_like,
}
# name -> what the classifier sees of the hash layer, and the code of numbers that losses shape
RELAXATIONS = {
    "sigmoid": (jax.nn.sigmoid, lambda z: jnp.tanh(z / 2)),  # 2 sigmoid(z) - 1
    "sign": (relax.sign_identity, lambda z: z),  # Su 2018, GreedyHash
}


class Outputs(NamedTuple):
    """What an objective is computed from, for one batch."""

    z: Float[Array, "n b"]  # the hash layer's units
    code: Float[Array, "n b"]
    logits: Float[Array, "n k"]
    labels: Int[Array, " n"]
    centres: Float[Array, "n b"] | None  # the fixed code of each image's class
    book: Float[Array, "k b"] | None = None  # the fixed code of each class
    x: Float[Array, "n *shape"] | None = None  # what the network sees


# Each is a mean over the batch or its pairs; a setting of the same name is its weight.
TERMS: dict[str, Term] = {
    "classification": lambda outputs, hyper: jnp.mean(
        losses.softmax_cross_entropy(outputs.logits, outputs.labels, hyper["label_smoothing"])
    ),
    "quantisation": lambda outputs, hyper: jnp.mean(losses.quantisation(outputs.code)),
    "cubic": lambda outputs, hyper: jnp.mean(losses.cubic_quantisation(outputs.code)),
    "balance": lambda outputs, hyper: losses.bit_balance(outputs.code),
    "pairwise": lambda outputs, hyper: losses.pairwise_likelihood(outputs.code, outputs.labels),
    "central": lambda outputs, hyper: jnp.mean(
        losses.central_similarity(outputs.z, outputs.centres)
    ),
}


@dataclasses.dataclass(frozen=True)
class DeepSettings:
    """Settings of `deep_hasher`; the defaults are recipes.DRHN_OURS, chosen by validation."""

    bn_order: str = "natural"  # see models.hashnet.Block
    relaxation: str = "sign"  # what the classifier sees of the hash layer, one of RELAXATIONS
    classification: float = 1.0  # weights of TERMS; 0: the term is left out
    quantisation: float = 0.0
    cubic: float = 0.1
    balance: float = 0.0
    pairwise: float = 0.0
    central: float = 0.0
    label_smoothing: float = 0.1  # share of the label that goes to all classes alike
    learning_rate: float = 0.2  # of gradient descent with momentum 0.9, at its highest
    schedule: str = "one_cycle"  # of the learning rate, one of SCHEDULES
    drops: tuple[int, ...] = (82, 122)  # drops: after which epochs
    warmup: float = 0.2  # one_cycle, cosine: share of the run in which the rate rises
    weight_decay: float = 5e-4  # of weights and of batch normalisation's factors
    nesterov: bool = True
    mirror: bool = True  # augmentation: mirror images at random,
    crop: float = 0.125  # move them by up to this share of their side,
    cutout: float = 0.0  # and blank a square of this share of their side
    ema: float = 0.0  # share that averaged weights keep at each step; 0: encode by the last
    dtype: str = "float32"  # of convolutions; weights and statistics are float32
    epochs: int = 86
    batch_size: int = 128

    def check(self) -> None:
        """Raise ValueError with the rule and the value for settings that make no sense."""
        check_choice("relaxation", self.relaxation, RELAXATIONS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("bn_order", self.bn_order, ("natural", "paper"))
        check_choice("dtype", self.dtype, ("float32", "bfloat16"))
        check_numbers(self, ("epochs", "batch_size"), 1)
        check_numbers(self, ("learning_rate",), 0, strict=True)
        check_numbers(self, (*TERMS, "weight_decay"), 0)
        for name in ("label_smoothing", "warmup", "crop", "cutout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie from 0 to below 1, got {getattr(self, name)}")
        if not self.terms():
            raise ValueError(f"one of {', '.join(TERMS)} must be above 0")

    def terms(self) -> tuple[str, ...]:
        """Names of the terms that training minimises."""
        return tuple(name for name in TERMS if getattr(self, name) > 0)

    def hyper(self) -> dict[str, float]:
        """The scalars of training."""
        names = ("learning_rate", "weight_decay", "label_smoothing", *self.terms())
        return {name: getattr(self, name) for name in (*names, *(("ema",) if self.ema else ()))}


class Functions(NamedTuple):
    """What a trained network can do, as functions of its params."""

    encode: Callable[[Any, Images], Float[Array, "n b"]]
    classify: Callable[[Any, Images], Float[Array, "n k"]]  # logits
    classify_codes: Callable[[Any, Float[Array, "n b"]], Float[Array, "n k"]]
    # the maps of the first convolution and of each group
    maps: Callable[[Any, Images], list[Float[Array, "n _ _ _"]]]


def deep_hasher(
    bits: int,
    num_classes: int,
    image_shape: tuple[int, int, int],
    depth: int = 1,
    **settings: Any,
) -> Hasher:
    """Make a residual network with a hash layer, DRHN (Jimenez 2017), that learns from labels.

    Args:
        bits: Bits per code.
        num_classes: Number of classes; labels are 0 to num_classes - 1.
        image_shape: Height, width and channels of the images.
        depth: Residual blocks per group, n of DRHN-n, 1 to 16.
        **settings: Fields of `DeepSettings`, such as epochs and batch_size.

    Raises:
        ValueError: A setting is unknown or makes no sense, with the rule and the value. fit raises
            it for labels that do not fit num_classes.
    """
    chosen = settings_from(DeepSettings, settings)
    check_whole("bits", bits)
    check_whole("num_classes", num_classes)
    image_shape = image_shape_of(image_shape)
    arguments = {"bits": bits, "num_classes": num_classes, "image_shape": image_shape}
    spec_settings = arguments | {"depth": depth} | dataclasses.asdict(chosen)
    model = HashNet(depth, bits, num_classes, chosen.bn_order, jnp.dtype(chosen.dtype))
    visible, code_of = RELAXATIONS[chosen.relaxation]
    functions = _functions(model, visible)

    def init(key):
        params, model_state = network.initial(model, key, image_shape, visible)
        if chosen.ema:
            model_state = network.with_first_average(params, model_state)
        return params, model_state | {"mean": jnp.zeros(image_shape, jnp.float32)}

    jax.eval_shape(init, jax.random.key(0))  # refuses what does not fit
    training = train.Training(
        trainer=train.make_trainer(
            init,
            _loss(model, visible, code_of, chosen, image_shape),
            descent(SCHEDULES[chosen.schedule](chosen), chosen.nesterov),
        ),
        hyper=chosen.hyper(),
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        scan=jax.default_backend() != "cpu",  # see train.make_epoch_loop
        horizon=chosen.schedule != "constant",
        prepare=lambda images, labels: {"mean": mean_image(images)},
        check=partial(check_labels, num_classes=num_classes),
        image_shape=image_shape,
    )
    options = train.convolution_options()
    return trained(
        training,
        OfImages(functions.encode, shape=image_shape, options=options),
        "hamming",
        measure=OfImages(_measure(functions), 2, shape=image_shape, options=options),
        spec={"name": "deep", "settings": spec_settings},
    )


def check_labels(images: Any, labels: Any, *, num_classes: int) -> None:
    """Raise ValueError unless there is one whole number from 0 to num_classes - 1 per image."""
    if labels is None:
        raise ValueError("deep hashing learns from labels, got none")
    labels = np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be one whole number per image, i32[{len(images)}], got "
            f"{labels.dtype}{list(labels.shape)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must lie from 0 to {num_classes - 1} for {num_classes} classes, got "
            f"{labels.min()} to {labels.max()}"
        )


def functions_of(hasher: Hasher) -> Functions:
    """What the network of a hasher made by `deep_hasher` can do beyond encoding."""
    if hasher.spec is None or hasher.spec["name"] != "deep":
        raise ValueError("functions_of takes a hasher made by deep_hasher")
    settings = hasher.spec["settings"]
    names = ("depth", "bits", "num_classes", "bn_order")
    model = HashNet(**{n: settings[n] for n in names}, dtype=jnp.dtype(settings["dtype"]))
    return _functions(model, RELAXATIONS[settings["relaxation"]][0])


def _functions(model: HashNet, visible: Callable) -> Functions:
    def run(params, method, x) -> Any:
        return model.apply(network.encoding(params), x, method=method)

    def encode(params, images):
        return run(params, "encode", _normal(params["mean"], images))

    def classify_codes(params, z):
        return run(params, "classify", visible(z))

    return Functions(
        encode=encode,
        classify=lambda params, images: classify_codes(params, encode(params, images)),
        classify_codes=classify_codes,
        maps=lambda params, images: run(params, "maps", _normal(params["mean"], images)),
    )


def _measure(functions):
    def measure(params, key, images, labels):
        del key
        logits = functions.classify(params, images)
        return {
            "loss": losses.softmax_cross_entropy(logits, labels),
            "accuracy": (jnp.argmax(logits, axis=1) == labels).astype(jnp.float32),
        }

    return measure


def _normal(mean, images):
    return scale(images) - mean[None]


def _loss(model, visible, code_of, settings, image_shape):
    terms, book = select(TERMS, settings.terms()), None
    if "central" in terms:  # which needs bits enough to tell the classes apart
        book = jnp.asarray(losses.hash_centres(model.num_classes, model.bits))
    loss = network_loss(
        model, terms, visible, code_of,
        lambda state, images: _normal(state["mean"], images),
        lambda state: book,
        crop_augmentation(settings, image_shape),
    )  # fmt: skip
    return network.with_average(loss) if settings.ema else loss


def network_loss(
    model: Any,
    terms: Mapping[str, Term],
    visible: Callable,
    code_of: Callable,
    normal: Callable[[Any, Array], Float[Array, "n *shape"]],
    book_of: Callable[[Any], Float[Array, "k b"] | None],
    augmentation: Augment | None = None,
) -> train.Loss:
    """Return the loss of a network with a hash layer: a weighted sum of terms of `Outputs`.

    Args:
        model: gives the hash layer's units and the classes' logits, as HashNet does.
        terms: the objective; see `objective`.
        visible: what the classifier sees of the units.
        code_of: the code that the terms shape, from the units.
        normal: (model_state, images) -> what the network is given.
        book_of: (model_state) -> the fixed code of each class, or None.
        augmentation: changes what the network is given, in training.
    """

    def loss(params, model_state, key, images, labels, hyper):
        augment_key, dropout_key = jax.random.split(key)
        x = normal(model_state, images)
        if augmentation is not None:
            x = augmentation(augment_key, x)
        statistics = {n: value for n, value in model_state.items() if n == "batch_stats"}
        (z, logits), statistics = network.run_training(
            model, params, statistics, dropout_key, x, visible
        )
        book = book_of(model_state)
        centres = None if book is None else book[labels]
        outputs = Outputs(z, code_of(z), logits, labels, centres, book, x)
        value, told = weighted_sum(terms, outputs, hyper)
        if "classification" in terms:
            told["accuracy"] = jnp.mean(jnp.argmax(logits, axis=1) == labels)
        return value, (model_state | statistics, told)

    return loss


def crop_augmentation(settings: Any, image_shape: tuple[int, int, int]) -> Augment | None:
    """The mirroring, cropping and cutout that settings ask for, None if they ask for none."""
    side = min(image_shape[:2])
    pad, hole = round(settings.crop * side), round(settings.cutout * side)

    def changed(key, x):
        crop_key, hole_key = jax.random.split(key)
        x = augment.mirror_and_crop(crop_key, x, pad=pad, mirror=settings.mirror)
        return augment.cutout(hole_key, x, size=hole) if hole else x

    return changed if settings.mirror or pad or hole else None


def mean_image(images: UInt8[np.ndarray | Array, "n h w c"]) -> Float[np.ndarray, "h w c"]:
    """Each pixel's mean over images, in [0, 1]."""
    mean = np.asarray(np.mean(np.asarray(images), axis=0, dtype=np.float64))
    return (mean / 255).astype(np.float32)


def descent(schedule: Schedule, nesterov: bool) -> Callable[..., optax.GradientTransformation]:
    """Gradient descent whose velocity contains the learning rate of each step, as in Lasagne."""

    def optimizer(hyper):
        rate = hyper["learning_rate"] * schedule(hyper["step"] / hyper["steps"])
        return optax.chain(
            optax.add_decayed_weights(hyper["weight_decay"], mask=decayed),
            optax.scale(-rate),
            optax.trace(MOMENTUM, nesterov),
        )

    return optimizer


def decayed(params: Any) -> Any:
    """Which parameters decay, a tree of booleans: weights and the factors of batch normalisation.

    Neither biases nor its shifts decay.
    """
    return jax.tree.map_with_path(lambda path, _: path[-1].key in ("kernel", "scale"), params)
