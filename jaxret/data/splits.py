"""Rules that hold a part of the images out, for data sets that come without a split."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32


def seeded_fifth(labels: Int32[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """A fifth of each class, rounded, drawn by a seed; the same images on every machine."""
    # RandomState's stream is frozen for good, unlike that of NumPy's newer generators.
    order = np.random.RandomState(seed).permutation(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen[members[: round(len(members) / 5)]] = True
    return chosen


def drawn_by_class(
    labels: Int32[np.ndarray, " n"], counts: Sequence[int], seed: int
) -> list[Int32[np.ndarray, " _"]]:
    """So many rows of each class for each count, and the others; drawn by a seed, ascending.

    A class must have as many rows as the counts together.
    """
    order = np.random.RandomState(seed).permutation(len(labels)).astype(np.int32)
    parts = [
        np.split(order[labels[order] == label], np.cumsum(counts)) for label in np.unique(labels)
    ]
    return [np.sort(np.concatenate(part)) for part in zip(*parts, strict=True)]


def digest_of_rows(*parts: Int32[np.ndarray, " _"]) -> str:
    """Sixteen digits that tell whether two splits have the same rows in the same parts."""
    digest = hashlib.sha256()
    for rows in parts:
        digest.update(np.concatenate([[len(rows)], rows]).astype("<i4").tobytes())
    return digest.hexdigest()[:16]


def hashed_fifth(names: Sequence[str], labels: Int32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """About a fifth of each class: the names whose sha256 lies in the lowest fifth of its range.

    A name's side depends on itself alone, so it stays when others come and go; but a class always
    gives its lowest hash, and never its highest, so that small classes have images on both sides.
    A class of one image keeps it back.
    """
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")) for name in names]
    heights = np.array([int(digest.hexdigest()[:8], 16) for digest in digests])
    chosen = heights < 2**32 // 5
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[members[np.argmin(heights[members])]] = True
        chosen[members[np.argmax(heights[members])]] = False
    return chosen
