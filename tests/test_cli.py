"""The commands beside index and search, what a slip is told, and the streams of any command."""

import json
import os
import shutil
import subprocess
import sys

import made_photos as photos
import numpy as np
import pytest
from made_photos import ids, indexed, jaxret, root
from PIL import Image

__all__ = ["indexed", "jaxret", "root"]


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


def test_a_camera_without_a_date_is_no_error(jaxret, root):
    exif = Image.Exif()
    exif[0x0132] = "0001:01:01 00:00:00"  # written where a camera's clock is not set
    photos.save(root / "b/dated.jpg", 5, exif=exif)
    shutil.copy2(root / "b/dated.jpg", root / "c/dated.jpg")
    assert jaxret("index", root).status == 0
    assert jaxret("duplicates", "--exact", "--keep", "oldest").status == 0
