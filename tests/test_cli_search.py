"""`jaxret search` on an indexed folder, case by case, as a person uses it."""

import io
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import made_photos as photos
import numpy as np
from made_photos import ids, indexed, jaxret, root

__all__ = ["indexed", "jaxret", "root"]


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


def test_an_empty_pipe_is_told(jaxret, root, monkeypatch):
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": io.BytesIO()}))
    ran = jaxret("search", "-")
    assert (ran.status, ran.out) == (2, b"")
    assert ran.err == "jaxret: -: standard input held nothing, an image is expected\n"


def test_standard_input_is_one_image(jaxret, root):
    for words in (("search", "-", "-"), ("search", "-", "--not", "-"), ("info", "-", "-")):
        ran = jaxret(*words)
        assert ran.status == 2
        assert ran.err.startswith("jaxret: - is named twice, but standard input holds one image")


def test_all_images_lie_below_a_folder_that_holds_the_photos(jaxret, root):
    everything = jaxret("search", "id:0").out
    for folder in ("..", "/", str(root.parent), "../", str(root)):
        assert jaxret("search", "id:0", "--in", folder).out == everything


def test_a_folder_that_no_image_lies_under_is_named(jaxret, root):
    for command in (("search", "id:0"), ("duplicates", "--exact")):
        ran = jaxret(*command, "--in", "b/TYPO")
        assert (ran.status, ran.out) == (1, b"")
        assert "--in b/TYPO: no indexed image lies under it\n" in ran.err
    assert jaxret("search", "id:0", "--in", "TYPO").err.count("\n") == 1
    ran = jaxret("search", "id:0", "--in", "b", "--in", "TYPO")
    assert (ran.status, len(ran.lines)) == (0, 10)
    assert ran.err == "--in TYPO: no indexed image lies under it\n"
    assert jaxret("search", "id:0", "--in", "TYPO", "-q").err == ""
    for command in (("search", "id:0"), ("duplicates", "--exact")):  # b is there, /b is not
        ran = jaxret(*command, "--in", "/b")
        assert (ran.status, ran.out) == (1, b"")
        assert "--in /b: no indexed image lies under it\n" in ran.err


def test_results_that_changed_since_are_marked(jaxret, root):
    (first, second, *_) = jaxret("search", "id:0", "--paths").lines
    os.unlink(first)
    os.utime(second, (1, 1))
    ran = jaxret("search", "id:0", "--json")
    states = {r["path"]: r["state"] for r in json.loads(ran.out)["results"]}
    assert (states[first], states[second]) == ("missing", "changed")
    assert "2 results are missing or changed since indexing; run: jaxret index ." in ran.err


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


def test_distances_are_of_increasing_rows_for_ties(jaxret, root):
    for name in ("z", "y", "x"):
        shutil.copy2("a/1.jpg", f"b/{name}.jpg")
    jaxret("index", root)
    found = json.loads(jaxret("search", "a/1.jpg", "-n", "3", "--json").out)["results"]
    assert [r["distance"] for r in found] == [0, 0, 0]
    assert all(one["id"] < two["id"] for one, two in pairwise(found))


def test_a_sheet_does_not_replace_a_device(jaxret, root):
    os.mkfifo(root / "pipe")
    ran = jaxret("search", "a/1.jpg", "--html", root / "pipe")
    assert "pipe: cannot be written (a device or a pipe, a file is expected)" in ran.err
    assert (root / "pipe").is_fifo()
