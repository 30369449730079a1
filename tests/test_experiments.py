"""The scripts as a person runs them: results, resuming, and one clear line for bad input."""

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
import time
import types

import drawing
import harness
import jax
import numpy as np
import options
import pytest
import report
import train_autoencoder
import train_hasher
import train_vae
import training
import workdir as workdirs
from marks import slow
from PIL import Image
from scripts import (
    ROOT,
    command,
    in_process,
    parameters,
    refusal,
    run,
    start,
    stopped_after,
)

import jaxret
from jaxret import data
from jaxret.hashers import weights

__all__ = ["in_process"]
SMALL = ("--hidden=16", "--latent_dim=4", "--epochs=2")
SCRIPTS = ("train_vae", "train_autoencoder", "train_hasher", "train_method", "baseline",
           "reproduce")  # fmt: skip


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


def test_former_names_are_accepted_in_flagfiles_and_in_kept_results(tmp_path, capsys):
    (tmp_path / "old.flags").write_text("--contrast=3\n")
    config = options.parse(train_vae.CONFIG, [f"--flagfile={tmp_path / 'old.flags'}"])
    assert config.contrastive_weight == 3
    assert capsys.readouterr().err == "--contrast is now --contrastive_weight\n"
    kept = train_vae.CONFIG.from_kept({"contrast": 2.0, "hidden": "7", "of_another_time": 1})
    assert (kept.contrastive_weight, kept.hidden) == (2.0, "7")


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_parameters_bit_for_bit(tmp_path, monkeypatch):
    flags = ("--hidden=16", "--latent_dim=4", "--epochs=4")
    with monkeypatch.context() as patch:
        stopped_after(patch, 2)
        with pytest.raises(SystemExit) as stopped:
            run(train_vae, tmp_path / "stopped", *flags)
    assert stopped.value.code == 130
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    resumed = run(train_vae, tmp_path / "stopped", *flags, "--resume")
    whole = run(train_vae, tmp_path / "whole", *flags)
    assert resumed["metrics"] == whole["metrics"]
    first, second = parameters(tmp_path / "whole"), parameters(tmp_path / "stopped")
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    log = (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2, 3, 4]
    assert "--resume" not in (tmp_path / "stopped" / "args.flags").read_text()


@pytest.mark.soak
def test_a_killed_run_resumes_to_the_same_parameters_bit_for_bit(tmp_path):
    flags = ("--hidden=64", "--latent_dim=4", "--epochs=60", "--batch_size=10")
    flags += ("--baselines=false",)
    code, _, err = command("train_vae.py", *flags, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, err
    process = start(
        "train_vae.py", *flags, f"--workdir={tmp_path / 'killed'}", JAXRET_CHECKPOINT_SECONDS="0"
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # until something is saved, and the next save is under way
        if len(list((tmp_path / "killed").glob("checkpoints/[0-9]*"))) >= 2:
            break
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    code, _, err = command("train_vae.py", *flags, f"--workdir={tmp_path / 'killed'}", "--resume")
    assert code == 0, err
    assert "epoch 1/60" not in err  # it did not start over
    whole, resumed = parameters(tmp_path / "whole"), parameters(tmp_path / "killed")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name])
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    epochs = [[json.loads(line)["epoch"] for line in log.splitlines()] for log in logs]
    assert epochs[0] == epochs[1] == list(range(1, 61))


@pytest.mark.soak
def test_a_finished_run_can_be_trained_longer_or_gathered_without_its_log(tmp_path):
    flags = ("--hidden=16", "--latent_dim=4")
    short = run(train_vae, tmp_path / "w", *flags, "--epochs=1")
    (tmp_path / "w" / "log.jsonl").unlink()
    again = run(train_vae, tmp_path / "w", *flags, "--epochs=1", "--resume")
    assert again["metrics"] == short["metrics"]
    assert again["train"] == short["train"]
    longer = run(train_vae, tmp_path / "w", *flags, "--epochs=2", "--resume")
    straight = run(train_vae, tmp_path / "straight", *flags, "--epochs=2")
    assert longer["metrics"] == straight["metrics"]
    said = refusal(train_vae, tmp_path / "w", *flags, "--epochs=1", "--resume")
    assert "holds a run of 2 epochs, which --epochs=1 cannot shorten" in said


@pytest.mark.soak
def test_a_run_whose_schedule_spans_it_cannot_be_trained_longer(tmp_path):
    flags = (*SMALL, "--learning_rate_end=1e-4")
    run(train_vae, tmp_path / "w", *flags)
    said = refusal(train_vae, tmp_path / "w", *flags, "--epochs=9", "--resume")
    assert "over 2 epochs, whose learning rate" in said
    assert f"--init_from={tmp_path / 'w'}" in said


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


def test_two_runs_in_one_folder_are_told_of_each_other(tmp_path):
    with workdirs.locked(tmp_path):
        said = refusal(train_vae, tmp_path, *SMALL)
        assert f"is in use by process {os.getpid()} on " in said
    with workdirs.locked(tmp_path):  # and it is free again
        pass
    assert list(tmp_path.iterdir()) == []


def folder_of_images(place, per_class=6, size=8, classes=("cat", "dog")):
    """A folder of images, one sub-folder per class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (place / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(pixels).save(place / name / f"{i}.png")
    return place


FOLDER = ("--image_size=8", "--batch_size=2", *SMALL)


@pytest.mark.soak
def test_images_added_between_stop_and_resume_are_named(tmp_path):
    photos = folder_of_images(tmp_path / "photos")
    flags = (f"--dataset=folder:{photos}", *FOLDER)
    result = run(train_vae, tmp_path / "w", *flags)
    # 12 images: what needs 1000 of them is absent, and so is precision@10 in a gallery of fewer.
    assert "map@1000/retrieved" not in result["metrics"]
    assert "map@all/all" in result["metrics"]
    rng = np.random.default_rng(1)
    for i in range(10):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(photos / "cat" / f"new{i}.png")
    said = refusal(train_vae, tmp_path / "w", *flags, "--resume")
    assert "the training images are not those" in said
    assert "cat" in said


@pytest.mark.soak
def test_images_without_labels_are_trained_on_and_kept_but_not_scored(tmp_path, capsys):
    photos = folder_of_images(tmp_path, classes=("photos",)) / "photos"
    result = run(train_vae, tmp_path / "w", f"--dataset=folder:{photos}", *FOLDER)
    assert result["metrics"].keys() == {"negative_elbo_nats", "nll_nats", "kl_nats"}
    assert "no retrieval scores" in capsys.readouterr().out
    assert jaxret.load_encoder(tmp_path / "w" / "encoder").image_size == (8, 8, 3)
    said = refusal(train_hasher, tmp_path / "h", f"--dataset=folder:{photos}", *FOLDER[:2])
    assert "a hash network needs labels" in said


@pytest.mark.soak
def test_labels_come_from_a_csv_file(tmp_path):
    photos = folder_of_images(tmp_path, classes=("photos",), per_class=10) / "photos"
    lines = [f"{path.name},{'ab'[i % 2]}" for i, path in enumerate(sorted(photos.iterdir()))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines]) + "\n")
    flags = (f"--dataset=folder:{photos}", f"--labels={tmp_path / 'labels.csv'}", *FOLDER)
    assert "map@1/retrieved" in run(train_vae, tmp_path / "w", *flags)["metrics"]
    assert "--labels is for --dataset=folder" in refusal(
        train_vae, tmp_path / "v", f"--labels={tmp_path / 'labels.csv'}"
    )


def test_queries_that_are_in_the_gallery_are_refused_unless_allowed(monkeypatch):
    whole = data.load_protocol("test", "digits")
    query = data.take(whole.query, slice(20))
    query = query._replace(images=np.concatenate([whole.gallery.images[:3], query.images[3:]]))
    monkeypatch.setattr(data, "load_protocol", lambda *a, **k: whole._replace(query=query))
    config = train_vae.CONFIG(workdir="w")
    with pytest.raises(ValueError, match=r"3 of 20 query images .* --allowed_overlap=3"):
        harness.load_data(config)
    protocol, overlap = harness.load_data(dataclasses.replace(config, allowed_overlap=3))
    assert (protocol.known_overlap, overlap) == (3, 3)


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


def small_idx(folder, images=3, labels=3, cut=0):
    """A data folder with an MNIST too small to be the real one."""
    place = folder / "mnist"
    place.mkdir(parents=True)
    for part in ("train", "t10k"):
        pixels = struct.pack(">4i", 0x803, images, 28, 28) + bytes(images * 784)
        (place / f"{part}-images-idx3-ubyte").write_bytes(pixels[: len(pixels) - cut])
        (place / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 0x801, labels) + bytes(labels)
        )
    return folder


BAD = {
    "unknown data set": (["--dataset=mnits"], "mnits"),
    "missing data folder": (["--dataset=mnist", "--data_dir={tmp}/none"], "none"),
    "empty data folder": (["--dataset=mnist", "--data_dir={tmp}/empty"], "empty"),
    "truncated file": (["--dataset=mnist", "--data_dir={tmp}/cut"], "train-images-idx3-ubyte"),
    "wrong checksum": (["--dataset=mnist", "--data_dir={tmp}/other"], "train-images-idx3-ubyte"),
    "labels that differ": (["--dataset=mnist", "--data_dir={tmp}/labels"], "labels"),
    "missing folder of images": (["--dataset=folder:{tmp}/none"], "none"),
    "no latent": (["--latent_dim=0"], "--latent_dim must be at least 1, got 0"),
    "hidden not numbers": (["--hidden=500,x"], "--hidden must be positive whole numbers"),
    "hidden not positive": (["--hidden=500,0"], "--hidden must be positive whole numbers"),
    "hidden empty": (["--hidden="], "--hidden must be positive whole numbers"),
    "no epoch": (["--epochs=0"], "--epochs must be at least 1, got 0"),
    "not a number": (["--epochs=x"], "flag --epochs=x"),
    "not a choice": (["--latent=bits"], "--latent=bits: value should be one of <gaussian|"),
    "batch above images": (["--batch_size=5000"], "batch_size must lie between 1 and"),
    "no temperature": (["--temperature=0"], "--temperature must be above 0, got 0"),
    "negative seed": (["--seed=-1"], "--seed must be at least 0, got -1"),
    "huge seed": (["--seed=4294967296"], "--seed must be below 2^32 = 4294967296"),
    "balance": (["--balance=1"], "--balance is for bernoulli and gumbel latents, not gaussian"),
    "contrastive": (
        ["--contrastive_weight=1"],
        "--contrastive_weight needs one of --shift, --degrees, --zoom or --knn_positives above 0",
    ),
    "positives alone": (
        ["--knn_positives=5"], "--knn_positives needs --contrastive_weight above 0, got 0"
    ),
    "too many positives": (
        ["--contrastive_weight=1", "--knn_positives=5000"],
        "--knn_positives must be below the number of training images, ",
    ),
    "levels": (
        ["--quantise_levels=5"], "--quantise_levels must be one of 0, 2, 4, 8, 16, 32, got 5"
    ),
    "distance of another latent": (
        ["--distance=expected_hamming"],
        "--distance=expected_hamming is for bernoulli latents, not gaussian",
    ),
    "negative shift": (["--shift=-1"], "--shift must be at least 0, got -1"),
    "no number": (["--shift=nan"], "--shift must be at least 0, got nan"),
    "stray argument": (["latent_dim=3"], "flags start with --, got 'latent_dim=3'"),
    "unknown protocol": (["--protocol=half"], "half"),
    "misspelt": (["--latent_dmi=3"], "Did you mean: latent_dim"),
    "no flagfile": (["--flagfile={tmp}/none.flags"], "none.flags"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_and_leaves_nothing(case, tmp_path):
    (tmp_path / "empty").mkdir()
    small_idx(tmp_path / "cut", cut=100)
    small_idx(tmp_path / "other")
    small_idx(tmp_path / "labels", labels=2)
    flags, text = BAD[case]
    said = refusal(train_vae, tmp_path / "w", *(flag.format(tmp=tmp_path) for flag in flags))
    assert text in said
    assert not (tmp_path / "w").exists()


def test_a_missing_work_folder_is_asked_for():
    assert refusal(train_vae, "").startswith("error: --workdir is required")


def test_a_folder_of_another_configuration_is_refused_and_left_alone(finished):
    workdir, _, _ = finished
    before = (workdir / "args.flags").read_text()
    said = refusal(train_vae, workdir, *SMALL, "--seed=1", "--resume")
    assert "holds checkpoints of another configuration (seed 0 there, 1 here)" in said
    assert "add --resume" in refusal(train_vae, workdir, *SMALL)
    assert (workdir / "args.flags").read_text() == before


def test_a_work_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    said = refusal(train_vae, tmp_path / "file" / "w", *SMALL)
    assert str(tmp_path / "file") in said


def test_checkpoint_seconds_that_are_no_number_are_refused(tmp_path, monkeypatch):
    for text in ("abc", "-1", "nan"):
        monkeypatch.setenv("JAXRET_CHECKPOINT_SECONDS", text)
        said = refusal(train_vae, tmp_path / "w", *SMALL)
        assert f"JAXRET_CHECKPOINT_SECONDS must be a number of seconds, got '{text}'" in said
    assert not (tmp_path / "w").exists()


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    code, _, err = command(
        "train_vae.py", *SMALL, f"--workdir={tmp_path / 'w'}", JAX_PLATFORMS="cuda"
    )
    assert code == 1
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("error: JAX cannot start the platform of JAX_PLATFORMS=cuda")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("value", ["~/runs/x", "folder:~/runs/x", "~/a,~/b"])
def test_a_tilde_at_the_start_of_a_path_is_the_home_folder(value, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = options.parse(train_vae.CONFIG, [f"--workdir={value}", "--data_dir=a~b"])
    assert config.workdir == value.replace("~", "/home/somebody")
    assert config.data_dir == "a~b"


def test_only_errors_that_jaxret_raises_itself_become_one_line():
    def raised(function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            return harness.one_line(error)
        raise AssertionError("nothing was raised")

    assert raised(options.positive_integers, "hidden", "x").startswith("--hidden must be")
    assert raised(open, "/nowhere/at/all") == "/nowhere/at/all: No such file or directory"
    assert raised(jaxret.load, "mnits", "train").startswith("unknown data set 'mnits'")
    assert raised(lambda: np.zeros(3).reshape(2)) is None  # NumPy's, in a test
    assert raised(data.take, None, None) is None  # an AttributeError
    assert raised(options.positive_integers, "hidden", None) is None
    assert raised(lambda: jaxret.evaluate.evaluate(None, None, None, ks="x")) is None


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(config, protocol):
        return np.zeros(3).reshape(2)

    monkeypatch.setattr(train_vae, "hasher", broken)
    with pytest.raises(ValueError, match="cannot reshape"):
        run(train_vae, tmp_path / "w", *SMALL)


def test_help_lists_every_flag_by_topic_in_whole_sentences(capsys):
    for script in (train_vae, train_autoencoder, train_hasher):
        for switch in ("-h", "--help"):
            harness.run(script.CONFIG, lambda config: None, [switch])
            text = capsys.readouterr().out
        assert text.startswith(script.__doc__.splitlines()[0])
        places = [text.index(f"\n{topic}:\n") for topic in options.TOPICS]
        assert places == sorted(places)
        for field in dataclasses.fields(script.CONFIG):
            assert f"{field.name}" in text
            sentence = field.metadata["help"]
            assert sentence[0].isupper(), field.name
            assert sentence.endswith("."), field.name


def test_help_loads_no_jax():
    code = (
        "import importlib, sys\n"
        f"for name in {SCRIPTS}:\n"
        "    module = importlib.import_module(name)\n"
        "    import harness\n"
        "    harness.run(getattr(module, 'CONFIG', None) or module.ReproduceConfig, None, ['-h'])\n"
        "print('jax' in sys.modules, 'numpy' in sys.modules, file=sys.stderr)\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "experiments", ROOT)))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == ["False", "False"]


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
        "import harness, jax; harness._prepare_process(); "
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
