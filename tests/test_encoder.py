"""A kept encoder: what comes back is what was saved, and what was damaged is refused."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save

from jaxret import data, encoder
from jaxret.encoder import EncoderError
from jaxret.files import WriteError
from jaxret.hashers import HASHERS, keep
from jaxret.hashers.shallow import itq_hasher, lsh_hasher, pca_hasher, pixels_hasher

KEY = jax.random.key(0)
HEADER = {
    "hasher": {"name": "itq", "settings": {"bits": 3, "iterations": 5}},
    "bits_or_dims": 3,
    "distance": "hamming",
    "image_size": (4, 4, 1),
    "preprocessing": {},
    "class_names": ["cat"],
    "origin": {"dataset": "toy"},
}
WEIGHTS = {
    "mean": jnp.linspace(0, 1, 6).reshape(2, 3),
    "group": {"deeper": {"scalar": np.float32(3)}, "whole": np.array([[1, 2]], np.int8)},
    "flags": np.array([True, False]),
}


def images(n=30, shape=(8, 8, 1), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture
def kept(tmp_path):
    """The folder of a saved encoder of four bits, its hasher and params."""
    hasher = itq_hasher(4, iterations=3)
    params, _ = hasher.fit(KEY, images())
    folder = tmp_path / "encoder"
    options = {"class_names": ("cat", "dog"), "origin": {"dataset": "toy"}}
    keep.save_encoder(folder, hasher, params, image_size=(8, 8, 1), **options)
    return folder, hasher, params


def edit(folder, **changes):
    """Change fields of a header, and make its checksum right again."""
    header = json.loads((folder / encoder.HEADER).read_text())
    header |= changes
    del header["checksum"]
    header["checksum"] = encoder._hash(header)
    (folder / encoder.HEADER).write_text(json.dumps(header))


# The file format


def test_weights_and_header_come_back_as_they_were_written(tmp_path):
    digest = encoder.write(tmp_path / "new" / "encoder", HEADER, WEIGHTS)
    header, weights = encoder.read(tmp_path / "new" / "encoder")
    assert header["digest"] == digest
    assert {name: header[name] for name in HEADER} == HEADER | {"image_size": [4, 4, 1]}
    assert jax.tree.structure(weights) == jax.tree.structure(WEIGHTS)
    jax.tree.map(np.testing.assert_array_equal, weights, WEIGHTS)
    dtypes = jax.tree.map(lambda x: x.dtype, weights)
    assert dtypes == jax.tree.map(lambda x: x.dtype, WEIGHTS)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(12, dtype=">f4"),
        np.arange(12)[::3],
        np.zeros((0, 4), np.float32),
    ],
)
def test_no_layout_of_an_array_is_confused_with_another(tmp_path, array):
    encoder.write(tmp_path, HEADER, {"x": array})
    np.testing.assert_array_equal(encoder.read(tmp_path)[1]["x"], array)


def test_the_weights_file_is_plain_safetensors_with_names_joined_by_slashes(tmp_path):
    encoder.write(tmp_path, HEADER, WEIGHTS)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [encoder.HEADER, encoder.WEIGHTS]
    arrays = load_file(tmp_path / encoder.WEIGHTS)
    assert arrays.keys() == {"mean", "group/deeper/scalar", "group/whole", "flags"}


def test_a_hasher_without_weights_is_kept_too(tmp_path):
    encoder.write(tmp_path, HEADER, {})
    assert encoder.read(tmp_path)[1] == {}


def test_the_digest_is_of_what_decides_a_code_and_of_nothing_else(tmp_path):
    digest = encoder.write(tmp_path, HEADER, WEIGHTS)
    same = HEADER | {"class_names": [], "origin": {"dataset": "another"}}
    assert encoder.write(tmp_path, same, WEIGHTS) == digest
    others = [
        (HEADER | {"image_size": [5, 4, 1]}, WEIGHTS),
        (HEADER | {"hasher": {"name": "itq", "settings": {"bits": 3, "iterations": 6}}}, WEIGHTS),
        (HEADER, WEIGHTS | {"mean": WEIGHTS["mean"] + 1}),
        (HEADER, WEIGHTS | {"mean": WEIGHTS["mean"].reshape(3, 2)}),
    ]
    assert len({digest, *(encoder.write(tmp_path, *other) for other in others)}) == 5


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"key": jax.random.key(0)}, r"key is key<fry>"),
        ({"x": 3.0}, "x is float"),
        ({"x": [np.zeros(2)]}, "x is list"),
        ({"x": np.array(["text"])}, "x is str128"),
        ({"x": jnp.zeros(2, jnp.bfloat16)}, "x is bfloat16"),
        ({"group": {}}, "empty group, group"),
        ({"a/b": np.zeros(2)}, "without a slash, got 'a/b'"),
        ({3: np.zeros(2)}, "without a slash, got 3"),
    ],
)
def test_weights_that_the_format_cannot_hold_are_refused_by_name(tmp_path, weights, reason):
    with pytest.raises(EncoderError, match=reason):
        encoder.write(tmp_path, HEADER, weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.float32(1), float("nan"), {1, 2}, KEY])
def test_a_header_holds_plain_json_only(tmp_path, value):
    with pytest.raises(EncoderError, match="plain JSON"):
        encoder.write(tmp_path, HEADER | {"origin": {"value": value}}, WEIGHTS)
    with pytest.raises(EncoderError, match="needs 'distance'"):
        encoder.write(tmp_path, {k: v for k, v in HEADER.items() if k != "distance"}, WEIGHTS)


# Damage


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def damage_one_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_empty(path):
    path.write_bytes(b"")


def damage_foreign(path):
    path.write_bytes(save({"another": np.zeros(3)}))


@pytest.mark.parametrize("damage", [damage_truncate, damage_one_bit, damage_empty, damage_foreign])
def test_damaged_weights_are_refused_with_their_path(kept, damage):
    damage(kept[0] / encoder.WEIGHTS)
    with pytest.raises(EncoderError, match=f"{kept[0]}/weights.safetensors: is truncated, altered"):
        keep.load_encoder(kept[0])


def test_missing_weights_are_refused(kept):
    (kept[0] / encoder.WEIGHTS).unlink()
    with pytest.raises(EncoderError, match=r"weights\.safetensors: is missing"):
        keep.load_encoder(kept[0])


@pytest.mark.parametrize("damage", [damage_truncate, damage_empty, damage_foreign])
def test_a_header_that_is_not_json_is_refused(kept, damage):
    damage(kept[0] / encoder.HEADER)
    with pytest.raises(EncoderError, match=r"encoder\.json: is not JSON"):
        keep.load_encoder(kept[0])


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": "one"}', '{"schema": 1}'])
def test_json_of_something_else_is_refused(kept, content):
    (kept[0] / encoder.HEADER).write_text(content)
    with pytest.raises(EncoderError, match=r"encoder\.json: is not the header of an encoder"):
        keep.load_encoder(kept[0])


@pytest.mark.parametrize("field", ["distance", "image_size", "hasher", "class_names", "origin"])
def test_every_field_of_the_header_is_guarded(kept, field):
    header = json.loads((kept[0] / encoder.HEADER).read_text())
    header[field] = {"another": "value"}
    (kept[0] / encoder.HEADER).write_text(json.dumps(header))
    with pytest.raises(EncoderError, match="was altered after it was written"):
        keep.load_encoder(kept[0])


def test_a_newer_schema_is_refused_with_what_to_do(kept):
    edit(kept[0], schema=2)
    with pytest.raises(EncoderError, match="has schema 2, this jaxret reads up to 1: update it"):
        keep.load_encoder(kept[0])


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(EncoderError, match=f"there is no encoder folder {tmp_path}/none"):
        keep.load_encoder(tmp_path / "none")
    with pytest.raises(EncoderError, match=f"{tmp_path} holds no encoder"):
        keep.load_encoder(tmp_path)


def test_arrays_other_than_the_header_says_are_refused(kept):
    header = json.loads((kept[0] / encoder.HEADER).read_text())
    tensors = header["tensors"]
    for wrong in ({"dtype": "float64"}, {"shape": [4, 64]}, {"sha256": "0"}):
        changed = tensors | {"projection": tensors["projection"] | wrong}
        edit(kept[0], tensors=changed)
        with pytest.raises(EncoderError, match=r"projection is .*, encoder.json says"):
            keep.load_encoder(kept[0])
    edit(kept[0], tensors={"mean": tensors["mean"]})
    with pytest.raises(EncoderError, match=r"projection is .*, encoder.json says None"):
        keep.load_encoder(kept[0])


def test_a_failed_save_leaves_the_old_encoder(kept, monkeypatch):
    folder, hasher, params = kept
    before = keep.load_encoder(folder)
    newer = {"mean": params["mean"] + 1, "projection": params["projection"]}
    replace = os.replace
    for failing in range(3):  # each of the three renames of a save in turn
        renames = iter(range(3))

        def fail(source, target, renames=renames, failing=failing):
            if next(renames) == failing:
                raise OSError(28, "No space left on device")
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(WriteError, match="No space left on device"):
                keep.save_encoder(folder, hasher, newer, image_size=(8, 8, 1))
        after = keep.load_encoder(folder)
        if failing < 2:  # the header is the moment of change
            assert after.digest == before.digest
            jax.tree.map(np.testing.assert_array_equal, after.params, params)
        else:
            jax.tree.map(np.testing.assert_array_equal, after.params, newer)
    keep.save_encoder(folder, hasher, params, image_size=(8, 8, 1))
    assert sorted(entry.name for entry in folder.iterdir()) == [encoder.HEADER, encoder.WEIGHTS]
    assert keep.load_encoder(folder).digest == before.digest


def test_an_encoder_that_is_replaced_while_it_is_read_is_read_anew(kept, monkeypatch):
    folder, hasher, params = kept
    read_header, replaced = encoder._read_header, []

    def read_then_replace(path):
        header = read_header(path)
        if not replaced:
            replaced.append(True)
            newer = {"mean": params["mean"] + 1, "projection": params["projection"]}
            keep.save_encoder(folder, hasher, newer, image_size=(8, 8, 1))
        return header

    monkeypatch.setattr(encoder, "_read_header", read_then_replace)
    np.testing.assert_array_equal(encoder.read(folder)[1]["mean"], params["mean"] + 1)


# What load_encoder gives


def test_a_loaded_encoder_is_what_was_saved(kept):
    folder, hasher, params = kept
    loaded = keep.load_encoder(folder)
    np.testing.assert_array_equal(loaded.encode(images(64)), hasher.encode(params, images(64)))
    assert (loaded.bits_or_dims, loaded.distance) == (4, "hamming")
    assert (loaded.image_size, loaded.class_names) == ((8, 8, 1), ("cat", "dog"))
    assert loaded.hasher.spec == hasher.spec
    assert loaded.origin["dataset"] == "toy"
    assert {"jaxret", "date"} < loaded.origin.keys()


def test_codes_do_not_depend_on_how_many_images_come_at_once(kept):
    loaded, x = keep.load_encoder(kept[0], batch_size=16), images(40)
    whole = loaded.encode(x)
    assert whole.shape == (40, 4)
    np.testing.assert_array_equal(np.concatenate([loaded.encode(x[i : i + 1]) for i in range(40)]),
                                  whole)  # fmt: skip
    assert loaded.encode(x[:0]).shape == (0, 4)


def test_an_encoder_compiles_once_whatever_number_and_size_the_images_have(kept):
    loaded = keep.load_encoder(kept[0])
    loaded.encode(images(3))
    before = loaded.hasher.encode._cache_size()
    for n, side in ((1, 8), (64, 8), (65, 20), (5, 9)):
        loaded.encode(images(n, (side, side, 1)))
    assert (before, loaded.hasher.encode._cache_size()) == (1, 1)


def test_images_of_another_size_are_resized_as_files_are(tmp_path):
    hasher = pixels_hasher()
    keep.save_encoder(tmp_path / "e", hasher, {}, image_size=(6, 6, 3))
    loaded = keep.load_encoder(tmp_path / "e")
    for shape in ((20, 31, 3), (9, 4, 3), (6, 6, 3)):
        x = images(1, shape)
        Image.fromarray(x[0]).save(tmp_path / "image.png")
        from_file = data.read_image(tmp_path / "image.png", 6)
        np.testing.assert_array_equal(loaded.encode(x), hasher.encode({}, from_file[None]))


def test_grey_images_become_rgb_and_rgb_images_grey():
    grey, colour = images(2, (6, 6, 1)), images(2, (6, 6, 3))
    np.testing.assert_array_equal(encoder.fit_square(grey, (6, 6, 3)), np.repeat(grey, 3, axis=3))
    luma = encoder.fit_square(colour, (6, 6, 1))
    expected = np.stack([np.asarray(Image.fromarray(x).convert("L")) for x in colour])
    assert np.max(np.abs(luma[..., 0].astype(int) - expected)) <= 1
    assert encoder.fit_square(images(2, (9, 12, 1)), (6, 6, 3)).shape == (2, 6, 6, 3)
    assert encoder.fit_square(colour, (6, 6, 3)) is colour


@pytest.mark.parametrize(
    ("size", "shape"), [((6, 4, 3), (6, 5, 3)), ((6, 6, 4), (6, 6, 3)), ((6, 6, 3), (7, 7, 2))]
)
def test_images_that_no_rule_makes_fit_are_refused(size, shape):
    with pytest.raises(ValueError, match=rf"takes images of {size[0]} x .* got {shape[0]} x "):
        encoder.fit_square(images(2, shape), size)


@pytest.mark.parametrize("x", [np.zeros((2, 8, 8, 1), np.int32), np.zeros((8, 8, 1), np.uint8)])
def test_only_images_in_a_batch_are_encoded(kept, x):
    with pytest.raises(ValueError, match=r"must be uint8 \[n h w c\].*, got .*8, 8, 1\]"):
        keep.load_encoder(kept[0]).encode(x)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        keep.load_encoder(kept[0], batch_size=0)


def test_a_hasher_of_vectors_is_kept_and_takes_vectors(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    hasher = pca_hasher(3)
    params, _ = hasher.fit(KEY, x)
    keep.save_encoder(tmp_path, hasher, params, image_size=(7,))
    loaded = keep.load_encoder(tmp_path)
    np.testing.assert_allclose(loaded.encode(x), hasher.encode(params, x), atol=1e-6)
    assert loaded.image_size == (7,)
    with pytest.raises(ValueError, match=r"vectors of 7 numbers .* got float32\[50, 6\]"):
        loaded.encode(x[:, :6])


def test_what_does_not_fit_together_is_not_saved(kept, tmp_path):
    _, hasher, params = kept
    folder = tmp_path / "another"
    with pytest.raises(EncoderError, match=r"not those of a hasher of images of size \(9, 9, 1\)"):
        keep.save_encoder(folder, hasher, params, image_size=(9, 9, 1))
    with pytest.raises(EncoderError, match=r"image_size must be \(h, w, c\)"):
        keep.save_encoder(folder, hasher, params, image_size=(8, 8))
    with pytest.raises(EncoderError, match="this one has none"):
        keep.save_encoder(folder, hasher._replace(spec=None), params, image_size=(8, 8, 1))
    assert not folder.exists()


def test_a_hasher_that_is_not_known_here_is_named(kept, monkeypatch):
    folder, hasher, params = kept
    mine = hasher._replace(spec={"name": "mine", "settings": {"bits": 4}})
    keep.save_encoder(folder, mine, params, image_size=(8, 8, 1))
    with pytest.raises(EncoderError, match="'mine', which HASHERS does not have"):
        keep.load_encoder(folder)
    monkeypatch.setitem(HASHERS, "mine", lambda bits: hasher)
    assert keep.load_encoder(folder).bits_or_dims == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"hasher": {"name": "itq", "settings": {"bits": 4, "new": 1}}},
            "'itq' that it refuses here: .*new",
        ),
        ({"hasher": {"name": "itq", "settings": {"bits": 0}}}, "must be at least 1, got 0"),
        ({"bits_or_dims": 5}, "saved with 5 numbers per code"),
        ({"distance": "euclidean"}, "saved with 4 numbers per code and euclidean distance"),
        ({"preprocessing": {"resize": "stretch"}}, "unknown preprocessing .*stretch"),
        ({"image_size": [9, 9, 1]}, "not those of a hasher of images"),
    ],
)
def test_an_encoder_that_this_version_cannot_make_is_refused(kept, changes, reason):
    edit(kept[0], **changes)
    with pytest.raises(EncoderError, match=f"{kept[0]}.*{reason}"):
        keep.load_encoder(kept[0])


@pytest.mark.soak
def test_two_hashers_do_not_share_a_digest(tmp_path):
    x = images()
    digests = set()
    for hasher in (itq_hasher(4), lsh_hasher(4), lsh_hasher(4, centred=False), itq_hasher(5)):
        params, _ = hasher.fit(KEY, x)
        digests.add(keep.save_encoder(tmp_path, hasher, params, image_size=(8, 8, 1)))
    assert len(digests) == 4
