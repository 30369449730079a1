"""Benchmarks: rows keep the contract, and a wrong answer would be seen."""

import json
import subprocess
import sys
from pathlib import Path

import encode as encoding
import numpy as np
import pytest
import search as benchmark
import timing
import train as training

ROOT = Path(__file__).resolve().parent.parent
FIELDS = {"case", "seconds", "spread", "peer", "peer_seconds", "ratio", "equal"}


def rows_of(script, tmp_path, *options):
    path = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "benchmarks" / script, f"--json={path}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


def test_a_search_case_is_timed_checked_and_written(tmp_path):
    rows = rows_of("search.py", tmp_path, "--n=3000", "--bits=12", "--d=", "--queries=4", "--k=5",
                   "--seconds=0.1")  # fmt: skip
    assert all(row.keys() >= FIELDS for row in rows)
    assert all(row["case"] == "hamming 12 bits, n=3000, q=4, k=5" for row in rows)
    assert all(row["equal"] in (True, None) for row in rows)


def test_the_jobs_at_scale_check_what_they_find(tmp_path):
    rows = rows_of("scale.py", tmp_path, "--n=40000", "--rows=600", f"--folder={tmp_path}")
    assert [row["equal"] for row in rows] == [True, True]
    assert all(row["peak_bytes"] > 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def exact_answer(query, gallery, k):
    distances = np.bitwise_count(query[:, None] ^ gallery[None]).sum(axis=2)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, axis=1), rows


def test_the_check_notices_a_wrong_distance_a_wrong_row_and_a_wrong_order_of_ties():
    rng = np.random.default_rng(0)
    gallery, query = (benchmark.random_codes(rng, n, 8) for n in (500, 6))
    distances, rows = exact_answer(query, gallery, 20)
    peer = distances, rows
    assert benchmark.is_exact((distances, rows), peer, query, gallery, 8)
    assert not benchmark.is_exact((distances + 1, rows), peer, query, gallery, 8)
    assert not benchmark.is_exact((distances, (rows + 1) % 500), peer, query, gallery, 8)
    tied = np.argmax(distances[0, 1:] == distances[0, :-1])
    swapped = rows.copy()
    swapped[0, [tied, tied + 1]] = rows[0, [tied + 1, tied]]
    assert not benchmark.is_exact((distances, swapped), peer, query, gallery, 8)


def test_medians_of_runs_taken_in_turn_give_the_ratio():
    row = timing.summary("case", [1.0, 2.0, 3.0], "peer", [8.0, 4.0, 6.0], True)
    assert row.keys() == FIELDS
    assert (row["seconds"], row["peer_seconds"], row["ratio"]) == (2.0, 6.0, 3.0)
    calls = []
    timing.in_turn(lambda: calls.append("a"), lambda: calls.append("b"), repeats=2, warmup=0)
    assert calls == ["a", "b", "a", "b"]


def test_pytorchs_autoencoder_with_the_same_weights_gives_the_same_codes_and_images():
    pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (128, 28, 28, 1)).astype(np.uint8)
    rows = training.convolutional_rows(images, repeats=1)
    assert [row["equal"] for row in rows] == [True] * 4
    assert all(row.keys() >= FIELDS for row in rows)
    for case, make in encoding.CASES.items():
        encode, params = make()
        images = encoding.random_images(case, 20)
        codes = np.asarray(encode(params, images))
        for peer in encoding.peers_of(params).values():
            theirs = peer(images)[:, : codes.shape[1]]
            np.testing.assert_allclose(codes, theirs, atol=1e-4, err_msg=case)
