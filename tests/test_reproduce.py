"""Tables: their rows, their files, and going on after a stop."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import reproduce
import table
import train_vae

ROOT = Path(__file__).resolve().parent.parent


def test_every_row_of_every_table_is_a_valid_configuration():
    for name, rows in ((name, spec.rows) for name, spec in reproduce.tables().items()):
        assert len({row.name for row in rows}) == len(rows), name
        for row in rows:
            for settings in filter(None, (row.settings, row.ours)):
                train_vae.VaeConfig(workdir="w", **settings).check()
            assert row.published is None or 0 < row.published < 1
            assert (row.ours is None) == (row.how is None)


def test_flagfiles_of_table_4_2_are_its_rows():
    published = {}
    for path in sorted((ROOT / "experiments" / "torres2018").glob("4.2-*.flags")):
        first, *lines = path.read_text().splitlines()
        given = [line[2:] for line in lines if line.startswith("--")]
        flags = dict(line.split("=") for line in given if not line.startswith("flagfile"))
        published[float(first.split("published ")[1].split(";")[0].rstrip("."))] = flags
    rows = reproduce.tables()["torres2018:4.2"].rows
    defaults = dataclasses.asdict(train_vae.VaeConfig())
    for row in rows:
        wanted = {name: str(value) for name, value in row.settings.items()}
        given = published[row.published]
        for name in wanted.keys() | given.keys():
            assert given.get(name, str(defaults[name])) == wanted.get(name, str(defaults[name]))


def test_rows_that_share_a_training_are_trained_once():
    base = train_vae.VaeConfig(workdir="w")
    mean, sample = base, dataclasses.replace(base, features="sample")
    warm = dataclasses.replace(base, temperature=0.5)
    deep = dataclasses.replace(base, hidden="500,100,50")
    groups = table._grouped([mean, sample, warm, deep])
    assert sorted(len(group) for group in groups) == [1, 3]


def test_a_table_is_written_and_goes_on_where_it_stopped(tmp_path):
    def run(*flags):
        command = [sys.executable, ROOT / "experiments" / "reproduce.py", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    flags = ("--table=torres2018:4.5", "--dataset=digits", "--epochs=1", "--seeds=2")
    first = run(*flags, f"--workdir={tmp_path}")
    assert "epoch 1/1" in first.stderr
    result = json.loads((tmp_path / "table.json").read_text())
    assert result["table"] == "torres2018:4.5"
    assert result["protocol"] == "digits-test"
    assert [row["published"] for row in result["rows"]] == [
        0.65445, 0.7769, 0.9088, 0.95285, 0.96235, 0.96435
    ]  # fmt: skip
    for row in result["rows"]:
        assert row["as_published"]["seeds"] == 2
        assert 0 < row["as_published"]["mean"] <= 1
        assert row["ours"] is None
    kept = sorted((tmp_path / "rows").iterdir())
    kept[0].unlink()
    again = run(*flags, f"--workdir={tmp_path}")
    assert "epoch 1/1" in again.stderr  # the missing row was trained for
    third = run(*flags, f"--workdir={tmp_path}")
    assert third.stderr == ""  # nothing was
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == result["rows"]
    assert (tmp_path / "table.md").read_text() in third.stdout


def test_an_unknown_table_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"--table must be one of torres2018:4\.1, .*, got 'x'"):
        reproduce.ReproduceConfig(table="x", workdir=str(tmp_path)).check()
