"""A gallery on disk: whole after kill -9, damaged, of an earlier version, in several folders."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from galleries import (
    MAKERS,
    SMALL,
    Q,
    assert_found,
    assert_same,
    codes_gallery,
    described_gallery,
    on_the_device,
    random_codes,
)
from marks import soak

from jaxret.gallery import Gallery, GalleryError, store

__all__ = ["on_the_device"]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_saved_gallery_comes_back_whole(kind, tmp_path):
    draw, make = MAKERS[kind]
    galleries = [make(draw(0, 0)), make(draw(0, 1)), make(draw(0, 100))]
    galleries += [described_gallery()] if kind == "codes" else []
    for i, gallery in enumerate(galleries):
        folder = tmp_path / "deep" / str(i)
        gallery.save(folder)
        loaded, opened = Gallery.load(folder), Gallery.open(folder)
        quick = Gallery.open(folder, verify=False, memory=SMALL)
        for again in (loaded, opened, quick):
            assert_same(again, gallery)
        opened.save(folder / "copy")
        assert_same(Gallery.load(folder / "copy"), gallery)
        opened.save(folder)
        assert_same(Gallery.load(folder), gallery)
        assert_same(opened, gallery)


def test_a_save_replaces_the_gallery_and_what_was_open_stays_as_it_was(tmp_path):
    old, new = described_gallery(0), described_gallery(1, 20)
    old.save(tmp_path)
    opened = Gallery.open(tmp_path, memory=SMALL)
    new.save(tmp_path)
    assert_same(opened, old)
    assert_same(Gallery.load(tmp_path), new)
    columns = json.loads((tmp_path / store.HEADER).read_text())["columns"].values()
    named = {column["file"] for column in columns} | {store.HEADER}
    assert {entry.name for entry in tmp_path.iterdir()} == named


def test_an_opened_gallery_is_read_only(tmp_path):
    described_gallery().save(tmp_path)
    gallery = Gallery.open(tmp_path)
    for change in (
        lambda: gallery.add(random_codes(0, 1)),
        lambda: gallery.remove(gallery.ids[:1]),
        lambda: gallery.update(gallery.ids[:1], random_codes(0, 1)),
    ):
        with pytest.raises(GalleryError, match=r"opened gallery is read-only; Gallery\.load"):
            change()


def test_an_altered_byte_in_any_file_is_refused(tmp_path):
    described_gallery().save(tmp_path / "whole")
    files = sorted(entry.name for entry in (tmp_path / "whole").iterdir())
    assert len(files) == 7  # header, codes, ids, labels, names, ends of names, removed ids
    rng = np.random.default_rng(0)
    for file in files:
        content = (tmp_path / "whole" / file).read_bytes()
        for place in {0, len(content) - 1, *rng.integers(0, len(content), 10).tolist()}:
            altered = bytearray(content)
            altered[place] ^= 1 << rng.integers(8)
            shutil.copytree(tmp_path / "whole", tmp_path / "altered", dirs_exist_ok=True)
            (tmp_path / "altered" / file).write_bytes(altered)
            for read in (Gallery.load, Gallery.open):
                with pytest.raises(GalleryError, match=r"altered|has format"):
                    read(tmp_path / "altered")


@pytest.mark.parametrize("verify", [True, False])
def test_a_torn_folder_is_refused_with_the_reason(verify, tmp_path):
    described_gallery().save(tmp_path / "whole")
    for file in sorted((tmp_path / "whole").iterdir()):
        shutil.copytree(tmp_path / "whole", tmp_path / "torn", dirs_exist_ok=True)
        torn = tmp_path / "torn" / file.name
        torn.write_bytes(file.read_bytes()[:-1])
        reason = "altered" if file.name == store.HEADER else r"is torn: it has \d+ bytes, not \d+"
        with pytest.raises(GalleryError, match=reason):
            Gallery.open(tmp_path / "torn", verify=verify)
        torn.unlink()
        reason = "has no gallery.json" if file.name == store.HEADER else "is missing"
        with pytest.raises(GalleryError, match=reason):
            Gallery.open(tmp_path / "torn", verify=verify)


def test_a_folder_of_a_newer_format_is_refused(tmp_path):
    described_gallery().save(tmp_path)
    header = json.loads((tmp_path / store.HEADER).read_text())
    (tmp_path / store.HEADER).write_text(json.dumps({**header, "format": 2, "new": []}))
    for read in (Gallery.load, Gallery.open):
        with pytest.raises(GalleryError, match=r"has format 2, this jaxret reads up to 1"):
            read(tmp_path)


def test_a_save_leaves_other_folders_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(GalleryError, match=r"a folder of its own, .* holds 'thesis\.tex'"):
        described_gallery().save(tmp_path)
    with pytest.raises(GalleryError, match="a gallery is a folder"):
        described_gallery().save(tmp_path / "thesis.tex")
    for path in (tmp_path, tmp_path / "thesis.tex", tmp_path / "nowhere"):
        with pytest.raises(GalleryError, match=r"is not a gallery: it has no gallery\.json"):
            Gallery.load(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


# A child saves in the place of the old gallery and is killed: before its i-th call to the file
# system, for every i there is, and then at 20 random moments.
KILLED = """
import itertools, os, random, signal, sys, time
import numpy as np
from jaxret.gallery import Gallery

random.seed(0)

def gallery(version):
    codes = np.full((30_000 + version, 2), version, np.uint32)
    made = Gallery.from_codes(codes, 64, names=[str(version)] * len(codes))
    made.remove([version])
    return made

def die_before(step):
    calls = itertools.count()
    for name in ("fsync", "replace", "unlink", "open"):
        def counted(*args, call=getattr(os, name), **options):
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        setattr(os, name, counted)

def killed(version, before):
    child = os.fork()
    if child == 0:
        before()
        while True:  # until killed, where it is not for a step
            galleries[version].save(sys.argv[1])
            if before is not nothing:
                os._exit(0)
    if before is nothing:
        time.sleep(random.uniform(0, 0.1))
        found()  # while it is being replaced
        time.sleep(random.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

def found():
    loaded = Gallery.load(sys.argv[1])
    version = int(loaded.names_of(loaded.ids[:1])[0])
    same = galleries[version]
    assert np.array_equal(loaded.ids, same.ids) and len(loaded) == len(same)
    assert (loaded._columns.values == version).all()
    return version

def nothing():
    pass

galleries = {version: gallery(version) for version in (1, 2)}
galleries[1].save(sys.argv[1])
versions = []
for step in itertools.count():
    galleries[1].save(sys.argv[1])
    dead = killed(2, lambda: die_before(step))
    versions.append(found())
    if not dead:
        break
assert len(versions) > 20 and versions == sorted(versions) and set(versions) == {1, 2}, versions
for kill in range(20):
    killed(3 - found(), nothing)
galleries[1].save(sys.argv[1])
assert found() == 1 and len(os.listdir(sys.argv[1])) == 6, os.listdir(sys.argv[1])
print(len(versions))
"""


@pytest.mark.soak
def test_kill_9_at_any_moment_of_a_save_leaves_a_whole_gallery(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "g")], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr


@pytest.mark.slow
def test_a_mapped_file_that_was_cut_is_an_error_and_kills_nothing(tmp_path):
    code = """if True:
        import os, sys
        import numpy as np
        from jaxret.gallery import Gallery, GalleryError
        codes = np.zeros((100_000, 1), np.uint32)
        made = Gallery.from_codes(codes, 12, names=["a"] * len(codes), labels=[1] * len(codes))
        made.save(sys.argv[1])
        opened = Gallery.open(sys.argv[1], memory=1)
        for call, column in (
            (lambda: opened.search(codes[:1], 1), "codes"),
            (lambda: opened.labels_of([99_999]), "labels"),
            (lambda: opened.names_of([99_999]), "ends"),
            (lambda: opened.search(codes[:1], 1), "ids"),
        ):
            call()
            (file,) = (f for f in os.listdir(sys.argv[1]) if f.startswith(column))
            path = os.path.join(sys.argv[1], file)
            whole = open(path, "rb").read()
            os.truncate(path, 4096)
            try:
                call()
                sys.exit(f"{column} were searched")
            except GalleryError as error:
                assert "were cut to 4096 bytes" in str(error), error
            open(path, "r+b").write(whole)
    """
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "g")], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr[-2000:]


def test_a_gallery_that_an_earlier_version_saved_still_opens(tmp_path):
    """Two codes with ids, names and labels, as the first format has them, byte by byte."""
    columns = {
        "codes": np.array([[5], [9]], "<u4"),
        "ids": np.array([3, 8], "<i8"),
        "labels": np.array([1, -1], "<i4"),
        "names": np.frombuffer(b"ab", "|u1"),
        "ends": np.array([0, 1, 2], "<i8"),
        "retired": np.array([4], "<i8"),
    }
    header = {"ascending": True, "columns": {}, "format": 1, "kind": "codes", "next_id": 9}
    header["width"] = 12
    for name, column in columns.items():
        digest = hashlib.sha256(column.tobytes()).hexdigest()
        file = f"{name}-{digest[:16]}.bin"
        (tmp_path / file).write_bytes(column.tobytes())
        entry = {"file": file, "dtype": column.dtype.str, "shape": list(column.shape)}
        header["columns"][name] = entry | {"sha256": digest}
    header["sha256"] = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    text = json.dumps(header, indent=1, sort_keys=True) + "\n"
    (tmp_path / "gallery.json").write_text(text)
    for gallery in (Gallery.load(tmp_path), Gallery.open(tmp_path)):
        found = gallery.search(np.array([[5]], np.uint32), 3)
        assert found.indices.tolist() == [[3, 8, -1]]
        assert found.distances.tolist() == [[0, 2, 2**31 - 1]]
        assert gallery.names_of([8, 3]) == ["b", "a"]
        assert gallery.labels_of([8, 3]).tolist() == [-1, 1]


@pytest.mark.parametrize("kind", ["vectors", *soak("codes")])
def test_folders_opened_together_are_searched_as_one_gallery(kind, tmp_path):
    values, make = MAKERS[kind][0](0, 30), MAKERS[kind][1]
    ids, names = np.arange(100, 130)[::-1], [f"image {row}" for row in range(30)]
    labels, parts = np.arange(30) % 4, []
    for start, end in ((0, 10), (10, 20), (20, 30)):
        rows = slice(start, end)
        make(values[rows], ids[rows], names[rows], labels[rows]).save(tmp_path / str(start))
        parts.append(tmp_path / str(start))
    one, joined = make(values, ids, names, labels), Gallery.open(parts)
    query = MAKERS[kind][0](1, Q)
    mask = np.random.default_rng(2).random((Q, 30)) < 0.5
    for keep in (mask, ids[3:20]):
        assert_found(joined.search(query, 12, keep=keep), one.search(query, 12, keep=keep))
    found, expected = (gallery.range_search(query, 6, 4, keep=mask) for gallery in (joined, one))
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(joined.ids, ids)
    some = [129, -1, 100, 118]
    assert joined.names_of(some) == one.names_of(some)
    np.testing.assert_array_equal(joined.labels_of([some]), one.labels_of([some]))
    with pytest.raises(GalleryError, match="id 5 is not in the gallery"):
        joined.names_of([5])


def test_folders_that_do_not_fit_each_other_are_not_opened_together(tmp_path):
    codes_gallery(random_codes(0, 3)).save(tmp_path / "a")
    Gallery.from_codes(random_codes(0, 3), 13, [7, 8, 9]).save(tmp_path / "b")
    with pytest.raises(GalleryError, match="of one kind and width"):
        Gallery.open([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(GalleryError, match="0 is in two"):
        Gallery.open([tmp_path / "a", tmp_path / "a"])
    with pytest.raises(GalleryError, match="at least one"):
        Gallery.open([])
