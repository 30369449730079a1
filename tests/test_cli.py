"""The command on folders of photos, case by case, as a person uses it."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import made_photos as photos
import numpy as np
import pytest
from PIL import Image

from jaxret.index.catalogue import Catalogue


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """A folder of 30 photos with its index, to copy."""
    from jaxret.index import build

    root = photos.make(tmp_path_factory.mktemp("indexed") / "photos")
    build(root, model="look")
    return root


@pytest.fixture
def jaxret(capsysbinary, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.delenv("JAXRET_INDEX", raising=False)
    return photos.Command(capsysbinary)


@pytest.fixture
def root(indexed, tmp_path, monkeypatch):
    """A copy of the indexed folder, and the current folder."""
    copy = tmp_path / "photos"
    shutil.copytree(indexed, copy)
    monkeypatch.chdir(copy)
    return copy


def rows(root):
    with Catalogue(root / ".jaxret") as catalogue:
        return {row.path: row for row in catalogue.rows()}


def ids(root):
    return {path: row.id for path, row in rows(root).items()}


def summary(ran):
    return json.loads(ran.out)["summary"]


def counts(ran):
    return {name: number for name, number in summary(ran).items() if number and name != "seconds"}


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


def test_3_results_are_ascending_without_the_query_and_repeatable(jaxret, root):
    ran = jaxret("search", "a/1.jpg")
    found = [line.split("\t") for line in ran.lines]
    assert (ran.status, len(found)) == (0, 20)
    own = ids(root)
    keys = [(int(distance), own[path]) for distance, path in found]
    assert keys == sorted(keys)
    assert "a/1.jpg" not in [path for _, path in found]
    assert jaxret("search", "a/1.jpg").out == ran.out


def test_4_fewer_results_are_the_first_of_more(jaxret, root):
    assert jaxret("search", "a/1.jpg", "-n", "5").lines == jaxret("search", "a/1.jpg").lines[:5]


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


def test_18_every_name_arrives_whole(jaxret, root):
    names = ["with space.jpg", 'quote".jpg', "new\nline.jpg", "🐈.jpg", "-rf.jpg", b"\xff\xfe.jpg"]
    for number, name in enumerate(names):
        photos.save(root / "x.jpg", 200 + number)
        os.rename(root / "x.jpg", os.path.join(os.fsencode(root), os.fsencode(name)))
    assert jaxret("index", ".").status == 0
    ran = jaxret("search", "id:0", "-n", "50", "-0")
    listed = subprocess.run(["xargs", "-0", "ls", "-1"], input=ran.out, capture_output=True)
    assert listed.returncode == 0, listed.stderr
    assert len(ran.out.split(b"\0")) == 36
    document = json.loads(jaxret("search", "id:0", "-n", "50", "--json").out.decode())
    import base64

    odd = [r for r in document["results"] if "path_base64" in r]
    assert [base64.b64decode(r["path_base64"]) for r in odd] == [b"\xff\xfe.jpg"]
    paths = {r["path"] for r in document["results"]}
    assert {"new\nline.jpg", "./-rf.jpg", 'quote".jpg', "🐈.jpg"} <= paths


def test_19_nothing_found_and_words_are_told_apart(jaxret, root, tmp_path, monkeypatch):
    ran = jaxret("search", "a/1.jpg", "--max-distance", "0")
    assert (ran.status, ran.out) == (1, b"")
    assert "29 images were searched" in ran.err
    ran = jaxret("search", "cat")
    assert ran.status == 2
    assert ran.err == 'jaxret: no file "cat": jaxret searches by image, not by words\n'
    assert jaxret("search", "a").status == 2
    assert jaxret("search", "id:99").status == 2
    assert jaxret("search", "id:0", "id:1", "--max-distance", "3").status == 2
    monkeypatch.chdir(tmp_path)  # where there is no index
    assert 'no file "cat"' in jaxret("search", "cat").err
    assert 'no file "photos/a/none.jpg"' in jaxret("search", "photos/a/none.jpg").err


def test_20_several_queries_are_a_sum_of_distances(jaxret, root):
    codes = {}
    for path, number in ids(root).items():
        text = json.loads(jaxret("info", f"id:{number}", "--json").out)["image"]["code"]
        codes[path] = (number, np.array(list(text)) == "1")
    ran = jaxret("search", "a/1.jpg", "b/2.jpg", "--not", "c/3.jpg", "--json", "-n", "50")
    a, b, c = (codes[path][1] for path in ("a/1.jpg", "b/2.jpg", "c/3.jpg"))
    expected = sorted(
        (int((x != a).sum() + (x != b).sum() - (x != c).sum()), number, path)
        for path, (number, x) in codes.items()
        if path not in ("a/1.jpg", "b/2.jpg", "c/3.jpg")
    )
    found = [(r["distance"], r["id"], r["path"]) for r in json.loads(ran.out)["results"]]
    assert found == expected


def test_24_no_escape_and_no_progress_where_no_terminal_is(jaxret, root, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    photos.save(root / "a/new.jpg", 99)
    ran = jaxret("index", root)
    assert len(ran.err.splitlines()) == 1
    assert "\x1b" not in ran.err
    assert "\r" not in ran.err
    ran = jaxret("search", "a/new.jpg")
    assert b"\x1b" not in ran.out
    assert ran.err == ""
    assert jaxret("index", root, "-q").err == ""


def test_filters_narrow_by_folder_label_date_and_size(jaxret, root):
    def paths(*filters):
        return jaxret("search", "id:0", "-n", "50", "--paths", *filters).lines

    assert sorted(paths("--in", "b")) == sorted(p for p in ids(root) if p.startswith("b/"))
    assert sorted(paths("--label", "c")) == sorted(p for p in ids(root) if p.startswith("c/"))
    assert len(paths("--in", "b", "--in", "c")) == 20
    assert paths("--in", "nowhere") == []
    assert len(paths("--newer", "2023")) == 29
    assert paths("--newer", "2024") == []
    assert len(paths("--older", "2024-01-01")) == 29
    assert paths("--min-size", "65x1") == []
    assert len(paths("--min-size", "64x48")) == 29


def test_labels_of_a_csv_replace_folders(jaxret, root):
    (root / "labels.csv").write_text("file,label\na/1.jpg,cat\nb/2.jpg,cat|dog\nc/3.jpg,dog\n")
    assert jaxret("index", root, "--labels", "labels.csv").status == 0
    found = jaxret("search", "id:0", "--label", "cat", "--paths", "-n50").lines
    assert sorted(found) == ["a/1.jpg", "b/2.jpg"]
    (root / "wrong.csv").write_text("file,label\nz.jpg,cat\n")
    assert jaxret("index", root, "--labels", "wrong.csv").status == 2


def test_an_image_from_elsewhere_is_coded_with_the_index_own_model(jaxret, root, tmp_path):
    image = photos.save(tmp_path / "q.png", 1)
    (first, *_) = jaxret("search", image, "--index", root).lines
    distance, path = first.split("\t")
    assert path == "a/1.jpg"
    assert int(distance) <= 4  # a JPEG of the same picture
    shutil.copy("a/1.jpg", tmp_path / "copy.jpg")
    assert jaxret("search", tmp_path / "copy.jpg", "--index", root).lines[0] == "0\ta/1.jpg"


def test_an_image_comes_from_stdin(jaxret, root, monkeypatch):
    with open("a/1.jpg", "rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": file}))
        assert jaxret("search", "-").lines[0] == "0\ta/1.jpg"


def test_results_that_changed_since_are_marked(jaxret, root):
    (first, second, *_) = jaxret("search", "id:0", "--paths").lines
    os.unlink(first)
    os.utime(second, (1, 1))
    ran = jaxret("search", "id:0", "--json")
    states = {r["path"]: r["state"] for r in json.loads(ran.out)["results"]}
    assert (states[first], states[second]) == ("missing", "changed")
    assert "2 results are missing or changed since indexing; run: jaxret index ." in ran.err


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


def test_a_contact_sheet_is_one_file_that_runs_nothing(jaxret, root):
    photos.save(root / "x.jpg", 5)
    os.rename(root / "x.jpg", root / "<img src=x onerror=alert(1)>.jpg")
    jaxret("index", root)
    assert jaxret("search", "a/5.jpg", "--not", "b/1.jpg", "--html", "sheet.html").status == 0
    text = (root / "sheet.html").read_text()
    assert text.count("data:image/webp;base64,") == 22  # two queries and 20 results
    assert "<h1>Similar to a/5.jpg, unlike b/1.jpg</h1>" in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in text
    assert "default-src 'none'" in text


def test_info_tells_of_the_index_a_file_and_a_pair(jaxret, root):
    ran = jaxret("info")
    assert ran.status == 0
    assert len(ran.lines) == 10
    told = json.loads(jaxret("info", "a/1.jpg", "--json").out)["image"]
    assert (told["path"], told["width"], told["height"]) == ("a/1.jpg", 64, 48)
    assert len(told["code"]) == 64
    assert set(told["code"]) == {"0", "1"}
    assert os.path.isfile(told["thumbnail"])
    (same,) = json.loads(jaxret("search", "b/2.jpg", "-n", "1", "--in", "a", "--json").out)[
        "results"
    ]
    again = json.loads(jaxret("info", same["path"], "--json").out)["image"]
    del same["distance"]
    assert {name: again[name] for name in same} == same
    distance = json.loads(jaxret("info", "a/1.jpg", "b/2.jpg", "--json").out)["distance"]
    found = json.loads(jaxret("search", "a/1.jpg", "-n", "50", "--json").out)["results"]
    assert {r["path"]: r["distance"] for r in found}["b/2.jpg"] == distance


def test_verify_finds_an_altered_byte(jaxret, root):
    assert jaxret("info", "--verify").status == 0
    (codes,) = (root / ".jaxret/gallery").glob("*/codes-*.bin")
    content = bytearray(codes.read_bytes())
    content[7] ^= 1
    codes.write_bytes(content)
    ran = jaxret("info", "--verify")
    assert ran.status == 2
    assert "altered" in ran.err


def test_what_is_derived_may_be_deleted(jaxret, root):
    before = jaxret("search", "a/1.jpg").out
    shutil.rmtree(root / ".jaxret/gallery")
    assert jaxret("search", "a/1.jpg").out == before


def test_21_groups_are_around_a_keeper_and_never_chain(jaxret, tmp_path, monkeypatch):
    """A-B and B-C are near, A-C is not: by vectors, where this is exact."""
    root = tmp_path / "photos"
    for number, name in enumerate(("one/a.jpg", "two/b.jpg", "two/c.jpg", "two/d.jpg")):
        photos.save(root / name, number)
    np.save(tmp_path / "v.npy", np.array([[0, 0], [1, 0], [2, 0], [9, 9]], np.float32))
    monkeypatch.chdir(root)
    assert jaxret("index", root, "--vectors", tmp_path / "v.npy").status == 0
    ask = ("duplicates", "--max-distance", "1.5")
    groups = json.loads(jaxret(*ask, "--keep", "in:one", "--json").out)["groups"]
    assert [(g["keeper"]["path"], [m["path"] for m in g["members"]]) for g in groups] == [
        ("one/a.jpg", ["two/b.jpg"])
    ]
    groups = json.loads(jaxret(*ask, "--keep", "in:two", "--json").out)["groups"]
    assert groups[0]["keeper"]["path"] == "two/b.jpg"
    assert {m["path"] for m in groups[0]["members"]} == {"one/a.jpg", "two/c.jpg"}
    assert jaxret(*ask, "--keep", "in:one", "--paths").lines == ["two/b.jpg"]
    assert jaxret("duplicates", "--max-distance", "0.5").status == 1
    a, b = (g["digest"] for g in (groups[0]["keeper"], groups[0]["members"][0]))
    (root / "no.txt").write_text(f"{a} {b}  # not the same\n")
    ran = jaxret(*ask, "--keep", "in:two", "--ignore", "no.txt", "--json")
    assert len(json.loads(ran.out)["groups"][0]["members"]) == 1
    assert all((root / n).exists() for n in ("one/a.jpg", "two/b.jpg", "two/c.jpg", "two/d.jpg"))


def test_exact_duplicates_are_equal_bytes(jaxret, root):
    shutil.copy2("a/1.jpg", "b/copy.jpg")
    os.link("a/2.jpg", "b/hard.jpg")
    jaxret("index", root)
    assert jaxret("duplicates", "--exact", "--keep", "shortest", "--paths").lines == ["b/copy.jpg"]
    ran = jaxret("duplicates")
    assert ran.status == 0
    assert "of unlike images at most one pair is so near" in ran.err


def test_25_scores_equal_a_count_and_copies_are_overlap(jaxret, root):
    def scores():
        return json.loads(jaxret("evaluate", "--json").out)

    found = scores()
    hits = []
    for path in ids(root):
        (nearest,) = jaxret("search", path, "-n", "1", "--paths").lines
        hits.append(nearest.split("/")[0] == path.split("/")[0])
    assert found["metrics"]["map@1/retrieved"] == pytest.approx(np.mean(hits))
    assert {"precision@5", "precision@10", "map@all/all"} <= found["metrics"].keys()
    for number in range(10):
        shutil.copy2(f"a/{number}.jpg", f"a/copy{number}.jpg")
    jaxret("index", root)
    doubled = scores()
    assert doubled["protocol"]["overlap"] == 20
    assert doubled["metrics"]["map@1/retrieved"] < 0.7  # copies would make it at least 20 of 40


def test_an_export_holds_codes_ids_and_paths(jaxret, root, tmp_path):
    ran = jaxret("export", tmp_path / "out")
    assert ran.status == 0
    codes, numbers = np.load(tmp_path / "out/codes.npy"), np.load(tmp_path / "out/ids.npy")
    assert (codes.dtype, codes.shape, numbers.tolist()) == (np.uint32, (30, 2), list(range(30)))
    lines = (tmp_path / "out/images.csv").read_text().splitlines()
    assert lines[0].startswith("id,path,label")
    assert lines[1].startswith("0,a/0.jpg,a,")
    assert jaxret("export", tmp_path / "out").status == 2


@pytest.mark.slow
def test_shards_of_one_encoder_join_to_the_whole(jaxret, root, tmp_path):
    (encoder,) = (root / ".jaxret/model").iterdir()
    for part in (1, 2):
        index = tmp_path / f"shard{part}"
        ran = jaxret("index", root, "--model", encoder, "--shard", f"{part}/2", "--index", index)
        assert ran.status == 0, ran.err
        assert "0 new" not in ran.err
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
    assert "0 images: 0 new" in jaxret("index", tmp_path / "none").err
    ran = jaxret("search", "id:0", "--index", tmp_path / "none")
    assert ran.status == 2
    assert "holds no image yet" in ran.err


def test_progress_is_for_a_terminal_only(monkeypatch):
    import io

    from jaxret.app.progress import Progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, silent in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress(True)
        progress("coding", 5, 10)
        progress.started -= 2  # seconds ago
        progress("coding", 10, 10)
        progress.clear()
        assert (stream.getvalue() == "") == silent
        assert silent or "coding 10 of 10, 5 images/s, 0:00 left" in stream.getvalue()


def test_distances_are_of_increasing_rows_for_ties(jaxret, root):
    for name in ("z", "y", "x"):
        shutil.copy2("a/1.jpg", f"b/{name}.jpg")
    jaxret("index", root)
    found = json.loads(jaxret("search", "a/1.jpg", "-n", "3", "--json").out)["results"]
    assert [r["distance"] for r in found] == [0, 0, 0]
    assert all(one["id"] < two["id"] for one, two in pairwise(found))


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("search a/1.jpg --newer 2024-13-40", "a date such as 2024-05-31 is expected"),
        ("search a/1.jpg --older 2024-02-30", "a date such as 2024-05-31 is expected"),
        ("search a/1.jpg --newer 2024-01-01T99:99", "a date such as 2024-05-31 is expected"),
        ("search a/1.jpg --older 0000", "a date such as 2024-05-31 is expected"),
        ("search a/1.jpg --newer \u0662\u0660\u0662\u0664", "a date such as 2024-05-31"),
        ("search id:99999999999999999999", "no image has the id 99999999999999999999"),
        ("search a/1.jpg --in=", "--in: is empty, a value is expected"),
        ("search a/1.jpg --html=", "--html: is empty, a value is expected"),
        ("index --model look --index=", "--index: is empty, a value is expected"),
        ("index .jaxret", ".jaxret: is an index; name the folder of photos"),
        ("duplicates --max-distance nan", "--max-distance must be at least 0, got nan"),
        ("duplicates --max-distance=-1", "--max-distance must be at least 0, got -1.0"),
        ("duplicates --keep in:nope", "--keep in:nope: the index has no image there"),
    ],
)
def test_a_slip_is_told_in_one_line(jaxret, root, words, told):
    ran = jaxret(*words.split())
    assert (ran.status, ran.out) == (2, b"")
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert "defect" not in ran.err


def test_an_empty_name_is_not_the_current_folder(jaxret, root):
    assert "PHOTOS: is empty, a value is expected" in jaxret("index", "").err


@pytest.mark.parametrize("folder", ["b", "./b", "c/../b/", "{root}/b"])
def test_the_folder_to_keep_is_named_as_that_of_in(jaxret, root, folder):
    shutil.copy(root / "b/1.jpg", root / "a/copy.jpg")
    jaxret("index", root)
    ran = jaxret("duplicates", "--exact", "--paths", "--keep", f"in:{folder.format(root=root)}")
    assert ran.lines == ["a/copy.jpg"]


def test_a_join_that_is_refused_leaves_nothing(jaxret, root, tmp_path):
    target = tmp_path / "joined"
    assert jaxret("merge", target, root, tmp_path / "nowhere").status == 2
    other = tmp_path / "other"
    jaxret("index", root, "--index", other, "--model", "itq", "--bits", "8")
    ran = jaxret("merge", target, root, other)
    assert "only indexes of one encoder are joined" in ran.err
    assert not target.exists()


def test_a_sheet_does_not_replace_a_device(jaxret, root):
    os.mkfifo(root / "pipe")
    ran = jaxret("search", "a/1.jpg", "--html", root / "pipe")
    assert "pipe: cannot be written (a device or a pipe, a file is expected)" in ran.err
    assert (root / "pipe").is_fifo()


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_a_damaged_catalogue_is_told_with_the_remedy(jaxret, root, content):
    file = root / ".jaxret/catalogue.sqlite"
    file.write_bytes(file.read_bytes()[:6000] if content is None else content)
    ran = jaxret("search", "a/1.jpg")
    assert ran.status == 2
    assert "/.jaxret away and run: jaxret index PHOTOS" in ran.err


def test_closed_streams_are_no_defect(root):
    for words, status in (("search a/1.jpg >&-", 0), ("search - <&-", 2)):
        command = f"{sys.executable} -m jaxret.app.cli {words}"
        ran = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert ran.returncode == status
        assert "defect" not in ran.stderr
        assert ran.stderr.count("\n") == (status == 2)


def test_an_error_of_the_system_is_told_without_its_number(root):
    command = f"{sys.executable} -m jaxret.app.cli search a/1.jpg > /dev/full"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (2, "jaxret: No space left on device\n")


def test_an_archive_in_the_place_of_vectors_is_refused(jaxret, root):
    (root / "v.npy").write_bytes(b"PK\x03\x04 and more")
    assert "v.npy: no .npy file that can be read" in jaxret("index", root, "--vectors", "v.npy").err
    with open(root / "v.npy", "wb") as file:
        np.savez(file, a=np.ones((30, 2), np.float32))
    ran = jaxret("index", root, "--vectors", "v.npy")
    assert (ran.status, "holds several arrays" in ran.err) == (2, True)


@pytest.mark.parametrize("year", [1600, 2400])
def test_a_file_of_another_age_is_indexed_and_is_unchanged(jaxret, root, year):
    seconds = (year - 1970) * 31_556_952
    os.utime(root / "a/1.jpg", (seconds, seconds))
    ran = jaxret("index", root, "--json")
    assert (ran.status, counts(ran)["images"]) == (0, 30)
    ran = jaxret("search", "a/2.jpg", "-n", "30", "--json")
    assert {image["state"] for image in json.loads(ran.out)["results"]} == {"ok"}
    assert jaxret("search", "a/1.jpg").status == 0


def test_a_camera_without_a_date_is_no_error(jaxret, root):
    exif = Image.Exif()
    exif[0x0132] = "0001:01:01 00:00:00"  # written where a camera's clock is not set
    photos.save(root / "b/dated.jpg", 5, exif=exif)
    shutil.copy2(root / "b/dated.jpg", root / "c/dated.jpg")
    assert jaxret("index", root).status == 0
    assert jaxret("duplicates", "--exact", "--keep", "oldest").status == 0
