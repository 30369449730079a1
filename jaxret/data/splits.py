"""Rules that choose a part of the images, for data sets that come without a split."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32

from jaxret.data.sets import whole_number


def seeded_fifth(labels: Int32[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """Return a mask of a fifth of each class, rounded; the same images on every machine."""
    return draw_shares(labels, 0.2, seed)


def draw_shares(
    labels: Int32[np.ndarray, " n"], share: float, seed: int, least: int = 0
) -> Bool[np.ndarray, " n"]:
    """Return a mask of a share of each class, rounded, and of at least `least` images.

    The same images on every machine. A class of no more than `least` images has none chosen.
    """
    # RandomState's stream is frozen for good, unlike that of NumPy's newer generators.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        count = max(round(share * len(members)), least)
        chosen[members[: count if len(members) > least else 0]] = True
    return chosen


def draw_by_class(
    labels: Int32[np.ndarray, " n"], counts: Sequence[int], seed: int
) -> list[Int32[np.ndarray, " _"]]:
    """Return for each count that many rows of each class, and then all other rows.

    Every part is drawn by the seed and ascending, and no two parts share a row. A class must have
    as many rows as the counts together.
    """
    order = np.random.RandomState(seed).permutation(len(labels)).astype(np.int32)
    parts = [
        np.split(order[labels[order] == label], np.cumsum(counts)) for label in np.unique(labels)
    ]
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def sample_rows(n: int, count: int, seed: int = 0) -> Int32[np.ndarray, " count"]:
    """Return count of the rows 0 to n - 1, drawn without replacement, ascending.

    The same rows on every machine and in every version. Stands for all rows where the first rows
    do not: many data sets come sorted. All rows where there are fewer than count.
    """
    n, count = whole_number(n, "n", 0, 2**31 - 1), whole_number(count, "count", 0)
    rng = np.random.RandomState(whole_number(seed, "seed", 0, 2**32 - 1))
    return np.sort(rng.permutation(n)[:count]).astype(np.int32)


def digest_of_rows(*parts: Int32[np.ndarray, " _"]) -> str:
    """Return sixteen digits that tell whether two splits have the same rows in the same parts."""
    digest = hashlib.sha256()
    for rows in parts:
        digest.update(np.concatenate([[len(rows)], rows]).astype("<i4").tobytes())
    return digest.hexdigest()[:16]


def hashed_fifth(names: Sequence[str], labels: Int32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return a mask of about a fifth of each class, chosen by the names.

    Chosen are the names whose sha256 lies in the lowest fifth of its range, so that an image stays
    on its side when others come and go; but a class always gives its lowest hash, and never its
    highest, so that small classes have images on both sides. A class of one image keeps it back.
    """
    digests = [hashlib.sha256(encode_name(name)) for name in names]
    heights = np.array([int(digest.hexdigest()[:8], 16) for digest in digests])
    chosen = heights < 2**32 // 5
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argmin(heights[members])]] = True
        chosen[members[np.argmax(heights[members])]] = False
    return chosen


def shuffle_names(names: Sequence[str]) -> list[int]:
    """Return the order of rows that a folder's images come in: by a digest of their names.

    Equal distances go to the lower row, so rows in class order would decide between classes. A
    name's digest depends on itself alone: two images keep their order when others come and go.
    """
    digests = [hashlib.blake2b(encode_name(name), digest_size=16).digest() for name in names]
    return sorted(range(len(names)), key=digests.__getitem__)


def encode_name(name: str) -> bytes:
    """Return a file's name as the bytes that the file system has, valid UTF-8 or not."""
    return name.encode(errors="surrogateescape")
