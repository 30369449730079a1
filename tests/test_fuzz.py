"""Other forms of what a function takes, and damaged files: the right result or one sentence.

tests/public_calls.py names the functions and makes the forms. `pytest --soak` draws many more.
"""

import gzip
import hashlib
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import public_calls
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marks import slow
from PIL import Image
from test_torch_weights import FORMATS, example
from test_torch_weights import names_of_torch as names_of_torch  # a fixture

from jaxret import encoder
from jaxret.data import DataError, cifar, idx, read_image
from jaxret.encoder import EncoderError
from jaxret.gallery import Gallery, GalleryError
from jaxret.models.torch_weights import TorchFileError, read_tensors

EXAMPLES = 40
SCRIPT = Path(public_calls.__file__)


def test_every_public_function_has_a_call_or_a_reason_for_none():
    names = {name.split(" of ")[0] for name in public_calls.CALLS}
    public = public_calls.public_names()
    assert len(public) > 40
    assert public - names - public_calls.EXEMPT.keys() == set()
    assert public_calls.EXEMPT.keys() - public == set()


def problems(*options):
    """What the script prints: it runs apart, where no test checks the types of arguments."""
    run = [sys.executable, SCRIPT, *options]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_another_form_has_the_same_result_or_is_refused_in_one_line():
    assert problems("--quick") == []


@pytest.mark.soak
def test_another_form_is_searched_and_scored_the_same_or_refused():
    assert problems() == []


@pytest.mark.soak
def test_no_two_arguments_of_another_form_are_misread():
    assert problems("--examples=400") == []


def test_the_fuzzer_finds_a_function_that_misreads_its_input(monkeypatch):
    def narrow(x):
        return np.sum(x, dtype=np.asarray(x).dtype)  # wraps in a narrow type

    monkeypatch.setitem(public_calls.CALLS, "narrow", public_calls.call(narrow, x=np.full(9, 100)))
    assert public_calls.problem_of("narrow", {"x": "strided"}) == ""
    assert public_calls.problem_of("narrow", {"x": "as int8"}) == "another result, without a word"
    assert "refused by a library" in public_calls.problem_of("narrow", {"x": "text"})


# Files


def images_of_every_format():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        file = io.BytesIO()
        picture.save(file, kind)
        yield kind, file.getvalue()


PIXELS = np.random.default_rng(1).integers(0, 256, (3, 4, 5), np.uint8)
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]) + PIXELS.tobytes()
RECORDS = np.random.default_rng(2).integers(0, 10, (2, 3073)).astype(np.uint8)
PICTURES = dict(images_of_every_format())


def damaged(content, position, change):
    """The content cut at a position, or with one byte there changed."""
    if not content:
        return b"\0"
    place = position % len(content)
    if change == 0:
        return content[:place]
    return content[:place] + bytes([content[place] ^ change]) + content[place + 1 :]


def damage(test):
    """Run a test for many positions and changes of a byte; change 0 cuts the file there."""
    options = settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )  # fmt: skip
    return options(given(st.integers(0, 2**16), st.one_of(st.just(0), st.integers(1, 255)))(test))


def read_or_refuse(read, error):
    """What is read, or None where it is refused in one line."""
    try:
        return read()
    except error as refusal:
        text = str(refusal)
    assert "\n" not in text
    assert len(text) > 20
    return None


@pytest.mark.slow
@damage
def test_a_damaged_idx_file_gives_its_shape_or_one_error(tmp_path, position, change):
    for name, content in {"i": IDX, "i.gz": gzip.compress(IDX, mtime=0)}.items():
        path = tmp_path / name
        path.write_bytes(damaged(content, position, change))
        found = read_or_refuse(lambda path=path: idx.read_idx(path, 3), DataError)
        if found is not None and name == "i.gz":  # gzip has a checksum of its own
            np.testing.assert_array_equal(found, PIXELS)
        assert found is None or found.size == PIXELS.size


@damage
def test_a_damaged_pair_of_idx_files_with_digests_gives_the_right_data_or_one_error(
    tmp_path, position, change
):
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3])
    digests = {n: hashlib.sha256(c).hexdigest() for n, c in {"i": IDX, "l": labels}.items()}
    (tmp_path / "i").write_bytes(IDX)
    (tmp_path / "l").write_bytes(damaged(labels, position, change))
    found = read_or_refuse(
        lambda: idx.read_pair(tmp_path / "i", tmp_path / "l", digests), DataError
    )
    assert found is None


@damage
def test_a_damaged_cifar_batch_has_labels_in_range_or_gives_one_error(position, change):
    content = damaged(RECORDS.tobytes(), position * 47, change)
    found = read_or_refuse(lambda: cifar.read_binary(content, "batch"), DataError)
    if found is not None:
        assert found[0].shape[1:] == (32, 32, 3)
        assert found[1].max(initial=0) < 10


PICKLED = pickle.dumps({"data": RECORDS[:, 1:], "labels": RECORDS[:, 0].tolist()}, protocol=2)


@pytest.mark.parametrize("part", [range(120), *slow(range(6000, len(PICKLED)))])
@damage
def test_a_damaged_cifar_pickle_has_labels_in_range_or_gives_one_error(part, position, change):
    """Damage of its opcodes, which stand before and after the pixels."""
    content = damaged(PICKLED, part[position % len(part)], change)
    found = read_or_refuse(lambda: cifar.read_python(content, "batch"), DataError)
    if found is not None:
        assert found[0].shape[1:] == (32, 32, 3)
        assert found[1].max(initial=0) < 10


@pytest.mark.parametrize("kind", PICTURES)
@damage
def test_a_damaged_image_is_read_or_gives_one_error(tmp_path, kind, position, change):
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(damaged(PICTURES[kind], position, change))
    found = read_or_refuse(lambda: read_image(path, 6), DataError)
    assert found is None or (found.shape, found.dtype) == ((6, 6, 3), np.uint8)


@damage
def test_a_damaged_gallery_gives_the_right_data_or_one_error(tmp_path, position, change):
    folder = tmp_path / "gallery"
    if not folder.exists():
        codes = np.arange(12, dtype=np.uint32)[:, None]
        names = [f"n{row}" for row in range(12)]
        Gallery.from_codes(codes, 32, names=names, labels=np.arange(12)).save(folder)
    files = sorted(folder.iterdir())
    path = files[position % len(files)]
    content = path.read_bytes()
    path.write_bytes(damaged(content, position // len(files), change))
    for read in (Gallery.load, Gallery.open):
        found = read_or_refuse(lambda read=read: read(folder), GalleryError)
        if found is not None:
            np.testing.assert_array_equal(found.labels_of(found.ids), np.arange(12))
            assert found.names_of([3]) == ["n3"]
    path.write_bytes(content)


@damage
def test_a_damaged_encoder_gives_the_right_weights_or_one_error(tmp_path, position, change):
    folder, weights = tmp_path / "encoder", {"mean": np.arange(6, dtype=np.float32)}
    header = dict.fromkeys(("hasher", "bits_or_dims", "distance", "image_size"), "x")
    if not folder.exists():
        more = {"preprocessing": {}, "class_names": [], "origin": {}}
        encoder.write(folder, header | more, weights)
    path = folder / (encoder.HEADER if position % 2 else encoder.WEIGHTS)
    content = path.read_bytes()
    path.write_bytes(damaged(content, position // 2, change))
    found = read_or_refuse(lambda: encoder.read(folder), EncoderError)
    if found is not None:
        np.testing.assert_array_equal(found[1]["mean"], weights["mean"])
    path.write_bytes(content)


@pytest.mark.parametrize("form", FORMATS)
@damage
def test_a_damaged_file_of_pytorch_gives_tensors_or_one_error(tmp_path, form, position, change):
    path = tmp_path / "weights.pth"
    if not (tmp_path / "whole").exists():
        (tmp_path / "whole").write_bytes(FORMATS[form](example()[0]))
    path.write_bytes(damaged((tmp_path / "whole").read_bytes(), position, change))
    found = read_or_refuse(lambda: read_tensors(path), TorchFileError)
    if found is not None:
        assert all(isinstance(array, np.ndarray) for array in found.values())
