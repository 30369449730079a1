"""The one trainer of the methods of methods.py: a trunk, a hash layer, an optimizer."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxret import train
from jaxret.features.efficientnet import load_weights
from jaxret.models.efficientnet import last_part
from jaxret.models.layers import check_choice
from jaxret.models.trunks import FIRST, LAST_BLOCKS, OF_VECTORS, TRUNKS, HashHead

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
from .deep import (
    check_labels,
    cosine,
    crop_augmentation,
    decayed,
    descent,
    mean_image,
    network_loss,
)
from .methods import METHODS, Method
from .pixels import scale
from .shallow import principal_components, project

LEAST = 1e-6  # deviation that vectors are divided by
# what _normal takes for vectors that are not centred or scaled
AS_THEY_ARE = {"mean": np.zeros((1,), np.float32), "scale": np.ones((), np.float32)}
# name -> (schedule) -> optimizer of the scalars
OPTIMIZERS: dict[str, Callable[..., Callable[..., optax.GradientTransformation]]] = {
    "adam": lambda schedule: (
        lambda hyper: optax.adamw(
            hyper["learning_rate"] * schedule(hyper["step"] / hyper["steps"]),
            weight_decay=hyper["weight_decay"],
            mask=decayed,
        )
    ),
    "sgd": lambda schedule: descent(schedule, nesterov=True),
}


@dataclasses.dataclass(frozen=True)
class MethodSettings:
    """How the trainer works, whatever the method; the defaults are for vectors."""

    # One of models.trunks.TRUNKS; "": residual for images, dense for vectors. That of last blocks
    # starts from pretrained weights and sees maps as they are, so no components and no unit length.
    trunk: str = ""
    components: int = 0  # principal components of the vectors that the network sees; 0: vectors
    unit: bool = False  # whether what it sees of a vector is scaled to unit length
    hidden: tuple[int, ...] = (512,)  # widths of a dense trunk; (): the hash layer alone
    dropout: float = 0.3  # of what each dense layer is given
    classifier_dropout: float = 0.0  # of what the classifier is given
    optimizer: str = "adam"  # one of OPTIMIZERS
    learning_rate: float = 1e-3  # at its highest; it falls along half a cosine
    warmup: float = 0.0  # share of the run in which it rises
    weight_decay: float = 0.0
    mirror: bool = True  # augmentation of images: mirror at random,
    crop: float = 0.125  # move by up to this share of the side,
    cutout: float = 0.0  # and blank a square of this share of the side
    epochs: int = 10
    batch_size: int = 128

    def check(self) -> None:
        """Raise ValueError with the rule and the value for settings that make no sense."""
        if self.trunk:
            check_choice("trunk", self.trunk, TRUNKS)
        if self.trunk == LAST_BLOCKS and (self.components or self.unit):
            raise ValueError(f"trunk {LAST_BLOCKS} sees maps: no components and no unit length")
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_numbers(self, ("epochs",), 1)
        check_numbers(self, ("batch_size",), 2)
        check_numbers(self, ("learning_rate",), 0, strict=True)
        check_numbers(self, ("weight_decay", "components"), 0)
        for width in self.hidden:
            check_whole("hidden", width)
        for name in ("dropout", "classifier_dropout", "warmup", "crop", "cutout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie from 0 to below 1, got {getattr(self, name)}")


def method_hasher(
    method: str,
    bits: int,
    num_classes: int = 0,
    image_shape: Sequence[int] = (32, 32, 3),
    **settings: Any,
) -> Hasher:
    """Make a network that learns codes by one of METHODS.

    Args:
        method: a key of METHODS.
        bits: Bits per code.
        num_classes: Number of classes, where the method learns from labels: 0 to num_classes - 1;
            of clusters, where it sorts images without labels.
        image_shape: Height, width and channels of images, or the length of vectors alone.
        **settings: Fields of `MethodSettings`, and scalars of the method.

    Raises:
        ValueError: A setting is unknown or makes no sense, with the rule and the value. fit raises
            it for labels that do not fit num_classes.
    """
    check_choice("method", method, METHODS)
    chosen = METHODS[method]
    scalars = {n: float(settings.pop(n, v)) for n, v in chosen.scalars.items()}
    own = settings_from(MethodSettings, {**chosen.settings, **settings})
    check_whole("bits", bits)
    check_whole("num_classes", num_classes, least=int(chosen.supervised or chosen.classifies))
    shape = _shape_of(image_shape)
    arguments = {"bits": bits, "num_classes": num_classes, "image_shape": shape}
    model = _model(chosen, own, **arguments)
    training = _training(chosen, own, model, shape, num_classes, scalars)
    jax.eval_shape(training.trainer.init, jax.random.key(0), training.hyper)  # refuses early

    def encode(params, images):
        kept = {name: params[name] for name in ("params", "batch_stats") if name in params}
        return network.apply(model, kept, _normal(params, images, unit=own.unit), "encode")

    options = train.convolution_options() if len(shape) == 3 else None
    return trained(
        training,
        OfImages(encode, shape=shape, options=options),
        "hamming",
        spec={"name": method, "settings": arguments | dataclasses.asdict(own) | scalars},
    )


def _shape_of(shape: Sequence[int]) -> tuple[int, ...]:
    if len(shape) != 1:
        return image_shape_of(shape)
    check_whole("image_shape", shape[0])
    return (int(shape[0]),)


def _model(
    method: Method,
    settings: MethodSettings,
    bits: int,
    num_classes: int,
    image_shape: tuple[int, ...],
) -> HashHead:
    name = settings.trunk or ("residual" if len(image_shape) == 3 else "dense")
    if name not in OF_VECTORS and len(image_shape) == 1:
        raise ValueError(f"trunk must be one of {', '.join(OF_VECTORS)} for vectors, got {name}")
    if name == LAST_BLOCKS and len(image_shape) == 3:
        raise ValueError(f"trunk {name} is for the maps of efficientnet-lite0@160-block{FIRST}")
    trunk = TRUNKS[name](settings.hidden, settings.dropout)
    return HashHead(
        trunk,
        bits,
        num_classes if method.classifies else 0,
        method.divided,
        method.norm,
        settings.classifier_dropout,
    )


def _training(
    method: Method,
    settings: MethodSettings,
    model: HashHead,
    shape: tuple[int, ...],
    num_classes: int,
    scalars: dict[str, float],
) -> train.Training:
    of_images = len(shape) == 3
    loss = network_loss(
        model,
        method.terms,
        method.visible,
        method.code,
        partial(_normal, unit=settings.unit),
        lambda state: state.get("book"),
        crop_augmentation(settings, shape) if of_images else None,
    )
    seen = shape if of_images else (settings.components or shape[0],)
    scheduled = OPTIMIZERS[settings.optimizer](cosine(settings.warmup))

    def init(key):
        return network.initial(model, key, seen, method.visible)

    of_maps = settings.trunk == LAST_BLOCKS

    def prepare(images, labels):
        measured = AS_THEY_ARE if of_maps else _measured(images, settings.components)
        if method.book is not None:
            measured = measured | {"book": method.book(labels, num_classes, model.bits)}
        return measured

    return train.Training(
        trainer=train.make_trainer(init, loss, scheduled),
        hyper=_hyper(settings, scalars),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        scan=not of_images or jax.default_backend() != "cpu",  # see train.make_epoch_loop
        pairs=method.pairs,
        needs_positives=method.pairs and not of_images and not settings.dropout,
        horizon=True,
        prepare=prepare,
        pretrained=_pretrained if of_maps else dict,
        check=partial(check_labels, num_classes=num_classes) if method.supervised else _accept,
        image_shape=shape,
    )


def _pretrained() -> dict[str, Any]:
    """The weights that the trunk of last blocks starts from; FeaturesError if there are none."""
    return {"trunk": {"network": last_part(load_weights(), FIRST)}}


def _accept(images, labels):
    """A method without labels learns from all images."""


def _measured(images: Any, components: int) -> dict[str, np.ndarray]:
    """What centres and scales images or vectors: their mean, the deviation of all numbers.

    Vectors are projected to their principal components, if there are to be any.
    """
    x = np.asarray(images)
    if x.ndim == 4:
        return {"mean": mean_image(x), "scale": np.ones((), np.float32)}
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not components:
        deviation = np.sqrt(np.mean((x - mean[None]) ** 2, dtype=np.float64))
        return {"mean": mean, "scale": np.asarray(max(deviation, LEAST), np.float32)}
    projection, _ = principal_components(jnp.asarray(x), jnp.asarray(mean), components)
    deviation = jnp.std(project(x, jnp.asarray(mean), projection))
    scale = np.asarray(jnp.maximum(deviation, LEAST))
    return {"mean": mean, "projection": np.asarray(projection), "scale": scale}


def _normal(measured: Any, images: Any, *, unit: bool) -> Float[Array, "n *shape"]:
    """What the network sees, from what was measured and images or vectors."""
    x = scale(images) if images.ndim == 4 else jnp.asarray(images)
    x = x - measured["mean"][None]
    if "projection" in measured:
        x = jnp.dot(x, measured["projection"])
    if unit and x.ndim == 2:  # a number is then about as large as with a deviation of 1
        squares = jnp.mean(x**2, axis=1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.maximum(squares, LEAST**2))
    return x / measured["scale"]


def _hyper(settings: MethodSettings, scalars: dict[str, float]) -> dict[str, float]:
    names = ("learning_rate", "weight_decay")
    return {**{name: getattr(settings, name) for name in names}, **scalars}
