"""Keep a trained hasher as a folder, and load it back as an encoder of images of any size."""

import datetime
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jaxret import encoder, inputs
from jaxret.batches import in_batches
from jaxret.encoder import EncoderError

from .base import Hasher

RESIZE = "square, bicubic, centre"
SCALING = "by the hasher, which takes bytes"


class Encoder(NamedTuple):
    """A trained hasher bound to its weights and to the preprocessing of its images."""

    # images of any size, or vectors where the hasher learned from them: see `inputs`
    encode: Callable[[Shaped[np.ndarray, "n *shape"]], Float[np.ndarray, "n b"]]
    bits_or_dims: int  # b
    distance: str  # "hamming" of the signs (bit = value >= 0), "euclidean", ...
    image_size: tuple[int, ...]  # (h, w, c) of the images it sees, or (d,) of vectors
    class_names: tuple[str, ...]
    digest: str  # equal for two encoders that give equal codes
    origin: Mapping[str, Any]  # data set, protocol, version, commit, date: whatever was told
    hasher: Hasher
    params: Any


def save_encoder(
    folder: str | os.PathLike,
    hasher: Hasher,
    params: Any,
    *,
    image_size: Sequence[int],
    class_names: Sequence[str] = (),
    origin: Mapping[str, Any] | None = None,
) -> str:
    """Save a trained hasher as `encoder.json` and `weights.safetensors`; no pickle.

    An encoder that is in the folder already is replaced; it stays whole if anything fails.

    Args:
        folder: where the files go; it is made if need be.
        hasher: one whose `spec` names it in HASHERS, so that it can be made again.
        params: what its `fit` returned: nested dictionaries of arrays.
        image_size: (h, w, c) of the images that it learned from, or (d,) of vectors.
        class_names: names of the labels that it learned from.
        origin: where it came from, plain JSON values, such as dataset, protocol, commit, and
            metrics; the version of jaxret and the date are added.

    Returns:
        The digest by which the encoder is known.

    Raises:
        EncoderError: where the hasher has no spec or the parts do not fit each other.
        WriteError: where the system refuses.
    """
    from jaxret import __version__

    if hasher.spec is None:
        raise EncoderError("a hasher is saved by its spec (name and settings), this one has none")
    size = tuple(int(length) for length in image_size)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    header = {
        "hasher": dict(hasher.spec),
        "bits_or_dims": _bits_or_dims(hasher, params, size),
        "distance": hasher.distance,
        "image_size": size,
        "preprocessing": {"resize": RESIZE, "scaling": SCALING},
        "class_names": list(class_names),
        "origin": {"jaxret": __version__, "date": now, **(origin or {})},
    }
    return encoder.write(folder, header, params)


def load_encoder(folder: str | os.PathLike, *, batch_size: int = 64) -> Encoder:
    """Load an encoder that `save_encoder` or a train script left; no data set is needed.

    Its `encode` works in batches of batch_size images, the last one filled up, so that it is
    compiled once and a code does not depend on the images beside it.

    Raises EncoderError where the folder is not a whole encoder, or asks for what this jaxret does
    not have.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    header, params = encoder.read(folder)
    resize = encoder.RESIZE.get(header["preprocessing"].get("resize"))
    if resize is None or header["preprocessing"].get("scaling") != SCALING:
        raise EncoderError(f"{folder}: unknown preprocessing {header['preprocessing']}")
    size, bits = tuple(header["image_size"]), header["bits_or_dims"]
    try:
        hasher = make_hasher(header["hasher"])
        fits = _bits_or_dims(hasher, params, size) == bits and hasher.distance == header["distance"]
    except EncoderError as error:
        raise EncoderError(f"{folder}: {error}") from error
    if not fits:
        raise EncoderError(
            f"{folder}: was saved with {bits} numbers per code and {header['distance']} distance, "
            "which is not what this jaxret makes of it"
        )
    params = jax.tree.map(jnp.asarray, params)
    return Encoder(
        encode=_bind(hasher, params, size, bits, resize, batch_size),
        bits_or_dims=bits,
        distance=hasher.distance,
        image_size=size,
        class_names=tuple(header["class_names"]),
        digest=header["digest"],
        origin=header["origin"],
        hasher=hasher,
        params=params,
    )


def make_hasher(spec: Mapping[str, Any]) -> Hasher:
    """Make the hasher of a spec, which may have been through JSON: its lists become tuples.

    Raises EncoderError for a name that is not in HASHERS, or settings that its constructor refuses.
    """
    from . import HASHERS

    name = spec["name"]
    if name not in HASHERS:
        raise EncoderError(
            f"needs the hasher {name!r}, which HASHERS does not have: import what adds it, or "
            "update jaxret"
        )
    try:
        return HASHERS[name](**{key: _tuples(value) for key, value in spec["settings"].items()})
    except (TypeError, ValueError) as error:
        raise EncoderError(f"needs settings of {name!r} that it refuses here: {error}") from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _bits_or_dims(hasher: Hasher, params: Any, size: tuple[int, ...]) -> int:
    """The length of a code; raise EncoderError where params or size are not the hasher's."""
    if len(size) not in (1, 3) or min(size) < 1:
        raise EncoderError(f"image_size must be (h, w, c), or (d,) for vectors, got {size}")
    shape = jax.ShapeDtypeStruct((1, *size), jnp.uint8 if len(size) == 3 else jnp.float32)
    try:
        return jax.eval_shape(hasher.encode, params, shape).shape[1]
    except Exception as error:  # whatever a network raises for weights that are not its own
        raise EncoderError(
            f"the weights are not those of a hasher of images of size {size}: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _bind(hasher, params, size, bits, resize, batch_size) -> Callable:
    """The function that encodes images of any size, in batches of one shape."""
    shape = inputs.ANY_SIZE if len(size) == 3 else size
    compiled = isinstance(hasher.encode, jax.stages.Wrapped)
    encode = hasher.encode if compiled else jax.jit(hasher.encode)
    prepare = functools.partial(resize, size=size) if len(size) == 3 else np.asarray

    def encode_images(images):
        images = np.asarray(inputs.accept(images, shape))
        if not len(images):
            return np.zeros((0, bits), np.float32)
        return in_batches(functools.partial(encode, params), images, batch_size, prepare)

    return encode_images
