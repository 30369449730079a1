"""A hasher and a data set from outside the package: one file each, and one line that names it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxret

ROOT = Path(__file__).resolve().parent.parent

HASHER = '''
"""Bits that compare an image's halves with its median: a file of a user's own."""

import jax
import jax.numpy as jnp

import jaxret


def median_hasher(bits):
    def fit(key, images, labels=None, *, on_epoch=None):
        del labels, on_epoch
        d = images[0].size
        chosen = jax.random.choice(key, d, (bits,), replace=False)
        x = jnp.asarray(images).reshape(len(images), d).astype(jnp.float32)
        return {"chosen": chosen, "median": jnp.median(x, axis=0)[chosen]}, {"pixels": float(d)}

    def encode(params, images):
        x = images.reshape(len(images), -1).astype(jnp.float32)
        return x[:, params["chosen"]] - params["median"][None]

    spec = {"name": "median", "settings": {"bits": bits}}
    return jaxret.Hasher(fit, jax.jit(encode), "hamming", spec=spec)


jaxret.HASHERS["median"] = median_hasher
'''

DATASET = '''
"""Stripes and dots: a data set in a file of a user's own."""

import numpy as np

from jaxret import data


def load_stripes(split, data_dir):
    rng = np.random.default_rng({"train": 0, "test": 1}[split])
    labels = np.arange({"train": 150, "test": 30}[split], dtype=np.int32) % 3
    rows = np.arange(8)[None, :, None] * np.array([1, 2, 4])[labels][:, None, None]
    images = 100 * (rows % 8 > 3) + rng.integers(0, 120, (len(labels), 8, 8))
    return data.ImageSet(images.astype(np.uint8)[..., None], labels, ("wide", "middle", "narrow"))


data.DATASETS["stripes"] = load_stripes
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder of the user's two files, imported; what they registered is forgotten afterwards."""
    (tmp_path / "median.py").write_text(HASHER)
    (tmp_path / "stripes.py").write_text(DATASET)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("median", "stripes"):
        importlib.import_module(name)
    yield tmp_path
    for name in ("median", "stripes"):
        del sys.modules[name]
    del jaxret.HASHERS["median"], jaxret.data.DATASETS["stripes"]


def test_a_data_set_from_outside_loads_by_name_and_has_every_protocol(outside):
    images = jaxret.load("stripes", "train")
    assert (images.images.shape, images.class_names[0]) == ((150, 8, 8, 1), "wide")
    for name, sizes in (("test", (150, 150, 30)), ("validation", (120, 120, 30))):
        protocol = jaxret.load_protocol(name, "stripes")
        parts = (protocol.train, protocol.gallery, protocol.query)
        assert tuple(len(part.images) for part in parts) == sizes


@pytest.mark.soak
def test_a_hasher_from_outside_is_scored_kept_and_loaded_like_any_other(outside):
    protocol = jaxret.load_protocol("test", "stripes")
    hasher = jaxret.HASHERS["median"](16)
    params, _ = hasher.fit(jax.random.key(0), protocol.train.images)
    scores = jaxret.evaluate.evaluate(hasher.encode, params, protocol, distance=hasher.distance)
    assert scores["map@1/retrieved"] > 0.8  # 0.33 by chance
    folder = outside / "encoder"
    jaxret.save_encoder(folder, hasher, params, image_size=(8, 8, 1))
    found = jaxret.load_encoder(folder).encode(protocol.query.images)
    np.testing.assert_array_equal(found, hasher.encode(params, protocol.query.images))


@pytest.mark.soak
def test_a_script_runs_a_hasher_and_a_data_set_from_outside(outside):
    (outside / "run.py").write_text(
        "import os, runpy, sys\n"
        "import median, stripes\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    run = outside / "run"
    command = [
        *(sys.executable, outside / "run.py", ROOT / "experiments" / "baseline.py"),
        *("--method=median", "--bits=16", "--dataset=stripes", f"--workdir={run}"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=outside, check=False)
    assert ran.returncode == 0, ran.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["dataset"] == "stripes"
    assert metrics["metrics"]["map@1/retrieved"] > 0.8
    encoder = jaxret.load_encoder(run / "encoder")
    assert (encoder.hasher.spec["name"], encoder.bits_or_dims) == ("median", 16)
    assert encoder.class_names == ("wide", "middle", "narrow")
