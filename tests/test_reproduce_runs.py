"""Running a table, going on after a stop, and where runs are kept; by a script of one number."""

import dataclasses
import json
import time
from pathlib import Path
from types import SimpleNamespace

import harness
import pytest
import runs
import search_cifar4
import table
import tiny_script
import train_vae
from tiny_script import TWO, small


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


def test_a_run_is_kept_by_the_version_of_what_it_builds_on(monkeypatch):
    configs = [search_cifar4.CONFIG(method=method, workdir="w") for method in ("trunk", "labels")]
    keys = [runs.kept_at("search_cifar4", config) for config in configs]
    monkeypatch.setattr(search_cifar4.train_classifier, "VERSION", 0)
    changed = [runs.kept_at("search_cifar4", config) for config in configs]
    assert changed[0] != keys[0]
    assert changed[1] == keys[1]


def test_seconds_count_what_a_hasher_builds_on(monkeypatch):
    monkeypatch.setattr(tiny_script, "hasher", _slow(tiny_script.hasher))
    config = tiny("w")
    protocol, overlap = harness.load_data(config)
    ((_, result),) = runs.train_and_score(tiny_script, [config], protocol, overlap, 1)
    assert result["seconds"] > 0.6  # made before training, for it and to score


def _slow(make):
    def made(*arguments):
        time.sleep(0.2)
        return make(*arguments)

    return made


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
