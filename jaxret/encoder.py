"""The file format of a kept encoder: what it is in JSON, its weights as safetensors, no pickle.

    encoder.json            schema, hasher, input size, preprocessing, origin; dtype, shape and
                            sha256 of each array; sha256 of the weights' file and of itself
    weights.safetensors     the arrays, named by their place in the tree, joined by "/"

What a hasher is, this module does not know: `jaxret.save_encoder` and `jaxret.load_encoder` do.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as format_tensors

from jaxret import data
from jaxret.files import PathError, WriteError, write_whole

SCHEMA = 1
HEADER = "encoder.json"
WEIGHTS = "weights.safetensors"
PENDING = ".weights-{}.safetensors"  # new weights until they replace the old ones
# Fields that decide what an image's code is, and so the digest by which an encoder is known.
IDENTITY = ("hasher", "bits_or_dims", "distance", "image_size", "preprocessing", "tensors")
OTHERS = ("schema", "class_names", "origin", "weights_sha256", "digest", "checksum")
# Those that the package's NumPy face reads back.
DTYPES = {f"{kind}{bits}" for kind in ("float", "int", "uint") for bits in (16, 32, 64)}
DTYPES |= {"int8", "uint8", "bool"}

Tree = Mapping[Any, Any]  # nested, names to arrays


class EncoderError(PathError):
    """A folder that is not a whole encoder, or an encoder that cannot be kept, with the reason."""


def write(folder: str | os.PathLike, header: Mapping[str, Any], weights: Tree) -> str:
    """Replace the encoder in a folder, or make the folder; a failure leaves the old encoder whole.

    Args:
        folder: where `encoder.json` and `weights.safetensors` go.
        header: plain JSON values: hasher, bits_or_dims, distance, image_size, preprocessing,
            class_names, origin.
        weights: a nested dictionary of arrays.

    Returns:
        The digest: sha256 of what decides an image's code, so neither class names nor origin.

    Raises:
        EncoderError: where the header is not JSON or the weights hold what the format cannot.
        WriteError: where the system refuses.
    """
    folder = Path(folder)
    arrays = dict(_flatten(weights))
    content = format_tensors(arrays)
    sha256 = hashlib.sha256(content).hexdigest()
    tensors = {name: _describe(array) for name, array in sorted(arrays.items())}
    try:
        kept = {"schema": SCHEMA, **header, "tensors": tensors, "weights_sha256": sha256}
        kept = json.loads(json.dumps(kept, allow_nan=False))  # as `read` finds it
        kept["digest"] = _hash({name: kept[name] for name in IDENTITY})
        kept["checksum"] = _hash(kept)
        text = json.dumps(kept, indent=1) + "\n"
    except KeyError as error:
        raise EncoderError(f"an encoder's header needs {error}") from None
    except (TypeError, ValueError) as error:
        raise EncoderError(f"an encoder's header holds plain JSON values only: {error}") from None

    # The header is the moment of change. Until the last rename the new weights have a name of their
    # own, which `read` knows, so that the files in the folder never contradict each other.
    pending = folder / PENDING.format(sha256[:16])
    write_whole(pending, content)
    write_whole(folder / HEADER, text)
    _rename(pending, folder / WEIGHTS)
    for leftover in folder.glob(PENDING.format("*")):
        leftover.unlink(missing_ok=True)
    return kept["digest"]


def read(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the weights of an encoder, with every byte checked.

    Raises EncoderError where the folder holds no encoder, one of a newer schema, or one that is
    not as it was written.
    """
    folder = Path(folder).expanduser()
    header = _read_header(folder)
    while True:  # an encoder that is replaced while it is read is read anew
        try:
            return header, _nest(_read_weights(folder, header))
        except EncoderError:
            before, header = header, _read_header(folder)
            if header == before:
                raise


def _read_header(folder: Path) -> dict[str, Any]:
    path = folder / HEADER
    if not folder.is_dir():
        raise EncoderError(f"there is no encoder folder {folder}")
    if not path.is_file():
        raise EncoderError(f"{folder} holds no encoder: there is no {HEADER}")
    try:
        header = json.loads(path.read_bytes())
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError:
        raise EncoderError(f"{path}: is not JSON; the file is truncated or foreign") from None
    if not isinstance(header, dict) or not isinstance(header.get("schema"), int):
        raise EncoderError(f"{path}: is not the header of an encoder")
    if header["schema"] > SCHEMA:
        raise EncoderError(
            f"{path}: has schema {header['schema']}, this jaxret reads up to {SCHEMA}: update it"
        )
    missing = [name for name in (*IDENTITY, *OTHERS) if name not in header]
    if missing:
        raise EncoderError(f"{path}: is not the header of an encoder: no {', '.join(missing)}")
    checked = {name: value for name, value in header.items() if name != "checksum"}
    if _hash(checked) != header["checksum"]:
        raise EncoderError(f"{path}: was altered after it was written (its checksum differs)")
    return header


def _read_weights(folder: Path, header: Mapping[str, Any]) -> dict[str, np.ndarray]:
    path, sha256 = folder / WEIGHTS, header["weights_sha256"]
    for place in (path, folder / PENDING.format(sha256[:16])):
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise EncoderError(f"{place}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() == sha256:
            break
    else:
        reason = "truncated, altered, or of another encoder" if path.exists() else "missing"
        raise EncoderError(f"{path}: is {reason}; {HEADER} asks for sha256 {sha256[:16]}…")
    try:
        arrays = parse_tensors(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise EncoderError(f"{place}: is not a safetensors file ({error})") from error
    described = {name: _describe(array) for name, array in arrays.items()}
    for name in sorted(described.keys() | header["tensors"].keys()):
        found, expected = described.get(name), header["tensors"].get(name)
        if found != expected:
            raise EncoderError(f"{place}: {name} is {found}, {HEADER} says {expected}")
    return arrays


def _rename(source: Path, target: Path) -> None:
    try:
        os.replace(source, target)
    except OSError as error:
        raise WriteError(f"{target}: cannot be written ({error.strerror})") from error


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _describe(array: np.ndarray) -> dict[str, Any]:
    sha256 = hashlib.sha256(array.tobytes()).hexdigest()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "sha256": sha256}


def _flatten(tree: Tree, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not isinstance(key, str) or not key or "/" in key:
            raise EncoderError(f"weights are named by words without a slash, got {key!r}")
        if isinstance(value, Mapping):
            if not value:
                raise EncoderError(f"weights hold an empty group, {name}: leave it out")
            yield from _flatten(value, f"{name}/")
        else:
            yield name, _to_numpy(name, value)


def _to_numpy(name: str, value: Any) -> np.ndarray:
    kind = value.dtype.name if hasattr(value, "dtype") else type(value).__name__
    if kind not in DTYPES:
        raise EncoderError(f"an encoder keeps arrays of numbers, {name} is {kind}")
    array = np.asarray(value)
    return np.array(array, array.dtype.newbyteorder("<"), order="C")  # the format's layout


def _nest(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *groups, last = name.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = array
    return tree


def fit_square(
    images: UInt8[np.ndarray, "n h w c"], size: tuple[int, int, int]
) -> UInt8[np.ndarray, "n _ _ _"]:
    """Return images of a size: squares by the rule of `jaxret.data.read_image`, grey or RGB.

    Grey becomes RGB of three equal channels, RGB becomes its luma (ITU-R 601). Images of the size
    itself are returned as they are.

    Raises ValueError where the size is no square or the channels cannot be changed into its own.
    """
    height, width, channels = size
    if images.shape[1:] == (height, width, channels):
        return images
    shape, wanted = (" x ".join(map(str, s)) for s in (images.shape[1:], size))
    if height != width or {channels, images.shape[3]} - {1, 3}:
        raise ValueError(f"this encoder takes images of {wanted} numbers, got {shape}")
    if channels < images.shape[3]:
        images = _luma(images)
    images = data.resize_images(images, height)
    return np.repeat(images, channels // images.shape[3], axis=3)


def _luma(images: np.ndarray) -> np.ndarray:
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.rint(images @ weights).astype(np.uint8)[..., None]


# name -> (u8[n h w c], size) -> u8[n *size]; an encoder.json names the rule that it needs
RESIZE: dict[str, Callable] = {"square, bicubic, centre": fit_square}
