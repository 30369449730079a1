"""The papers' tables: their rows, flagfiles, recipes and kept runs say the same."""

import dataclasses
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import reproduce
import runs
import table
import train_hasher
import train_vae

from jaxret.hashers import DeepSettings, VaeSettings, recipes

ROOT = Path(__file__).resolve().parent.parent
TORRES = ROOT / "experiments" / "torres2018"


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
