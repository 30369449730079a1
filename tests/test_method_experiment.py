"""The script of deep methods: on features, with positives, and what it says of codes."""

import drawing
import numpy as np
import pytest
import report
import train_method
from scripts import in_process, refusal, run

from jaxret import data, hashers
from jaxret.data import catalogue
from jaxret.hashers import METHODS

__all__ = ["in_process"]


@pytest.mark.soak
def test_codes_of_features_without_labels_are_scored(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRET_FEATURES_DIR", str(tmp_path / "features"))
    flags = ("--method=contrastive", "--features=layout", "--knn_positives=5", "--bits=16")
    training = ("--epochs=10", "--components=20", "--unit", "--scalars=temperature=0.2")
    result = run(train_method, tmp_path / "run", *flags, *training)
    metrics = result["metrics"]
    assert metrics["map@1000/retrieved"] > 0.5
    assert 0 <= metrics["balance"] < 1
    assert 16 < metrics["distinct_codes"] <= result["protocol"]["gallery"]
    assert metrics["encode_seconds"] > 0


def test_flags_that_make_no_sense_are_refused_in_one_line(tmp_path):
    for flags, said in (
        (("--method=vae2",), "--method must be one of vae"),
        (("--method=dhn", "--scalars=alpha"), "--scalars must be name=number, got 'alpha'"),
        (("--method=vae",), "--method=vae has a script of its own"),
        (("--method=dhn", "--fine"), "--fine needs --features"),
        (("--method=dhn", "--features=none"), "--features must be one of pixels"),
        (("--method=dhn", "--scalars=alpha=1"), "alpha is no setting of this hasher"),
    ):
        assert said in refusal(train_method, tmp_path, *flags)


@pytest.mark.parametrize("name", METHODS)
def test_hidden_layers_of_a_method_are_its_own_unless_flags_say_otherwise(name):
    config = train_method.MethodConfig(workdir="w", method=name)
    assert "hidden" not in config.settings()
    none = train_method.MethodConfig(workdir="w", method=name, hidden="none")
    assert none.settings()["hidden"] == ()


@pytest.mark.slow
def test_results_of_a_query_s_coarse_class_count_as_found_there():
    names = catalogue._CIFAR100
    fine = np.asarray([names.index(n) for n in ("trout", "shark", "boy", "girl")], np.int32)
    codes = np.asarray([[1, 1], [1, 1], [-1, -1], [-1, -1]], np.float32)
    gallery = data.ImageSet(codes, fine, names)
    query = data.ImageSet(codes[::2], fine[[0, 2]], names)
    protocol = data.Protocol("p", gallery, gallery, query, 0)
    hasher = hashers.Hasher(None, lambda params, codes: codes, "hamming")
    config = train_method.MethodConfig(workdir="w", eval_k=2)
    scores = report.retrieval(config, hasher, None, protocol, 0)
    assert scores["precision@2"] == 0.5
    assert scores["precision@2/coarse"] == scores["map@2/retrieved/coarse"] == 1
    others = {part: getattr(protocol, part)._replace(class_names=names[::-1])
              for part in ("gallery", "query")}  # fmt: skip
    of_others = report.retrieval(config, hasher, None, protocol._replace(**others), 0)
    assert not any("coarse" in name for name in of_others)


@pytest.mark.slow
def test_ten_results_vote_for_the_coarse_class_of_a_query():
    names = catalogue._CIFAR100
    rng = np.random.default_rng(0)
    labels = np.arange(2000, dtype=np.int32) % 100
    book = rng.choice([-1.0, 1.0], (100, 48)).astype(np.float32)
    gallery = data.ImageSet(book[labels], labels, names)
    query = data.ImageSet(book[labels[:200]], labels[:200], names)
    protocol = data.Protocol("p", gallery, gallery, query, 0)
    hasher = hashers.Hasher(None, lambda params, codes: codes, "hamming")
    figure = drawing.common(hasher, None, protocol, [], "title")["coarse"]()
    assert "100.00%" in " ".join(text.get_text() for text in figure.texts)
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[0] == "aquatic_mammals"
