"""Benchmarks: rows keep the contract, a wrong answer is noticed, the accelerator's plan is kept."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import check_device
import convolutions
import encode as encoding
import jax
import jax.numpy as jnp
import numpy as np
import pieces
import pytest
import run_accelerator
import search as benchmark
import search_device
import search_peers
import timing
import train as training
import train_device

from jaxret import search
from jaxret.search import host, trial
from jaxret.search import rows as search_rows

ROOT = Path(__file__).resolve().parent.parent
FIELDS = {"case", "seconds", "spread", "peer", "peer_seconds", "ratio", "equal"}


def rows_of(script, tmp_path, *options):
    path = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "benchmarks" / script, f"--json={path}", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@pytest.fixture(autouse=True)
def budgets(monkeypatch):
    """A benchmark may forbid NumPy's searches, and hurry trials: for its own test only."""
    for module in (host, search_rows):
        monkeypatch.setattr(module, "BUDGET", module.BUDGET)
    monkeypatch.setattr(trial, "PATIENCE", trial.PATIENCE)


def test_a_search_case_is_timed_checked_and_written(tmp_path, monkeypatch, capsys):
    path = tmp_path / "rows.json"
    flags = ["--n=3000", "--bits=12", "--d=", "--queries=4", "--k=5", "--seconds=0.1"]
    monkeypatch.setattr(sys, "argv", ["search.py", f"--json={path}", *flags])
    benchmark.main()
    rows = json.loads(path.read_text())
    assert all(row.keys() >= FIELDS for row in rows)
    assert all(row["case"] == "hamming 12 bits, n=3000, q=4, k=5" for row in rows)
    assert all(row["equal"] in (True, None) for row in rows)
    assert all(row["cpu"] and row["vector_popcount"] in (True, False, None) for row in rows)
    assert {row["function"] for row in rows} == {"hamming_topk", "Gallery.search"}
    assert "ms, " in benchmark.tables(rows)
    assert "Gallery" in benchmark.tables(rows)
    benchmark.main()  # nothing is left
    assert json.loads(path.read_text()) == rows


@pytest.mark.soak
def test_the_jobs_at_scale_check_what_they_find(tmp_path):
    rows = rows_of("scale.py", tmp_path, "--n=40000", "--rows=600", f"--folder={tmp_path}")
    assert [row["equal"] for row in rows] == [True, True]
    assert all(row["peak_bytes"] > 0 for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.json"]


def test_recall_is_the_share_of_rows_that_are_as_near_as_the_last_exact_one():
    ours, peer = np.array([[1, 2, 3], [0, 0, 4]]), np.array([[1, 3, 4], [4, 4, 5]])
    assert benchmark.recall((ours,), (peer,)) == pytest.approx(4 / 6)


def test_codes_around_centres_are_nearer_to_each_other_than_random_ones():
    codes = benchmark.random_codes(np.random.default_rng(0), 300, 64, centres=1)
    other = benchmark.random_codes(np.random.default_rng(1), 300, 64, centres=1)  # the same centre
    assert abs(np.bitwise_count(codes ^ other).sum(axis=1).mean() - 64 * 2 * 7 / 64) < 1


@pytest.mark.soak
def test_approximate_indexes_are_timed_with_their_recall(tmp_path):
    pytest.importorskip("faiss")
    flags = "--n=3000 --bits=64 --d= --queries=4 --k=5 --seconds=0.1 --approximate --centres=30"
    rows = rows_of("search.py", tmp_path, *flags.split())
    assert sum("recall" in row for row in rows) == 4
    assert all(row["recall"] > 0.5 for row in rows if "recall" in row)


@pytest.mark.soak
def test_the_approximate_graph_of_vectors_is_timed_with_its_recall(tmp_path):
    pytest.importorskip("hnswlib")
    flags = "--n=3000 --bits= --d=8 --queries=4 --k=5 --seconds=0.1 --approximate"
    rows = rows_of("search.py", tmp_path, *flags.split())
    found = [row for row in rows if row["peer"].startswith("hnswlib")]
    assert len(found) == 2
    assert all(row["recall"] > 0.8 for row in found)


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


@pytest.mark.slow
def test_the_count_over_the_gallery_notices_a_lost_neighbor_and_a_wrong_order_of_ties():
    rng = np.random.default_rng(0)
    gallery, query = (benchmark.random_codes(rng, n, 16) for n in (3000, 5))
    distances, rows = exact_answer(query, gallery, 21)
    layout = search.lay_out(gallery)

    def is_exact(columns):
        parts = (jnp.asarray(part[:, columns], jnp.int32) for part in (distances, rows))
        found = search.Neighbors(*parts)
        return search_device.is_exact(layout, jnp.asarray(query), found)

    assert is_exact(list(range(20)))
    assert not is_exact([*range(1, 21)])  # the nearest is lost
    tied = int(np.argmax((distances[:, 1:20] == distances[:, :19]).all(axis=0)))
    if distances[0, tied] == distances[0, tied + 1]:
        swapped = list(range(20))
        swapped[tied], swapped[tied + 1] = tied + 1, tied
        assert not is_exact(swapped)


def test_medians_of_runs_taken_in_turn_give_the_ratio():
    row = timing.summary("case", [1.0, 2.0, 3.0], "peer", [8.0, 4.0, 6.0], True)
    assert row.keys() == FIELDS
    assert (row["seconds"], row["peer_seconds"], row["ratio"]) == (2.0, 6.0, 3.0)
    calls = []
    timing.in_turn(lambda: calls.append("a"), lambda: calls.append("b"), repeats=2, warmup=0)
    assert calls == ["a", "b", "a", "b"]
    rows = timing.compare("case", lambda: None, {"b": lambda: None}, equal={}, work=10, calls=2)
    assert rows[0].keys() == FIELDS | {"images_per_second", "peer_images_per_second"}


def test_a_missing_peer_is_named_in_one_line(capsys):
    assert timing.installed("numpy", "no_such_module") == ("numpy",)
    assert capsys.readouterr().out.splitlines() == [
        "no_such_module is not installed: no row compares jaxret with it."
    ]


@pytest.mark.parametrize("module", ["timing", "peers", "search_peers", "epochs"])
def test_a_module_says_in_one_line_that_it_is_no_command(module):
    command = [sys.executable, ROOT / "benchmarks" / f"{module}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{module}.py is a module, not a command;")


@pytest.mark.slow
def test_a_script_names_its_flags_in_sentences_without_jax():
    for script in (
        "search", "search_device", "encode", "encode_photos", "index_photos", "train",
        "train_device", "convolutions", "scale", "check_device", "run_accelerator",
    ):  # fmt: skip
        path = ROOT / "benchmarks" / f"{script}.py"
        command = [sys.executable, "-X", "importtime", path, "-h"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not re.search(r"\| +jax$", done.stderr, re.MULTILINE), script
        assert "--quick" in done.stdout, script


def test_every_way_to_convolve_gives_the_same():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 4, 5, 3)), rng.normal(size=(3, 3, 3, 2))
    y = rng.normal(size=(2, 4, 5, 2)).astype(np.float32)
    arrays = jax.device_put((x.astype(np.float32), y, kernel.astype(np.float32)))
    for own, others in convolutions.CASES.values():
        for other in others.values():
            np.testing.assert_allclose(other(*arrays), own(*arrays), rtol=1e-4, atol=1e-4)


def test_an_error_is_a_norm_and_what_is_not_finite_is_no_number():
    reference = np.array([3.0, 4.0, np.inf])
    assert check_device.error_of(reference, reference) == 0
    assert check_device.error_of(np.array([3.0, 4.5, np.inf]), reference) == pytest.approx(0.1)
    assert check_device.error_of(np.array([3.0, 4.0, 5.0]), reference) == np.inf
    assert check_device.error_of(np.array([3.0, np.nan, np.inf]), reference) == np.inf


def test_a_result_beyond_its_tolerance_is_not_equal(capsys):
    case = check_device.Case(run=None, tolerance=1e-3)
    reference = {"a": np.ones(4), "seconds": np.float64(2.0)}
    near, far = (({"a": np.full(4, value)}, 1.0) for value in (1.0001, 1.01))
    assert check_device.compared("near", case, near, reference)["equal"] is True
    row = check_device.compared("far", case, far, reference)
    assert row.keys() >= FIELDS
    assert (row["equal"], row["worst"], row["tolerance"]) == (False, "a", 1e-3)


def test_the_programs_of_the_tables_hold_every_run_once():
    programs = train_device.programs()
    sizes = [len(configs) for configs in programs.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(programs) > 10
    configs = [config for group in programs.values() for config in group]
    assert len(set(configs)) == len(configs)


def test_an_estimate_takes_the_median_for_programs_that_were_not_measured():
    run = SimpleNamespace(epochs=2)
    rows = [{"case": "torres2018 a", "vmap_runs": 8, "images_per_second": 60_000.0}]
    row = train_device.all_tables(rows, {"a": [run, run], "b": [run]})
    assert row["seconds"] == train_device.SEEDS * 6
    assert (row["programs_measured"], row["programs"]) == (1, 2)


def test_cifar_goes_into_pieces_and_comes_back_byte_for_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "TILES", 3)
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / pieces.CIFAR
    folder.mkdir(parents=True)
    (tmp_path / "data" / "mnist").mkdir()
    (tmp_path / "data" / "mnist" / "labels.gz").write_bytes(b"abc")
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        (folder / f"{name}.bin").write_bytes(rng.bytes(9 * pieces.RECORD))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pieces.py", *map(str, arguments)])
        pieces.main()

    limit = f"--mebibytes={60_000 / 2**20}"
    run("pack", f"--data_dir={tmp_path / 'data'}", f"--to={tmp_path / 'pieces'}", limit)
    numbered = sorted((tmp_path / "pieces").iterdir())
    assert [path.name for path in numbered] == ["1", "2"]
    for piece in numbered:
        assert sum(file.stat().st_size for file in piece.rglob("*") if file.is_file()) <= 60_000
        run("unpack", f"--data_dir={tmp_path / 'back'}", piece)
    packed, back = (
        {str(f.relative_to(tmp_path / top)): f.read_bytes() for f in files if f.is_file()}
        for top in ("data", "back")
        for files in [sorted((tmp_path / top).rglob("*"))]
    )
    assert packed == back


def plan(tmp_path, **changes):
    options = {"out": tmp_path, "quick": True, "slots": "abcd", "budget": 60.0, "data_dir": ""}
    return SimpleNamespace(**options | {"stretch": 1} | changes)


def slot_of(tmp_path, *codes, timed=False):
    python = [sys.executable, "-c"]

    def jobs(options):
        return [
            run_accelerator.Job(f"job{i}", [*python, code], tmp_path / f"{i}.json", timed)
            for i, code in enumerate(codes)
        ]

    return run_accelerator.Slot("a", "a test", 60, jobs)


def test_a_second_start_skips_what_is_done_and_runs_what_failed(tmp_path, capsys):
    count = f"open(r'{tmp_path / 'ran'}', 'a').write('x')"
    fails = f"import os, sys; sys.exit(not os.path.exists(r'{tmp_path / 'fixed'}'))"
    slot = slot_of(tmp_path, count, fails)
    state = run_accelerator.run_slot(plan(tmp_path), slot, time.monotonic() + 60)
    assert state.startswith("failed: it printed nothing")
    (tmp_path / "fixed").touch()
    assert run_accelerator.run_slot(plan(tmp_path), slot, time.monotonic() + 60) == "done"
    assert (tmp_path / "ran").read_text() == "x"
    assert json.loads((tmp_path / "results.json").read_text())["schema"] == 1


@pytest.mark.slow
def test_a_job_is_stopped_at_its_slots_end_and_stays_open(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_accelerator, "GRACE", 1)
    monkeypatch.setattr(run_accelerator, "START", 0.5)
    slot = slot_of(tmp_path, "import time; time.sleep(60)", "pass")
    start = time.monotonic()
    state = run_accelerator.run_slot(plan(tmp_path), slot, start + 2)
    assert state == "time is up"
    assert time.monotonic() - start < 20
    jobs = slot.jobs(None)
    assert not run_accelerator.marker(plan(tmp_path), jobs[0]).exists()


def test_a_benchmark_that_left_cases_out_stays_open(tmp_path, capsys):
    slot = slot_of(tmp_path, f"import sys; sys.exit({timing.TIME_UP})", timed=True)
    state = run_accelerator.run_slot(plan(tmp_path), slot, time.monotonic() + 60)
    assert state == "time is up"
    with pytest.raises(SystemExit) as exit_info:
        timing.end(["a case"])
    assert exit_info.value.code == timing.TIME_UP
    timing.end([])


def test_a_slot_that_cannot_run_says_why(tmp_path, capsys):
    slot = run_accelerator.SLOTS[2]
    options = plan(tmp_path, quick=False, data_dir=str(tmp_path))
    assert run_accelerator.run_slot(options, slot, time.monotonic()).startswith("skipped: CIFAR-10")
    assert "ACCELERATOR.md" in capsys.readouterr().out


def test_every_cache_of_a_job_lies_in_the_folder_of_results(tmp_path):
    environment = run_accelerator.child_environment(tmp_path)
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TMPDIR",
                 "PYTHONPYCACHEPREFIX", "CUPY_CACHE_DIR"):  # fmt: skip
        assert Path(environment[name]).is_relative_to(tmp_path)


def test_the_slots_seconds_fit_twelve_minutes():
    assert sum(slot.seconds for slot in run_accelerator.SLOTS) <= 720


@pytest.mark.soak
def test_the_rehearsal_runs_every_slot_to_its_end_and_a_second_start_does_nothing(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "run_accelerator.py", f"--out={tmp_path}",
               "--quick"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    slots = {slot["slot"]: slot for slot in results["slots"]}
    assert all(slots[letter]["done"] for letter in "abc")
    assert slots["d"]["done"] or slots["d"]["skipped"]
    rows = [row for job in slots["a"]["jobs"] for row in job["result"]]
    assert all(row["equal"] in (True, None) for row in rows)
    trained = next(job for job in slots["c"]["jobs"] if job["job"] == "train-drhn1")
    assert 0 <= trained["result"]["metrics"]["accuracy"] <= 1
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in again.stdout.splitlines() if " after " in line] == []


@pytest.mark.slow
def test_pytorchs_networks_with_the_same_weights_give_the_same_codes_and_images():
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


def test_pytorchs_searches_find_the_same_distances():
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    gallery, query = (benchmark.random_codes(rng, n, 64) for n in (2000, 7))
    expected, _ = exact_answer(query, gallery, 30)
    for name, peer in search_peers.device_peers(gallery, 64).items():
        distances, rows = (part.cpu().numpy() for part in peer(query, 30)())
        np.testing.assert_array_equal(distances, expected, err_msg=name)
        own = np.bitwise_count(query[:, None] ^ gallery[rows]).sum(axis=2)
        np.testing.assert_array_equal(own, expected, err_msg=name)
