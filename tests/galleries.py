"""Small galleries for tests, and the plain search that theirs must equal."""

import numpy as np
import pytest

from jaxret.gallery import Gallery
from jaxret.search import CodeLayout, VectorLayout, rows

Q, K = 3, 7
SMALL = 1  # byte: nothing is kept on the device, everything comes in the smallest tiles


@pytest.fixture(autouse=True)
def on_the_device(monkeypatch):
    """Codes are searched on the device from the first search on; but see test_gallery_cache."""
    monkeypatch.setattr(rows, "BUDGET", -1)
    monkeypatch.setattr(rows, "QUICK", -1)
    monkeypatch.setattr(rows, "SMALL", -1)


def random_codes(seed, n, bits=12):
    return np.random.default_rng(seed).integers(0, 2**bits, (n, 1), dtype=np.uint32)


def random_vectors(seed, n, d=3):
    # Whole numbers: float32 distances are exact, and many are equal.
    return np.random.default_rng(seed).integers(-3, 4, (n, d)).astype(np.float32)


def codes_gallery(codes, *args, **options):
    return Gallery.from_codes(codes, 12, *args, **options)


MAKERS = {"codes": (random_codes, codes_gallery), "vectors": (random_vectors, Gallery.from_vectors)}
BLOCKS = {"codes": CodeLayout.block, "vectors": VectorLayout.block}


def all_distances(query, values):
    if values.dtype == np.uint32:
        return np.bitwise_count(query[:, None] ^ values[None]).sum(axis=2, dtype=np.int32)
    return ((query[:, None] - values[None]) ** 2).sum(axis=2)


def expected_neighbors(query, values, ids, k):
    """By (distance, place), padded past the end."""
    values, ids = np.asarray(values, query.dtype).reshape(-1, query.shape[1]), np.asarray(ids, int)
    distances = all_distances(query, values)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    far = np.iinfo(np.int32).max if query.dtype == np.uint32 else np.inf
    missing = ((0, 0), (0, k - order.shape[1]))
    return (
        np.pad(np.take_along_axis(distances, order, axis=1), missing, constant_values=far),
        np.pad(ids[order], missing, constant_values=-1),
    )


def assert_found(found, expected):
    np.testing.assert_array_equal(found.distances, expected[0])
    np.testing.assert_array_equal(found.indices, expected[1])
    assert found.indices.dtype == np.int64


def assert_same(one, other):
    """Two galleries hold the same."""
    assert (one.kind, one.width, len(one)) == (other.kind, other.width, len(other))
    np.testing.assert_array_equal(one.ids, other.ids)
    assert one.names_of(one.ids) == other.names_of(other.ids)
    np.testing.assert_array_equal(one.labels_of(one.ids), other.labels_of(other.ids))
    query = MAKERS[one.kind][0](99, Q)
    assert_found(other.search(query, K), one.search(query, K))


def described_gallery(seed=0, n=50):
    ids = np.random.default_rng(seed).permutation(1000)[:n]
    names = [f"image {i} – {'x' * (i % 7)}" for i in range(n)]
    gallery = codes_gallery(random_codes(seed, n), ids, names, np.arange(n) % 5)
    gallery.remove(ids[:3])
    return gallery
