"""Which images of a gallery are relevant to a query, from the labels of both."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool

NO_LABEL = -1


def checked_labels(name: str, labels: Any, count: int) -> np.ndarray:
    """Labels as i64[n], or as bool[n c]; at least one image has one."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.dtype != bool and np.isin(labels, (0, 1)).all():
        labels = labels.astype(bool)
    if len(labels) != count if labels.ndim else True:
        raise ValueError(
            f"the {name} needs one label per image, got {labels.shape[0] if labels.ndim else 1} "
            f"labels for {count} images"
        )
    if not (labels.ndim == 1 and labels.dtype.kind in "iu") and not (
        labels.ndim == 2 and labels.dtype == bool
    ):
        raise ValueError(
            f"labels of the {name} must be whole numbers [n] or bool [n c], got "
            f"{labels.dtype}{list(labels.shape)}"
        )
    if count and not (labels.any() if labels.ndim == 2 else (labels != NO_LABEL).any()):
        raise ValueError(f"scores need labels, and no image of the {name} has one")
    return labels if labels.ndim == 2 else labels.astype(np.int64)


def relevance_of(
    query: Any, gallery: Any, q: int, n: int
) -> Callable[[np.ndarray], Bool[np.ndarray, "t n"]]:
    """From numbers of queries to which rows of the gallery are relevant to each."""
    query, gallery = checked_labels("query", query, q), checked_labels("gallery", gallery, n)
    if query.ndim != gallery.ndim or query.shape[1:] != gallery.shape[1:]:
        raise ValueError(
            "query and gallery must have labels of one kind, got shapes "
            f"{list(query.shape)} and {list(gallery.shape)}"
        )
    if query.ndim == 1:  # whatever the labels are, small numbers are compared faster
        classes, labels = np.unique(np.concatenate([query, gallery]), return_inverse=True)
        small = labels.astype(np.min_scalar_type(len(classes)))
        own, others, labelled = small[:q], small[q:], query != NO_LABEL
        return lambda i: (own[i][:, None] == others[None]) & labelled[i][:, None]
    classes = gallery.astype(np.float32).T
    return lambda i: query[i].astype(np.float32) @ classes > 0
