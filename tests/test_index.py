"""The parts of an index: comparing, ids, searching a snapshot; and that no kill loses anything."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_photos as photos
import numpy as np
import pytest

from jaxret.gallery import Gallery
from jaxret.index import PhotoIndexError, build, search, snapshot, verify
from jaxret.index.calibrate import chance_radius
from jaxret.index.catalogue import Catalogue, Row
from jaxret.index.compare import are_too_many, assign, compare
from jaxret.index.scan import Entry, Listing, Shard, scan
from jaxret.index.thumbs import trim
from jaxret.index.update import FLUSH

DRIVER = Path(__file__).with_name("index_run.py")
LATER = 10**19 // 10  # ns; long after any mtime here


def row(number, path, digest, *, mtime=5, inode=None):
    inode = number if inode is None else inode
    return Row(number, path, 10, mtime, inode, LATER, digest, None, False)


def entry(row, **changes):
    return Entry(row.size, row.mtime_ns, 0, 1, row.inode)._replace(**changes)


def listing(**files):
    return Listing({path.replace("__", "/"): e for path, e in files.items()}, {}, 0, 0)


def test_equal_facts_are_not_read_and_young_ones_are():
    old, young = row(0, "a", b"x"), row(1, "b", b"y", mtime=LATER - 10**9)
    changes = compare([old, young], listing(a=entry(old), b=entry(young)))
    assert (changes.same, changes.suspect) == ([old], [young])
    assert compare([old], listing(a=entry(old)), recheck=True).suspect == [old]
    assert compare([old], listing(a=entry(old, size=11))).suspect == [old]
    assert compare([old], listing(b=entry(old))).missing == [old]


def test_inodes_that_all_differ_mean_nothing():
    rows = [row(n, f"f{n}", b"%d" % n) for n in range(20)]
    foreign = listing(**{r.path: entry(r, inode=r.inode + 1000) for r in rows})
    assert compare(rows, foreign).moved_inode == rows
    turned = listing(**{r.path: entry(r, inode=(r.inode + 1) % 20) for r in rows})
    assert compare(rows, turned).suspect == rows  # renumbered files: the bytes decide


def test_ids_follow_content_whatever_the_order():
    a, b = row(0, "a", b"A"), row(1, "b", b"B")
    swapped = assign([], [a, b], {"a": b"B", "b": b"A"})
    assert (swapped.moved, swapped.new, swapped.lost) == ({"a": b, "b": a}, [], [])
    replaced = assign([], [a], {"a": b"N", "z": b"A"})  # mv a z, then a new a
    assert (replaced.moved, replaced.changed, replaced.new) == ({"z": a}, {}, ["a"])
    over = assign([b], [a], {"a": b"B"})  # mv b a
    assert (over.moved, over.lost) == ({"a": b}, [a])
    copies = assign([row(2, "m", b"A"), a], [], {"x": b"A", "y": b"A", "z": b"A"})
    assert {path: r.id for path, r in copies.moved.items()} == {"x": 0, "y": 2}
    assert copies.new == ["z"]


def test_few_or_a_minority_of_removals_is_believed():
    assert [are_too_many(*pair) for pair in ((9, 9), (10, 10), (15, 30), (16, 30))] == [
        False,
        True,
        False,
        True,
    ]


def test_one_file_with_several_names_is_listed_once(tmp_path):
    photos.save(tmp_path / "b/1.jpg", 1)
    os.link(tmp_path / "b/1.jpg", tmp_path / "a.jpg")
    photos.save(tmp_path / "c/2.jpg", 2)
    os.symlink("c/2.jpg", tmp_path / "0.jpg")
    os.symlink("..", tmp_path / "c/loop")
    outside = photos.save(tmp_path.parent / f"{tmp_path.name}-outside/3.jpg", 3)
    os.symlink(outside.parent, tmp_path / "folder")
    os.symlink(outside, tmp_path / "3.jpg")
    found = scan(tmp_path)
    assert (list(found.files), found.links) == (["3.jpg", "a.jpg", "c/2.jpg"], 2)
    assert list(scan(tmp_path, known={"b/1.jpg"}).files) == ["3.jpg", "b/1.jpg", "c/2.jpg"]


def test_shards_share_the_paths_out():
    paths = [f"{n}.jpg" for n in range(200)]
    shares = [{p for p in paths if Shard(part, 3).holds(p)} for part in (1, 2, 3)]
    assert sorted(p for share in shares for p in share) == sorted(paths)
    assert min(map(len, shares)) > 40


@pytest.mark.parametrize(("n", "bits", "k"), [(1, 1, 3), (300, 40, 300), (1000, 64, 9)])
def test_numpy_search_is_that_of_a_gallery_row_for_row(n, bits, k):
    draw = np.random.default_rng(n)
    words = draw.integers(0, 2**32, (n, -(-bits // 32)), dtype=np.uint32)
    words[:, -1] &= np.uint32(2 ** (bits % 32 or 32) - 1)
    words[n // 2 :] = words[: n - n // 2]  # ties
    ids = np.sort(draw.choice(10 * n, n, replace=False)).astype(np.int64)
    rows = snapshot.Snapshot(ids, words, "codes", bits, 1)
    for query in words[:3]:
        distances = snapshot.distances(rows, query)
        best = snapshot.nearest(distances, k)
        found = Gallery.from_codes(words, bits, ids).search(query[None], k)
        expected = found.indices[0][: len(best)]
        assert ids[best].tolist() == expected.tolist()
        assert distances[best].tolist() == found.distances[0][: len(best)].tolist()


def test_a_compiled_search_is_never_that_of_other_rows():
    codes = np.random.default_rng(0).integers(0, 2**32, (50, 2), dtype=np.uint32)
    rows = snapshot.compiled(snapshot.Snapshot(np.arange(50), codes, "codes", 64, 1))
    part = rows._replace(ids=rows.ids[10:], values=codes[10:])
    whole = snapshot.distances(rows._replace(compiled=None), codes[3])
    assert snapshot.distances(rows, codes[3]).tolist() == whole.tolist()
    assert snapshot.distances(part, codes[3]).tolist() == whole[10:].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9995])
@pytest.mark.parametrize("signs", [(0, 60), (-30, 30)])
def test_the_nearest_of_the_rows_that_are_kept_are_those_of_a_sort(share, signs):
    draw = np.random.default_rng(0)
    values, keep = draw.integers(*signs, 30_000), draw.random(30_000) >= share
    for k in (1, 20, 40_000):
        ranked = sorted(np.flatnonzero(keep).tolist(), key=lambda row: (values[row], row))
        for kind in (np.int64, np.float32):
            assert snapshot.nearest(values.astype(kind), k, keep).tolist() == ranked[:k]
            without = np.array([*ranked[:1], *ranked[4:6], 7, 7])
            others = [row for row in ranked if row not in without]
            assert snapshot.nearest(values.astype(kind), k, keep, without).tolist() == others[:k]
            if keep.all():
                found = snapshot.nearest(values.astype(kind), k, None, without)
                assert found.tolist() == others[:k]


def test_distances_of_vectors_are_squared_euclidean():
    x = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    rows = snapshot.Snapshot(np.arange(50), x, "vectors", 7, 1)
    expected = ((x - x[3][None]) ** 2).sum(axis=1)
    np.testing.assert_allclose(snapshot.distances(rows, x[3]), expected, rtol=1e-5)


def test_the_chance_radius_shrinks_as_an_index_grows():
    random_pairs = {"mean": 32.0, "deviation": 4.0, "pairs": 1000}  # 64 fair bits
    radii = [chance_radius(random_pairs, "codes", 64, n) for n in (2, 100, 10_000, 1_000_000)]
    assert radii == sorted(radii, reverse=True)
    # binomial(64, 1/2): P(d <= 9) = 1.9e-9 and P(d <= 10) = 1.0e-8; 10,000 images are 5e7 pairs
    assert radii[2] == 10


def test_thumbnails_are_capped_and_the_oldest_go(tmp_path):
    for number in range(4):
        path = tmp_path / f"thumbs/ab/{number}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))
    assert trim(tmp_path, 250) == 2
    assert sorted(p.name for p in (tmp_path / "thumbs/ab").iterdir()) == ["2.webp", "3.webp"]


def test_a_newer_or_damaged_catalogue_is_refused(tmp_path):
    with Catalogue(tmp_path, write=True) as catalogue:
        catalogue.set_facts(format=99)
    with pytest.raises(PhotoIndexError, match="has format 99"):
        Catalogue(tmp_path)
    (tmp_path / "catalogue.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(PhotoIndexError, match="not a database"):
        Catalogue(tmp_path)


def test_a_folder_with_something_else_is_no_index(tmp_path):
    root = photos.make(tmp_path / "photos", 3)
    with pytest.raises(PhotoIndexError, match="a folder of its own"):
        build(root, root, model="look")


def test_vectors_by_name_and_by_order(tmp_path):
    root = photos.make(tmp_path / "photos", 6)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    assert build(root, tmp_path / "1", vectors=tmp_path / "x.npy").new == 6
    by_order = search([str(root / "a/0.jpg")], tmp_path / "1", n=1).results[0].path
    names = [f"{folder}/{n}.jpg" for folder in "abc" for n in range(2)]
    order = [5, 4, 3, 2, 1, 0]
    np.save(tmp_path / "y.npy", x[order])
    (tmp_path / "y.txt").write_text("".join(f"{names[n]}\n" for n in order))
    assert build(root, tmp_path / "2", vectors=tmp_path / "y.npy").new == 6
    assert search([str(root / "a/0.jpg")], tmp_path / "2", n=1).results[0].path == by_order
    photos.save(root / "a/9.jpg", 9)
    later = build(root, tmp_path / "1")
    assert [(f.path, f.reason) for f in later.skipped] == [
        ("a/9.jpg", "no vector in --vectors FILE.npy")
    ]
    stranger = photos.save(tmp_path / "q.jpg", 77)
    with pytest.raises(PhotoIndexError, match="leave out --bits"):
        build(root, tmp_path / "3", vectors=tmp_path / "x.npy", bits=64)
    with pytest.raises(PhotoIndexError, match="vectors of another model"):
        search([str(stranger)], tmp_path / "1")


def test_an_interrupt_keeps_what_is_done(tmp_path):
    root = photos.make(tmp_path / "photos", 150)

    def interrupt(phase, done, total):
        if phase == "coding" and done >= FLUSH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(root, model="look", progress=interrupt)
    kept = search([0], root / ".jaxret", n=500).searched + 1
    assert kept == FLUSH
    assert build(root, model="look").new == 150 - FLUSH


@pytest.mark.soak
def test_features_to_learn_from_are_not_computed_again(tmp_path, monkeypatch):
    from functools import partial

    from jaxret import hashers
    from jaxret.index import coder

    without_weights = partial(hashers.photo_hasher, features="colour-histogram")
    monkeypatch.setitem(hashers.HASHERS, "photo", without_weights)
    root = photos.make(tmp_path / "photos", 150)
    computed, keep = [], coder._keep_features
    stop = True

    def kept(catalogue, key, batch, rows):
        keep(catalogue, key, batch, rows)
        computed.append(len(batch))
        if stop and sum(computed) > FLUSH:
            raise KeyboardInterrupt

    monkeypatch.setattr(coder, "_keep_features", kept)
    with pytest.raises(KeyboardInterrupt):
        build(root, bits=16)
    stop = False
    assert build(root, bits=16).new == 150
    assert computed == [FLUSH, FLUSH, 150 - 2 * FLUSH]
    assert (root / ".jaxret/catalogue.sqlite").stat().st_size < 200_000  # features are gone again
    again = build(root, tmp_path / "whole", bits=16)
    assert again.new == 150
    whole = {path: code for _, path, code in codes(root)}
    with Catalogue(tmp_path / "whole") as catalogue:
        paths = {r.id: r.path for r in catalogue.rows()}
        assert {paths[number]: code for number, code in catalogue.codes()} == whole


def kill_at(root, moments):
    """Index a folder, again and again, killed a while after the n-th line that begins so."""
    for prefix, nth, seconds in moments:
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(root)], stdout=subprocess.PIPE, text=True
        )
        lines = (line for line in process.stdout if line.startswith(prefix))
        assert len(list(itertools.islice(lines, nth))) == nth
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert process.returncode == -signal.SIGKILL
        yield


def staged(root):
    with Catalogue(root / ".jaxret") as catalogue:
        return catalogue.query("SELECT count(*) FROM contents")[0][0]


def codes(root):
    with Catalogue(root / ".jaxret") as catalogue:
        paths = {r.id: r.path for r in catalogue.rows()}
        return [(number, paths[number], code) for number, code in catalogue.codes()]


def check_kills(tmp_path, count, moments, monkeypatch):
    root = photos.make(tmp_path / "photos", 20)
    build(root, model="look")
    for number in range(20, count):
        photos.save(root / f"d/{number:05}.jpg", number)
    shutil.copytree(root, tmp_path / "whole")
    build(tmp_path / "whole", model="look")
    before = search([0], root / ".jaxret", n=10)
    done = 20
    for _ in kill_at(root, moments):
        found = search([0], root / ".jaxret", n=10)
        assert [i.id for i in found.results] == [i.id for i in before.results]
        assert staged(root) >= done  # what was coded stays
        done = staged(root)
    coded = []
    from jaxret.index import update

    flush = update._Run._flush
    monkeypatch.setattr(
        update._Run,
        "_flush",
        lambda run, *args: (coded.append(len(run.pending)), flush(run, *args))[1],
    )
    assert build(root).new == count - 20
    assert sum(coded) == count - done  # nothing is coded twice but what a kill cut off
    assert codes(root) == codes(tmp_path / "whole")
    assert verify(root / ".jaxret") == []


def test_a_kill_loses_at_most_a_batch(tmp_path, monkeypatch):
    moments = [("coding", 1, 0.0), ("coding", 1, 0.02), ("publish", 1, 0.0)]
    check_kills(tmp_path, 200, moments, monkeypatch)


@pytest.mark.soak
def test_twenty_kills_lose_at_most_a_batch_each(tmp_path, monkeypatch):
    draw = random.Random(0)
    moments = [("coding", 1 + (number < 6), draw.uniform(0, 0.2)) for number in range(19)]
    check_kills(tmp_path, 2000, [*moments, ("publish", 1, 0.0)], monkeypatch)


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, **options
    )


def test_an_indexed_image_is_searched_without_jax(tmp_path):
    root = photos.make(tmp_path / "photos", 6)
    build(root, model="look")
    code = (
        "import sys; from jaxret.app.cli import main\n"
        "for a in (['search', 'a/1.jpg'], ['search', 'id:0', '--json'], ['duplicates', '--exact'],"
        " ['info', 'a/1.jpg'], ['index', '.']): main(a)\n"
        "print({'jax', 'flax'} & set(sys.modules))"
    )
    ran = python("-c", code, cwd=root)
    assert ran.stdout.splitlines()[-1] == "set()", ran.stderr
    head = subprocess.run(
        f"{sys.executable} -m jaxret.app.cli search a/1.jpg | head -n 1",
        shell=True,
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (head.stdout.count("\n"), head.stderr) == (1, "")


def test_help_is_quick_and_wrong_use_is_one_line():
    for arguments in (["--help"], ["search", "--help"], ["--version"], ["--completion", "bash"]):
        ran = python("-X", "importtime", "-m", "jaxret.app.cli", *arguments)
        assert ran.returncode == 0
        assert ran.stdout
        assert not [line for line in ran.stderr.splitlines() if line.endswith((" numpy", " jax"))]
    ran = python("-m", "jaxret.app.cli", "search", "x.jpg", "--nonsense")
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
