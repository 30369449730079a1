"""Search in two stages, indexes and landmarks: what the scripts compute beyond training."""

import json

import harness
import jax
import numpy as np
import pytest
import search_cifar4
import search_index
import search_landmarks
import search_tables
import vectors
from PIL import Image
from scripts import in_process, refusal, run  # noqa: F401  (a fixture)

from jaxret import data


def test_each_of_the_first_results_is_a_guess_and_ten_of_them_vote():
    gallery = np.arange(40, dtype=np.float32)[:, None]
    labels = np.repeat([0, 1], 20)
    query = np.array([[5.0], [35.0], [17.2]], np.float32)  # the last has results of both classes
    scores = search_cifar4.guesses(query, gallery, np.array([0, 1, 1]), labels, "euclidean")
    assert scores["vote"] == pytest.approx(2 / 3)
    # 10 of 10 results of class 0; of class 1 10, and 3 of the rows 13 to 22
    assert scores["recall"] == pytest.approx((10 / 10 + 13 / 20) / 2)


@pytest.mark.soak
def test_a_gallery_that_holds_the_queries_scores_higher(tmp_path):
    flags = (
        "--dataset=digits",
        "--method=labels",
        "--features=pixels",
        "--bits=16",
        "--steps=3",
        "--eval_k=20",
    )
    found = run(search_cifar4, tmp_path / "run", *flags)["metrics"]
    assert found["f1/leaky"] > found["f1"] > 0.3
    assert found["megabytes"] == pytest.approx(1438 * 16 / 8 / 1e6)
    assert found["accuracy"] == found["vote"]


@pytest.mark.soak
def test_a_smaller_classifier_is_trained_once_and_gives_the_features(tmp_path):
    flags = (
        "--dataset=digits", "--channels=2,2,2,4", "--dense=8", "--trunk_epochs=1", "--epochs=1",
        "--dims=3", "--eval_k=20", "--nobaselines", f"--trunk={tmp_path / 'trunk'}",
    )  # fmt: skip
    first = run(search_cifar4, tmp_path / "trunk-alone", "--method=trunk", *flags)["metrics"]
    written = (tmp_path / "trunk" / "metrics.json").stat().st_mtime_ns
    second = run(search_cifar4, tmp_path / "both", "--method=two-stage", *flags)["metrics"]
    assert (tmp_path / "trunk" / "metrics.json").stat().st_mtime_ns == written
    assert "dense" in refusal(search_cifar4, tmp_path, "--method=two-stage", *flags, "--dense=9")
    assert second["accuracy"] == second["vote"]
    assert first["megabytes"] / second["megabytes"] == pytest.approx(4 / 3)


def test_an_autoencoder_of_features_leaves_its_loss_by_epoch(tmp_path):
    flags = ("--dataset=digits", "--features=pixels", "--eval_k=20", "--epochs=2", "--dims=3")
    for again in ((), ("--resume",)):  # it cannot go on: it learns anew
        trained = run(
            search_cifar4, tmp_path / "run", "--method=features-autoencoder", *flags, *again
        )
        log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in log] == [1, 2]
        assert log[1]["mse"] < log[0]["mse"]
        assert trained["train"]["epochs"] == 2
        assert trained["train"]["images_per_second"] > 0
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_mirrored_images_follow_those_that_train(tmp_path):
    digits = data.load("digits", "train")
    both = vectors.with_mirrored(digits._replace(names=tuple(map(str, range(len(digits.labels))))))
    n = len(digits.images)
    np.testing.assert_array_equal(both.images[:n], digits.images)
    np.testing.assert_array_equal(both.images[n:, :, ::-1], digits.images)
    np.testing.assert_array_equal(both.labels, np.tile(digits.labels, 2))
    assert both.names[n:] == both.names[:n]
    for method, flag, said in (
        ("pixels", "--mirror", "features-autoencoder, photo, labels, last-blocks"),
        ("features", "--mirror", "got --method=features"),
        ("end-to-end", "--both_views", "--both_views is for --method=features-autoencoder, photo"),
        ("labels", "--maps=efficientnet-lite0@224-block12", "--method=last-blocks, got"),
        ("labels", "--ema=0.9", "--ema is for --method=trunk, two-stage, got --method=labels"),
        ("photo", "--clean_statistics", "--clean_statistics is for --method=trunk, two-stage"),
        ("pixels", "--channels=4,4,4,4", "--channels is for --method=trunk, two-stage"),
    ):
        assert said in refusal(search_cifar4, tmp_path, f"--method={method}", flag)
    both = ("--method=labels", "--both_views", "--baselines")
    assert "--baselines see one view" in refusal(search_cifar4, tmp_path, *both)


def test_mirrored_images_are_not_searched(monkeypatch):
    monkeypatch.setattr(vectors, "of_protocol", lambda protocol, *_: protocol)
    config = search_cifar4.CONFIG(dataset="digits", mirror=True, workdir="w")
    protocol, _ = harness.load_data(config)
    assert len(protocol.train.images) == 2 * len(protocol.gallery.images)


def test_codes_of_both_views_are_the_mean_of_an_image_and_its_mirror_image():
    shared = {"dataset": "digits", "method": "labels", "features": "pixels", "bits": 16, "steps": 3}
    one = search_cifar4.CONFIG(**shared, workdir="w")
    both = search_cifar4.CONFIG(**shared, workdir="w", both_views=True)
    (plain, _), (doubled, _) = map(harness.load_data, (one, both))
    np.testing.assert_array_equal(doubled.train.images, plain.train.images)
    mirrored = data.load("digits", "test").images[:, :, ::-1]
    hasher = search_cifar4.hasher(one, plain)
    params, _ = hasher.fit(jax.random.key(0), plain.train.images, plain.train.labels)
    views = hasher.encode(params, plain.query.images), hasher.encode(params, mirrored)
    found = search_cifar4.hasher(both, doubled).encode(params, doubled.query.images)
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-5)
    assert doubled.gallery.images.shape[1] == 2 * doubled.train.images.shape[1]


@pytest.mark.slow
def test_an_encoder_of_one_view_does_not_stay_beside_scores_of_both(tmp_path):
    flags = ("--dataset=digits", "--method=labels", "--features=pixels", "--bits=16", "--steps=3")
    one = run(search_cifar4, tmp_path / "run", *flags, "--eval_k=20")["metrics"]
    assert (tmp_path / "run" / "encoder").exists()
    both = run(search_cifar4, tmp_path / "run", *flags, "--eval_k=20", "--both_views")["metrics"]
    assert both["f1"] != one["f1"]
    assert not (tmp_path / "run" / "encoder").exists()


def test_repeated_rows_begin_with_the_rows_themselves():
    z = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    more = search_index.repeated(z, 50, 0)
    np.testing.assert_array_equal(more[:20], z)
    assert 0 < np.abs(more[20:40] - z).mean() < z.std()
    np.testing.assert_array_equal(search_index.repeated(z, 12, 0), z[:12])


@pytest.mark.parametrize(
    ("features", "said"), [("sixels", "--features must be one of pixels, .*'sixels'"), ("", "none")]
)
def test_features_that_are_none_are_refused_before_they_are_computed(features, said):
    with pytest.raises(ValueError, match=said):
        search_index.CONFIG(workdir="unused", features=features).check()


@pytest.mark.parametrize("name", ["bits", "floats-64"])
def test_exact_indexes_find_what_is_nearest(name):
    z = np.random.default_rng(1).normal(size=(60, 64)).astype(np.float32)
    found, costs = search_index.measured(search_index.INDEXES[name][1], z, z[:5])
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert search_index.shared(found, found) == 1
    assert search_index.shared(found[:, :5], found) == 0.5
    assert costs["megabytes"] > 60 * 8 / 1e6


def test_candidates_share_all_bits_of_a_table_with_the_query():
    z = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    query = z[:5] + 0.3
    bits = [(x >= 0).reshape(len(x), 2, 3) for x in (query, z)]
    expected = (bits[0][:, None] == bits[1][None]).all(axis=3).any(axis=2)
    asked, kept = (search_tables.buckets(x, 3) for x in (query, z))
    assert kept.shape == (50, 2)
    np.testing.assert_array_equal(list(search_tables.candidates(asked, kept)), expected)


@pytest.mark.soak
def test_more_tables_find_more_and_longer_buckets_read_less(tmp_path):
    def scores(bits, count):
        flags = ("--dataset=digits", "--features=pixels", f"--bits={bits}")
        return run(search_tables, tmp_path / f"{bits}-{count}", *flags, f"--hash_tables={count}")

    few, many, long = (scores(*sizes)["metrics"] for sizes in ((6, 1), (6, 4), (12, 4)))
    assert few["recall@10"] < many["recall@10"]
    assert many["candidates"] > long["candidates"]
    assert many["recall@10"] > many["candidates"]


@pytest.fixture
def landmarks(tmp_path):
    """A folder of three landmarks, each of one colour, with some noise."""
    rng = np.random.default_rng(0)
    for landmark in range(3):
        for i in range(12):
            pixels = np.clip(80 * landmark + rng.integers(0, 60, (16, 16, 3)), 0, 255)
            path = tmp_path / "photos" / str(landmark) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.mark.slow
def test_clusters_of_colours_are_landmarks_and_random_ones_are_not(landmarks, tmp_path):
    flags = (f"--dataset=folder:{landmarks}", "--image_size=16", "--batch_size=4")
    own = run(search_landmarks, tmp_path / "own", "--method=colour-histogram", *flags)["metrics"]
    drawn = run(search_landmarks, tmp_path / "drawn", "--method=random", *flags)["metrics"]
    assert own["nmi"] == own["ami"] == own["ri"] == pytest.approx(1)
    assert own["classes"] == own["clusters"] == 3
    assert drawn["ami"] < 0.3
    assert drawn["ri"] > drawn["ami"] + 0.2


def test_the_gallery_of_landmarks_ends_with_what_validates(landmarks):
    flags = {"dataset": f"folder:{landmarks}", "image_size": 16, "batch_size": 4}
    config = search_landmarks.CONFIG(workdir="w", **flags)
    protocol, overlap = search_landmarks.harness.load_data(config)
    validating = search_landmarks.validating(protocol)
    assert overlap == 0
    assert [len(part.labels) for part in (protocol.train, validating, protocol.query)] == [27, 6, 3]
    assert data.shared_images(protocol.train, validating) == 0
    assert protocol.name == "photos-landmarks"


def test_a_size_that_a_model_does_not_rebuild_is_refused(landmarks, tmp_path):
    flags = (f"--dataset=folder:{landmarks}", "--method=m1", "--image_size=96", "--batch_size=4")
    assert "M1 and M2 rebuild 92 x 92, M3 96 x 96" in refusal(search_landmarks, tmp_path, *flags)


@pytest.mark.soak
def test_the_epoch_that_validates_best_is_kept(landmarks, tmp_path):
    flags = (f"--dataset=folder:{landmarks}", "--method=m1", "--image_size=92", "--epochs=3")
    found = run(search_landmarks, tmp_path / "m1", "--batch_size=8", *flags)
    (history,) = search_landmarks._histories.values()
    assert found["metrics"]["loss/validation"] == pytest.approx(min(v for _, v in history))
    header = json.loads((tmp_path / "m1" / "encoder" / "encoder.json").read_text())
    assert header["hasher"]["settings"]["model"] == "landmarks_m1"
