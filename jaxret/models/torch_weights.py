"""Read the tensors of a PyTorch file without PyTorch and without running what is in the file.

A `.pth` file holds pickles, which can call any function. Here no pickle is loaded: a small
interpreter follows the few opcodes that a dictionary of tensors needs, and refuses all others.

    legacy format     five pickles (magic number, version, system, tensors, keys of storages), then
                      each storage: its length as 8 bytes, its numbers
    zip format        archive/data.pkl with the tensors, archive/data/<key> with each storage
"""

import io
import math
import os
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

MAGIC = 119547037146038801333356  # first pickle of the legacy format
VERSION = 1001
# name of a storage's type, all in the module torch -> its numbers
STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}  # fmt: skip
REBUILD = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"
ALLOWED = {REBUILD, PARAMETER, ORDERED} | {f"torch {name}" for name in STORAGES}


class TorchFileError(ValueError):
    """A file that is no dictionary of tensors, with the reason."""


class Storage(NamedTuple):
    """The numbers that tensors are views of."""

    key: str
    dtype: str
    size: int  # numbers


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """A function or type that a pickle names; nothing is imported."""

    name: str


def read_tensors(path: str | os.PathLike) -> dict[str, Shaped[np.ndarray, "*shape"]]:
    """Return the tensors of a file that `torch.save` made of a state dictionary, by name.

    They are read-only views of the file's bytes.

    Raises TorchFileError if the file is truncated, altered, or holds anything but named tensors.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        is_zip = content.startswith(b"PK")
        tree, load = _open_zip(content) if is_zip else _open_legacy(content)
        return _tensors(tree, load)
    except TorchFileError as error:
        raise TorchFileError(f"{path}: {error}") from None
    except OSError as error:
        raise TorchFileError(f"{path}: cannot be read ({error.strerror})") from None
    # What zipfile, pickletools and NumPy raise for bytes that are not what they should be.
    except (ArithmeticError, EOFError, LookupError, NotImplementedError, RuntimeError, TypeError,
            ValueError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = f"{type(error).__name__}: {error}"
        raise TorchFileError(f"{path}: is truncated or altered ({reason})") from None


Loader = Callable[[Storage], np.ndarray]


def _open_legacy(content: bytes) -> tuple[Any, Loader]:
    file = io.BytesIO(content)
    if _interpret(file) != MAGIC:
        raise TorchFileError("is no file of PyTorch")
    version, system, tree, keys = (_interpret(file) for _ in range(4))
    if version != VERSION or not isinstance(system, dict) or not isinstance(keys, list):
        raise TorchFileError("is of another version of PyTorch's format")
    if system.get("little_endian") is not True:
        raise TorchFileError("was written on a big-endian machine")
    storages = {storage.key: storage for storage in _storages(tree)}
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise TorchFileError("lists other storages than its tensors have")
    loaded, place = {}, file.tell()
    for key in keys:
        storage = storages[key]
        num_bytes = storage.size * np.dtype(storage.dtype).itemsize
        if int.from_bytes(content[place : place + 8], "little") != storage.size:
            raise TorchFileError(f"storage {key} has another length than its tensors need")
        place += 8
        if place + num_bytes > len(content):
            raise TorchFileError(f"is truncated in storage {key}")
        loaded[key] = np.frombuffer(content, storage.dtype, storage.size, place)
        place += num_bytes
    if place != len(content):
        raise TorchFileError(f"has {len(content) - place} bytes after its last storage")
    return tree, lambda storage: loaded[storage.key]


def _open_zip(content: bytes) -> tuple[Any, Loader]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    (main,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    root = main.removesuffix("data.pkl")
    order = f"{root}byteorder"  # older files have none, and are little-endian
    if order in archive.namelist() and _stored(archive, order) != b"little":
        raise TorchFileError("was written on a big-endian machine")
    tree = _interpret(io.BytesIO(_stored(archive, main)))

    loaded, total = {}, 0
    for storage in _storages(tree):
        numbers = _stored(archive, f"{root}data/{storage.key}")
        total += len(numbers)
        if len(numbers) != storage.size * np.dtype(storage.dtype).itemsize:
            raise TorchFileError(f"storage {storage.key} has another length than its tensors need")
        if total > len(content):
            raise TorchFileError("has entries that overlap")
        loaded[storage.key] = np.frombuffer(numbers, storage.dtype)
    return tree, lambda storage: loaded[storage.key]


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of an entry; PyTorch compresses nothing, so none can grow when it is read."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise TorchFileError(f"{name} is compressed, which PyTorch does not do")
    return archive.read(entry)


def _storages(tree: Any) -> list[Storage]:
    """The storages of a dictionary of tensors, each once."""
    if not isinstance(tree, dict):
        raise TorchFileError(f"holds a {type(tree).__name__}, not a dictionary of tensors")
    storages: dict[str, Storage] = {}
    for name, tensor in tree.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TorchFileError(f"{name!r} is a {type(tensor).__name__}; only tensors are read")
        if storages.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise TorchFileError(f"storage {tensor.storage.key} is described in two ways")
    return list(storages.values())


def _tensors(tree: dict[str, Tensor], load: Loader) -> dict[str, np.ndarray]:
    arrays = {}
    for name, tensor in tree.items():
        numbers = load(tensor.storage)
        if math.prod(tensor.shape) > len(numbers):  # of a stride of 0, which would repeat numbers
            raise TorchFileError(f"{name} has more numbers than its storage")
        item = numbers.itemsize
        try:  # NumPy refuses a view that leaves its buffer
            arrays[name] = np.ndarray(
                tensor.shape, numbers.dtype, numbers, tensor.offset * item,
                tuple(stride * item for stride in tensor.strides),
            )  # fmt: skip
        except (ValueError, TypeError, OverflowError):
            raise TorchFileError(f"{name} lies outside of its storage") from None
    return arrays


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "MARK": lambda: _MARK}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}


def _interpret(file: io.BytesIO) -> Any:
    """The value of the pickle at the file's place, of plain values, names and tensors only."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            (value,) = stack
            return value
        if name in _PUTS:
            memo[argument] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _LITERALS:
            stack.append(argument)
        elif name == "GLOBAL":
            if argument not in ALLOWED:
                what = argument.replace(" ", ".")
                raise TorchFileError(f"asks for {what}, which is refused: only tensors are read")
            stack.append(_Name(argument))
        elif name in _ACTIONS:
            _ACTIONS[name](stack)
        elif name != "PROTO":
            raise TorchFileError(f"holds the opcode {name}, which no dictionary of tensors needs")
    raise TorchFileError("is truncated in a pickle")


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take what lies above the last mark, and the mark."""
    place = len(stack) - 1
    while stack[place] is not _MARK:
        place -= 1
        if place < 0:
            raise TorchFileError("is altered: a pickle lacks a mark")
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _make_tuple(length: int | None, stack: list[Any]) -> None:
    items = _since_mark(stack) if length is None else [stack.pop() for _ in range(length)][::-1]
    stack.append(tuple(items))


def _set_items(stack: list[Any], items: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise TorchFileError("is altered: a pickle fills what is no dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | int):
            raise TorchFileError(f"has a {type(key).__name__} for a name")
        target[key] = value


def _append(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise TorchFileError("is altered: a pickle appends to what is no list")
    stack[-1].extend(items)


def _reduce(stack: list[Any]) -> None:
    """Call one of the three functions that are known here."""
    arguments, function = stack.pop(), stack.pop()
    name = function.name if isinstance(function, _Name) else None
    if name == ORDERED and arguments == ():
        stack.append({})
    elif name == REBUILD:
        stack.append(_tensor(arguments))
    elif name == PARAMETER and isinstance(arguments[0], Tensor):
        stack.append(arguments[0])
    else:
        raise TorchFileError("calls what is no function of tensors")


def _tensor(arguments: Any) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, Storage)
        or len(shape) != len(strides)
        or any(type(number) is not int or number < 0 for number in numbers)
    ):
        raise TorchFileError("is altered: a tensor has no shape")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _persistent(stack: list[Any]) -> None:
    """A reference to a storage: ("storage", type, key, device, size) and a view, which is None."""
    kind, dtype, key, _, size, *view = stack.pop()
    name = dtype.name.removeprefix("torch ") if isinstance(dtype, _Name) else None
    if kind != "storage" or name not in STORAGES or view not in ([], [None]):
        raise TorchFileError("refers to a storage of an unknown kind")
    if type(key) is not str or type(size) is not int or size < 0:
        raise TorchFileError("is altered: a storage has no key or no size")
    stack.append(Storage(key, STORAGES[name], size))


def _drop_state(stack: list[Any]) -> None:
    """Leave out the attributes of a dictionary: PyTorch gives it the versions of its modules."""
    stack.pop()
    if not isinstance(stack[-1], dict):
        raise TorchFileError("sets the state of what is no dictionary")


_ACTIONS: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE": lambda stack: _make_tuple(None, stack),
    "TUPLE1": lambda stack: _make_tuple(1, stack),
    "TUPLE2": lambda stack: _make_tuple(2, stack),
    "TUPLE3": lambda stack: _make_tuple(3, stack),
    "SETITEM": lambda stack: _set_items(stack, [stack.pop(), stack.pop()][::-1]),
    "SETITEMS": lambda stack: _set_items(stack, _since_mark(stack)),
    "APPEND": lambda stack: _append(stack, [stack.pop()]),
    "APPENDS": lambda stack: _append(stack, _since_mark(stack)),
    "REDUCE": _reduce,
    "BUILD": _drop_state,
    "BINPERSID": _persistent,
}
