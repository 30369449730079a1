"""The training scripts as a person runs them: what a run leaves, prints and draws."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import types

import drawing
import harness
import jax
import numpy as np
import pytest
import report
import search_photos
import train_autoencoder
import train_vae
import training
from marks import slow
from scripts import ROOT, SMALL, command, in_process, parameters, refusal, run

import jaxret
from jaxret import data
from jaxret.hashers import weights

__all__ = ["in_process"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A work folder of a short run from the command line, and what the run printed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, out, err = command("train_vae.py", *SMALL, f"--workdir={workdir}")
    assert code == 0, err
    return workdir, out, err


def test_a_run_leaves_what_the_contract_says(finished):
    workdir, out, _ = finished
    assert {path.name for path in workdir.iterdir()} == {
        "args.flags", "log.jsonl", "metrics.json", "checkpoints", "encoder", "plots"
    }  # fmt: skip
    plots = {path.name for path in (workdir / "plots").iterdir()}
    assert plots == {"losses.png", "reconstructions.png", "retrieval.png", "samples.png"}
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["schema"] == 1
    assert result["dataset"] == "digits"
    assert result["protocol"]["gallery"] + result["protocol"]["query"] == 1797
    assert result["config"]["hidden"] == "16"
    for name in ("map@1/retrieved", "map@2/retrieved", "precision@2", "precision@10",
                 "map@1000/retrieved", "map@all/all"):  # fmt: skip
        assert 0 < result["metrics"][name] <= 1
    assert result["train"]["epochs"] == 2
    assert result["train"]["steps"] == 2 * (result["protocol"]["train"] // 100)
    assert result["train"]["elbo_nats"] < 0 < result["train"]["images_per_second"]
    assert {"device", "jax", "jaxret", "commit"} <= result["environment"].keys()
    assert len((workdir / "log.jsonl").read_text().splitlines()) == 2
    assert "10 classes: 0 (178)" in out


def test_a_run_says_its_headline_scores_beside_the_baselines_and_that_it_loses(finished):
    workdir, out, _ = finished
    result = json.loads((workdir / "metrics.json").read_text())
    assert result["baselines"].keys() == {"pixels", "pca"}
    lines = out.splitlines()
    (header,) = (line for line in lines if "this run" in line)
    assert header.split("  ")[-2:] == ["raw pixels", "PCA, 4 numbers"]
    for words, key in (("1-NN accuracy", "map@1/retrieved"), ("precision@10", "precision@10"),
                       ("map@all", "map@all/all")):  # fmt: skip
        (line,) = (line for line in lines if line.startswith(words))
        columns = (result["metrics"], *(b["metrics"] for b in result["baselines"].values()))
        assert line.removeprefix(words).split() == [f"{scores[key]:.4f}" for scores in columns]
    (line,) = (line for line in lines if line.startswith("a baseline retrieves better"))
    assert "raw pixels (1-NN accuracy, precision@10, map@all)" in line
    assert "try --contrastive_weight" in line
    assert "more --epochs" in line


@pytest.mark.soak
def test_raw_pixels_beside_a_run_score_as_the_baseline_script_scores_them(finished, tmp_path):
    import baseline

    beside = json.loads((finished[0] / "metrics.json").read_text())["baselines"]
    for method, size in (("pixels", ()), ("pca", ("--dim=4",))):
        alone = run(baseline, tmp_path / method, f"--method={method}", *size)
        for name in ("map@1/retrieved", "precision@10", "map@1000/retrieved"):
            assert beside[method]["metrics"][name] == pytest.approx(alone["metrics"][name])


def test_bits_have_itq_beside_them_and_long_bits_lsh():
    import baselines

    images = np.zeros((100, 4, 4, 1), np.uint8)
    named = {
        (size, distance): baselines.of_codes(size, distance, images)[1].name
        for size, distance in ((8, "hamming"), (17, "hamming"), (8, "euclidean"), (99, "cosine"))
    }
    assert list(named.values()) == [
        "ITQ, 8 bits", "LSH, 17 bits", "PCA, 8 numbers", "PCA, 16 numbers"
    ]  # fmt: skip


def test_advice_names_no_flag_that_the_run_had():
    def told(script, **flags):
        return report.advice_for(script.CONFIG(workdir="w", **flags), script.ADVICE)

    rest = "more --epochs, a smaller --beta or more --latent_dim"
    positives = "--contrastive_weight=100 --knn_positives=10"
    assert told(train_vae) == f"try {positives}, {rest}"
    assert told(train_vae, contrastive_weight=1000, knn_positives=20) == f"try {rest}"
    with_shift = told(train_vae, contrastive_weight=100, shift=1)
    assert with_shift == f"try --knn_positives=10, {rest}"
    assert told(train_autoencoder, batch_norm=True) == "try more --epochs or more --latent_dim"
    assert told(search_photos, method="pixels") == "try --method=photo"
    assert told(search_photos, method="photo") == ""


def test_a_lead_within_chance_is_not_called_better():
    import baselines

    def found(score):
        return {"itq": {"name": "ITQ", "queries": 100, "metrics": {"map@1/retrieved": score}}}

    ours = {"map@1/retrieved": 0.5}  # a standard error of 0.05
    assert baselines.better(ours, found(0.59)) == {}
    assert baselines.better(ours, found(0.61)) == {"ITQ": ["1-NN accuracy"]}


def test_progress_tells_rate_loss_and_time_left(finished):
    _, _, err = finished
    line = err.splitlines()[0]
    assert all(word in line for word in ("epoch 1/2", "loss", "images/s", "left"))


@pytest.mark.soak
def test_the_resolved_flags_repeat_the_run(finished, tmp_path):
    workdir, _, _ = finished
    again = run(train_vae, tmp_path / "again", f"--flagfile={workdir / 'args.flags'}",
                "--baselines=false", f"--workdir={tmp_path / 'again'}")  # fmt: skip
    first, second = parameters(workdir), parameters(tmp_path / "again")
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert json.loads((workdir / "metrics.json").read_text())["metrics"] == again["metrics"]


def test_the_kept_encoder_gives_the_codes_of_the_run(finished):
    workdir, _, _ = finished
    encoder = jaxret.load_encoder(workdir / "encoder")
    assert (encoder.bits_or_dims, encoder.distance) == (4, "euclidean")
    assert encoder.class_names == tuple("0123456789")
    _, protocol, hasher, params = training.finished(train_vae, workdir)
    images = protocol.query.images[:5]
    np.testing.assert_allclose(
        encoder.encode(images), hasher.encode(params, images), rtol=1e-5, atol=1e-6
    )


def test_the_bound_is_of_the_trained_model_on_the_training_images(finished):
    workdir, _, _ = finished
    config, protocol, hasher, params = training.finished(train_vae, workdir)
    means = report.measured(hasher, params, protocol.train, config.seed)
    elbo = json.loads((workdir / "metrics.json").read_text())["train"]["elbo_nats"]
    assert elbo == pytest.approx(-means["negative_elbo_nats"], rel=1e-4)


@pytest.mark.soak
def test_an_augmented_run_of_positives_by_former_flag_names(tmp_path, capsys):
    result = run(train_vae, tmp_path / "w", *SMALL, "--contrast=1", "--neighbours=2", "--shift=1")
    err = capsys.readouterr().err
    assert "--contrast is now --contrastive_weight" in err
    assert "--neighbours is now --knn_positives" in err
    assert result["config"]["contrastive_weight"] == 1
    assert result["config"]["knn_positives"] == 2
    line = json.loads((tmp_path / "w" / "log.jsonl").read_text().splitlines()[0])
    assert line["ntxent"] > 0


def test_a_run_starts_from_the_weights_of_another_or_of_an_encoder(finished, tmp_path):
    workdir, _, _ = finished
    config, protocol, hasher, params = training.finished(train_vae, workdir)
    for source in (workdir, workdir / "encoder"):
        started = dataclasses.replace(config, init_from=str(source), workdir=str(tmp_path / "w"))
        state = training.initial_state(started, hasher, protocol.train)
        assert int(state.step) == 0
        jax.tree.map(np.testing.assert_array_equal, weights(state), params)
    said = refusal(train_vae, tmp_path / "w", f"--init_from={workdir}", "--hidden=8", *SMALL[1:])
    assert "is of another model" in said
    said = refusal(train_vae, tmp_path / "w", f"--init_from={tmp_path}", *SMALL)
    assert "is neither a run's folder nor a kept encoder" in said
    assert not (tmp_path / "w").exists()


def test_weights_of_a_run_without_an_encoder_come_from_its_checkpoint(finished, tmp_path):
    import shutil

    shutil.copytree(finished[0] / "checkpoints", tmp_path / "run" / "checkpoints")
    config, protocol, hasher, params = training.finished(train_vae, finished[0])
    config = dataclasses.replace(config, init_from=str(tmp_path / "run"))
    state = training.initial_state(config, hasher, protocol.train)
    jax.tree.map(np.testing.assert_array_equal, weights(state), params)


def test_a_picture_that_fails_is_a_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # of the fixture that draws nothing

    def fail():
        raise RuntimeError("no such font")

    saved = []
    place = types.SimpleNamespace(plot=lambda name, figure: saved.append((name, figure)))
    drawing.save(place, {"broken": fail, "whole": lambda: "figure"})
    assert saved == [("whole", "figure")]
    assert capsys.readouterr().err == "warning: plots/broken.png failed: no such font\n"


@pytest.mark.soak
def test_codes_of_two_bits_are_drawn_as_a_plane_and_by_their_balance(tmp_path, monkeypatch):
    pictures = {}
    monkeypatch.setattr(drawing, "save", lambda _, named: pictures.update(named))
    flags = ("--latent=bernoulli", "--latent_dim=2", "--hidden=16", "--epochs=1")
    run(train_vae, tmp_path / "w", *flags)
    assert pictures.keys() == {
        "retrieval", "losses", "reconstructions", "bits", "latents", "samples"
    }  # fmt: skip
    assert pictures["bits"]().get_suptitle().startswith("digits-test, w")  # its data and its run


@pytest.mark.slow
@pytest.mark.parametrize("latent", ["gaussian", *slow("clipped")])
def test_a_latent_plane_has_a_manifold(latent):
    config = train_vae.CONFIG(workdir="w", latent=latent, latent_dim=2, hidden="8")
    protocol = data.load_protocol("test", "digits")
    hasher = train_vae.hasher(config, protocol)
    state = training.initial_state(config, hasher, protocol.train)
    pictures = train_vae.pictures(config, hasher, weights(state), protocol, "title")
    assert pictures.keys() == {"samples", "manifold"}
    assert pictures["manifold"]().get_suptitle().startswith("title\nDecoded from a grid")


def test_a_folder_of_another_configuration_is_refused_and_left_alone(finished):
    workdir, _, _ = finished
    before = (workdir / "args.flags").read_text()
    said = refusal(train_vae, workdir, *SMALL, "--seed=1", "--resume")
    assert "holds checkpoints of another configuration (seed 0 there, 1 here)" in said
    assert "add --resume" in refusal(train_vae, workdir, *SMALL)
    assert (workdir / "args.flags").read_text() == before


def test_facts_of_a_run_need_neither_an_installed_package_nor_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "REPOSITORY", tmp_path)
    facts = harness.environment()
    assert facts["jaxret"] == jaxret.__version__
    assert facts["commit"] is None
    if hasattr(os, "sched_getaffinity"):
        assert f"{len(os.sched_getaffinity(0))} threads" in facts["device"]


@pytest.mark.soak
def test_a_cache_folder_of_jax_that_the_environment_names_is_kept(tmp_path):
    code = (
        "import harness, jax; harness._prepare_process(None); "
        "print(jax.config.jax_compilation_cache_dir)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "experiments", ROOT)))}
    env.pop("JAX_COMPILATION_CACHE_DIR", None)
    for extra, expected in (
        ({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}, str(tmp_path)),
        ({"XDG_CACHE_HOME": str(tmp_path)}, str(tmp_path / "jaxret" / "xla")),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env | extra, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert done.stdout.strip() == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_scripts_keep_the_memory_that_they_free():
    script = """
import resource, sys
import harness, numpy
if sys.argv[1] == "kept":
    harness._prepare_process(None)
numpy.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

    def pages(way):
        told = subprocess.run(
            [sys.executable, "-c", script, way], capture_output=True, text=True, check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        return int(told.stdout)

    # 64 MB are 16,384 pages of 4 KB, or 32 of 2 MB, which NumPy asks for where there are some.
    assert pages("kept") < 10 < pages("given back")
