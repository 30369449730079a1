"""The encoder of an index: learned from its photos, or copied in, and never changed afterwards."""

import contextlib
import functools
import importlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from jaxret.index import program
from jaxret.index.places import MODEL as FOLDER
from jaxret.index.places import PhotoIndexError

PIXELS = 2**16  # of a batch: what a network makes of them stays in a near cache
FLUSH = 64  # images that are coded between two transactions: what a kill can lose
SAMPLE = 1024  # images from which bits are learned
SAMPLES = {"look": 1}  # of models that need fewer
SIDE = 32  # pixels a side for hashers that do not say what they want
VECTORS = "vectors"  # the model of an index of vectors from elsewhere
KINDS = {"hamming": "codes", "euclidean": "vectors"}
SEED = 0


class Model(NamedTuple):
    """An encoder as an index uses it.

    features: u8[n s s 3] -> vectors, or the images themselves. codes: these -> what is stored,
    packed codes u32[n w] or vectors f32[n d].
    """

    image_size: int | None
    features: Callable[[np.ndarray], np.ndarray]
    codes: Callable[[np.ndarray], np.ndarray]

    def encode(self, images: UInt8[np.ndarray, "n s s 3"]) -> np.ndarray:
        """Return what is stored of images."""
        return self.codes(self.features(images))


def batch_of(side: int) -> int:
    """Return how many images of a side in pixels are coded at once: one photo of 224 x 224.

    A code may depend on it in its last bit, so an index and its queries have the same. Of larger
    images a batch takes longer per image, as what the layers pass on no longer fits a near cache;
    and a query would wait for images that fill it up.
    """
    return max(1, PIXELS // side**2)


def digest_of(folder: str | os.PathLike) -> str:
    """Return the digest of an encoder folder, with every byte checked; no JAX is needed."""
    from jaxret import encoder

    try:
        return encoder.read(folder)[0]["digest"]
    except encoder.EncoderError as error:
        raise PhotoIndexError(str(error)) from error


def install(index: Path, source: str | os.PathLike, name: str) -> dict[str, Any]:
    """Copy an encoder folder into the index and return the facts by which it is known."""
    from jaxret import encoder

    digest = digest_of(source)
    header = encoder.read(source)[0]
    kind = KINDS.get(header["distance"])
    if kind is None:
        raise PhotoIndexError(
            f"{source}: its codes are compared by {header['distance']} distance, an index needs "
            f"{' or '.join(KINDS)}"
        )
    size = header["image_size"]
    if len(size) == 3 and (size[0] != size[1] or size[2] not in (1, 3)):
        raise PhotoIndexError(f"{source}: takes images of {size}; an index gives it squares")
    target = index / FOLDER / digest
    if not target.is_dir():
        pending = target.with_name(f".{digest}.{os.getpid()}.tmp")
        try:
            shutil.rmtree(pending, ignore_errors=True)
            pending.mkdir(parents=True)
            for file in (encoder.HEADER, encoder.WEIGHTS):
                shutil.copyfile(Path(source) / file, pending / file)
            digest_of(pending)
            os.rename(pending, target)
        except OSError as error:
            raise PhotoIndexError(f"{target}: cannot be written ({error.strerror})") from error
        finally:
            shutil.rmtree(pending, ignore_errors=True)
    return {
        "name": name,
        "digest": digest,
        "kind": kind,
        "width": header["bits_or_dims"],
        "image_size": size[0] if len(size) == 3 else None,
    }


def warm() -> None:
    """Begin to import what an encoder needs, in a thread: a photo is read and decoded meanwhile."""
    if "jax" not in sys.modules:
        threading.Thread(target=_import, daemon=True).start()


def _import() -> None:
    # Failures are told where the encoder is loaded.
    with contextlib.suppress(Exception):
        for name in ("jax", "jax.export"):
            importlib.import_module(name)


def load(index: Path, facts: Mapping[str, Any]) -> Model:
    """Load the encoder of an index, checked by its digest.

    Raises PhotoIndexError where it is missing or is not the one that made the codes.
    """
    from jaxret import encoder

    if facts["name"] == VECTORS:
        raise PhotoIndexError(
            "this index holds vectors of another model, which jaxret cannot make: search by an "
            "indexed image"
        )
    folder, digest = index / FOLDER / facts["digest"], facts["digest"]
    kind, side = facts["kind"], facts["image_size"]
    try:
        header, params = encoder.read(folder)
        if header["digest"] != digest:
            raise PhotoIndexError(f"{folder}: holds another encoder, {header['digest'][:12]}")
        extractor = program.extractor_of(header["hasher"])
        if extractor is not None:
            return _on_features(extractor, header["hasher"], params, side, kind)
        return _on_pixels(folder, side, kind)
    except encoder.EncoderError as error:
        raise PhotoIndexError(f"{error}; jaxret index PHOTOS --rebuild makes a new one") from error


def _on_features(
    extractor: str, spec: Mapping[str, Any], params: Mapping[str, Any], side: int, kind: str
) -> Model:
    """Return images -> vectors and vectors -> codes of a hasher on features.

    They are two programs, so that features that were computed to learn from are not computed
    again and give the same codes.
    """
    own = {name: values for name, values in params.items() if name != "network"}
    batch = batch_of(side)
    features = program.features(extractor, params.get("network", {}), side, batch)

    @functools.cache
    def latents(width):
        return program.latents(spec, own, width, batch)

    return Model(side, features, lambda x: _stored(latents(x.shape[1])(x), kind))


def _on_pixels(folder: Path, side: int | None, kind: str) -> Model:
    from jaxret.hashers.keep import load_encoder

    encode = load_encoder(folder, batch_size=batch_of(side or SIDE)).encode
    return Model(side, np.asarray, lambda images: _stored(encode(images), kind))


def _stored(latents: Float[np.ndarray, "n b"], kind: str) -> np.ndarray:
    from jaxret.codes import pack_mask

    if kind == "codes":
        return np.asarray(pack_mask(latents >= 0).words)  # `codes.pack`, in NumPy
    return np.asarray(latents, np.float32)


def _extractor(hasher: Any) -> Any:
    from jaxret.features import FEATURES

    name = program.extractor_of(hasher.spec)
    return None if name is None else FEATURES[name]()


def image_size_of(hasher: Any) -> int:
    """Return the pixels a side of the images that a hasher learns from."""
    extractor = _extractor(hasher)
    if extractor is not None:
        return extractor.image_size
    return int(hasher.spec["settings"].get("image_shape", [SIDE])[0])


def make_hasher(name: str, bits: int | None, dims: int | None) -> Any:
    """Make the hasher of a name in HASHERS.

    Raises PhotoIndexError for a name that is not there, or a length that it refuses.
    """
    from jaxret.hashers import HASHERS

    if name not in HASHERS:
        raise PhotoIndexError(
            f"--model must be photo, look, labels or an encoder folder, got {name!r}"
        )
    lengths = {"bits": bits, "dims": dims}
    try:
        return HASHERS[name](**{key: value for key, value in lengths.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise PhotoIndexError(f"--model {name}: {error}") from error


def features_of(hasher: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return images -> what a hasher learns from: features f32[n d], or the images themselves."""
    from jaxret.features import FeaturesError

    extractor = _extractor(hasher)
    if extractor is None:
        return np.asarray
    try:
        weights = extractor.load()
    except FeaturesError as error:
        raise PhotoIndexError(f"{error}; or index with --model look, which needs none") from error
    side = extractor.image_size
    return program.features(extractor.name, weights, side, batch_of(side))


def learn(
    index: Path,
    name: str,
    hasher: Any,
    vectors: Shaped[np.ndarray, "n ..."],
    labels: Sequence[str | None],
) -> tuple[dict[str, Any], list[str]]:
    """Fit a hasher to a sample, keep it in the index, and return its facts and what to tell.

    vectors are those of `features_of`.
    """
    import jax

    names = tuple(sorted({label for label in labels if label is not None}))
    numbers = np.array([-1 if label is None else names.index(label) for label in labels], np.int32)
    notes, size = [], image_size_of(hasher)
    try:
        params, info = hasher.fit(jax.random.key(SEED), vectors, numbers)
        own, other = info.get("precision@5/labels"), info.get("precision@5/photo")
        if own is not None and other is not None and own <= other:
            notes.append(
                f"bits that learn from labels find no more than photo (precision@5 {own:.3f}, "
                f"photo {other:.3f}): photo stays"
            )
            name, hasher = "photo", make_hasher("photo", hasher.spec["settings"]["bits"], None)
            params, info = hasher.fit(jax.random.key(SEED), vectors)
    except ValueError as error:
        raise PhotoIndexError(f"--model {name}: {error}") from error
    origin = {"learned_from": len(vectors), "seed": SEED, "info": _plain(info)}
    facts = _keep(index, name, hasher, params, (size, size, 3), names, origin)
    return {**facts, "learned_from": len(vectors), "info": _plain(info)}, notes


def _keep(index, name, hasher, params, image_size, names, origin) -> dict[str, Any]:
    from jaxret.hashers import save_encoder

    pending = index / FOLDER / f".learned.{os.getpid()}.tmp"
    try:
        save_encoder(
            pending, hasher, params, image_size=image_size, class_names=names, origin=origin
        )
        return install(index, pending, name)
    finally:
        shutil.rmtree(pending, ignore_errors=True)


def _plain(info: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in info.items() if np.ndim(value) == 0}
