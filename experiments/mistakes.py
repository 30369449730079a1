"""Learn codes as popular code does it wrong, or right, to measure what each mistake costs.

    python experiments/mistakes.py --method=itq --bits=16 --features=pixels --mistake=rotation \
        --workdir=runs/wrong-rotation
    python experiments/reproduce.py --table=hashing:mistakes,hashing:lsh-tables \
        --rows='right|wrong' --seeds=3 --workdir=experiments/hashing/results

Without --mistake a run is that of train_method. Each of MISTAKES is the difference to it, in as few
lines as it takes; nothing in the package does it.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import train_method
import training
from harness import flag

ADVICE = train_method.ADVICE
VERSION = 1  # grows when the same flags compute something else


class Mistake(NamedTuple):
    """What is done wrong.

    method: the one that it is made in, a key of jaxret.HASHERS; "" for any.
    make: (config, protocol) -> the hasher that makes it; None for the right one.
    scored: the protocol by which codes are scored, from the right one.
    """

    method: str
    make: Callable[[Any, Any], Any] | None = None
    scored: Callable[[Any], Any] = lambda protocol: protocol


def _transposed(config: Any, protocol: Any) -> Any:
    """Return ITQ whose rotation is wrong."""
    from jaxret.hashers.shallow import linear_hasher, principal_components, project

    def learn(key, images, mean):
        components, _ = principal_components(images, mean, config.bits)
        rotation, loss = transposed_rotation(key, project(images, mean, components))
        return components @ rotation, {"quantisation": loss}

    del protocol
    return linear_hasher("itq", config.bits, learn, settings={"bits": config.bits})


def transposed_rotation(key: Any, v: Any, iterations: int = 50) -> tuple[Any, float]:
    """Return the rotation of ITQ, f32[b b], and its loss, as by code that transposes W twice.

    Of B^T V = U S W^T some libraries return W^T and others W. Taken for each other, the rotation is
    W^T U^T, which is orthogonal too, so that nothing fails.

    Args:
        key: draws the first rotation.
        v: centred data, f32[n b].
        iterations: how many times the rotation is renewed.
    """
    import jax
    import numpy as np

    v = np.asarray(v)
    rotation = np.asarray(jax.random.orthogonal(key, v.shape[1]))
    for _ in range(iterations):
        signs = np.where(v @ rotation >= 0, 1.0, -1.0).astype(np.float32)
        u, _, transposed_w = np.linalg.svd(signs.T @ v)
        rotation = transposed_w @ u.T  # right: transposed_w.T @ u.T
    return rotation, quantisation(v @ rotation)


def quantisation(z: Any) -> float:
    """Return the mean squared distance of units to their signs, of an image, from f32[n b]."""
    import numpy as np

    return float(np.mean(np.sum((np.abs(z) - 1) ** 2, axis=1)))


def _unscaled(config: Any, protocol: Any) -> Any:
    """Return ITQ-CCA whose directions have unit variance, those without correlation included."""
    import jax.numpy as jnp

    from jaxret.hashers.correlation import canonical_directions
    from jaxret.hashers.shallow import itq_rotation, linear_hasher, project

    def learn(key, images, mean, labels):
        directions, _ = canonical_directions(images, labels, 1e-4)
        directions = jnp.asarray(directions[:, : config.bits], jnp.float32)
        rotation, _ = itq_rotation(key, project(images, mean, directions), 50)
        return directions @ rotation, {}

    del protocol
    settings = {"bits": config.bits}
    return linear_hasher("itqcca", config.bits, learn, settings=settings, supervised=True)


def _uncentred(config: Any, protocol: Any) -> Any:
    """Return LSH of vectors as they are."""
    from jaxret.hashers import lsh_hasher

    del protocol
    return lsh_hasher(config.bits, centred=False)


def _spectral(config: Any, protocol: Any) -> Any:
    """Return KSH without the gradient that follows the spectral start."""
    from jaxret.hashers import ksh_hasher

    del protocol
    return ksh_hasher(config.bits, steps=0)


def first_rows(config: Any, num_classes: int) -> Any:
    """Return the first rows of a Hadamard matrix as codes of classes, f32[k b]."""
    import numpy as np
    import scipy.linalg

    if config.bits < num_classes:
        raise ValueError(f"--bits must be at least {num_classes}, the classes, got {config.bits}")
    return scipy.linalg.hadamard(config.bits)[:num_classes].astype(np.float32)


def coins(config: Any, num_classes: int) -> Any:
    """Return fair coins as codes of classes, f32[k b], however close to each other."""
    import numpy as np

    random = np.random.RandomState(config.seed)
    return random.choice([-1, 1], (num_classes, config.bits)).astype(np.float32)


def _with_book(book: Callable[[Any, int], Any]) -> Callable[[Any, Any], Any]:
    """Return what makes the right hasher with other codes of classes."""

    def make(config, protocol):
        from jaxret import hashers, train

        right = train_method.hasher(config, protocol)
        codes = {"book": book(config, len(protocol.train.class_names))}
        changed = right.training._replace(
            prepare=lambda images, labels: right.training.prepare(images, labels) | codes
        )

        def fit(key, images, labels=None, **options):
            state, info = train.run(changed, key, images, labels, **options)
            return hashers.weights(state), info

        # Without a training runs are fitted one by one, so that each has its own book.
        return right._replace(fit=fit, training=None, spec=None)

    return make


def _shuffled(config: Any, protocol: Any) -> Any:
    """Return a hasher that learns for each image the code of another."""
    import numpy as np

    right = train_method.hasher(config, protocol)

    def fit(key, images, labels=None, **options):
        labels = np.random.RandomState(config.seed).permutation(labels)
        return right.fit(key, images, labels, **options)

    return right._replace(fit=fit, training=None, spec=None)


def _gallery_of_training(protocol: Any) -> Any:
    return protocol._replace(gallery=protocol.train)


def _gallery_by_class(protocol: Any) -> Any:
    import numpy as np

    from jaxret import data

    order = np.argsort(protocol.gallery.labels, kind="stable")
    return protocol._replace(gallery=data.take(protocol.gallery, order))


MISTAKES = {
    "rotation": Mistake("itq", _transposed),
    "unscaled": Mistake("itqcca", _unscaled),
    "uncentred": Mistake("lsh", _uncentred),
    "spectral": Mistake("ksh", _spectral),
    "first-rows": Mistake("csq", _with_book(first_rows)),
    "coins": Mistake("dpn", _with_book(coins)),
    "shuffled": Mistake("cnnh", _shuffled),
    "gallery-of-training": Mistake("", scored=_gallery_of_training),
    "gallery-by-class": Mistake("", scored=_gallery_by_class),
}


@dataclasses.dataclass(frozen=True)
class MistakesConfig(train_method.MethodConfig):
    """Flags."""

    mistake: str = flag("", "Make this mistake; the default is none.", ("", *MISTAKES), "model")

    def check(self) -> None:
        """See options.Config."""
        super().check()
        if not self.mistake:
            return
        if self.mistake not in MISTAKES:
            known = ", ".join(MISTAKES)
            raise ValueError(f"--mistake must be one of {known}, got {self.mistake!r}")
        method = MISTAKES[self.mistake].method
        if method not in ("", self.method):
            raise ValueError(f"--mistake={self.mistake} is one of {method}, got {self.method!r}")
        if self.mistake == "first-rows" and self.bits.bit_count() != 1:
            raise ValueError(f"--bits must be a power of 2 for first-rows, got {self.bits}")


CONFIG = MistakesConfig
positives = train_method.positives


def hasher(config: MistakesConfig, protocol: Any) -> Any:
    """Return the hasher that the flags name, with its mistake if they name one of learning."""
    make = MISTAKES[config.mistake].make if config.mistake else None
    return (make or train_method.hasher)(config, protocol)


def score(
    config: MistakesConfig, hasher: Any, params: Any, protocol: Any, overlap: int
) -> dict[str, float]:
    """Return the scores of train_method; of ITQ also quantisation, what its rotation lowers."""
    import numpy as np

    from jaxret.evaluate import encode_in_batches

    if config.mistake:
        protocol = MISTAKES[config.mistake].scored(protocol)
    scores = train_method.score(config, hasher, params, protocol, overlap)
    if config.method == "itq":
        units = encode_in_batches(hasher.encode, params, protocol.train.images)
        scores["quantisation"] = quantisation(np.asarray(units))
    return scores


if __name__ == "__main__":
    training.run(sys.modules[__name__])
