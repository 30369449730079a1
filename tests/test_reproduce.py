"""Tables: their rows, their files, and going on after a stop."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reproduce
import table
import train_vae

ROOT = Path(__file__).resolve().parent.parent


def test_every_row_of_every_table_is_a_valid_configuration():
    for name, spec in reproduce.tables().items():
        config_class = importlib.import_module(spec.script).CONFIG
        assert len({row.name for row in spec.rows}) == len(spec.rows), name
        for row in spec.rows:
            assert row.settings or row.ours is not None or row.published is not None
            for settings in (row.settings, row.ours):
                if settings is not None:
                    config_class(workdir="w", **settings).check()
            assert row.published is not None or row.settings is None
            assert (row.ours is None) == (row.how is None)
            assert row.x is None or spec.axis


OURS = ["ours-n10", "ours-10bits", "neighbours-32bits"]  # each names its table and its row


def named(first_line):
    """The table and the row that a flagfile of ours says it is."""
    return first_line.split("table ")[1].split(",")[0], first_line.split('"')[1]


@pytest.mark.parametrize("name", OURS)
def test_flagfiles_of_ours_are_rows(name):
    folder = ROOT / "experiments" / "torres2018"
    first, *lines = (folder / f"{name}.flags").read_text().splitlines()
    of_table, of_row = named(first)
    lines = (folder / "thesis.flags").read_text().splitlines() + lines
    given = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    del given["flagfile"]
    rows = {row.name: row for row in reproduce.tables()[f"torres2018:{of_table}"].rows}
    wanted = dataclasses.asdict(train_vae.VaeConfig(dataset="mnist", **rows[of_row].ours))
    assert {n: type(wanted[n])(v) for n, v in given.items()} == {n: wanted[n] for n in given}
    changed = {n for n, v in wanted.items() if v != getattr(train_vae.VaeConfig(), n)}
    assert changed <= given.keys()


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


@pytest.mark.parametrize("table_name", ["4.2", "4.6"])
def test_flagfiles_of_published_rows_say_what_the_table_measured(table_name):
    folder = ROOT / "experiments" / "torres2018"
    measured = json.loads((folder / "results" / table_name / "table.json").read_text())
    cells = {row["published"]: table._cell(row["as_published"], ".4f") for row in measured["rows"]}
    paths = sorted(folder.glob(f"{table_name}-*.flags"))
    assert paths
    for path in paths:
        first, second, *_ = path.read_text().splitlines()
        published = float(first.split("published ")[1].rstrip("."))
        assert second == f"# Measured: {cells[published]}.", path.name


@pytest.mark.parametrize("name", OURS)
def test_flagfiles_of_ours_say_what_the_table_measured(name):
    folder = ROOT / "experiments" / "torres2018"
    first, second, *_ = (folder / f"{name}.flags").read_text().splitlines()
    of_table, of_row = named(first)
    rows = json.loads((folder / "results" / of_table / "table.json").read_text())["rows"]
    (row,) = (row for row in rows if row["name"] == of_row)
    assert second == f"# Measured: {table._cell(row['ours'], '.4f')}."


def test_partners_are_the_nearest_other_images_by_principal_components():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    images[1:8] = images[0]  # more copies than partners
    config = train_vae.VaeConfig(workdir="w", contrast=1.0, neighbours=5)
    found = train_vae.partners(config, images)
    x = images.reshape(60, -1) / 255
    x = x - x.mean(axis=0)
    components = np.linalg.svd(x, full_matrices=False)[2][: train_vae.COMPONENTS]
    distances = np.square((x @ components.T)[:, None] - (x @ components.T)[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    for row, others in enumerate(found):
        assert row not in others
        assert len(set(others)) == 5
        np.testing.assert_allclose(distances[row, others], np.sort(distances[row])[:5], atol=1e-3)
    assert train_vae.partners(train_vae.VaeConfig(workdir="w"), images) is None


def test_a_row_with_neighbours_trains(tmp_path):
    settings = {"hidden": "32", "contrast": 10.0, "neighbours": 3}
    spec = small(table.Row("with neighbours", None, None, settings, "contrast 10"))
    base = train_vae.VaeConfig(workdir=str(tmp_path), epochs=1)
    (row,) = dict(table.run_tables({"x": spec}, lambda t: base, 1, 1))["x"]["rows"]
    assert row["ours"]["seeds"] == 1


def test_rows_that_share_a_training_are_trained_once():
    base = train_vae.VaeConfig(workdir="w")
    mean, sample = base, dataclasses.replace(base, features="sample")
    warm = dataclasses.replace(base, temperature=0.5)
    soft = dataclasses.replace(base, gumbel_codes="probabilities")
    deep = dataclasses.replace(base, hidden="500,100,50")
    groups = table._grouped([mean, sample, warm, soft, deep])
    assert sorted(len(group) for group in groups) == [1, 4]


def test_codes_of_one_training_are_each_encoded_in_their_own_way(tmp_path):
    settings = {"latent": "gumbel", "num_classes": 4, "num_distributions": 6}
    codes = ("one_hot", "probabilities", "log_ratios")
    rows = [table.Row(code, None, None, settings | {"gumbel_codes": code}, "") for code in codes]
    base = train_vae.VaeConfig(workdir=str(tmp_path), epochs=1)
    together = dict(table.run_tables({"x": small(*rows)}, lambda t: base, 1, 1))["x"]
    apart = dataclasses.replace(base, workdir=str(tmp_path / "apart"))
    for row, found in zip(rows, together["rows"], strict=True):
        alone = dict(table.run_tables({"x": small(row)}, lambda t: apart, 1, 1))["x"]
        assert alone["rows"][0]["ours"]["mean"] == found["ours"]["mean"]
    assert len({row["ours"]["mean"] for row in together["rows"]}) == len(codes)


def small(*rows, **about):
    """A table of the embedded digits, of one epoch a row."""
    return table.Table("title", rows, dataset="digits", **about)


def run(spec, workdir, **settings):
    base = train_vae.VaeConfig(workdir=str(workdir), epochs=1)
    settings = {"seeds": 2, "together": 2} | settings
    ((_, result),) = table.run_tables({"paper:1": spec}, lambda _: base, **settings)
    return result


def test_a_table_is_gathered_and_goes_on_where_it_stopped(tmp_path, capfd):
    spec = small(
        table.Row("two levels", 0.7, {"quantise_levels": 2}),
        table.Row("mean", 0.9, {}, {"beta": 0.1}, "less weight on the divergence", x=1.0),
        axis="x",
    )
    result = run(spec, tmp_path)
    assert "epoch 1/1" in capfd.readouterr().err
    assert result["protocol"] == "digits-test"
    two_levels, mean = result["rows"]
    assert (two_levels["published"], mean["published"]) == (0.7, 0.9)
    assert two_levels["ours"] is None
    assert mean["ours"].keys() == {"mean", "sd", "seeds", "how"}
    for score in (two_levels["as_published"], mean["as_published"], mean["ours"]):
        assert score["seeds"] == 2
        assert 0 < score["mean"] <= 1
    assert mean["ours"]["mean"] != mean["as_published"]["mean"]
    assert "| mean | 0.9 |" in table.markdown(result)
    assert len(table.chart(spec, result).axes[0].lines) > 0

    kept = sorted((tmp_path / "rows").iterdir())
    assert len(kept) == 6
    kept[0].unlink()
    assert run(spec, tmp_path)["rows"] == result["rows"]
    assert "epoch 1/1" in capfd.readouterr().err  # the missing row was trained for
    assert run(spec, tmp_path)["rows"] == result["rows"]
    assert capfd.readouterr().err == ""  # nothing was


def test_more_seeds_keep_the_runs_that_are_there(tmp_path, capfd):
    spec = small(table.Row("mean", 0.9, {}))
    one = run(spec, tmp_path, seeds=1)
    two = run(spec, tmp_path, seeds=2)
    assert (one["rows"][0]["as_published"]["seeds"], len(list((tmp_path / "rows").iterdir()))) == (
        1, 2,
    )  # fmt: skip
    capfd.readouterr()
    assert run(spec, tmp_path, seeds=1) == one | {"together": one["together"]}
    assert two["rows"][0]["as_published"]["seeds"] == 2
    assert capfd.readouterr().err == ""


def test_rows_that_are_not_chosen_stay_empty(tmp_path):
    spec = small(table.Row("mean", 0.9, {}), table.Row("two", 0.7, {"quantise_levels": 2}))
    result = run(spec, tmp_path, seeds=1, chosen=lambda name: name == "two")
    assert [row["as_published"] is None for row in result["rows"]] == [True, False]


def test_one_column_is_run_and_the_epochs_asked_for_win_over_a_rows_own(tmp_path):
    long = {"epochs": 500}
    spec = small(table.Row("mean", 0.9, long, long | {"beta": 0.1}, "less weight"))
    (row,) = run(spec, tmp_path, seeds=1, columns=("ours",), over={"epochs": 1})["rows"]
    assert row["as_published"] is None
    assert row["ours"]["seeds"] == 1
    (kept,) = (tmp_path / "rows").iterdir()
    assert json.loads(kept.read_text())["config"]["epochs"] == 1


def test_what_another_process_kept_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    asked = []

    def run_rows(configs, *_):
        asked.append(configs)
        result = {"metrics": {"map@2/retrieved": 0.5}, "together": 1, "seconds": 0.0}
        for hidden in ("500,100", "20"):  # as if the other one had been quick
            table.keep(dataclasses.replace(configs[0], hidden=hidden), result)
        return [(configs[0], result)]

    monkeypatch.setattr(train_vae, "run_rows", run_rows)
    spec = small(table.Row("wide", 0.9, {}), table.Row("narrow", 0.8, {"hidden": "20"}))
    rows = run(spec, tmp_path, seeds=1)["rows"]
    assert [row["as_published"]["mean"] for row in rows] == [0.5, 0.5]
    assert len(asked) == 1


def test_runs_side_by_side_and_one_at_a_time_give_the_same_scores(tmp_path):
    spec = small(table.Row("mean", 0.9, {}), table.Row("beta", 0.9, {"beta": 0.5}))
    alone, beside = (
        run(spec, tmp_path / str(together), seeds=1, together=together) for together in (1, 2)
    )
    assert (alone["together"], beside["together"]) == (1, 2)
    for one, other in zip(alone["rows"], beside["rows"], strict=True):
        assert one["as_published"]["mean"] == pytest.approx(other["as_published"]["mean"], abs=0.02)


def test_what_was_published_for_one_data_set_is_not_said_of_another(tmp_path):
    spec = table.Table("title", (table.Row("mean", 0.9, {}),))
    assert run(spec, tmp_path)["rows"][0]["published"] is None


def test_the_command_writes_tables_with_their_text_and_charts(tmp_path):
    flags = ("--dataset=digits", "--epochs=1", "--seeds=1", "--rows=(levels = 2$|2 comp)")
    asked = "--table=torres2018:4.5,torres2018:floors"
    command = [sys.executable, ROOT / "experiments" / "reproduce.py", asked, *flags]
    command.append(f"--workdir={tmp_path}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("4.5", "floors"):
        folder = tmp_path / name
        result = json.loads((folder / "table.json").read_text())
        assert result["table"] == f"torres2018:{name}"
        assert sum(row["ours"] is not None for row in result["rows"]) == 1
        assert (folder / "table.md").read_text() in done.stdout
        assert (folder / "plots" / "table.png").stat().st_size > 1000


def test_an_unknown_table_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"--table must be one of torres2018:4\.1, .*, got 'x'"):
        reproduce.ReproduceConfig(table="x", workdir=str(tmp_path)).check()


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
