"""Every table of Jiménez Lepe 2017, chapter 5: what was published, and what to run.

DRHN-n with a hash layer of some bits, on CIFAR-10 (tables 5.1 to 5.5) and CIFAR-100 (5.6, 5.7). The
accuracies and the mAP of one network are scores of one training. Percentages are fractions here,
milliseconds seconds. "losses" is where our recipe was chosen; "baselines" are codes that need no
learning.

Table 5.2 compares methods: each is one entry of METHODS. Its column "as published" has the protocol
that stands behind the published number, which for most is cifar10-59k@all with 5,000 labelled
images and GIST; the column "ours" has cifar10-full@1000 for all. 5.2-mnist has the numbers of the
same papers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from hashing.tables import (
    COARSE,
    TRAINED_TOO,
    WITH_LABELS,
    features_flags,
    images_flags,
    maps_flags,
)
from table import BY_PROTOCOL, Row, Table, flags_of

from jaxret.hashers import recipes

from .published import (
    ACCURACY,
    ACCURACY_100,
    BITS,
    CODE_MILLISECONDS,
    DEPTHS,
    EPOCH_SECONDS,
    LENGTHS,
    MAP,
    MAP_100,
    MNIST,
    OTHERS,
    PRECISION,
    PRECISION_KS,
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


FEW_LABELS = {"protocol": "cifar10-59k@all"}


class Method(NamedTuple):
    """How a method of table 5.2 is run; settings are flags of its script, without bits."""

    as_published: Mapping[str, Any] | None
    ours: Mapping[str, Any] | None = None
    description: str | None = None  # of ours
    script: str = "baseline"


def _shallow(method: str, ours: str, description: str = "", settings: str = "") -> Method:
    """Return a method that learns from vectors: settings as published and ours."""
    given = {"method": method, "features": "gist", "eval_k": 1000}
    published = given | {"settings": settings} | FEW_LABELS
    description = f"GIST of 50,000 images{description}"
    return Method(published, given | {"settings": ours}, description)


def _deep(name: str, **from_scratch: Any) -> Method:
    """Return a method that learns from a pretrained network's features of images of 224 pixels.

    As published its network starts from nothing, with 5,000 labels.

    Args:
        name: a key of WITH_LABELS.
        **from_scratch: settings of that network's training, where they are not ON_IMAGES.
    """
    recipe = WITH_LABELS[name]
    own = {key: value for key, value in recipe.settings.items() if key == "classification"}
    own |= from_scratch
    scratch = images_flags(recipes.on_images(recipe.hasher, **own))
    description = f"pretrained features, {recipe.description}"
    return Method(scratch | FEW_LABELS, features_flags(recipe, 224), description, "train_method")


def _deep_pretrained(name: str) -> Method:
    """Return a method whose published network was pretrained too: both columns have its features.

    As published it has 5,000 labels, which it sees as many times in all as 50,000.
    """
    recipe = WITH_LABELS[name]
    longer = recipe.replace(epochs=10 * recipe.settings["epochs"])
    return _deep(name)._replace(as_published=features_flags(longer, 224) | FEW_LABELS)


def _trained_too(name: str) -> Method:
    """Return a method that also trains the last blocks of that network."""
    recipe = TRAINED_TOO[name]
    description = f"pretrained network, {recipe.description}"
    return Method(None, maps_flags(recipe), description, "train_method")


# Methods by the name of their rows. Those of OTHERS that are not here are not run.
METHODS: dict[str, Method] = {
    "DLBHC": _trained_too("DLBHC"),
    "DHN": _deep_pretrained("DHN"),
    "CNNBH": _deep("CNNBH", epochs=60),
    **{name: _deep(name) for name in ("DNNH", "CNNH+", "CNNH")},
    "KSH": _shallow("ksh", "sample=10000,steps=200", ", 10,000 of them in pairs, 200 steps"),
    "ITQ-CCA": _shallow("itqcca", ""),
    "MLH": _shallow("mlh", ""),
    "BRE": _shallow("bre", "sample=5000,partners=0.01", ", 5,000 of them in pairs",
                    "sample=5000,partners=0.01"),
    "ITQ": _shallow("itq", ""),
    "SH": _shallow("sh", ""),
    "LSH": _shallow("lsh", "", ", centred", "centred=false"),
}  # fmt: skip


NOT_RUN = Method(None)


def _of_method(name: str, figures: Sequence[float | None], method: Method) -> Iterator[Row]:
    """Yield the rows of a method, one for each length of a code that is published."""
    for bits, figure in zip(LENGTHS, figures, strict=True):
        if figure is None:
            continue
        published = round(figure * PERCENT, 6)
        columns = [
            None if settings is None else {**settings, "bits": bits}
            for settings in (method.as_published, method.ours)
        ]
        yield Row(f"{name} at {bits} bits", published, *columns, method.description, x=bits,
                  series=name, script=method.script)  # fmt: skip


def _comparison(n: int) -> Iterator[Row]:
    """Yield the rows of DRHN-n and of the other methods."""
    for bits in LENGTHS:
        yield _row(n, bits, MAP[n - 1][BITS.index(bits)] * PERCENT, x=bits)
    for name, figures in OTHERS.items():
        yield from _of_method(name, figures, METHODS.get(name, NOT_RUN))


def _curves() -> Iterator[Row]:
    """Yield the methods of figure 5.5 at 48 bits, each with precision of the first K."""
    curve = {"bits": 48, "curve": True}
    for name, points in PRECISION.items():
        method = METHODS[name]
        if method.as_published is not None:
            columns: tuple = {**method.as_published, **curve}, None, None
        else:  # with a pretrained network
            columns = None, {**(method.ours or {}), **curve}, method.description
        yield Row(name, points[-1], *columns, script=method.script)


# What the papers that print numbers of MLH leave open, from ours to what its authors' program has.
MLH_OPEN = {
    "ours": "",
    "a tenth of the steps": "steps=2000",
    "a hundredth of the steps": "steps=200",
    "decay 0.01": "decay=0.01",
    "decay 0.01, rate 0.001": "decay=0.01,learning_rate=0.001",
    "radius 0.25 of the bits": "radius=12",
}


def _mlh() -> Iterator[Row]:
    """Yield MLH at 48 bits by settings that are not published, under the published protocol."""
    method = METHODS["MLH"].as_published
    assert method is not None
    for name, settings in MLH_OPEN.items():
        own = {**method, "bits": 48, "settings": settings}
        yield Row(name, None, None, own, settings or "20,000 steps, decay 0.001, rate 0.1")


DNNH_MARGINS = {"1 bit, as published": "", "12 bits": "margin=12"}


def _dnnh() -> Iterator[Row]:
    """Yield DNNH at 48 bits by its margin, under the published protocol."""
    method = METHODS["DNNH"].as_published
    assert method is not None
    for name, scalars in DNNH_MARGINS.items():
        own = {**method, "bits": 48, "scalars": scalars}
        yield Row(f"margin of {name}", None, None, own, "DRHN-1 from scratch, {epochs} epochs")


def _on_mnist() -> Iterator[Row]:
    """Yield the rows of methods on MNIST, those that learn from vectors from its pixels.

    Networks are CNNH's own, of three convolutions, and see no mirrored digits.
    """
    for name, figures in MNIST.items():
        method = METHODS.get(name, NOT_RUN)
        published = {**(method.as_published or {}), "protocol": "mnist-69k@all"}
        if method.script != "baseline":
            published |= {"trunk": "conv", "mirror": False, "epochs": 15}
            yield from _of_method(name, figures, Method(published, script=method.script))
            continue
        ours = {**(method.ours or {}), "features": ""}
        description = (method.description or "").replace("GIST of 50,000", "pixels of 60,000")
        published |= {"features": ""}
        yield from _of_method(name, figures, Method(published, ours, description))


RAW_PIXELS = Row(
    "raw pixels", None, None, {"method": "pixels", "eval_k": 1000}, "3072 numbers"
)  # of one table alone: to rank 50,000 images by 3072 numbers takes ten minutes


def _baselines(lengths: Sequence[int]) -> Iterator[Row]:
    """Yield bits that nothing is learned for: ITQ of all lengths, weaker ones of 48."""
    for method, name in {"itq": "ITQ", "pcah": "PCA-sign", "lsh": "LSH"}.items():
        for n in lengths if method == "itq" else (48,):
            settings = {"method": method, "bits": n, "eval_k": 1000}
            yield Row(f"{name}, {n} bits", None, None, settings, "{bits} bits", n, name)


CIFAR10 = {"dataset": "cifar10", "protocol": "cifar10-full@1000", "script": "train_hasher"}
CIFAR100 = CIFAR10 | {"dataset": "cifar100", "protocol": "cifar100-full@1000"}
RETRIEVAL: dict[str, Any] = {
    "metric": "map@1000/retrieved",
    "extra_metrics": ("accuracy", "map@1000/min", "precision@1000", "precision@radius2"),
}
CODES = ("map@1000/retrieved", "map@all/all", "map@all/all/expected", "precision@1000",
         "precision@radius2")  # fmt: skip
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
    "5.2": Table("DRHN-15 beside other methods", tuple(_comparison(15)), "bits",
                 **CIFAR10 | RETRIEVAL | {"metric": BY_PROTOCOL, "extra_metrics": CODES}),
    "5.2-mnist": Table("methods of table 5.2 on MNIST", tuple(_on_mnist()), "bits", dataset="mnist",
                       protocol="mnist-full@1000", script="baseline", metric=BY_PROTOCOL,
                       extra_metrics=CODES),
    "5.3": Table("depth and bits, mAP of the first 1000", _grid(MAP, PERCENT), "depth n",
                 **CIFAR10 | RETRIEVAL),
    "5.4": Table("seconds of an epoch, 100,000 images, in training for 48 bits",
                 tuple(_row(n, 48, seconds, EPOCH, x=n)
                       for n, seconds in zip(DEPTHS, EPOCH_SECONDS, strict=True)), "depth n",
                 **TIMES, metric="seconds_per_epoch"),
    "5.5": Table("seconds from one image to its code",
                 _grid(CODE_MILLISECONDS, MILLISECOND, CODE), "depth n", **TIMES,
                 metric="seconds_per_code", extra_metrics=("codes_per_second",)),
    "curves": Table("precision of the first K at 48 bits, figure 5.5", tuple(_curves()),
                    dataset="cifar10", protocol="cifar10-59k@all", script="baseline",
                    metric="precision@1000",
                    extra_metrics=tuple(f"precision@{k}" for k in PRECISION_KS[:-1])),
    "mlh": Table("MLH at 48 bits, published 0.211: what its settings change", tuple(_mlh()),
                 dataset="cifar10", protocol="cifar10-59k@all", script="baseline",
                 metric="map@all/all", extra_metrics=("map@1000/retrieved", "precision@1000")),
    "dnnh": Table("DNNH at 48 bits, published 0.581: what its margin changes", tuple(_dnnh()),
                  dataset="cifar10", protocol="cifar10-59k@all", script="train_method",
                  metric="map@all/all",
                  extra_metrics=("map@1000/retrieved", "precision@radius2", "balance",
                                 "distinct_codes")),
    "losses": Table("what shapes the bits: DRHN-1, 48 bits, training images held out",
                    tuple(Row(name, None, None, recipes.DRHN_MODERN | {"epochs": 4} | settings,
                              "one cycle, {epochs} epochs")
                          for name, settings in LOSSES.items()),
                    **CIFAR10 | RETRIEVAL | {"protocol": "validation"}),
    "baselines": Table("codes without learning, mAP of the first 1000",
                       (RAW_PIXELS, *_baselines(BITS)),
                       "bits", **CIFAR10 | WITHOUT),
    "losses-baselines": Table("codes without learning, training images held out",
                              tuple(_baselines((48,))), "bits",
                              **CIFAR10 | WITHOUT | {"protocol": "validation"}),
    "5.6": Table("accuracy of the classifier, 100 classes", _grid(ACCURACY_100, PERCENT), "depth n",
                 **CIFAR100 | ACCURACIES),
    "5.7": Table("depth and bits, mAP of the first 1000, 100 classes", _grid(MAP_100, PERCENT),
                 "depth n", **CIFAR100 | RETRIEVAL
                 | {"extra_metrics": (*RETRIEVAL["extra_metrics"], *COARSE)}),
}  # fmt: skip
