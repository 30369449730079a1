"""How good a ranking is: every definition by its name, and ties counted honestly.

A ranking enters as booleans: is the i-th result relevant to the query? Single labels, several
labels and lists of ids all become that, so no metric knows what relevance is. Rankings by Hamming
distance, where many results tie, also enter as counts per distance: how many results lie at each
distance, and how many of them are relevant. These counts hold all that does not depend on the
order of ties.

Every function takes arrays of NumPy or JAX, and lists. It checks types, ranges and lengths, under
jit types and shapes only, and never calculates in a narrow type that it was given.
"""

from jaxret.metrics.labels import (
    clustering_scores,
    confusion_counts,
    label_scores,
    majority_label,
)
from jaxret.metrics.ranking import (
    AP_DIVISORS,
    NO_LABEL,
    ap_divisor,
    average_precision,
    mean_average_precision,
    precision_at,
    recall_at,
    same_label,
    share_a_label,
)
from jaxret.metrics.ties import (
    TieAware,
    counts_by_distance,
    precision_recall_curve,
    precision_within_radius,
    tie_aware_average_precision,
)

__all__ = [
    "AP_DIVISORS",
    "NO_LABEL",
    "TieAware",
    "ap_divisor",
    "average_precision",
    "clustering_scores",
    "confusion_counts",
    "counts_by_distance",
    "label_scores",
    "majority_label",
    "mean_average_precision",
    "precision_at",
    "precision_recall_curve",
    "precision_within_radius",
    "recall_at",
    "same_label",
    "share_a_label",
    "tie_aware_average_precision",
]
