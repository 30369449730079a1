"""Tables: their rows, their files, and going on after a stop."""

import dataclasses
import importlib
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reproduce
import runs
import table
import tiny_script
import train_hasher
import train_vae

from jaxret.hashers import DeepSettings, VaeSettings, recipes

ROOT = Path(__file__).resolve().parent.parent
TORRES = ROOT / "experiments" / "torres2018"


# The papers' tables and what is kept of them.


def test_every_row_of_every_table_is_a_valid_configuration():
    for name, spec in reproduce.tables().items():
        assert len({row.name for row in spec.rows}) == len(spec.rows), name
        for row in spec.rows:
            config_class = importlib.import_module(spec.of_row(row).script).CONFIG
            assert row.settings or row.ours is not None or row.published is not None
            for settings in (row.settings, row.ours):
                if settings is not None:
                    config_class(workdir="w", **settings).check()
            assert row.published is not None or row.settings is None
            assert (row.ours is None) == (row.description is None)
            assert row.x is None or spec.axis


def test_no_description_repeats_the_number_of_epochs():
    for name, spec in reproduce.tables().items():
        for row in spec.rows:
            assert not re.search(r"\d epoch", row.description or spec.title), (name, row.name)


def vae_settings(flags):
    """The settings of the library that flags of train_vae stand for, and the positives."""
    config = train_vae.VaeConfig(workdir="w", **flags)
    return config.settings(), config.latent_dim, config.knn_positives


OURS = {
    ("4.4", "latent_dim = 10"): recipes.vae_reals(10),
    ("4.4", "latent_dim = 100"): recipes.vae_reals(100),
    ("4.8", "2 layers"): recipes.vae_bits(10),
    ("4.6", "N_c = 10, N_d = 5"): recipes.vae_categories(10, 5),
    ("4.6", "N_c = 10, N_d = 30"): recipes.vae_categories(10, 30),
    ("bits", "64 bits, ours"): recipes.vae_bits(64),
    ("bits", "N = 32, ours"): recipes.vae_reals(32),
    ("positives", "N = 10, kNN positives"): recipes.vae_reals_with_positives(10),
    ("positives", "32 bits, kNN positives"): recipes.vae_bits_with_positives(32),
}


@pytest.mark.parametrize(("place", "recipe"), OURS.items(), ids=lambda value: str(value)[:30])
def test_rows_of_ours_are_the_recipes_of_the_library(place, recipe):
    name, row_name = place
    (row,) = (r for r in reproduce.tables()[f"torres2018:{name}"].rows if r.name == row_name)
    settings, latent_dim, positives = vae_settings(row.ours)
    wanted = dict(recipe.settings)
    dims = wanted.pop("latent_dim")
    assert settings == VaeSettings(**wanted)
    assert settings.latent == "gumbel" or latent_dim == dims
    assert positives == recipe.knn_positives
    assert row.description.startswith(recipe.description)


def test_hash_networks_are_the_recipes_of_the_library():
    row = reproduce.tables()["jimenez2017:5.3"].rows[0]
    for flags, recipe in ((row.settings, recipes.DRHN_PUBLISHED), (row.ours, recipes.DRHN_OURS)):
        config = train_hasher.HasherConfig(workdir="w", **flags)
        assert config.settings() == DeepSettings(**recipe.settings)
        assert (config.depth, config.bits) == (1, 12)


OURS_FILES = ["ours-n10", "ours-10bits", "positives-32bits"]  # each names its table and its row


def named(first_line):
    """The table and the row that a flagfile of ours names."""
    return first_line.split("table ")[1].split(",")[0], first_line.split('"')[1]


@pytest.mark.parametrize("name", OURS_FILES)
def test_flagfiles_of_ours_are_rows(name):
    first, *lines = (TORRES / f"{name}.flags").read_text().splitlines()
    table_name, row_name = named(first)
    lines = (TORRES / "thesis.flags").read_text().splitlines() + lines
    given = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    del given["flagfile"]
    rows = {row.name: row for row in reproduce.tables()[f"torres2018:{table_name}"].rows}
    wanted = dataclasses.asdict(train_vae.VaeConfig(dataset="mnist", **rows[row_name].ours))
    assert {n: type(wanted[n])(v) for n, v in given.items()} == {n: wanted[n] for n in given}
    changed = {n for n, v in wanted.items() if v != getattr(train_vae.VaeConfig(), n)}
    assert changed <= given.keys()


def test_flagfiles_of_table_4_2_are_its_rows():
    published = {}
    for path in sorted(TORRES.glob("4.2-*.flags")):
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
    measured = json.loads((TORRES / "results" / table_name / "table.json").read_text())
    cells = {row["published"]: table.cell(row["as_published"]) for row in measured["rows"]}
    paths = sorted(TORRES.glob(f"{table_name}-*.flags"))
    assert paths
    for path in paths:
        first, second, *_ = path.read_text().splitlines()
        published = float(first.split("published ")[1].rstrip("."))
        assert second == f"# Measured: {cells[published]}.", path.name


@pytest.mark.parametrize("name", OURS_FILES)
def test_flagfiles_of_ours_say_what_the_table_measured(name):
    first, second, *_ = (TORRES / f"{name}.flags").read_text().splitlines()
    table_name, row_name = named(first)
    rows = json.loads((TORRES / "results" / table_name / "table.json").read_text())["rows"]
    (row,) = (row for row in rows if row["name"] == row_name)
    assert second == f"# Measured: {table.cell(row['ours'])}."


@pytest.mark.parametrize("paper", reproduce.PAPERS)
def test_every_kept_run_is_where_its_table_looks_for_it(paper):
    folder = ROOT / "experiments" / paper / "results"
    files = sorted((folder / "rows").iterdir())
    assert files
    for file in files:
        run = json.loads(file.read_text())
        config = importlib.import_module(run["script"]).CONFIG(**run["config"])
        config = dataclasses.replace(config, workdir=str(folder))
        assert runs.kept_at(run["script"], config) == file


def test_no_kept_run_has_a_likelihood_of_relaxed_samples():
    for file in (TORRES / "results" / "rows").iterdir():
        run = json.loads(file.read_text())
        config = run["config"]
        relaxed = config.get("bit_gradient") == "concrete" and config["latent"] == "bernoulli"
        relaxed = relaxed or config.get("latent") == "gumbel"
        if relaxed and run["environment"]["jaxret"] == "0.1.0":  # measured at temperature 1
            assert not {"nll_nats", "negative_elbo_nats"} & run["metrics"].keys()


@pytest.mark.slow
def test_positives_are_the_nearest_other_images_by_principal_components():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)
    images[1:8] = images[0]  # more copies than positives
    config = train_vae.VaeConfig(workdir="w", contrastive_weight=1.0, knn_positives=5)
    found = train_vae.positives(config, images)
    x = images.reshape(60, -1) / 255
    x = x - x.mean(axis=0)
    x = x @ np.linalg.svd(x, full_matrices=False)[2][:50].T
    distances = np.square(x[:, None] - x[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    for row, others in enumerate(np.asarray(found)):
        assert row not in others
        assert len(set(others)) == 5
        np.testing.assert_allclose(distances[row, others], np.sort(distances[row])[:5], atol=1e-3)
    assert train_vae.positives(train_vae.VaeConfig(workdir="w"), images) is None


# Running and gathering, by a script that trains one number.


def small(*rows, **about):
    """A table of the embedded digits."""
    return table.Table("title", rows, **{"dataset": "digits", "script": "tiny_script"} | about)


def tiny(workdir, **flags):
    """A configuration of the script."""
    return tiny_script.TinyConfig(**{"workdir": str(workdir)} | flags)


def run(spec, workdir, **settings):
    """The table after a run; its base is tiny's."""
    settings = {"seeds": 2, "vmap_runs": 2} | settings
    base = tiny(workdir)
    ((_, result),) = table.run_tables({"paper:1": spec}, lambda _: base, **settings)
    return result


def kept(workdir):
    """The files of the runs."""
    return sorted((Path(workdir) / "rows").iterdir())


TWO = (
    table.Row("two levels", 0.7, {"levels": 2}),
    table.Row("mean", 0.9, {}, {"steepness": 0.1}, "flat, {epochs} epochs", x=1.0),
)


@pytest.mark.slow
def test_a_table_is_gathered_and_goes_on_where_it_stopped(tmp_path, capfd):
    spec = small(*TWO, axis="x")
    result = run(spec, tmp_path)
    assert "epoch 1/2" in capfd.readouterr().err
    assert result["protocol"] == "digits-test"
    two_levels, mean = result["rows"]
    assert (two_levels["published"], mean["published"]) == (0.7, 0.9)
    assert two_levels["ours"] is None
    assert mean["ours"].keys() == {"mean", "sd", "seeds", "how"}
    assert mean["ours"]["how"] == "flat, 2 epochs"
    for score in (two_levels["as_published"], mean["as_published"], mean["ours"]):
        assert score["seeds"] == 2
        assert 0 < score["mean"] <= 1
    assert mean["ours"]["mean"] != mean["as_published"]["mean"]
    assert "| mean | 0.9 |" in table.markdown(result)
    assert len(table.chart(spec, result).axes[0].lines) > 0

    files = kept(tmp_path)
    assert len(files) == 6
    files[0].unlink()
    assert run(spec, tmp_path)["rows"] == result["rows"]
    assert "epoch 1/2" in capfd.readouterr().err  # the missing row was trained for
    assert run(spec, tmp_path)["rows"] == result["rows"]
    assert capfd.readouterr().err == ""  # nothing was


def test_more_seeds_keep_the_runs_that_are_there(tmp_path, capfd):
    spec = small(table.Row("mean", 0.9, {}))
    one = run(spec, tmp_path, seeds=1)
    two = run(spec, tmp_path, seeds=2)
    assert (one["rows"][0]["as_published"]["seeds"], len(kept(tmp_path))) == (1, 2)
    capfd.readouterr()
    assert run(spec, tmp_path, seeds=1) == one | {"vmap_runs": one["vmap_runs"]}
    assert two["rows"][0]["as_published"]["seeds"] == 2
    assert capfd.readouterr().err == ""


def test_rows_that_are_not_chosen_stay_empty(tmp_path):
    result = run(small(*TWO), tmp_path, seeds=1, chosen=lambda name: name == "mean")
    assert [row["as_published"] is None for row in result["rows"]] == [True, False]


def test_one_column_is_run_and_the_epochs_that_win_are_those_that_are_told(tmp_path):
    long = {"epochs": 500}
    spec = small(table.Row("mean", 0.9, long, long | {"steepness": 0.1}, "{epochs} epochs"))
    result = run(spec, tmp_path, seeds=1, columns=("ours",), overrides={"epochs": 1})
    (row,) = result["rows"]
    assert row["as_published"] is None
    assert row["ours"]["seeds"] == 1
    assert row["ours"]["how"] == "1 epochs"
    assert ", --epochs=1." in table.markdown(result)
    (file,) = kept(tmp_path)
    assert json.loads(file.read_text())["config"]["epochs"] == 1


def test_what_another_process_kept_meanwhile_is_not_trained_again(tmp_path, monkeypatch):
    asked = []

    def train_and_score(module, configs, *_):
        asked.append(configs)
        result = {"metrics": {"map@2/retrieved": 0.5}, "vmap_runs": 1, "seconds": 0.0}
        for width in (3, 5):  # as if the other one had been quick
            other = dataclasses.replace(configs[0], width=width)
            runs.keep("tiny_script", other, result | {"protocol": "digits-test"})
        return [(configs[0], result)]

    monkeypatch.setattr(runs, "train_and_score", train_and_score)
    spec = small(table.Row("narrow", 0.9, {}), table.Row("wide", 0.8, {"width": 5}))
    rows = run(spec, tmp_path, seeds=1)["rows"]
    assert [row["as_published"]["mean"] for row in rows] == [0.5, 0.5]
    assert len(asked) == 1


def test_vmapped_runs_and_runs_one_at_a_time_give_the_same_scores(tmp_path):
    spec = small(table.Row("mean", 0.9, {}), table.Row("steep", 0.9, {"steepness": 0.5}))
    alone, vmapped = (run(spec, tmp_path / str(n), seeds=1, vmap_runs=n) for n in (1, 2))
    assert (alone["vmap_runs"], vmapped["vmap_runs"]) == (1, 2)
    for one, other in zip(alone["rows"], vmapped["rows"], strict=True):
        assert one["as_published"]["mean"] == pytest.approx(other["as_published"]["mean"], abs=1e-6)


def test_what_was_published_for_one_data_set_is_not_said_of_another(tmp_path):
    spec = small(table.Row("mean", 0.9, {}), dataset="mnist")
    assert run(spec, tmp_path)["rows"][0]["published"] is None


def test_rows_that_share_a_training_are_trained_once():
    base = train_vae.VaeConfig(workdir="w")
    changes = [
        {}, {"features": "sample"}, {"temperature": 0.5}, {"gumbel_codes": "probabilities"},
        {"hidden": "500,100,50"}, {"beta": 0.0},
    ]  # fmt: skip
    configs = [dataclasses.replace(base, **change) for change in changes]
    groups = runs._groups(configs, runs._training)
    assert sorted(map(len, groups)) == [1, 1, 4]  # a weight of 0 is another program


def test_rows_may_have_a_protocol_of_their_own(tmp_path):
    own = {"protocol": "validation"}
    spec = small(table.Row("a", None, None, {}, ""), table.Row("b", None, None, own, ""))
    result = run(spec, tmp_path, seeds=1)
    assert [row.get("protocol") for row in result["rows"]] == [None, "digits-validation"]
    lines = table.markdown(result).splitlines()
    assert lines[4].endswith("| digits-test |")
    assert lines[5].endswith("| digits-validation |")


def test_columns_of_different_protocols_are_named_in_their_cells(tmp_path, monkeypatch):
    spec = table.Table(
        "t",
        (table.Row("a", 0.5, {"protocol": "validation"}, {}, "ours"),),
        dataset="digits",
        script="tiny_script",
        metric=table.BY_PROTOCOL,
    )
    known = {"test": "map@2/retrieved", "validation": "code_size"}
    benchmarks = {name: SimpleNamespace(metric=metric) for name, metric in known.items()}
    monkeypatch.setattr("jaxret.data.BENCHMARKS", benchmarks)
    result = run(spec, tmp_path, seeds=1)
    (row,) = result["rows"]
    assert row["ours"]["protocol"] == "digits-test"
    assert row["as_published"] == {"mean": 3, "sd": None, "seeds": 1} | {
        "protocol": "digits-validation"
    }
    assert result["metric"] == "map@2/retrieved of digits-test; code_size of digits-validation"
    assert "3.0000 (1 seed; digits-validation)" in table.markdown(result)


def test_a_row_may_have_a_script_of_its_own():
    row = table.Row("b", None, None, {"method": "pixels"}, "", script="baseline")
    spec = small(*TWO, row)
    assert [spec.of_row(row).script for row in spec.rows] == ["tiny_script"] * 2 + ["baseline"]


# Where runs are kept, and what they must have.


def test_a_run_is_kept_by_every_value_and_the_version_of_what_computes_it(monkeypatch):
    config = tiny("w")
    key = runs.kept_at("tiny_script", config)
    assert runs.kept_at("tiny_script", tiny("w", levels=2)) != key
    assert runs.kept_at("tiny_script", dataclasses.replace(config, resume=True)) == key
    monkeypatch.setattr(tiny_script, "VERSION", 2)
    assert runs.kept_at("tiny_script", config) != key


def test_a_changed_default_does_not_return_what_the_old_one_computed():
    flag = tiny_script.flag
    fields = [("width", int, flag(4, "another default"))]
    changed = dataclasses.make_dataclass("TinyConfig", fields, bases=(tiny_script.TinyConfig,),
                                         frozen=True)  # fmt: skip
    assert runs.kept_at("tiny_script", changed(workdir="w")) != runs.kept_at(
        "tiny_script", tiny("w")
    )
    same = changed(workdir="w", width=3)
    assert runs.kept_at("tiny_script", same) == runs.kept_at("tiny_script", tiny("w"))


def test_an_added_flag_leaves_kept_runs_valid_only_at_the_value_they_had(monkeypatch):
    key = runs.kept_at("tiny_script", tiny("w"))
    fields = [("ratio", float, tiny_script.flag(0.5, "a new flag"))]
    grown = dataclasses.make_dataclass("TinyConfig", fields, bases=(tiny_script.TinyConfig,),
                                       frozen=True)  # fmt: skip
    grown.ADDED = tiny_script.TinyConfig.ADDED | {"ratio": 0.0}
    assert runs.kept_at("tiny_script", grown(workdir="w")) != key
    assert runs.kept_at("tiny_script", grown(workdir="w", ratio=0.0)) == key


def without(file, metric):
    """Take a metric from a kept run, as one of older code lacks it."""
    content = json.loads(file.read_text())
    del content["metrics"][metric]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("metric", ["map@2/retrieved", "code_size"])
def test_a_kept_run_that_lacks_a_metric_is_named_by_gather_and_else_run_again(
    tmp_path, capfd, metric
):
    spec = small(*TWO, extra_metrics=("code_size",))
    whole = run(spec, tmp_path, seeds=1)
    (file,) = (f for f in kept(tmp_path) if json.loads(f.read_text())["config"]["levels"] == 2)
    without(file, metric)
    capfd.readouterr()
    gathered = run(spec, tmp_path, seeds=1, chosen=lambda name: False)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [f"paper:1: no {metric} of two levels (as_published); left empty"]
    row, other = gathered["rows"]
    assert other == whole["rows"][1]
    assert (row["as_published"] is None) == (metric == "map@2/retrieved")
    assert (row["metrics"]["as_published"] == {}) == (metric == "code_size")
    assert "| two levels | 0.7 |" in table.markdown(gathered)
    assert run(spec, tmp_path, seeds=1)["rows"] == whole["rows"]
    assert "epoch" in capfd.readouterr().err


def test_a_metric_that_does_not_exist_is_not_run_for_again(tmp_path, capfd):
    spec = small(*TWO, extra_metrics=("map@1000/retrieved",))
    first = run(spec, tmp_path, seeds=1)
    assert first["rows"][0]["metrics"] == {"as_published": {}, "ours": {}}
    capfd.readouterr()
    assert run(spec, tmp_path, seeds=1) == first
    assert capfd.readouterr().err == ""


def test_scores_that_no_seed_changes_are_called_equal():
    assert table.cell({"mean": 0.14244, "sd": 0.0, "seeds": 3}) == "0.1424 (3 seeds, equal)"
    assert table.cell({"mean": 0.5, "sd": 0.00001, "seeds": 3}) == "0.5000 ± 0.0000 (3 seeds)"
    assert table.cell({"mean": 0.5, "sd": None, "seeds": 1}) == "0.5000 (1 seed)"
    assert table.cell(None) == ""


# The command.


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
