"""Hashing methods beside each other: one data set, the same features, queries and gallery for all.

CIFAR-10, 10,000 queries, 50,000 gallery images (cifar10-full@1000). Features are those of the
pretrained EfficientNet-Lite0, of images enlarged to 128 or 224 pixels, or GIST where a row says so;
no method changes them but rows of "last blocks", which train the end of that network too.
"unsupervised" never sees a label; "supervised" learns from all 50,000, "cifar100" from those of 100
classes. Settings of training were chosen on held-out training images; see RESULTS.md. What papers
publish was measured with other features, so it stands in RESULTS.md and not here.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from report import CURVE
from table import Row, Table, flags_of

from jaxret.hashers.recipes import MAPS, Recipe, on_features, on_maps

NEIGHBORS = 10  # positives of each image
# name -> what it learns by; the shallow methods have the settings of their constructors
SHALLOW = {
    "SH": Recipe("sh", {}, ""),
    "PCAH": Recipe("pcah", {}, ""),
    "PCA-RR": Recipe("pcarr", {}, ""),
}
SHALLOW_WITH_LABELS = {
    "ITQ-CCA": Recipe("itqcca", {}, ""),
    "SDH": Recipe("sdh", {}, ""),
}
WITHOUT_LABELS = {
    "LSH": Recipe("lsh", {}, "centred"),
    "ITQ": Recipe("itq", {}, "50 iterations"),
    "BiHalf": on_features("bihalf", dropout=0.0, learning_rate=0.001, batch_size=128),
    "CIBHash": on_features("cibhash", NEIGHBORS, epochs=10),
    "contrastive (ours)": on_features("contrastive", NEIGHBORS, epochs=10),
}
WITH_LABELS = {
    "CNNH": on_features("cnnh"),
    "CNNH+": on_features("cnnh", classification=1.0),
    "DNNH": on_features("dnnh", batch_size=128, learning_rate=0.001),
    "DHN": on_features("dhn"),
    "CNNBH": on_features("cnnbh"),
    "DLBHC": on_features("dlbhc"),
    "HashNet": on_features("hashnet"),
    "CSQ": on_features("csq"),
    "DPN": on_features("dpn"),
    "OrthoHash": on_features("orthohash"),
    "GreedyHash": on_features("greedyhash"),
}
ITQ = {"ITQ (no labels)": WITHOUT_LABELS["ITQ"]}  # the baseline of what learns from labels
LARGE = {name: WITH_LABELS[name] for name in ("DLBHC", "GreedyHash", "CSQ", "OrthoHash")}
# 100 classes need more of the features, and more passes.
OF_100_CLASSES = {"GreedyHash": on_features("greedyhash", components=512, epochs=40)}
TRAINED_TOO = {name: on_maps(name.lower(), epochs=1) for name in ("DHN", "DLBHC", "GreedyHash")}
SCALARS = ("classification",)  # of methods; all other settings are flags of their own


def features_flags(recipe: Recipe, size: int) -> dict[str, Any]:
    """Return flags of train_method, without bits: a method on features of enlarged images.

    Args:
        recipe: what the method learns by.
        size: pixels a side that images are enlarged to.
    """
    return _flags(recipe, f"efficientnet-lite0@{size}")


def images_flags(recipe: Recipe) -> dict[str, Any]:
    """Return flags of train_method, without bits: a method that trains a network from scratch."""
    return _flags(recipe, "")


def maps_flags(recipe: Recipe) -> dict[str, Any]:
    """Return flags of train_method, without bits: a method that trains last blocks too."""
    return _flags(recipe, MAPS)


def _flags(recipe: Recipe, features: str) -> dict[str, Any]:
    settings = flags_of(recipe)
    scalars = ",".join(f"{n}={settings.pop(n)}" for n in SCALARS if n in settings)
    given = {"method": recipe.hasher, "features": features, "scalars": scalars}
    return settings | given | {"eval_k": 1000}


def _rows(
    methods: dict[str, Recipe], sizes: Sequence[int], lengths: Sequence[int]
) -> Iterator[Row]:
    for size in sizes:
        for name, recipe in methods.items():
            for bits in lengths:
                yield _row(f"{name}, {size} pixels", recipe, features_flags(recipe, size), bits)


def _on_gist(methods: dict[str, Recipe], bits: int) -> Iterator[Row]:
    """Yield rows of one length, which are no curves of a chart."""
    for name, recipe in methods.items():
        yield _row(f"{name}, GIST", recipe, _flags(recipe, "gist"), bits)._replace(x=None)


def _coarse() -> Iterator[Row]:
    """Yield rows of coarse-to-fine search."""
    recipe = WITH_LABELS["DLBHC"]
    for bits in (12, 48):
        flags = features_flags(recipe, 224) | {"fine": True}
        yield _row("DLBHC, 224 pixels", recipe, flags, bits)._replace(x=None)


def _row(series: str, recipe: Recipe, flags: dict[str, Any], bits: int) -> Row:
    about = {"description": recipe.description, "x": bits, "series": series}
    return Row(f"{series}, {bits} bits", None, None, flags | {"bits": bits}, **about)


def _trained_too(
    methods: Sequence[str], lengths: Sequence[int], passes: Sequence[int] = (1,)
) -> Iterator[Row]:
    for name in methods:
        for epochs in passes:
            recipe = TRAINED_TOO[name].replace(epochs=epochs)
            series = f"{name}, last blocks" + (f" {epochs} times" if epochs > 1 else "")
            for bits in lengths:
                yield _row(series, recipe, maps_flags(recipe), bits)


def _hash_tables(features: str, bits: Sequence[int], counts: Sequence[int]) -> Iterator[Row]:
    """Yield rows of hash tables by random projections (search_tables)."""
    for k in bits:
        for count in counts:
            settings = {"features": features, "bits": k, "hash_tables": count}
            yield Row(f"{features}, {k} bits, tables: {count}", None, None, settings, "centred",
                      series=f"{features}, {k} bits")  # fmt: skip


GIST = {"features": "gist"}
DIGITS = {"dataset": "digits", "protocol": "test", "features": "pixels"}
NETWORK = {"epochs": 20}
GALLERIES = {"gallery-of-training": "a gallery of the 5,000 training images",
             "gallery-by-class": "a gallery in the order of classes"}  # fmt: skip
ROTATION = {"rotation": "the rotation is W^T U^T, right is W U^T"}
UNSCALED = {"unscaled": "no scaling by the correlations"}
# what is right: method, bits, data, what is done; then mistake -> what is done wrong
PAIRS = (
    ("LSH", 12, GIST, "centred", {"uncentred": "not centred; published 0.121"}),
    ("LSH", 48, GIST, "centred", {"uncentred": "not centred; published 0.120"}),
    ("ITQ", 16, DIGITS, "50 iterations", ROTATION),
    ("ITQ", 16, GIST, "50 iterations", ROTATION | GALLERIES),
    ("ITQ", 48, GIST, "50 iterations", ROTATION | GALLERIES),
    ("ITQ-CCA", 16, DIGITS, "each direction times its correlation", UNSCALED),
    ("ITQ-CCA", 48, GIST, "each direction times its correlation", UNSCALED),
    ("KSH", 12, DIGITS, "up to 500 steps of the gradient", {"spectral": "spectral start only"}),
    ("CSQ", 64, DIGITS | NETWORK, "random rows of a Hadamard matrix, negated at random",
     {"first-rows": "the first 10 rows of a Hadamard matrix"}),
    ("DPN", 12, DIGITS | NETWORK, "random codes of classes, no two close",
     {"coins": "random codes of classes, drawn once"}),
    ("CNNH", 48, DIGITS | NETWORK, "codes in the order of images",
     {"shuffled": "codes in another order than images"}),
)  # fmt: skip


def _mistakes() -> Iterator[Row]:
    """Yield rows of what is done right, each before rows of what popular code does wrong."""
    for name, bits, data, right, wrong in PAIRS:
        settings = {"method": name.replace("-", "").lower(), "bits": bits, **data}
        where = f"{name}, {data.get('dataset', 'GIST')}, {bits} bits"
        yield Row(f"{where}, right", None, None, settings, right)
        for mistake, how in wrong.items():
            yield Row(f"{where}, wrong: {mistake}", None, None, settings | {"mistake": mistake},
                      how)  # fmt: skip


def _descriptors() -> Iterator[Row]:
    """Yield what images are described by without learning from labels, compared as it is."""
    described = {
        "raw pixels": ("pixels", "", "3,072 numbers"),
        "colour histogram": ("pixels", "colour-histogram", "512 bins, Hellinger"),
        "GIST": ("pixels", "gist", "512 numbers"),
        "bag of words": ("bow", "", "dense SIFT, 256 words, {dim} components"),
        "VLAD": ("vlad", "", "dense SIFT, 16 words, {dim} components"),
        "Fisher vectors": ("fisher", "", "dense SIFT, 16 words, {dim} components"),
        "pretrained network": ("pca", "efficientnet-lite0@224", "{dim} components"),
    }
    for name, (method, features, how) in described.items():
        settings = {"method": method, "features": features, "eval_k": 1000}
        settings |= {} if method == "pixels" else {"dim": 128}
        yield Row(name, None, None, settings, how)


LENGTHS = (12, 24, 32, 48, 128)  # of codes of 100 classes


def _of_100_classes() -> Iterator[Row]:
    """Yield rows of CIFAR-100, with precision of the first K."""
    rows = (
        *_rows(ITQ, (160,), LENGTHS),
        *_rows(OF_100_CLASSES, (160,), LENGTHS),
        *_trained_too(("GreedyHash",), (48,), (1, 3)),
    )
    for row in rows:
        yield row._replace(ours={**(row.ours or {}), "curve": True})


TABLE = {
    "dataset": "cifar10",
    "protocol": "cifar10-full@1000",
    "script": "train_method",
    "metric": "map@1000/retrieved",
    "extra_metrics": (
        "map@all/all", "map@1000/retrieved/expected", "precision@1000", "precision@radius2",
        "balance", "distinct_codes", "fit_seconds", "encode_seconds",
    ),
}  # fmt: skip
CIFAR100 = {"dataset": "cifar100", "protocol": "cifar100-full@1000"}
CURVES = {"metric": "precision@1000",
          "extra_metrics": tuple(f"precision@{k}" for k in CURVE[:-1])}  # fmt: skip
COARSE = ("map@1000/retrieved/coarse", "precision@1000/coarse")
TABLES = {
    "unsupervised": Table("codes of features, without labels",
                          (*_rows(WITHOUT_LABELS, (224, 128), (16, 32, 64)),
                           *_rows(SHALLOW, (128,), (16, 32, 64)),
                           *_on_gist(SHALLOW | {"ITQ": WITHOUT_LABELS["ITQ"]}, 64)), "bits",
                          **TABLE),
    "supervised": Table("codes of features, 50,000 labels",
                        (*_rows(ITQ, (224, 128), (48,)), *_rows(ITQ, (128,), (12,)),
                         *_rows(WITH_LABELS, (128,), (48, 12)), *_rows(LARGE, (224,), (48,)),
                         *_trained_too(("DHN", "DLBHC", "GreedyHash"), (48,)),
                         *_rows(SHALLOW_WITH_LABELS, (128,), (48, 12)),
                         *_on_gist(ITQ | SHALLOW_WITH_LABELS | LARGE, 48)),
                        "bits", **TABLE),
    "coarse": Table("coarse-to-fine search: the nearest codes, ordered by features",
                    tuple(_coarse()), **TABLE
                    | {"metric": "map@1000/retrieved/fine",
                       "extra_metrics": ("map@1000/retrieved", "precision@1000/fine",
                                         "precision@1000", "distinct_codes")}),
    "cifar100": Table("codes of 100 classes, 50,000 labels", tuple(_of_100_classes()), "bits",
                      **TABLE | CIFAR100 | {"extra_metrics": (*TABLE["extra_metrics"], *COARSE)}),
    "cifar100-curves": Table("precision of the first K, 100 classes",
                             tuple(row._replace(x=None) for row in _of_100_classes()),
                             **TABLE | CIFAR100 | CURVES),
    "descriptors": Table("descriptions of images by Euclidean distance, without labels",
                         tuple(_descriptors()), dataset="cifar10", protocol="cifar10-full@1000",
                         script="baseline", metric="map@1000/retrieved",
                         extra_metrics=("map@all/all", "precision@10", "precision@1000")),
    "lsh-tables": Table("hash tables: the ten nearest found, against the share of the gallery read",
                        (*_hash_tables("gist", (8, 16, 24), (1, 4, 16, 64)),
                         *_hash_tables("efficientnet-lite0@224", (8, 16, 24), (1, 4, 16, 64))),
                        "candidates", dataset="cifar10", protocol="cifar10-full@1000",
                        script="search_tables", metric="recall@10",
                        extra_metrics=("candidates", "empty", "precision")),
    "mistakes": Table("what mistakes of popular code cost", tuple(_mistakes()), dataset="cifar10",
                      protocol="cifar10-59k@all", script="mistakes", metric="map@all/all",
                      extra_metrics=("map@all/all/expected", "map@1000/retrieved", "quantisation",
                                     "balance", "distinct_codes")),
}  # fmt: skip
