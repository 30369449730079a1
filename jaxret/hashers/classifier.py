"""A convolutional classifier as a hasher: its code is what its trunk says of an image."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxret import augment, losses, train
from jaxret.models import ConvClassifier

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
from .deep import check_labels
from .pixels import scale

SETTLING = 32  # batches that statistics for encoding are measured on


@dataclasses.dataclass(frozen=True)
class ClassifierSettings:
    """Settings of `classifier_hasher`; the defaults are those of Sahu n.d., section 3.3."""

    channels: tuple[int, ...] = (64, 128, 256, 512)  # of the two convolutions of each block
    dropout: tuple[float, ...] = (0.25, 0.25, 0.5, 0.5)  # after each block
    dense: tuple[int, ...] = (4096, 4096)  # widths of the layers between features and classes
    mirror: bool = False  # augmentation: mirror images at random,
    crop: float = 0.0  # and move them by up to this share of their side
    learning_rate: float = 1e-4  # of Adam
    decay: float = 1e-6  # of the rate, which is divided by 1 + decay * steps, as Keras did
    epochs: int = 50
    batch_size: int = 128
    # Whether the statistics for encoding are measured after each epoch, without dropout.
    clean_statistics: bool = False
    ema: float = 0.0  # share that averaged weights keep at each step; 0: encode by the last

    def check(self) -> None:
        """Raise ValueError with the rule and the value for settings that make no sense."""
        if len(self.channels) != len(self.dropout) or not self.channels:
            raise ValueError(
                f"dropout needs one share for each of {len(self.channels)} blocks, got "
                f"{self.dropout}"
            )
        for width in (*self.channels, *self.dense):
            check_whole("channels and dense", width)
        shares = {"crop": (self.crop,), "dropout": self.dropout, "ema": (self.ema,)}
        for name, values in shares.items():
            if not all(0 <= value < 1 for value in values):
                raise ValueError(f"{name} must lie from 0 to below 1, got {getattr(self, name)}")
        check_numbers(self, ("epochs", "batch_size"), 1)
        check_numbers(self, ("learning_rate",), 0, strict=True)
        check_numbers(self, ("decay",), 0)


def classifier_hasher(
    num_classes: int, image_shape: tuple[int, int, int], **settings: Any
) -> Hasher:
    """Make a convolutional network that learns classes, whose code is its last map (Sahu n.d.).

    Args:
        num_classes: Number of classes; labels are 0 to num_classes - 1.
        image_shape: Height, width and channels of the images.
        **settings: Fields of `ClassifierSettings`.

    Raises:
        ValueError: A setting is unknown or makes no sense, with the rule and the value. fit raises
            it for labels that do not fit num_classes.
    """
    chosen = settings_from(ClassifierSettings, settings)
    check_whole("num_classes", num_classes)
    image_shape = image_shape_of(image_shape)
    spec = {"num_classes": num_classes, "image_shape": image_shape} | dataclasses.asdict(chosen)
    model = ConvClassifier(num_classes, chosen.channels, chosen.dropout, chosen.dense)

    def encode(params, images):
        return network.apply(model, network.encoding(params), scale(images), "encode")

    def measure(params, key, images, labels):
        del key
        features = encode(params, images)
        logits = network.apply(model, network.encoding(params), features, "classify")
        return _judged(logits, labels)

    def init(key):
        params, model_state = network.initial(model, key, image_shape, _unchanged)
        if chosen.ema:
            model_state = network.with_first_average(params, model_state)
        return params, model_state

    hyper = {"learning_rate": chosen.learning_rate, "decay": chosen.decay}
    training = train.Training(
        trainer=train.make_trainer(
            init,
            _loss(model, chosen, image_shape),
            lambda hyper: optax.adam(hyper["learning_rate"] / (1 + hyper["decay"] * hyper["step"])),
        ),
        hyper=hyper | ({"ema": chosen.ema} if chosen.ema else {}),
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        scan=jax.default_backend() != "cpu",  # see train.make_epoch_loop
        check=partial(check_labels, num_classes=num_classes),
        image_shape=image_shape,
        settle=_settle(model, chosen) if chosen.clean_statistics else None,
    )
    options = train.convolution_options()
    return trained(
        training,
        OfImages(encode, shape=image_shape, options=options),
        "euclidean",
        measure=OfImages(measure, 2, shape=image_shape, options=options),
        spec={"name": "classifier", "settings": spec},
    )


def _unchanged(features):
    return features


def _judged(logits, labels):
    right = jnp.argmax(logits, axis=1) == labels
    return {
        "loss": losses.softmax_cross_entropy(logits, labels),
        "accuracy": right.astype(jnp.float32),
    }


def _loss(model, settings, image_shape):
    pad = round(settings.crop * min(image_shape[:2]))

    def loss(params, model_state, key, images, labels, hyper):
        del hyper  # the rate and its decay are the optimizer's
        augment_key, dropout_key = jax.random.split(key)
        x = scale(images)
        if settings.mirror or pad:
            x = augment.mirror_and_crop(augment_key, x, pad=pad, mirror=settings.mirror)
        statistics = {"batch_stats": model_state["batch_stats"]}
        (_, logits), statistics = network.run_training(
            model, params, statistics, dropout_key, x, _unchanged
        )
        told = {name: jnp.mean(value) for name, value in _judged(logits, labels).items()}
        return told["loss"], (model_state | statistics, told)

    return network.with_average(loss) if settings.ema else loss


def _settle(model, settings):
    """The function that measures the batch statistics that codes are normalised by.

    Those that training keeps are of maps with dropout, whose variance is larger (Li 2018). These
    are of some images of the whole set, as they are, without dropout, and of the averaged weights
    where there are some.
    """
    plain = model.clone(dropout=(0.0,) * len(settings.dropout), momentum=0.0)

    @partial(jax.jit, compiler_options=train.convolution_options())
    def measured(kept, key, images):
        statistics = {"batch_stats": kept["batch_stats"]}
        return network.run_training(
            plain, kept["params"], statistics, key, scale(images), _unchanged
        )[1]

    def settle(state, images):
        size = settings.batch_size
        steps = min(SETTLING, len(images) // size)
        rows = np.random.default_rng(0).permutation(len(images))[: steps * size]
        kept = network.encoding(network.weights(state))
        batches = [measured(kept, state.key, images[at]) for at in rows.reshape(steps, size)]
        mean = jax.tree.map(lambda *values: sum(values) / steps, *batches)
        mean = {"average": kept | mean} if settings.ema else mean
        return state._replace(model_state=state.model_state | mean)

    return settle
