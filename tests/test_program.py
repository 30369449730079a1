"""Programs that are kept between runs give what the hasher gives, and are made again if need be."""

import numpy as np
import pytest

import jaxret
from jaxret.encoder import EncoderError
from jaxret.index import program

BATCH, SIDE = 3, 8


def images(n):
    return np.random.default_rng(n).integers(0, 256, (n, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(program.CACHE, str(tmp_path))
    return tmp_path


def kept(cache):
    return sorted(cache.glob("jaxret-*.program"))


def codes_of(x):
    hasher = jaxret.look_hasher(16)
    features = program.features("layout", {}, SIDE, BATCH)(x)
    return program.latents(hasher.spec, {}, features.shape[1], BATCH)(features)


def test_a_kept_program_gives_the_codes_of_the_hasher(cache):
    x = images(7)
    expected = np.asarray(jaxret.look_hasher(16).encode({}, x))
    for _ in range(2):  # traced, then read
        np.testing.assert_allclose(codes_of(x), expected, rtol=1e-5, atol=1e-5)
        assert len(kept(cache)) == 2
    files = [path.stat().st_mtime_ns for path in kept(cache)]
    codes_of(x)
    assert [path.stat().st_mtime_ns for path in kept(cache)] == files


def test_a_damaged_program_is_made_again(cache):
    first = codes_of(images(4))
    for path in kept(cache):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert program._read(path) is None
    np.testing.assert_array_equal(codes_of(images(4)), first)
    assert all(program._read(path) for path in kept(cache))


def test_nothing_is_kept_without_a_cache_or_of_features_of_ones_own(cache, monkeypatch):
    from jaxret.features import FEATURES

    monkeypatch.setitem(FEATURES, "mine", FEATURES["layout"])
    own = program.features("mine", {}, SIDE, BATCH)(images(2))
    assert not kept(cache)
    monkeypatch.delenv(program.CACHE)
    np.testing.assert_array_equal(program.features("layout", {}, SIDE, BATCH)(images(2)), own)
    assert not kept(cache)


def test_features_that_are_not_here_are_refused():
    with pytest.raises(EncoderError, match="FEATURES does not have"):
        program.features("os:system", {}, SIDE, BATCH)
