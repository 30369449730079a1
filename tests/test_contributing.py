"""The recipes of CONTRIBUTING.md work as they are written."""

import importlib
import re
import sys
import textwrap
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxret

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def recipe(name):
    """The code of the block whose first line names a file."""
    blocks = map(textwrap.dedent, BLOCK.findall((ROOT / ".github/CONTRIBUTING.md").read_text()))
    (code,) = [block for block in blocks if block.splitlines()[0] == f"# {name}"]
    return code


def add(monkeypatch, name, **scope):
    """Import a recipe as the module that its path says."""
    module = types.ModuleType(name.removesuffix(".py").replace("/", "."))
    module.__dict__.update(scope)
    exec(recipe(name), module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def recipes(monkeypatch):
    """The hasher and the data set are registered; afterwards they are forgotten."""
    monkeypatch.setattr(jaxret.hashers, "HASHERS", dict(jaxret.hashers.HASHERS))
    datasets = jaxret.data.DATASETS
    add(monkeypatch, "jaxret/hashers/median.py")
    add(monkeypatch, "jaxret/data/stripes.py")
    exec(recipe("jaxret/hashers/__init__.py"), {"HASHERS": jaxret.hashers.HASHERS})
    exec(recipe("jaxret/data/catalogue.py"), {"DATASETS": datasets})
    yield
    del datasets["stripes"]


@pytest.mark.soak
def test_the_hasher_and_the_data_set_work_together(recipes):
    protocol = jaxret.load_protocol("test", "stripes")
    assert len(protocol.query.images) == 60
    hasher = jaxret.hashers.HASHERS["median"](24)
    params, _ = hasher.fit(jax.random.key(0), protocol.train.images)
    scores = jaxret.evaluate.evaluate(hasher.encode, params, protocol, distance=hasher.distance)
    assert scores["map@1/retrieved"] > 0.8  # 0.33 by chance


def test_the_metric_is_the_reciprocal_of_the_first_relevant_rank():
    from jaxtyping import Array, Bool, Float

    scope = {"Array": Array, "Bool": Bool, "Float": Float, "jnp": jnp}
    exec(recipe("jaxret/metrics/ranking.py"), scope)
    relevant = jnp.asarray([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    np.testing.assert_allclose(scope["reciprocal_rank"](relevant), [0.5, 0, 1])


def test_the_table_has_settings_that_its_script_knows():
    scope = {}
    exec(recipe("experiments/someone2020/tables.py"), scope)
    (table,) = scope["TABLES"].values()
    for settings in (table.rows[0].settings, table.rows[0].ours):
        script = importlib.import_module(table.script)
        script.CONFIG(**settings, workdir="w", dataset=table.dataset).check()
