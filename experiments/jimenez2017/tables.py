"""Every table of Jiménez Lepe 2017, chapter 5: what was published, and what to run.

DRHN-n with a hash layer of some bits, on CIFAR-10 (tables 5.1 to 5.5) and CIFAR-100 (5.6, 5.7). The
accuracies and the mAP of one network are scores of one training. Percentages are fractions here,
milliseconds seconds. Networks without settings are other papers', which the thesis compares itself
with; most of them had 5,000 labelled images and 1,000 queries (see RESULTS.md). "losses" is where
our recipe was chosen; "baselines" are codes that need no learning.
"""

from collections.abc import Iterator, Sequence

from table import Row, Table, flags_of

from jaxret.hashers import recipes

from .published import (
    ACCURACY,
    ACCURACY_100,
    BITS,
    CODE_MILLISECONDS,
    DEPTHS,
    EPOCH_SECONDS,
    MAP,
    MAP_100,
    OTHERS,
)

PERCENT, MILLISECOND = 0.01, 0.001
PUBLISHED, OURS = flags_of(recipes.DRHN_PUBLISHED), flags_of(recipes.DRHN_OURS)
# What may shape the bits; how it is called, and the papers' names.
LOSSES = {
    "classification alone": {},
    "quantisation (DHN)": {"quantisation": 0.1},
    "sign, cubic (GreedyHash)": recipes.GREEDY,
    "quantisation, central (CSQ)": {"quantisation": 0.1, "central": 1.0},
    "sign, cubic, central": recipes.GREEDY | {"central": 1.0},
}
# Settings as published, ours, and a description of ours.
Columns = tuple[dict, dict, str]
TRAINED: Columns = (PUBLISHED, OURS, recipes.DRHN_OURS.description + ", {epochs} epochs")
# A recipe does not change how long a network takes; the numbers that it computes with do.
EPOCH: Columns = ({}, {"dtype": "bfloat16"}, "bfloat16")
CODE: Columns = ({"what": "code"}, {"what": "code", "dtype": "bfloat16"}, "bfloat16")


def _row(n: int, bits: int, published: float, columns: Columns = TRAINED, **about) -> Row:
    """Return a network as published and as we do it."""
    network = {"depth": n, "bits": bits}
    as_published, ours, description = columns
    settings = as_published | network, ours | network
    return Row(f"DRHN-{n} at {bits} bits", round(published, 6), *settings, description, **about)


def _grid(
    figures: Sequence[Sequence[float]], unit: float, columns: Columns = TRAINED
) -> tuple[Row, ...]:
    """Return rows of every depth and code length, one curve of a chart for each length."""
    return tuple(
        _row(n, bits, figure * unit, columns, x=n, series=f"{bits} bits")
        for n, row in zip(DEPTHS, figures, strict=True)
        for bits, figure in zip(BITS, row, strict=True)
    )


def _comparison(n: int, lengths: Sequence[int]) -> Iterator[Row]:
    """Yield the rows of DRHN-n and of the other methods."""
    for bits in lengths:
        yield _row(n, bits, MAP[n - 1][BITS.index(bits)] * PERCENT, x=bits)
    for name, figures in OTHERS.items():
        for bits, figure in zip(lengths, figures, strict=True):
            published = round(figure * PERCENT, 6)
            yield Row(f"{name} at {bits} bits", published, None, x=bits, series=name)


def _baselines(lengths: Sequence[int]) -> Iterator[Row]:
    """Yield codes that nothing is learned for."""
    pixels = {"method": "pixels", "eval_k": 1000}
    yield Row("raw pixels", None, None, pixels, "3072 numbers")
    for method, name in {"itq": "ITQ", "pcah": "PCA-sign", "lsh": "LSH"}.items():
        for n in lengths:
            settings = {"method": method, "bits": n, "eval_k": 1000}
            yield Row(f"{name}, {n} bits", None, None, settings, "{bits} bits", n, name)


CIFAR10 = {"dataset": "cifar10", "protocol": "cifar10-full@1000", "script": "train_hasher"}
CIFAR100 = CIFAR10 | {"dataset": "cifar100", "protocol": "cifar100-full@1000"}
RETRIEVAL = {
    "metric": "map@1000/retrieved",
    "extra_metrics": ("accuracy", "map@1000/min", "precision@1000", "precision@radius2"),
}
ACCURACIES = {"metric": "accuracy", "extra_metrics": ("accuracy/train", "map@1000/retrieved")}
WITHOUT = {
    "script": "baseline",
    "metric": "map@1000/retrieved",
    "extra_metrics": ("map@1000/min", "precision@1000"),
}
TIMES = CIFAR10 | {"script": "time_hasher", "lower": True}

TABLES = {
    "5.1": Table("accuracy of the classifier", _grid(ACCURACY, PERCENT), "depth n",
                 **CIFAR10 | ACCURACIES),
    "5.2": Table("DRHN-15 beside other methods, mAP of the first 1000",
                 tuple(_comparison(15, (12, 32, 48))), "bits", **CIFAR10 | RETRIEVAL),
    "5.3": Table("depth and bits, mAP of the first 1000", _grid(MAP, PERCENT), "depth n",
                 **CIFAR10 | RETRIEVAL),
    "5.4": Table("seconds of an epoch, 100,000 images, in training for 48 bits",
                 tuple(_row(n, 48, seconds, EPOCH, x=n)
                       for n, seconds in zip(DEPTHS, EPOCH_SECONDS, strict=True)), "depth n",
                 **TIMES, metric="seconds_per_epoch"),
    "5.5": Table("seconds from one image to its code",
                 _grid(CODE_MILLISECONDS, MILLISECOND, CODE), "depth n", **TIMES,
                 metric="seconds_per_code", extra_metrics=("codes_per_second",)),
    "losses": Table("what shapes the bits: DRHN-1, 48 bits, training images held out",
                    tuple(Row(name, None, None, recipes.DRHN_MODERN | {"epochs": 4} | settings,
                              "one cycle, {epochs} epochs")
                          for name, settings in LOSSES.items()),
                    **CIFAR10 | RETRIEVAL | {"protocol": "validation"}),
    "baselines": Table("codes without learning, mAP of the first 1000", tuple(_baselines(BITS)),
                       "bits", **CIFAR10 | WITHOUT),
    "losses-baselines": Table("codes without learning, training images held out",
                              tuple(_baselines((48,))), "bits",
                              **CIFAR10 | WITHOUT | {"protocol": "validation"}),
    "5.6": Table("accuracy of the classifier, 100 classes", _grid(ACCURACY_100, PERCENT), "depth n",
                 **CIFAR100 | ACCURACIES),
    "5.7": Table("depth and bits, mAP of the first 1000, 100 classes", _grid(MAP_100, PERCENT),
                 "depth n", **CIFAR100 | RETRIEVAL),
}  # fmt: skip
