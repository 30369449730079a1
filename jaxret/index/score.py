"""How well an index retrieves: each labelled image is searched among the others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Num

from jaxret.index import snapshot
from jaxret.index.places import PhotoIndexError
from jaxret.index.reader import View, view

KS = (5, 10)
PAIRS = 2**22  # pairs of query and result held at once


def evaluate(index: Path) -> dict[str, Any]:
    """Return protocol and metrics of an index.

    An image's classes are its labels of a CSV file, where one was given, or else its first folder.
    Every image with a class is searched among all others; byte-identical copies of it are left out
    of its results and counted as overlap. Metrics are means over these queries, by name:
    `map@1/retrieved` is the accuracy of the nearest neighbour, `map@all/all` is over the whole
    ranking. Equal distances are in the order of ids.

    Returns:
        {"index", "protocol", "metrics"}.

    Raises:
        PhotoIndexError: where fewer than two images have a class.
    """
    with view(index) as seen:
        rows = {row.id: row for row in seen.catalogue.rows()}
        images = [rows[int(number)] for number in seen.snapshot.ids]
        classes = [_classes(seen, row) for row in images]
        queries = np.flatnonzero([bool(names) for names in classes])
        if len(queries) < 2:
            raise PhotoIndexError(
                f"{index}: {len(queries)} images have a class: sub-folders name classes, or "
                "jaxret index PHOTOS --labels FILE.csv"
            )
        digests = np.unique([row.digest.hex() for row in images], return_inverse=True)[1]
        relevance = _relevance(classes)
        copies = np.bincount(digests)[digests] > 1
        metrics = _metrics(seen.snapshot, queries, relevance, digests)
        protocol = {
            "name": "leave one out",
            "classes": "labels" if "labels" in seen.facts else "folders",
            "num_classes": len({name for names in classes for name in names}),
            "query": len(queries),
            "gallery": len(images),
            "without_class": len(images) - len(queries),
            "overlap": int(copies[queries].sum()),
            "metric": seen.snapshot.metric,
        }
        return {"index": seen.describe(), "protocol": protocol, "metrics": metrics}


def _classes(seen: View, row: Any) -> frozenset[str]:
    label = seen.label_of(row)
    return frozenset() if label is None else frozenset(label.split("|"))


def _relevance(classes: list[frozenset[str]]) -> Callable[[int], Bool[np.ndarray, " n"]]:
    """Return what tells which images share a class with one of them."""
    members: dict[str, list[int]] = {}
    for number, names in enumerate(classes):
        for name in names:
            members.setdefault(name, []).append(number)

    def relevant(query: int) -> Bool[np.ndarray, " n"]:
        found = np.zeros(len(classes), bool)
        for name in classes[query]:
            found[members[name]] = True
        return found

    return relevant


def _metrics(
    rows: snapshot.Snapshot,
    queries: Num[np.ndarray, " q"],
    relevance: Callable[[int], Bool[np.ndarray, " n"]],
    digests: Num[np.ndarray, " n"],
) -> dict[str, float]:
    from jaxret import metrics

    n = len(rows.ids)
    size = max(1, min(PAIRS // n, len(queries)))
    ks = tuple(k for k in KS if k < n)
    totals: dict[str, float] = {}
    without = 0
    for start in range(0, len(queries), size):
        tile = queries[start : start + size]
        relevant, num_relevant = np.zeros((size, n), bool), np.zeros(size, np.int32)
        for place, query in enumerate(tile):
            others = np.flatnonzero(digests != digests[query])
            distances = snapshot.distances(rows, rows.values[query])[others]
            ranked = relevance(int(query))[others][np.argsort(distances, kind="stable")]
            relevant[place, : len(ranked)] = ranked
            num_relevant[place] = ranked.sum()
        kept = slice(0, len(tile))
        without += int((num_relevant[kept] == 0).sum())
        values = {"map@1/retrieved": relevant[:, 0].astype(np.float32)}
        for k in ks:
            values[f"precision@{k}"] = np.asarray(metrics.precision_at(relevant, (k,)))[:, 0]
        values["map@all/all"] = np.asarray(metrics.average_precision(relevant, num_relevant))
        for name, found in values.items():
            totals[name] = totals.get(name, 0.0) + float(found[kept].sum(dtype=np.float64))
    means = {name: total / len(queries) for name, total in totals.items()}
    return means | {"queries_without_relevant": float(without)}
