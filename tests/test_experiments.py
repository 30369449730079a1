"""The scripts as a person runs them: results, resuming, and one clear line for bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "experiments" / "train_vae.py"
SMALL = ("--hidden=32", "--latent_dim=4", "--epochs=3")


def start(*flags, **environment):
    """Start train_vae.py with no data folder, no GPU and no network that matters."""
    env = {name: value for name, value in os.environ.items() if name != "JAXRET_DATA_DIR"}
    return subprocess.Popen(
        [sys.executable, SCRIPT, *flags],
        cwd=ROOT,
        env=env | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*flags, **environment):
    """Run to the end: (exit code, standard output, standard error)."""
    process = start(*flags, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A work folder of a short run, and what the run said."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, out, err = run(*SMALL, f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out, err


def parameters(workdir):
    """The arrays of a run's newest checkpoint, by name."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager((Path(workdir) / "checkpoints").resolve()) as manager:
        restored = manager.restore(
            manager.latest_step(), args=ocp.args.Composite(state=ocp.args.StandardRestore())
        )
    return restored.state


def test_a_run_leaves_what_the_contract_says(finished):
    workdir, out, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        "args.flags", "log.jsonl", "metrics.json", "checkpoints", "plots"
    }  # fmt: skip
    plots = {path.name for path in (workdir / "plots").iterdir()}
    assert plots == {"losses.png", "reconstructions.png", "retrieval.png", "samples.png"}
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["schema"] == 1
    assert result["dataset"] == "digits"
    assert result["protocol"]["gallery"] + result["protocol"]["query"] == 1797
    assert result["config"]["hidden"] == "32"
    for name in ("map@1/retrieved", "map@2/retrieved", "precision@2", "map@1000/retrieved"):
        assert 0 < result["metrics"][name] <= 1
        assert name in out
    assert result["train"]["epochs"] == 3
    assert result["train"]["steps"] == 3 * (result["protocol"]["train"] // 100)
    assert result["train"]["elbo_nats"] < 0 < result["train"]["images_per_second"]
    assert {"device", "jax", "jaxret", "commit"} <= result["environment"].keys()
    assert len((workdir / "log.jsonl").read_text().splitlines()) == 3


def test_progress_tells_rate_loss_and_time_left(finished):
    _, _, err = finished
    line = err.splitlines()[0]
    assert all(word in line for word in ("epoch 1/3", "loss", "images/s", "left"))


def test_the_resolved_flags_repeat_the_run(finished, tmp_path):
    workdir, _, _ = finished
    code, _, err = run(f"--flagfile={workdir / 'args.flags'}", f"--workdir={tmp_path / 'again'}")
    assert code == 0, err
    first, again = parameters(workdir), parameters(tmp_path / "again")
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    scores = [
        json.loads((path / "metrics.json").read_text())["metrics"]
        for path in (workdir, tmp_path / "again")
    ]
    assert scores[0] == scores[1]


def test_a_killed_run_resumes_to_the_same_parameters_bit_for_bit(tmp_path):
    flags = ("--hidden=64", "--latent_dim=4", "--epochs=60", "--batch_size=10")
    code, _, err = run(*flags, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, err
    process = start(*flags, f"--workdir={tmp_path / 'killed'}", JAXRET_CHECKPOINT_SECONDS="0")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until something is saved, and the next save is under way
        if len(list((tmp_path / "killed").glob("checkpoints/[0-9]*"))) >= 2:
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    code, _, err = run(*flags, f"--workdir={tmp_path / 'killed'}", "--resume")
    assert code == 0, err
    assert "epoch 1/60" not in err  # it did not start over
    whole, resumed = parameters(tmp_path / "whole"), parameters(tmp_path / "killed")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    epochs = [[json.loads(line)["epoch"] for line in log.splitlines()] for log in logs]
    assert epochs[0] == epochs[1] == list(range(1, 61))


def test_a_two_dimensional_latent_is_drawn_and_binary_codes_show_their_balance(tmp_path):
    code, _, err = run("--latent=bernoulli", "--epochs=2", f"--workdir={tmp_path / 'bits'}")
    assert code == 0, err
    assert (tmp_path / "bits" / "plots" / "bits.png").exists()
    code, _, err = run("--latent_dim=2", "--epochs=2", f"--workdir={tmp_path / 'plane'}")
    assert code == 0, err
    assert (tmp_path / "plane" / "plots" / "latents.png").exists()


def small_idx(folder, images=3, labels=3, cut=0):
    """A data folder with an MNIST too small to be the real one."""
    import struct

    place = folder / "mnist"
    place.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = struct.pack(">4i", 0x803, images, 28, 28) + bytes(images * 784)
        (place / f"{part}-images-idx3-ubyte").write_bytes(pixels[: len(pixels) - cut])
        (place / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 0x801, labels) + bytes(labels)
        )
    return folder


BAD = {
    "unknown data set": (["--dataset=mnits"], "mnits"),
    "missing data folder": (["--dataset=mnist", "--data_dir={tmp}/none"], "none"),
    "empty data folder": (["--dataset=mnist", "--data_dir={tmp}/empty"], "empty"),
    "truncated file": (["--dataset=mnist", "--data_dir={tmp}/cut"], "train-images-idx3-ubyte"),
    "wrong checksum": (["--dataset=mnist", "--data_dir={tmp}/other"], "train-images-idx3-ubyte"),
    "labels that differ": (["--dataset=mnist", "--data_dir={tmp}/labels"], "labels"),
    "no latent": (["--latent_dim=0"], "--latent_dim must be at least 1, got 0"),
    "hidden not numbers": (["--hidden=500,x"], "--hidden must be positive whole numbers"),
    "hidden not positive": (["--hidden=500,0"], "--hidden must be positive whole numbers"),
    "hidden empty": (["--hidden="], "--hidden must be positive whole numbers"),
    "no epoch": (["--epochs=0"], "--epochs must be at least 1, got 0"),
    "batch above images": (["--batch_size=5000"], "batch_size must lie between 1 and"),
    "no temperature": (["--temperature=0"], "--temperature must be above 0, got 0"),
    "balance": (["--balance=1"], "--balance is for bernoulli and gumbel latents, not gaussian"),
    "contrast": (
        ["--contrast=1"],
        "--contrast needs one of --shift, --degrees, --zoom or --neighbours above 0",
    ),
    "neighbours alone": (["--neighbours=5"], "--neighbours needs --contrast above 0, got 0"),
    "too many neighbours": (
        ["--contrast=1", "--neighbours=5000"],
        "--neighbours must be below the number of training images, ",
    ),
    "levels": (["--quantise_levels=5"], "--quantise_levels must be 0, 2, 4, 8, 16 or 32, got 5"),
    "distance of another latent": (
        ["--distance=expected_hamming"],
        "--distance=expected_hamming is for bernoulli latents, not gaussian",
    ),
    "negative shift": (["--shift=-1"], "--shift must be at least 0, got -1"),
    "stray argument": (["latent_dim=3"], "flags start with --"),
    "unknown protocol": (["--protocol=half"], "half"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(case, tmp_path):
    (tmp_path / "empty").mkdir()
    small_idx(tmp_path / "cut", cut=100)
    small_idx(tmp_path / "other")
    small_idx(tmp_path / "labels", labels=2)
    flags, said = BAD[case]
    flags = [flag.format(tmp=tmp_path) for flag in flags]
    begun = time.monotonic()
    code, out, err = run(*flags, f"--workdir={tmp_path / 'w'}")
    assert code != 0
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: ")
    assert said in err
    assert time.monotonic() - begun < 60  # 2 s alone; the machine may be busy
    assert not (tmp_path / "w").exists()


def test_a_misspelt_flag_is_refused_with_a_suggestion(tmp_path):
    code, _, err = run("--latent_dmi=3", f"--workdir={tmp_path / 'w'}")
    assert code != 0
    assert "Did you mean: latent_dim" in err
    assert not (tmp_path / "w").exists()


def test_a_missing_work_folder_is_asked_for():
    code, _, err = run()
    assert code != 0
    assert err.startswith("error: --workdir is required")


def test_a_folder_of_another_configuration_is_refused_and_left_alone(finished):
    workdir, _, _ = finished
    before = (workdir / "args.flags").read_text()
    code, _, err = run(*SMALL, "--seed=1", f"--workdir={workdir}", "--resume")
    assert code != 0
    assert "holds checkpoints of another configuration (seed 0 there, 1 here)" in err
    code, _, err = run(*SMALL, f"--workdir={workdir}")
    assert code != 0
    assert "add --resume" in err
    assert (workdir / "args.flags").read_text() == before


def test_a_work_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(*SMALL, f"--workdir={tmp_path / 'file' / 'w'}")
    assert code != 0
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


def test_help_answers_at_once():
    begun = time.monotonic()
    code, out, _ = run("--help")
    assert code != 2
    assert "--latent_dim" in out
    assert time.monotonic() - begun < 20  # 0.2 s alone; the machine may be busy
