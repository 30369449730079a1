"""Labels and clusters: what neighbors vote for, and how well two labellings agree."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxret.metrics import validate
from jaxret.metrics.validate import Values, Whole

MOST_CLASSES = 2**15  # of confusion counts: their square is held


def majority_label(neighbors: Values) -> Int[Array, " q"]:
    """Return the label that most neighbors carry; of labels with equal votes, the nearest one's."""
    neighbors = validate.whole("neighbors", neighbors, 2)
    if neighbors.shape[1] < 1:
        raise ValueError("neighbors must have at least 1 column, got 0")
    votes = jnp.sum(neighbors[:, :, None] == neighbors[:, None, :], axis=2)
    first = jnp.argmax(votes, axis=1)
    return jnp.take_along_axis(neighbors, first[:, None], axis=1)[:, 0]


def label_scores(labels: Values, predicted: Values) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 as plain means over classes (macro averages).

    A class that is never predicted has precision 0.
    """
    labels, predicted = validate.pair("labels", labels, "predicted", predicted)
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    options: Any = {"average": "macro", "zero_division": 0}  # scikit-learn's types know no number
    scores = precision_recall_fscore_support(labels, predicted, **options)
    names = ("accuracy", "precision", "recall", "f1")
    return dict(
        zip(names, map(float, (accuracy_score(labels, predicted), *scores[:3])), strict=True)
    )


def confusion_counts(
    labels: Values, predicted: Values, num_classes: Whole
) -> Int[np.ndarray, "c c"]:
    """Count how many images of each class (row) were taken for each class (column)."""
    num_classes = validate.number("num_classes", num_classes, MOST_CLASSES)
    given = {"labels": labels, "predicted": predicted}
    whole = {name: np.asarray(validate.whole(name, values, 1)) for name, values in given.items()}
    validate.same_length(**whole)
    for name, values in whole.items():
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(
                f"{name} must lie between 0 and {num_classes - 1}, got {values.min()} to "
                f"{values.max()}"
            )
    rows, columns = (values.astype(np.int64) for values in whole.values())
    pairs = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def clustering_scores(labels: Values, clusters: Values) -> dict[str, float]:
    """Return how well clusters agree with labels: Rand index, mutual information, both adjusted.

    The Rand index of random clusters is close to 1 when there are many, because most pairs are
    apart in both; ARI and AMI subtract what chance gives (Hubert 1985; Vinh 2010).
    NMI and AMI divide by the arithmetic mean of the two entropies, "nmi/geometric" by the geometric
    one.
    """
    from sklearn import metrics

    labels, clusters = validate.pair("labels", labels, "clusters", clusters)
    return {
        "ri": float(metrics.rand_score(labels, clusters)),
        "ari": float(metrics.adjusted_rand_score(labels, clusters)),
        "nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
        "nmi/geometric": float(
            metrics.normalized_mutual_info_score(labels, clusters, average_method="geometric")
        ),
        "ami": float(metrics.adjusted_mutual_info_score(labels, clusters)),
    }
