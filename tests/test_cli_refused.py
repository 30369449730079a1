"""`jaxret index` and `jaxret merge` refused or stopped: nothing half-made, nothing lost."""

import json
import os

import made_photos as photos
import numpy as np
import pytest
from made_photos import counts, ids, indexed, jaxret, root

from jaxret.index import Shard, places

__all__ = ["indexed", "jaxret", "root"]


def test_a_share_of_a_folder_does_not_replace_the_index_of_all_of_it(jaxret, root):
    before = ids(root)
    ran = jaxret("index", root, "--shard", "1/2", "--forget-missing")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "images that --shard 1/2 leaves out; a shard needs an index of its own" in ran.err
    assert ids(root) == before
    assert jaxret("index", root, "--shard", "1/1").status == 0  # leaves nothing out
    assert ids(root) == before


@pytest.mark.parametrize("made_before", [True, False])
def test_a_first_run_that_fails_leaves_nothing(jaxret, tmp_path, made_before):
    root, index = photos.make(tmp_path / "photos", 3), tmp_path / "index"
    if made_before:
        index.mkdir()
        (index / ".gitignore").write_text("own")
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ("--labels", tmp_path / "none.csv"),
        ("--model", "nonsense"),
        ("--shard", "1/2"),
        ("--vectors", tmp_path / "none.npy"),
    ):
        assert jaxret("index", root, "--index", index, *words).status == 2
        assert sorted(tmp_path.rglob("*")) == before
    assert jaxret("index", root, "--index", index, "--model", "look").status == 0
    kept = sorted(path.name for path in index.iterdir())
    assert jaxret("index", root, "--index", index, "--labels", tmp_path / "none.csv").status == 2
    assert sorted(path.name for path in index.iterdir()) == kept


def test_a_first_run_that_is_interrupted_before_it_read_a_photo_leaves_nothing(
    jaxret, tmp_path, monkeypatch
):
    root = photos.make(tmp_path / "photos", 3)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxret.index.coder._sample", interrupt)
    assert jaxret("index", root, "--model", "look").status == 130
    assert not (root / ".jaxret").exists()


def test_a_folder_that_cannot_be_read_is_named(jaxret, tmp_path, monkeypatch):
    root, scandir = photos.make(tmp_path / "photos", 3), os.scandir

    def refuse(path):
        if path == root:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    ran = jaxret("index", root)
    assert (ran.status, ran.err) == (2, f"jaxret: {root}: cannot be read (Permission denied)\n")
    assert not (root / ".jaxret").exists()


def test_a_first_run_that_fails_keeps_what_it_has_read(jaxret, tmp_path, monkeypatch):
    root = photos.make(tmp_path / "photos", 3)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("jaxret.index.snapshot.publish", fail)
        assert jaxret("index", root, "--model", "look").status == 2
    monkeypatch.setattr("jaxret.index.contents.decode", lambda *_: pytest.fail("read again"))
    assert counts(jaxret("index", root, "--model", "look", "--json")) == {"new": 3, "images": 3}


def test_a_join_that_is_refused_leaves_nothing(jaxret, root, tmp_path):
    target = tmp_path / "joined"
    assert jaxret("merge", target, root, tmp_path / "nowhere").status == 2
    other = tmp_path / "other"
    jaxret("index", root, "--index", other, "--model", "itq", "--bits", "8")
    ran = jaxret("merge", target, root, other)
    assert "only indexes of one encoder are joined" in ran.err
    assert not target.exists()


def test_a_join_that_fails_half_way_leaves_nothing(jaxret, root, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    target = tmp_path / "joined"
    with monkeypatch.context() as patch:
        patch.setattr("jaxret.index.snapshot.publish", fail)
        assert jaxret("merge", target, root).status == 2
    assert not target.exists()
    assert jaxret("merge", target, root).status == 0


def test_a_share_without_images_adds_nothing_to_a_join(jaxret, root, tmp_path):
    (encoder,) = (root / ".jaxret/model").iterdir()
    share = next(f"{i}/99" for i in range(1, 100) if not any(map(Shard(i, 99).holds, ids(root))))
    words = ("--model", encoder, "--shard", share, "--index", tmp_path / "share")
    assert "0 images: 0 new" in jaxret("index", root, *words).err
    ran = jaxret("merge", tmp_path / "joined", tmp_path / "share", root)
    joined = json.loads(jaxret("info", "--index", tmp_path / "joined", "--json").out)["index"]
    assert (ran.status, joined["images"]) == (0, 30)


def test_what_is_no_npy_file_in_the_place_of_vectors_is_refused_without_talk_of_pickles(
    jaxret, root
):
    (root / "v.npy").write_text("1.0 2.0")
    ran = jaxret("index", root, "--vectors", "v.npy")
    told = "v.npy: no .npy file that can be read (numpy.save makes one of floats [n d])"
    assert (ran.status, ran.err) == (2, f"jaxret: {told}\n")


def test_an_archive_in_the_place_of_vectors_is_refused(jaxret, root):
    (root / "v.npy").write_bytes(b"PK\x03\x04 and more")
    assert "v.npy: no .npy file that can be read" in jaxret("index", root, "--vectors", "v.npy").err
    with open(root / "v.npy", "wb") as file:
        np.savez(file, a=np.ones((30, 2), np.float32))
    ran = jaxret("index", root, "--vectors", "v.npy")
    assert (ran.status, "holds several arrays" in ran.err) == (2, True)


def test_what_an_index_did_not_make_stays_where_a_first_run_fails(tmp_path):
    folder = tmp_path / "index"
    (folder / "model" / "0123").mkdir(parents=True)
    for name in (places.CATALOGUE, f"{places.CATALOGUE}-wal", places.LOCK, *places.MARKS):
        (folder / name).write_bytes(b"")
    (folder / "photo.jpg").write_bytes(b"of somebody else")
    made = places.Before(frozenset(), (folder, tmp_path / "absent"))
    places.restore(folder, made)
    assert [path.name for path in folder.iterdir()] == ["photo.jpg"]
    (folder / "photo.jpg").unlink()
    places.restore(folder, made)
    assert not folder.exists()


def test_a_first_run_that_fails_leaves_no_folder_above_its_index(jaxret, root, tmp_path):
    words = ("--index", tmp_path / "new" / "deep", "--model", "nonsense")
    assert jaxret("index", root, *words).status == 2
    assert not (tmp_path / "new").exists()


def test_duplicates_in_a_word_where_no_index_is_says_that_there_is_none(
    jaxret, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ran = jaxret("duplicates", "--in", "2019")
    assert (ran.status, ran.err.startswith("jaxret: there is no index at or above ")) == (2, True)
