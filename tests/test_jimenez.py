"""Jimenez Lepe 2017: its tables, times, figures of finished runs, the accelerator's jobs."""

import dataclasses
import json
import time
from pathlib import Path

import figures
import harness
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reproduce
import runs
import table
import time_hasher
import train_hasher
from hashing import tables as hashing
from jimenez2017 import published as numbers
from jimenez2017 import tables

from jaxret import data, metrics, train

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "experiments" / "jimenez2017"


def published(name):
    """A table's published figures by the names of its rows."""
    return {row.name: row.published for row in tables.TABLES[name].rows}


def test_every_published_number_is_there_once():
    counts = {"5.1": 80, "5.2": 54, "5.2-mnist": 36, "5.3": 80, "5.4": 16, "5.5": 80}
    counts |= {"5.6": 80, "5.7": 80, "curves": 9}
    assert {name: len(published(name)) for name in counts} == counts
    assert all(value for name in counts for value in published(name).values())
    others = {"losses", "losses-baselines", "baselines", "mlh", "dnnh"}
    assert tables.TABLES.keys() - counts == others
    assert not any(value for name in others for value in published(name).values())


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("5.1", "DRHN-1 at 12 bits", 0.9041),
        ("5.1", "DRHN-12 at 24 bits", 0.9385),
        ("5.1", "DRHN-16 at 128 bits", 0.9350),
        ("5.2", "DRHN-15 at 48 bits", 0.9291),
        ("5.2", "DLBHC at 32 bits", 0.8972),
        ("5.2", "LSH at 12 bits", 0.121),
        ("5.2", "KSH at 24 bits", 0.337),
        ("5.2-mnist", "KSH at 12 bits", 0.872),
        ("5.3", "DRHN-10 at 32 bits", 0.9294),
        ("5.3", "DRHN-1 at 48 bits", 0.8843),
        ("5.4", "DRHN-7 at 48 bits", 976.02),
        ("5.4", "DRHN-15 at 48 bits", 1213.72),
        ("5.5", "DRHN-15 at 48 bits", 0.061635),
        ("5.5", "DRHN-1 at 128 bits", 0.004434),
        ("5.6", "DRHN-16 at 128 bits", 0.7069),
        ("5.6", "DRHN-1 at 12 bits", 0.5632),
        ("5.7", "DRHN-15 at 48 bits", 0.6377),
    ],
)  # fmt: skip
def test_published_numbers_stand_where_the_thesis_has_them(name, row, value):
    assert published(name)[row] == value


def test_the_best_cells_are_those_of_the_thesis():
    best = {"5.1": 0.9385, "5.3": 0.9294, "5.6": 0.7069, "5.7": 0.6377}
    assert {name: max(published(name).values()) for name in best} == best
    # Its text names the range of accuracies of 100 classes as 57.41 to 69.69; the table's is wider.
    assert min(published("5.6").values()) == 0.5632


def test_table_5_2_repeats_a_row_of_table_5_3_beside_other_methods():
    rows = {row.name: row for row in tables.TABLES["5.2"].rows}
    drhn = {name: row.published for name, row in rows.items() if name.startswith("DRHN")}
    assert drhn == {name: published("5.3")[name] for name in drhn}
    assert len(drhn) == 4
    names = {name.split(" at ")[0] for name in rows} - {"DRHN-15"}
    assert names == numbers.OTHERS.keys() | tables.METHODS.keys()


def test_published_numbers_of_others_have_the_protocol_that_stands_behind_them():
    for name, method in tables.METHODS.items():
        for row in tables.TABLES["5.2"].rows:
            if row.name.startswith(f"{name} at ") and row.settings is not None:
                assert row.settings["protocol"] == method.as_published["protocol"]
                assert row.published is not None
                assert "protocol" not in (row.ours or {})  # ours has the table's


def test_accuracy_and_map_of_one_network_are_of_one_training():
    def kept(name):
        spec = tables.TABLES[name]
        base = train_hasher.HasherConfig(workdir="w", dataset=spec.dataset, protocol=spec.protocol)
        return {
            runs.kept_at("train_hasher", dataclasses.replace(base, **settings))
            for row in spec.rows
            for settings in (row.settings, row.ours)
            if settings is not None and not row.script
        }

    assert kept("5.1") == kept("5.3") > kept("5.2")  # of its networks
    assert len(kept("5.3")) == 160
    assert kept("5.6") == kept("5.7")


@pytest.mark.parametrize(
    ("flagfile", "settings"), [("drhn", tables.PUBLISHED), ("ours", tables.OURS)]
)
def test_flagfiles_are_the_columns_of_the_tables(flagfile, settings):
    lines = (FOLDER / f"{flagfile}.flags").read_text().splitlines()
    given = [line[2:] for line in lines if line.startswith("--")]
    given = dict((flag + ("" if "=" in flag else "=True")).split("=") for flag in given)
    spec = tables.TABLES["5.3"]
    shared = {"dataset": spec.dataset, "protocol": spec.protocol}
    wanted = dataclasses.asdict(train_hasher.HasherConfig(**shared, **settings))
    for name, value in given.items():
        assert type(wanted[name])(value) == wanted[name], name
    defaults = train_hasher.HasherConfig.defaults()
    assert {name for name, value in wanted.items() if value != defaults[name]} <= given.keys()


def test_figure_5_5_has_its_points():
    assert len(numbers.PRECISION) == 9
    assert {len(points) for points in numbers.PRECISION.values()} == {len(numbers.PRECISION_KS)}
    assert numbers.PRECISION["CNNH+"][-1] == 0.608
    assert numbers.PRECISION["LSH"][-1] == 0.162


def test_a_table_of_other_methods_needs_no_run(tmp_path, capsys):
    mnist = tables.TABLES["5.2-mnist"]
    named = (row for row in mnist.rows if row.name.startswith("CNNH"))
    rows = tuple(row._replace(settings=None, ours=None) for row in named)
    spec = mnist._replace(rows=rows, dataset="digits", protocol="test")
    base = train_hasher.HasherConfig(workdir=str(tmp_path))
    ((_, result),) = table.run_tables({"jimenez2017:5.2": spec}, lambda _: base, 1, 1)
    assert [row["published"] for row in result["rows"]] == [row.published for row in rows]
    assert all(row["as_published"] is row["ours"] is None for row in result["rows"])
    assert "not run" in table.markdown(result)
    assert "| CNNH at 48 bits | 0.96 |" in table.markdown(result)
    legend = table.chart(spec, result).axes[0].get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"{name}, published" for name in numbers.MNIST if name.startswith("CNNH")]


def test_listing_a_table_names_the_rows_that_match(capsys):
    config = reproduce.ReproduceConfig(list=True, table="jimenez2017:5.2", rows="at 12 bits")
    config.check()
    reproduce.main(config)
    title, *rows = capsys.readouterr().out.splitlines()
    assert "54 rows" in title
    assert len(rows) == 14
    assert rows[0].strip() == "DRHN-15 at 12 bits"


def tiny_training():
    """The training of a network of one number."""

    def loss(params, model_state, key, images, labels, hyper):
        x = images.astype(jnp.float32).mean()
        return params["w"] * x, (model_state, {"loss": params["w"] * x})

    trainer = train.make_trainer(
        lambda key: ({"w": jnp.ones(())}, {}), loss, lambda h: optax.sgd(h["learning_rate"])
    )
    return train.Training(trainer, {"learning_rate": 0.1}, epochs=1, batch_size=100)


def test_an_epoch_is_counted_from_some_of_its_steps(monkeypatch):
    monkeypatch.setattr(time_hasher, "median_seconds", lambda run, repeats: run() or 3.0)
    images = data.load("digits", "train")
    config = time_hasher.TimingConfig(batch_size=100, steps=2, repeats=1)
    found = time_hasher.seconds_of_epoch(config, tiny_training(), images)
    assert found == {
        "seconds_per_epoch": 3.0 * (2 * len(images.images) // 100) / 2,
        "steps_timed": 2,
    }


def test_a_code_is_timed_alone_and_among_many(monkeypatch):
    monkeypatch.setattr(time_hasher, "median_seconds", lambda run, repeats: run() is None or 0.5)
    coded = []

    def encode(params, images):
        coded.append(len(images))
        return jnp.zeros((len(images), 2))

    config = time_hasher.TimingConfig(what="code")
    found = time_hasher.seconds_of_code(config, encode, {}, data.load("digits", "train"))
    assert sorted(set(coded)) == [1, 1000]
    assert found.keys() == {"seconds_per_code", "codes_per_second"}


@pytest.mark.soak
@pytest.mark.parametrize("what", ["epoch", "code"])
def test_times_are_rows_of_a_table_and_nothing_is_trained(tmp_path, what):
    settings = {"what": what, "bits": 12, "steps": 1, "repeats": 1}
    metric = f"seconds_per_{what}"
    spec = table.Table(
        "t", (table.Row("a", 1.0, settings),), dataset="digits", script="time_hasher",
        metric=metric, lower=True,
    )  # fmt: skip
    base = time_hasher.TimingConfig(workdir=str(tmp_path))
    ((_, result),) = table.run_tables({"x": spec}, lambda _: base, 1, 8)
    assert result["rows"][0]["as_published"]["mean"] > 0
    assert result["vmap_runs"] == 1


def test_a_median_leaves_out_the_first_run():
    waits = iter([0.2, 0.0, 0.0, 0.0])
    assert time_hasher.median_seconds(lambda: time.sleep(next(waits)), 3) < 0.1


def figure_run(name, depth, bits, rng):
    """A run as the figures see it."""
    images = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    found = rng.integers(0, 256, (4, 10, 8, 8, 3)).astype(np.uint8)
    ks = np.asarray((1, 50, 100))
    return figures.Run(
        name, "cifar10", depth, bits, (ks, 1 - ks / 1000), images, found,
        rng.random((4, 10)) < 0.9, rng.integers(0, 9, (4, 10)),
    )  # fmt: skip


@pytest.mark.soak
def test_runs_are_drawn_together_by_bits_and_by_depth(tmp_path):
    rng = np.random.default_rng(0)
    drawn = [figure_run(f"r{n}-{b}", n, b, rng) for n, b in ((1, 12), (1, 48), (9, 48))]
    figures.draw_together([*drawn, figure_run("again", 9, 48, rng)], tmp_path, {})
    assert {path.name for path in tmp_path.iterdir()} == {
        "precision.png", "precision-published.png", "by-bits-drhn1.png", "by-depth-48bits.png"
    }  # fmt: skip
    digits = drawn[2]._replace(dataset="digits")
    figures.draw_together([drawn[0], digits], tmp_path / "apart", {})
    assert {path.name for path in (tmp_path / "apart").iterdir()} == {"precision.png"}


def test_runs_of_the_same_network_are_told_apart_by_their_folders():
    rng = np.random.default_rng(0)
    ours, theirs = figure_run("ours", 15, 48, rng), figure_run("theirs", 15, 48, rng)
    assert list(figures.named([ours])) == ["DRHN-15"]
    assert list(figures.named([ours, theirs])) == ["DRHN-15, ours", "DRHN-15, theirs"]


def test_curves_of_figure_5_5_are_of_rows_that_were_run(tmp_path):
    rows = {row.name: row for row in tables.TABLES["curves"].rows}
    assert rows.keys() == numbers.PRECISION.keys()
    assert all(row.settings["protocol"] == "cifar10-59k@all" for row in rows.values())
    at = {f"precision@{k}": 0.5 - k / 10_000 for k in numbers.PRECISION_KS[:-1]}
    kept = [
        {"name": "ITQ", "as_published": {"mean": 0.3}, "ours": None,
         "metrics": {"as_published": at, "ours": {}}},
        {"name": "SH", "as_published": None, "ours": None, "metrics": {}},
    ]  # fmt: skip
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"rows": kept}))
    ((name, (ks, points)),) = figures.curves_of(path).items()
    assert name == "ITQ"
    assert ks.tolist() == list(numbers.PRECISION_KS)
    np.testing.assert_allclose(points, [0.49, 0.48, 0.46, 0.44, 0.42, 0.3])
    missing = figures.FiguresConfig(curves=str(tmp_path / "no"), workdir="w")
    with pytest.raises(ValueError, match=r"--curves: .* is no file"):
        missing.check()


def test_curves_of_other_images_stand_alone(tmp_path, monkeypatch):
    rows = hashing.TABLES["cifar100-curves"].rows
    assert [row.ours["bits"] for row in rows] == [12, 24, 32, 48, 128] * 2 + [48, 48]
    at = {f"precision@{k}": 0.5 - k / 10_000 for k in numbers.PRECISION_KS[:-1]}
    kept = [{"name": row.name, "as_published": None, "ours": {"mean": 0.3},
             "metrics": {"as_published": {}, "ours": at}} for row in rows]  # fmt: skip
    table = {"title": "100 classes", "protocol": "cifar100-full@1000", "rows": kept}
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table))
    drawn = {}
    monkeypatch.setattr(harness, "save_figure", lambda path, figure: drawn.update({path: figure}))
    figures.draw_table(path, tmp_path)
    ((path, figure),) = drawn.items()
    assert path.name == "precision.png"
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {row.name for row in rows}


def test_figures_of_a_folder_without_a_run_are_refused(tmp_path):
    config = figures.FiguresConfig(runs=str(tmp_path), workdir="w")
    with pytest.raises(ValueError, match=r"--runs: .* holds no finished run"):
        config.check()


def test_confusion_counts_are_of_true_then_predicted():
    labels, predicted = np.asarray([0, 0, 1, 2]), np.asarray([0, 2, 1, 2])
    counts = metrics.confusion_counts(labels, predicted, 3)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


# The accelerator's jobs.
