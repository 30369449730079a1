"""Slow NumPy twins, written straight from the definitions with loops.

Each fast function of jaxret is compared with its twin here on random inputs and awkward sizes.
"""

import itertools
import math

import numpy as np


def average_precision(relevant, divisor):
    """Torres 2018, section 4.1.2: the mean, over relevant results, of the precision up to each."""
    hits, total = 0, 0.0
    for i, is_relevant in enumerate(relevant, start=1):
        if is_relevant:
            hits += 1
            total += hits / i
    return total / divisor if divisor else 0.0


def ap_divisor(relevant, num_relevant, name):
    """What each convention divides by, for the first len(relevant) results."""
    if name == "retrieved":
        return sum(relevant)
    return num_relevant if name == "all" else min(num_relevant, len(relevant))


def orders_of_ties(distances, relevant):
    """The ranked relevance under every order of the results that keeps distances ascending."""
    for order in itertools.permutations(range(len(distances))):
        ranked = [distances[i] for i in order]
        if ranked == sorted(ranked):
            yield [relevant[i] for i in order]


def expected_average_precision(total, relevant, k=None):
    """Expected over the orders of ties, divided by the relevant results among the first k.

    McSherry and Najork 2008. A tie that k cuts holds x of its relevant results above the cut with
    a hypergeometric probability.
    """
    above, found, score = 0, 0, 0.0
    for t, r in zip(total, relevant, strict=True):
        m = t if k is None else min(t, k - above)
        if m < t:
            return sum(
                math.comb(r, x)
                * math.comb(t - r, m - x)
                / math.comb(t, m)
                * (score + expected_tie_sum(m, x, above, found))
                / max(found + x, 1)
                for x in range(max(0, m - (t - r)), min(m, r) + 1)
            )
        score += expected_tie_sum(t, r, above, found)
        above, found = above + t, found + r
    return score / found if found else 0.0


def expected_tie_sum(t, r, above, found):
    """Sum over the ranks i of a tie of P(relevant at i) * E[precision at i, given that].

    Each of the other ranks of the tie holds a relevant result with the same probability.
    """
    score = 0.0
    for i in range(1, t + 1):
        others = (i - 1) * (r - 1) / (t - 1) if t > 1 else 0.0
        score += r / t * (found + 1 + others) / (above + i)
    return score


def majority_label(neighbors):
    """Count the votes; the first label of the list that has the most wins."""
    votes = [sum(other == label for other in neighbors) for label in neighbors]
    return neighbors[votes.index(max(votes))]


def pack(z):
    """Bit j of word i is latent 32 i + j, 1 where the latent is at least 0."""
    n, bits = z.shape
    words = np.zeros((n, -(-bits // 32)), np.uint32)
    for row in range(n):
        for bit in range(bits):
            if z[row, bit] >= 0:
                words[row, bit // 32] |= np.uint32(1) << np.uint32(bit % 32)
    return words


def quantise(z, levels):
    """The nearest level of a list, by looking at all of them; the upper one of two as near."""
    flat = [max(levels, key=lambda level: (-abs(value - level), level)) for value in z.ravel()]
    return np.asarray(flat, z.dtype).reshape(z.shape)


def topk(distances, k, mask=None):
    """Sort every row's (distance, index); past the end the index is -1, the distance the largest.

    Returns lists of (distance, index), one per query; distance None past the end.
    """
    ranked = []
    for i, row in enumerate(distances):
        kept = [(value, j) for j, value in enumerate(row) if mask is None or mask[i][j]]
        ranked.append((sorted(kept) + [(None, -1)] * k)[:k])
    return ranked


def hamming_distances(query, gallery):
    """The number of bits that differ, by counting the ones of each pair of words."""
    return [[sum(int(a ^ b).bit_count() for a, b in zip(x, y, strict=True)) for y in gallery]
            for x in query]  # fmt: skip


def euclidean_distances(query, gallery):
    """Sums of squared differences, in float64 and in the order of the features."""
    wide = np.asarray(query, np.float64), np.asarray(gallery, np.float64)
    return [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in wide[1]]
            for x in wide[0]]  # fmt: skip


def words(seed, n, width, values):
    """Codes of which many are equal."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**32, (values, width), np.uint32)[rng.integers(0, values, n)]


def by_numpy(query, gallery, k, mask=None):
    """The k nearest codes by the definition: a stable sort of (distance, row)."""
    never = np.iinfo(np.int32).max
    distances = np.bitwise_count(query[:, None] ^ gallery[None]).sum(axis=2, dtype=np.int64)
    distances = np.where(True if mask is None else mask, distances, never)
    row = np.argsort(distances, axis=1, kind="stable")[:, :k]
    distances = np.take_along_axis(distances, row, axis=1)
    empty = ((0, 0), (0, k - row.shape[1]))
    row = np.pad(np.where(distances == never, -1, row), empty, constant_values=-1)
    return np.pad(distances, empty, constant_values=never), row
