"""The autoencoder script as a person runs it, and the tables that it fills."""

import dataclasses
import json
import re
import subprocess
import sys

import drawing
import harness
import numpy as np
import options
import pytest
import reconstructions
import reproduce
import runs
import table
import train_autoencoder
import zoo
from scripts import ROOT, in_process, refusal, run

from jaxret import data, models, viz

__all__ = ["in_process"]
PUBLISHED = {  # as the documents print them
    "sahu:1": [0.1266, 0.1127, 0.1015],
    "gamal:mnist": [0.0026, 0.0065, 0.0091, 0.0050],
    "gamal:fashion": [0.00543, 0.0131, 0.049, 0.0091],
    "gamal:vae": [37.3252, 37.3252, 67.4471],  # its network in two rows
}


@pytest.mark.soak
def test_a_run_leaves_scores_errors_and_pictures(tmp_path, monkeypatch, capsys):
    pictures = {}
    monkeypatch.setattr(drawing, "save", lambda _, named: pictures.update(named))
    flags = ("--variational", "--loss=mse", "--hidden=16", "--latent_dim=2", "--epochs=30")
    flags += ("--learning_rate=0.01",)  # or the latent says too little for its noise to matter
    result = run(train_autoencoder, tmp_path, *flags)
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
    assert "elbo_nats" not in result["train"]  # a squared error is no likelihood
    assert "mse784_plus_kl" in capsys.readouterr().out
    for name in ("interpolation", "manifold", "samples"):
        assert pictures[name]().get_suptitle().startswith("digits-test,")
    assert pictures.keys() == {
        "losses", "reconstructions", "retrieval", "latents", "manifold", "interpolation", "samples"
    }  # fmt: skip


def test_a_code_that_does_not_fit_is_one_line_and_leaves_nothing(tmp_path):
    said = refusal(train_autoencoder, tmp_path / "run", "--model=conv_up", "--latent_dim=10")
    assert said.startswith("error: a convolutional decoder without dense")
    assert not (tmp_path / "run").exists()


FLAGFILES = sorted(
    path for paper in ("sahu", "gamal") for path in (ROOT / "experiments" / paper).glob("*.flags")
)


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_flagfile_is_the_row_of_its_table_that_its_comment_names(path):
    comment = " ".join(re.findall(r"^# (.*)", path.read_text(), re.MULTILINE))
    name, title = re.match(r"Table (\S+), (.*?): ", comment).groups()
    spec = reproduce.tables()[name]
    (row,) = (row for row in spec.rows if row.name == title)
    settings = row.ours if row.settings is None else row.settings
    assert (row.published is None) == ("published" not in comment)
    assert row.published is None or f"{row.published:.4f}" in comment
    config = train_autoencoder.AutoencoderConfig
    wanted = config(dataset=spec.dataset, **settings)
    assert options.parse(config, [f"--flagfile={path}", "--data_dir="]) == dataclasses.replace(
        wanted, data_dir=options.parse(config, []).data_dir
    )


def test_every_family_of_the_documents_has_a_flagfile():
    assert [f"{path.parent.name}/{path.stem}" for path in FLAGFILES] == [
        "gamal/attention", "gamal/conv-fc-transposed", "gamal/conv-fc-up", "gamal/conv-transposed",
        "gamal/conv-up", "gamal/fc", "gamal/gru-vae", "gamal/vae", "sahu/A", "sahu/B", "sahu/C",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """A finished run of the README's own model, by its code and flags: folder and pictures."""
    folder = tmp_path_factory.mktemp("own")
    readme = (ROOT / "README.md").read_text().split("## Your own model")[1]
    code, given = re.findall(r"```(?:python|sh)\n(.*?)```", readme, re.DOTALL)[:2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (folder / "mine.py").write_text(code)
    _, script, *flags = given.split()
    assert script == "experiments/train_autoencoder.py"
    pictures = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(harness, "_prepare_process", lambda config: None)
        patch.setattr(drawing, "save", lambda _, named: pictures.update(named))
        run(train_autoencoder, "runs/strides", *flags, "--epochs=2")
    return folder, pictures


@pytest.mark.soak
def test_the_readmes_own_model_is_trained_searched_and_drawn(own_run):
    folder, pictures = own_run
    result = json.loads((folder / "runs/strides/metrics.json").read_text())
    assert result["metrics"]["code_size"] == 32
    assert result["metrics"]["map@1/retrieved"] > 0.5
    assert "reconstructions" in pictures
    assert not (folder / "runs/strides/encoder").exists()  # it has no name to be made again by


@pytest.mark.soak
def test_reconstructions_of_finished_runs_are_drawn_in_rows(own_run, monkeypatch):
    monkeypatch.chdir(own_run[0])
    config = reconstructions.ReconstructionsConfig(
        runs="runs/strides,runs/strides", names="one,two", out="plots/rows.png", images=4
    )
    config.check()
    drawn = []
    draw = viz.reconstructions
    monkeypatch.setattr(
        viz, "reconstructions", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[0]
    )
    reconstructions.main(config)
    assert (own_run[0] / "plots" / "rows.png").stat().st_size > 1000
    rows = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert rows == ["original", "one", "two"]
    one, two = (drawn[0].axes[0].images[i].get_array() for i in (4, 8))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"runs": "a"}, "--out is required"),
        ({"runs": "a", "out": "b", "images": 0}, "--images must be at least 1"),
        ({"runs": "a,b", "out": "c", "names": "x"}, "--names must name each of --runs, got 'x'"),
    ],
)
def test_reconstructions_of_nothing_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        reconstructions.ReconstructionsConfig(**given).check()


def written_table(folder, protocol, rows, size=32):
    """A table.json of (name, column, mse/test, map@2/retrieved), and one code_size."""
    folder.mkdir()
    metrics = "mse/test", "map@2/retrieved", "code_size"
    rows = [
        {"name": name, "metrics": {column: dict(zip(metrics, (*scores, size), strict=True))}}
        for name, column, *scores in rows
    ]
    content = {"table": f"paper:{folder.name}", "protocol": protocol, "rows": rows}
    (folder / "table.json").write_text(json.dumps(content))


@pytest.mark.soak
def test_the_zoo_has_a_point_for_each_result_and_their_rank_correlation(tmp_path):
    written_table(
        tmp_path / "a", "mnist-test", [("A", "ours", 0.01, 0.9), ("B", "ours", 0.02, 0.8)]
    )
    written_table(tmp_path / "b", "mnist-test", [("C", "as_published", 0.03, 0.95)], 8)
    written_table(tmp_path / "c", "fashion_mnist-test", [("A", "ours", 0.5, 0.1)])
    config = zoo.ZooConfig(tables=f"{tmp_path / 'a'},{tmp_path}", out=str(tmp_path / "zoo.png"))
    assert zoo.points_of(config) == {
        "A (paper:a)": {"ours": (0.01, 0.9)},
        "B (paper:a)": {"ours": (0.02, 0.8)},
        "C (paper:b)": {"as published": (0.03, 0.95)},
    }
    given = [sys.executable, zoo.__file__, f"--tables={config.tables}", f"--out={config.out}"]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    # Ranks 1, 2, 3 against 2, 1, 3: 1 - 6 * 2 / (3 * 8).
    assert "3 models of mnist-test: rank correlation 0.50" in done.stdout, done.stderr
    assert (tmp_path / "zoo.png").stat().st_size > 1000
    assert set(zoo.points_of(dataclasses.replace(config, code_size=8))) == {"C (paper:b)"}
    with pytest.raises(ValueError, match="3 results of digits-test, got 0"):
        zoo.main(dataclasses.replace(config, protocol="digits-test"))
    with pytest.raises(ValueError, match=r"no table\.json in nowhere"):
        zoo.points_of(dataclasses.replace(config, tables="nowhere"))


def test_a_model_of_ones_own_that_is_not_there_is_refused(tmp_path):
    base = train_autoencoder.AutoencoderConfig(workdir="w")
    with pytest.raises(ValueError, match=r"--model must be one of dense, .* FILE.py:FUNCTION, got"):
        dataclasses.replace(base, model="x").check()
    (tmp_path / "mine.py").write_text("")
    own = dataclasses.replace(base, model=f"{tmp_path / 'mine.py'}:f")
    own.check()
    with pytest.raises(ValueError, match=r"--model: .*mine\.py has no function 'f'"):
        train_autoencoder.own_model(own.model)
    with pytest.raises(ValueError, match=r"--model: there is no file none\.py"):
        train_autoencoder.own_model("none.py:f")


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


def images_of(*shape):
    """A protocol of blank images of a shape."""
    blank = data.ImageSet(np.zeros((2, *shape), np.uint8), np.zeros(2, np.int32), ("0",))
    return data.Protocol("blank", blank, blank, blank, 2)


@pytest.mark.soak
def test_every_row_builds_its_model_for_the_images_of_its_table():
    settings = {
        json.dumps(settings, sort_keys=True)
        for name in PUBLISHED
        for row in reproduce.tables()[name].rows
        for settings in (row.settings, row.ours)
        if settings is not None
    }
    for chosen in settings:
        config = train_autoencoder.AutoencoderConfig(workdir="w", **json.loads(chosen))
        made = train_autoencoder.hasher(config, images_of(28, 28, 1))
        assert made.training.epochs == config.epochs


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tables_hold_what_was_published(name):
    spec = reproduce.tables()[name]
    assert [row.published for row in spec.rows if row.published] == PUBLISHED[name]
    assert spec.lower


def test_convolutions_on_cpu_do_not_train_by_scan():
    base = train_autoencoder.AutoencoderConfig(workdir="w", latent_dim=8, channels="8")
    scanned = {}
    for name in train_autoencoder.MODELS:
        size = 0 if name in ("conv_up", "conv_transposed") else 8
        config = dataclasses.replace(base, model=name, latent_dim=size)
        scanned[name] = train_autoencoder.hasher(config, images_of(8, 8, 1)).training.scan
    assert {name for name, scan in scanned.items() if not scan} == {
        "conv_up", "conv_transposed", "conv_dense_up", "conv_dense_transposed"
    }  # fmt: skip


@pytest.mark.soak
def test_a_table_has_its_own_metric_and_extra_ones_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.harness.Progress, "__call__", lambda *_: None)
    smaller = {"hidden": "8", "latent_dim": 3}
    spec = table.Table(
        "title",
        (
            table.Row("dense", 0.5, {"hidden": "8", "latent_dim": 4}, smaller, "smaller"),
            table.Row("not run", 0.5, {"hidden": "8", "latent_dim": 5}),
        ),
        axis="map@2/retrieved",
        dataset="digits",
        script="train_autoencoder",
        metric="bce/test",
        lower=True,
        extra_metrics=("map@2/retrieved", "code_size"),
    )
    base = train_autoencoder.AutoencoderConfig(workdir=str(tmp_path), epochs=1)
    ((_, result),) = table.run_tables(
        {"paper:1": spec}, lambda _: base, 1, 2, lambda name: name == "dense"
    )
    assert result["metric"] == "bce/test (lower is better)"
    assert result["extra_metrics"] == ["map@2/retrieved", "code_size"]
    row, not_run = result["rows"]
    assert row["as_published"].keys() == {"mean", "sd", "seeds"}
    assert row["as_published"]["mean"] > 0.2
    assert row["metrics"]["as_published"]["code_size"] == 4
    assert row["metrics"]["ours"]["code_size"] == 3
    assert not_run["metrics"] == {"as_published": {}, "ours": {}}
    lines = table.markdown(result).splitlines()
    assert lines[2].endswith("| map@2/retrieved | code_size |")
    assert lines[4].endswith("| 4, 3 |")
    assert lines[5].endswith("|  |  |")
    assert len(table.chart(spec, result).axes[0].containers) == 2
    nothing = [row | {"metrics": not_run["metrics"]} for row in result["rows"]]
    assert len(table.chart(spec, result | {"rows": nothing}).axes[0].containers) == 0
