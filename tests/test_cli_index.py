"""`jaxret index` and `jaxret merge` on folders of photos, case by case, as a person uses them."""

import json
import os
import shutil

import made_photos as photos
import pytest
from made_photos import counts, ids, indexed, jaxret, root, rows, summary
from PIL import Image

__all__ = ["indexed", "jaxret", "root"]


def test_1_a_first_run_indexes_all_photos_and_touches_none(jaxret, tmp_path):
    root = photos.make(tmp_path / "photos")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*.jpg")}
    ran = jaxret("index", root, "--model", "look")
    assert (ran.status, ran.out) == (0, b"")
    assert "30 images: 30 new, 0 changed, 0 moved, 0 removed;" in ran.err
    assert sorted(os.listdir(root)) == [".jaxret", "a", "b", "c"]
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*.jpg")} == before
    assert {"CACHEDIR.TAG", ".gitignore", ".nomedia"} <= set(os.listdir(root / ".jaxret"))
    assert sorted(ids(root).values()) == list(range(30))


def test_2_a_second_run_opens_no_photo(jaxret, root, monkeypatch):
    before = ids(root)
    opened = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda *args, **kw: opened.append(args[0]) or real(*args, **kw))
    ran = jaxret("index", root)
    assert ran.status == 0
    assert "0 new, 0 changed, 0 moved, 0 removed" in ran.err
    assert not [path for path in opened if str(path).endswith(".jpg")]
    assert ids(root) == before


def test_5_a_copy_is_new_and_at_distance_0(jaxret, root, monkeypatch):
    shutil.copy2("a/1.jpg", "b/x.jpg")
    import jaxret.index.contents as contents

    monkeypatch.setattr(contents, "decode", lambda *_: pytest.fail("a copy is not decoded"))
    ran = jaxret("index", ".")
    assert "1 new, 0 changed, 0 moved, 0 removed" in ran.err
    assert jaxret("search", "a/1.jpg").lines[0] == "0\tb/x.jpg"


def test_6_a_moved_photo_keeps_its_id(jaxret, root):
    before = ids(root)
    os.rename("a/2.jpg", "c/99.jpg")
    assert counts(jaxret("index", root, "--json")) == {"moved": 1, "images": 30}
    before["c/99.jpg"] = before.pop("a/2.jpg")
    assert ids(root) == before


def test_7_ids_follow_content_when_names_are_swapped(jaxret, root):
    before = ids(root)
    for source, target in (("a/1.jpg", "t"), ("b/3.jpg", "a/1.jpg"), ("t", "b/3.jpg")):
        os.rename(source, target)
    assert counts(jaxret("index", root, "--json")) == {"moved": 2, "images": 30}
    told = json.loads(jaxret("info", "a/1.jpg", "--json").out)["image"]
    assert told["id"] == before["b/3.jpg"]
    assert ids(root)["b/3.jpg"] == before["a/1.jpg"]


def overwrite(path, seed, *, in_place):
    """Give a file another picture of the same size in bytes, and its old mtime."""
    facts = os.stat(path)
    content = path.read_bytes()
    other = photos.save(path.with_name("other.jpg"), seed).read_bytes()[: len(content)]
    other = other.ljust(len(content), b"\0")
    (path.parent / "other.jpg").unlink()
    if not in_place:
        fresh = path.with_name("fresh")
        fresh.write_bytes(other)
        os.rename(fresh, path)
    else:
        path.write_bytes(other)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert os.stat(path).st_size == facts.st_size


def larger(path, of):
    """Return a seed whose picture is at most as large as a file, so that padding makes it equal."""
    size = os.stat(path).st_size
    for seed in range(1000, 1100):
        if len(photos.save(path.parent / "try.jpg", seed).read_bytes()) <= size:
            (path.parent / "try.jpg").unlink()
            return seed
    raise AssertionError(of)


def test_8_another_file_of_equal_size_and_date_is_changed(jaxret, root):
    path = root / "b/4.jpg"
    jaxret("index", root)  # the copy's inodes
    before, digest = ids(root), rows(root)["b/4.jpg"].digest
    overwrite(path, larger(path, "b/4.jpg"), in_place=False)
    assert counts(jaxret("index", root, "--json")) == {"changed": 1, "images": 30}
    assert ids(root) == before
    assert rows(root)["b/4.jpg"].digest != digest


def test_9_recheck_finds_what_no_date_tells(jaxret, root):
    path = root / "b/4.jpg"
    overwrite(path, larger(path, "b/4.jpg"), in_place=True)
    first = summary(jaxret("index", root, "--json"))["changed"]
    again = summary(jaxret("index", root, "--recheck", "--json"))["changed"]
    assert first + again == 1


def test_10_an_id_is_not_used_again(jaxret, root):
    last = max(ids(root), key=ids(root).get)
    gone = ids(root)[last]
    os.unlink(last)
    assert counts(jaxret("index", root, "--json")) == {"removed": 1, "images": 29}
    assert last not in [line.split("\t")[1] for line in jaxret("search", "a/1.jpg", "-n50").lines]
    photos.save(root / "c/new.jpg", 77)
    jaxret("index", root)
    assert ids(root)["c/new.jpg"] == gone + 1


def test_11_a_folder_that_is_not_mounted_loses_nothing(jaxret, root, tmp_path):
    index = tmp_path / "elsewhere"
    assert jaxret("index", root, "--model", "look", "--index", index).status == 0
    os.rename(root, tmp_path / "away")
    root.mkdir()
    ran = jaxret("index", root, "--index", index)
    assert ran.status == 2
    assert str(root) in ran.err
    assert len(ran.err.splitlines()) == 1
    found = json.loads(jaxret("search", "id:0", "--index", index, "--json").out)["results"]
    assert {image["state"] for image in found} == {"missing"}
    root.rmdir()
    assert "no such folder" in jaxret("index", root, "--index", index).err


def test_12_many_removals_are_confirmed_first(jaxret, root):
    for number, path in enumerate(sorted(ids(root))):
        if number < 20:
            os.unlink(path)
    ran = jaxret("index", root)
    assert ran.status == 3
    assert "--forget-missing" in ran.err
    assert len(ids(root)) == 30
    ran = jaxret("index", root, "--forget-missing")
    assert ran.status == 0
    assert "20 removed" in ran.err
    assert len(ids(root)) == 10


def test_14_odd_files_are_named_with_their_reason_and_not_tried_again(jaxret, root, monkeypatch):
    (root / "odd").mkdir()
    (root / "odd/empty.jpg").touch()
    (root / "odd/text.jpg").write_text("<svg onload=alert(1)>")
    (root / "odd/half.jpg").write_bytes((root / "a/1.jpg").read_bytes()[:500])
    os.mkfifo(root / "odd/fifo.jpg")
    os.symlink("nowhere", root / "odd/link.jpg")
    os.symlink("loop.jpg", root / "odd/loop.jpg")
    (root / "odd/sparse.jpg").touch()
    os.truncate(root / "odd/sparse.jpg", 2**40)
    huge = Image.new("1", (16, 16))
    huge.save(root / "odd/bomb.png")
    content = (root / "odd/bomb.png").read_bytes()
    import struct
    import zlib

    head = b"IHDR" + struct.pack(">II", 30_000, 30_000) + content[24:29]
    bomb = content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
    (root / "odd/bomb.png").write_bytes(bomb)
    (root / "odd/film.mov").touch()
    ran = jaxret("index", root, "--json")
    assert ran.status == 3
    reasons = {f["path"]: f["reason"] for f in json.loads(ran.out)["unreadable"]}
    assert reasons == {
        "odd/bomb.png": "more than 250 megapixels",
        "odd/empty.jpg": "0 bytes",
        "odd/fifo.jpg": "a FIFO, not a file",
        "odd/half.jpg": "truncated",
        "odd/link.jpg": "a link to nothing",
        "odd/loop.jpg": "a link to nothing",
        "odd/sparse.jpg": "more than 4 GB",
        "odd/text.jpg": "not an image that Pillow can read",
    }
    assert counts(ran) == {"unreadable": 8, "ignored": 1, "images": 30}
    assert "odd/loop.jpg: " in jaxret("search", "odd/loop.jpg").err
    for name in reasons:
        assert name in ran.err
    monkeypatch.setattr("jaxret.index.contents._opened", lambda *_: pytest.fail("tried again"))
    assert jaxret("index", root).status == 3
    monkeypatch.undo()
    shutil.copy(root / "a/1.jpg", root / "odd/half.jpg")
    assert summary(jaxret("index", root, "--json"))["new"] == 1


def test_14_photos_of_a_locked_folder_are_kept(jaxret, root, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    ran = jaxret("index", root, "--json")
    assert ran.status == 3
    assert counts(ran) == {"missing": 10, "unreadable": 1, "images": 30}
    monkeypatch.undo()
    ran = jaxret("index", root, "--json")
    assert (ran.status, counts(ran)) == (0, {"images": 30})


def test_15_a_second_writer_is_told_who_holds_the_index(jaxret, root):
    from jaxret.index.places import writing

    with writing(root / ".jaxret"):
        ran = jaxret("index", root)
        assert ran.status == 2
        assert f"being updated by process {os.getpid()} since " in ran.err
        assert jaxret("search", "a/1.jpg").status == 0
    assert jaxret("index", root).status == 0


def test_16_a_folder_moves_with_its_index(jaxret, root, tmp_path, monkeypatch):
    before = jaxret("search", "a/1.jpg").out
    monkeypatch.chdir(tmp_path)
    os.rename(root, tmp_path / "moved")
    ran = jaxret("search", "moved/a/1.jpg", "--json")
    assert ran.status == 0
    (first, *_) = json.loads(ran.out)["results"]
    assert first["file"] == str(tmp_path / "moved" / before.decode().split()[1])
    assert first["state"] == "ok"


def test_17_an_index_elsewhere_leaves_the_photos_alone(jaxret, tmp_path, monkeypatch):
    root = photos.make(tmp_path / "photos", 6)
    assert jaxret("index", root, "--index", tmp_path / "i", "--model", "look").status == 0
    assert sorted(os.listdir(root)) == ["a", "b", "c"]
    monkeypatch.chdir(tmp_path)
    found = json.loads(jaxret("search", "id:0", "--index", "i", "--json").out)["results"]
    assert all(os.path.isfile(image["file"]) for image in found)
    monkeypatch.setenv("JAXRET_INDEX", str(tmp_path / "i"))
    assert jaxret("search", "id:0", "--paths").lines[0].startswith("photos/")


def test_labels_of_a_csv_replace_folders(jaxret, root):
    (root / "labels.csv").write_text("file,label\na/1.jpg,cat\nb/2.jpg,cat|dog\nc/3.jpg,dog\n")
    assert jaxret("index", root, "--labels", "labels.csv").status == 0
    found = jaxret("search", "id:0", "--label", "cat", "--paths", "-n50").lines
    assert sorted(found) == ["a/1.jpg", "b/2.jpg"]
    (root / "wrong.csv").write_text("file,label\nz.jpg,cat\n")
    assert jaxret("index", root, "--labels", "wrong.csv").status == 2


def test_another_model_is_refused_and_rebuild_takes_it(jaxret, root):
    before = ids(root)
    assert jaxret("index", root, "--model", "look").status == 0
    ran = jaxret("index", root, "--model", "look", "--bits", "32")
    assert ran.status == 2
    assert "this index was made with look/" in ran.err
    assert "--rebuild" in ran.err
    ran = jaxret("index", root, "--model", "look", "--bits", "32", "--rebuild")
    assert ran.status == 0, ran.err
    assert ids(root) == before
    assert json.loads(jaxret("info", "--json").out)["index"]["bits"] == 32
    assert jaxret("info", "--verify").status == 0


def test_what_is_derived_may_be_deleted(jaxret, root):
    before = jaxret("search", "a/1.jpg").out
    shutil.rmtree(root / ".jaxret/gallery")
    assert jaxret("search", "a/1.jpg").out == before


@pytest.mark.slow
def test_shards_of_one_encoder_join_to_the_whole(jaxret, root, tmp_path):
    (encoder,) = (root / ".jaxret/model").iterdir()
    for part in (1, 2):
        index = tmp_path / f"shard{part}"
        ran = jaxret("index", root, "--model", encoder, "--shard", f"{part}/2", "--index", index)
        assert ran.status == 0, ran.err
        assert "0 new" not in ran.err
    ran = jaxret("merge", tmp_path / "half", tmp_path / "shard2")
    assert (ran.status, "share 1/2 is not among the indexes to join" in ran.err) == (2, True)
    assert not (tmp_path / "half").exists()
    ran = jaxret("merge", tmp_path / "all", tmp_path / "shard1", tmp_path / "shard2")
    assert ran.status == 0, ran.err
    joined = jaxret("search", "a/1.jpg", "--index", tmp_path / "all").out
    assert joined == jaxret("search", "a/1.jpg").out
    other = tmp_path / "other"
    assert jaxret("index", root, "--model", "look", "--bits", "32", "--index", other).status == 0
    ran = jaxret("merge", tmp_path / "wrong", tmp_path / "shard1", other)
    assert ran.status == 2
    assert "one encoder" in ran.err
    assert jaxret("index", root, "--shard", "1/2", "--index", tmp_path / "new").status == 2


def test_excluded_and_hidden_names_are_left_out(jaxret, root):
    photos.save(root / ".secret/1.jpg", 50)
    photos.save(root / "@eaDir/1.jpg", 51)
    assert jaxret("index", root, "--exclude", "a/[0-4].jpg").status == 0
    assert not {"a/0.jpg", "a/4.jpg", ".secret/1.jpg", "@eaDir/1.jpg"} & ids(root).keys()
    assert "5 new" in jaxret("index", root, "--exclude=").err
    assert "1 new" in jaxret("index", root, "--hidden").err


def test_the_index_of_another_folder_is_not_taken_over(jaxret, root, tmp_path, monkeypatch):
    other = photos.make(tmp_path / "other", 3)
    monkeypatch.setenv("JAXRET_INDEX", str(root / ".jaxret"))
    ran = jaxret("index", other)
    assert ran.status == 2
    assert "JAXRET_INDEX is the index of" in ran.err
    assert jaxret("index", root).status == 0


def test_a_folder_without_images_says_so(jaxret, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.txt").touch()
    ran = jaxret("index", tmp_path / "none")
    assert "0 images: 0 new" in ran.err
    assert "none: holds no image to index; other files: 1\n" in ran.err
    assert "Next:" not in ran.err
    ran = jaxret("search", "id:0", "--index", tmp_path / "none")
    assert ran.status == 2
    assert "holds no image yet" in ran.err


def test_heic_photos_are_indexed_or_counted_with_the_remedy(jaxret, root, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    path = photos.save(root / "a/phone.HEIC", 1, format="HEIF", quality=90)
    monkeypatch.setattr("jaxret.index.contents.heic_is_known", lambda: False)
    ran = jaxret("index", root, "--json")
    (skipped,) = json.loads(ran.out)["unreadable"]
    assert (ran.status, skipped["path"]) == (3, "a/phone.HEIC")
    assert "pip install pillow-heif" in skipped["reason"]
    monkeypatch.undo()
    ran = jaxret("index", root, "--json")  # the file is as it was: what it needs is here now
    assert (ran.status, summary(ran)["new"]) == (0, 1)
    distance, nearest = jaxret("search", path, "--index", root / ".jaxret").lines[0].split("\t")
    assert nearest.endswith("a/1.jpg")
    assert int(distance) <= 4


@pytest.mark.parametrize("year", [1600, 2400])
def test_a_file_of_another_age_is_indexed_and_is_unchanged(jaxret, root, year):
    seconds = (year - 1970) * 31_556_952
    os.utime(root / "a/1.jpg", (seconds, seconds))
    ran = jaxret("index", root, "--json")
    assert (ran.status, counts(ran)["images"]) == (0, 30)
    ran = jaxret("search", "a/2.jpg", "-n", "30", "--json")
    assert {image["state"] for image in json.loads(ran.out)["results"]} == {"ok"}
    assert jaxret("search", "a/1.jpg").status == 0
