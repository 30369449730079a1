"""The command reproduce.py, and tables of the real scripts."""

import dataclasses
import importlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import reproduce
import table
import train_vae
from tiny_script import TWO, small

ROOT = Path(__file__).resolve().parent.parent


def test_an_unknown_table_is_refused_with_the_closest_names(tmp_path):
    for name, close in {
        "torres2018:4.22": "torres2018:4.2", "tores2018:4.4": "torres2018:4.4",
        "baseline": "torres2018:baselines", "jimenez": "jimenez2017",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match="--table: ") as caught:
            reproduce.ReproduceConfig(table=name, workdir=str(tmp_path)).check()
        message = str(caught.value)
        assert close in message
        assert message.endswith("--list names all")
        assert len(message) < 200


def test_what_is_no_regular_expression_is_refused_in_one_line():
    for flags in ({"table": "sahu"}, {"list": True}, {"list": True, "table": "sahu"}):
        with pytest.raises(ValueError, match=r"--rows must be a regular expression, got '\('"):
            reproduce.ReproduceConfig(rows="(", workdir="w", **flags).check()


def test_a_paper_or_a_list_gets_a_folder_for_each_table():
    one = reproduce.ReproduceConfig(table="sahu:1", workdir="w")
    assert one.names_one()
    for name in ("sahu", "sahu:1,gamal:vae"):
        assert not dataclasses.replace(one, table=name).names_one()


@pytest.mark.parametrize("module", ["table", "runs", "time_hasher"])
def test_modules_name_the_command_that_uses_them(module, capsys, monkeypatch):
    path = ROOT / "experiments" / f"{module}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    runpy.run_path(str(path), run_name="__main__")
    (line,) = capsys.readouterr().out.splitlines()
    assert "python experiments/reproduce.py" in line


def test_every_script_of_a_table_has_what_runs_need():
    for name, spec in reproduce.tables().items():
        script = importlib.import_module(spec.script)
        assert isinstance(script.VERSION, int), name
        assert all(callable(getattr(script, n)) for n in ("hasher", "positives", "score"))
        fields = {field.name for field in dataclasses.fields(script.CONFIG)}
        assert {*script.CONFIG.SCALARS, *script.CONFIG.EVALUATION} <= fields
        assert script.CONFIG(workdir="w", dataset=spec.dataset, protocol=spec.protocol)


def test_tables_are_run_from_their_command(tmp_path, monkeypatch, capsys):
    tables = {"tiny:1": small(*TWO, axis="x"), "tiny:2": small(TWO[0])}
    monkeypatch.setattr(reproduce, "tables", lambda: tables)
    config = reproduce.ReproduceConfig(
        table="tiny", workdir=str(tmp_path), seeds=1, epochs=1, rows="mean|two"
    )
    config.check()
    reproduce.main(config)
    out = capsys.readouterr().out
    for name in ("1", "2"):
        result = json.loads((tmp_path / name / "table.json").read_text())
        assert result["table"] == f"tiny:{name}"
        assert result["overrides"] == {"epochs": 1}
        assert (tmp_path / name / "table.md").read_text() in out
    assert (tmp_path / "1" / "plots" / "table.png").stat().st_size > 1000
    assert not (tmp_path / "2" / "plots").exists()


def test_tables_of_one_name_in_two_papers_are_both_kept(tmp_path, monkeypatch):
    tables = {"tiny:1": small(TWO[0]), "other:1": small(TWO[0])}
    monkeypatch.setattr(reproduce, "tables", lambda: tables)
    config = reproduce.ReproduceConfig(
        table="tiny,other:1", workdir=str(tmp_path), seeds=1, epochs=1, rows="none"
    )
    reproduce.main(config)
    for paper in ("tiny", "other"):
        result = json.loads((tmp_path / paper / "1" / "table.json").read_text())
        assert result["table"] == f"{paper}:1"


# With the real scripts.


def real(*rows, workdir, **about):
    """The rows of a table of train_vae after a run of an epoch."""
    base = train_vae.VaeConfig(workdir=str(workdir), epochs=1)
    spec = table.Table("title", rows, dataset="digits", **about)
    return dict(table.run_tables({"x": spec}, lambda _: base, 1, 1))["x"]["rows"]


@pytest.mark.soak
def test_a_row_with_positives_trains(tmp_path):
    settings = {"hidden": "32", "contrastive_weight": 10.0, "knn_positives": 3}
    (row,) = real(table.Row("positives", None, None, settings, ""), workdir=tmp_path)
    assert row["ours"]["seeds"] == 1


@pytest.mark.soak
def test_codes_of_one_training_are_each_encoded_in_their_own_way(tmp_path):
    settings = {"latent": "gumbel", "num_classes": 4, "num_distributions": 6}
    codes = ("one_hot", "probabilities", "log_ratios")
    rows = [table.Row(code, None, None, settings | {"gumbel_codes": code}, "") for code in codes]
    shared = real(*rows, workdir=tmp_path)
    for row, found in zip(rows, shared, strict=True):
        (alone,) = real(row, workdir=tmp_path / "alone")
        assert alone["ours"]["mean"] == found["ours"]["mean"]
    assert len({row["ours"]["mean"] for row in shared}) == len(codes)


@pytest.mark.soak
def test_vmapped_trainings_of_an_autoencoder_score_as_those_one_at_a_time(tmp_path):
    spec = table.Table(
        "title", (table.Row("mean", 0.9, {}), table.Row("beta", 0.9, {"beta": 0.5})),
        dataset="digits",
    )  # fmt: skip
    alone, vmapped = (
        dict(table.run_tables(
            {"x": spec},
            lambda _, n=n: train_vae.VaeConfig(workdir=str(tmp_path / str(n)), epochs=1), 1, n,
        ))["x"]
        for n in (1, 2)
    )  # fmt: skip
    assert (alone["vmap_runs"], vmapped["vmap_runs"]) == (1, 2)
    for one, other in zip(alone["rows"], vmapped["rows"], strict=True):
        assert one["as_published"]["mean"] == pytest.approx(other["as_published"]["mean"], abs=0.02)


@pytest.mark.soak
def test_the_command_writes_tables_with_their_text_and_charts(tmp_path):
    flags = (
        "--dataset=digits",
        "--epochs=1",
        "--seeds=1",
        "--rows=(levels = 2$|, 2 comp|Q, 10 bits$)",
    )
    asked = "--table=torres2018:4.5,torres2018:baselines"
    command = [sys.executable, ROOT / "experiments" / "reproduce.py", asked, *flags]
    command.append(f"--workdir={tmp_path}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, count in (("4.5", 1), ("baselines", 2)):
        folder = tmp_path / name
        result = json.loads((folder / "table.json").read_text())
        assert result["table"] == f"torres2018:{name}"
        assert sum(row["ours"] is not None for row in result["rows"]) == count
        assert (folder / "table.md").read_text() in done.stdout
        assert (folder / "plots" / "table.png").stat().st_size > 1000


@pytest.mark.soak
def test_a_reader_that_has_seen_enough_of_the_list_is_no_error():
    with subprocess.Popen(
        [sys.executable, ROOT / "experiments" / "reproduce.py", "--list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1
