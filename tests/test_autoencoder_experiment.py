"""The autoencoder script as a person runs it, and the tables that it fills."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reproduce
import table
import train_autoencoder

from jaxret import models

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = {  # as the documents print them
    "sahu:1": [0.1266, 0.1127, 0.1015],
    "gamal:mnist": [0.0026, 0.0065, 0.0091, 0.0050],
    "gamal:fashion": [0.00543, 0.0131, 0.049, 0.0091],
    "gamal:vae": [37.3252, 67.4471],
}


def run(*flags):
    """Run the script to its end: (exit code, standard output, standard error)."""
    script = ROOT / "experiments" / "train_autoencoder.py"
    env = {name: value for name, value in os.environ.items() if name != "JAXRET_DATA_DIR"}
    done = subprocess.run(
        [sys.executable, script, *flags],
        cwd=ROOT,
        env=env | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_run_leaves_scores_errors_and_pictures(tmp_path):
    workdir = tmp_path / "run"
    code, out, err = run(
        "--variational", "--loss=mse", "--hidden=16", "--latent_dim=2", "--epochs=30",
        f"--workdir={workdir}",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads((workdir / "metrics.json").read_text())
    metrics = result["metrics"]
    assert {"map@1/retrieved", "map@2/retrieved", "precision@2", "map@1000/retrieved"} <= (
        metrics.keys()
    )
    for name in ("mse/train", "mse/test", "bce/train", "bce/test"):
        assert 0 < metrics[name] < 1
    # By one sample of each posterior, so above the error of the mean.
    assert metrics["mse784_plus_kl"] > 784 * metrics["mse/test"]
    assert metrics["code_size"] == 2
    assert result["config"]["variational"] is True
    assert result["train"]["epochs"] == 30
    assert "mse784_plus_kl" in out
    drawn = {path.stem for path in (workdir / "plots").glob("*.png")}
    assert drawn == {
        "losses", "reconstructions", "retrieval", "latents", "manifold", "interpolation", "samples"
    }  # fmt: skip


def test_a_code_that_does_not_fit_is_one_line_and_leaves_nothing(tmp_path):
    code, _, err = run("--model=conv_up", "--latent_dim=10", f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert err.strip().splitlines()[-1].startswith("error: a convolutional decoder without dense")
    assert not (tmp_path / "run").exists()


def test_every_model_of_the_library_is_a_choice():
    assert set(train_autoencoder.MODELS) == models.MODELS.keys()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"variational": True, "latent_dim": 0}, "--variational needs --latent_dim of at least 1"),
        ({"latent_dim": -1}, "--latent_dim must be at least 0, got -1"),
        ({"channels": "8,x"}, "--channels must be positive whole numbers"),
        ({"patch": "4"}, "--patch must be two numbers such as 4,4, got '4'"),
        ({"dropout": 1.0}, "--dropout must lie from 0 to below 1, got 1.0"),
        ({"learning_rate_end": -1.0}, "--learning_rate_end must be at least 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message):
    with pytest.raises(ValueError, match=message):
        train_autoencoder.AutoencoderConfig(workdir="w", **flags).check()


def test_every_row_builds_its_model_for_the_images_of_its_table():
    for name in PUBLISHED:
        for row in reproduce.tables()[name].rows:
            for settings in (row.settings, row.ours):
                if settings is not None:
                    config = train_autoencoder.AutoencoderConfig(workdir="w", **settings)
                    train_autoencoder.build(config, (28, 28, 1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tables_hold_what_was_published(name):
    spec = reproduce.tables()[name]
    assert [row.published for row in spec.rows if row.published] == PUBLISHED[name]
    assert spec.lower


def test_convolutions_on_cpu_do_not_train_by_scan():
    base = train_autoencoder.AutoencoderConfig(workdir="w")
    scanned = {
        name: train_autoencoder.by_scan(dataclasses.replace(base, model=name))
        for name in train_autoencoder.MODELS
    }
    assert {name for name, scan in scanned.items() if not scan} == {
        "conv_up", "conv_transposed", "conv_dense_up", "conv_dense_transposed"
    }  # fmt: skip


def test_a_table_has_its_own_metric_and_others_beside_it(tmp_path):
    conv = {"model": "conv_dense_up", "channels": "2", "latent_dim": 3, "batch_norm": True}
    spec = table.Table(
        "title",
        (
            table.Row("dense", 0.5, {"hidden": "8", "latent_dim": 4}, conv, "convolutions"),
            table.Row("not run", 0.5, {"hidden": "8", "latent_dim": 5}),
        ),
        axis="map@2/retrieved",
        dataset="digits",
        script="train_autoencoder",
        metric="bce/test",
        lower=True,
        beside=("map@2/retrieved", "code_size"),
    )
    base = train_autoencoder.AutoencoderConfig(workdir=str(tmp_path), epochs=1)
    ((_, result),) = table.run_tables(
        {"paper:1": spec}, lambda _: base, 1, 2, lambda name: name == "dense"
    )
    assert result["metric"] == "bce/test (lower is better)"
    assert result["beside"] == ["map@2/retrieved", "code_size"]
    row, not_run = result["rows"]
    assert row["as_published"].keys() == {"mean", "sd", "seeds"}
    assert row["as_published"]["mean"] > 0.2
    assert row["beside"]["as_published"]["code_size"] == 4
    assert row["beside"]["ours"]["code_size"] == 3
    assert not_run["beside"] == {"as_published": {}, "ours": {}}
    lines = table.markdown(result).splitlines()
    assert lines[2].endswith("| how | map@2/retrieved | code_size |")
    assert lines[4].endswith("| 4, 3 |")
    assert lines[5].endswith("|  |  |")
    assert len(table.chart(spec, result).axes[0].containers) == 2
    nothing = [row | {"beside": not_run["beside"]} for row in result["rows"]]
    assert len(table.chart(spec, result | {"rows": nothing}).axes[0].containers) == 0
