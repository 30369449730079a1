"""What a person gives a training script: flags, folders of images, one line where it is wrong."""

import dataclasses
import os
import struct
import subprocess
import sys

import harness
import numpy as np
import options
import pytest
import train_autoencoder
import train_hasher
import train_vae
from PIL import Image
from scripts import ROOT, SMALL, command, in_process, refusal, run

import jaxret
from jaxret import data

__all__ = ["in_process"]

SCRIPTS = ("train_vae", "train_autoencoder", "train_hasher", "train_method", "baseline",
           "reproduce")  # fmt: skip


def test_former_names_are_accepted_in_flagfiles_and_in_kept_results(tmp_path, capsys):
    (tmp_path / "old.flags").write_text("--contrast=3\n")
    config = options.parse(train_vae.CONFIG, [f"--flagfile={tmp_path / 'old.flags'}"])
    assert config.contrastive_weight == 3
    assert capsys.readouterr().err == "--contrast is now --contrastive_weight\n"
    kept = train_vae.CONFIG.from_kept({"contrast": 2.0, "hidden": "7", "of_another_time": 1})
    assert (kept.contrastive_weight, kept.hidden) == (2.0, "7")


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


def test_a_folder_of_fewer_images_than_the_default_batch_is_one_batch(tmp_path):
    photos = folder_of_images(tmp_path)
    config = train_vae.CONFIG(workdir="w", dataset=f"folder:{photos}", image_size=8)
    protocol, _ = harness.load_data(config)
    n = len(protocol.train.images)
    assert n < config.batch_size
    assert harness.with_batches_of(config, protocol.train).batch_size == n
    given = dataclasses.replace(config, batch_size=2)
    assert harness.with_batches_of(given, protocol.train) is given
    with pytest.raises(ValueError, match=f"batch_size must lie between 1 and .* {n}, got 99"):
        harness.load_data(dataclasses.replace(config, batch_size=99))
    digits = data.load("digits", "train")
    assert harness.with_batches_of(config, digits) is config


@pytest.mark.slow
def test_a_run_on_a_small_folder_says_its_batch_size_and_goes_on_after_a_stop(tmp_path, capsys):
    flags = (f"--dataset=folder:{folder_of_images(tmp_path / 'photos')}", "--image_size=8", *SMALL)
    result = run(train_vae, tmp_path / "w", *flags)
    n = result["protocol"]["train"]
    assert result["config"]["batch_size"] == n
    assert result["train"]["steps"] == 2
    line = f"batch size: {n}, all training images (100 are the default)"
    assert line in capsys.readouterr().out.splitlines()
    assert run(train_vae, tmp_path / "w", *flags, "--resume")["metrics"] == result["metrics"]


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


def test_a_work_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    said = refusal(train_vae, tmp_path / "file" / "w", *SMALL)
    assert str(tmp_path / "file") in said


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
