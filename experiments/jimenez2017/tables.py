"""Every table of Jiménez Lepe 2017, chapter 5: what was published, and what to run.

DRHN-n with a hash layer of some bits, on CIFAR-10 (tables 5.1 to 5.5) and CIFAR-100 (5.6, 5.7). The
accuracies and the mAP of one network are scores of one training. Percentages are fractions here,
milliseconds seconds. Networks without settings are other papers', which the thesis compares itself
with; most of them had 5,000 labelled images and 1,000 queries (see RESULTS.md). "losses" is where
our recipe was chosen.
"""

from collections.abc import Iterator, Sequence

from table import Row, Table

BITS = (12, 24, 32, 48, 128)
DEPTHS = range(1, 17)

# Rows are DRHN-1 to DRHN-16, columns BITS; in percent.
ACCURACY = (
    (90.41, 90.53, 90.74, 90.51, 90.21),
    (92.08, 91.96, 91.80, 91.87, 91.76),
    (92.08, 92.34, 92.41, 92.31, 92.57),
    (92.76, 92.32, 92.80, 92.24, 92.83),
    (93.07, 92.57, 92.65, 93.06, 93.21),
    (93.00, 93.32, 92.75, 93.44, 92.73),
    (93.05, 93.08, 93.21, 93.30, 93.03),
    (93.07, 93.06, 93.50, 93.17, 92.89),
    (93.18, 93.11, 93.46, 93.70, 93.22),
    (93.74, 93.61, 93.75, 93.21, 93.36),
    (93.46, 92.98, 93.46, 93.56, 93.25),
    (93.03, 93.85, 93.61, 93.52, 93.46),
    (93.43, 93.49, 93.45, 93.28, 93.40),
    (93.01, 93.58, 93.82, 93.50, 93.36),
    (93.55, 93.27, 93.22, 93.62, 93.49),
    (93.42, 93.26, 93.26, 93.30, 93.50),
)
MAP = (
    (87.50, 88.01, 88.59, 88.43, 87.83),
    (90.40, 90.22, 90.62, 90.66, 89.63),
    (90.81, 91.04, 90.99, 90.78, 91.04),
    (91.32, 90.83, 91.43, 90.71, 91.04),
    (91.75, 91.21, 91.21, 91.89, 91.65),
    (91.85, 92.49, 91.36, 92.23, 91.05),
    (91.76, 91.74, 92.30, 92.50, 91.30),
    (92.17, 92.03, 92.49, 91.95, 91.22),
    (91.97, 91.92, 92.35, 92.58, 91.46),
    (91.93, 92.55, 92.94, 91.95, 91.69),
    (92.66, 92.35, 92.57, 92.57, 91.65),
    (91.55, 92.71, 92.78, 92.89, 91.85),
    (92.52, 92.58, 92.18, 92.30, 92.12),
    (91.78, 92.74, 92.93, 92.19, 91.65),
    (92.65, 92.02, 92.23, 92.91, 91.92),
    (92.53, 92.32, 92.15, 92.25, 92.06),
)
ACCURACY_100 = (
    (56.32, 61.22, 61.17, 62.24, 63.42),
    (61.48, 63.92, 64.22, 65.15, 65.78),
    (62.87, 64.63, 65.59, 66.66, 67.59),
    (63.24, 65.67, 66.09, 67.30, 68.60),
    (63.77, 65.94, 66.93, 67.52, 68.71),
    (64.32, 66.88, 67.33, 68.56, 69.02),
    (64.27, 66.76, 67.96, 68.37, 69.28),
    (65.01, 67.10, 67.87, 68.03, 69.18),
    (64.28, 67.03, 68.24, 68.60, 70.03),
    (66.29, 67.43, 68.29, 68.25, 69.58),
    (63.92, 67.77, 67.68, 68.91, 70.43),
    (64.19, 67.14, 68.38, 68.82, 69.46),
    (65.30, 67.13, 68.14, 69.62, 70.17),
    (65.55, 67.95, 68.30, 69.75, 70.24),
    (67.15, 67.40, 67.63, 69.52, 69.78),
    (65.89, 67.32, 68.31, 68.89, 70.69),
)
MAP_100 = (
    (45.71, 51.09, 50.01, 51.01, 49.33),
    (53.76, 55.08, 55.78, 55.97, 52.29),
    (56.73, 56.34, 56.73, 57.64, 56.60),
    (57.49, 58.20, 58.62, 59.32, 58.69),
    (58.20, 58.26, 58.82, 60.48, 58.64),
    (59.63, 59.71, 61.40, 61.91, 60.64),
    (59.50, 59.70, 62.47, 62.01, 59.88),
    (61.41, 60.90, 61.50, 60.20, 61.57),
    (59.00, 60.98, 60.86, 61.77, 62.28),
    (62.56, 59.44, 62.33, 63.03, 62.38),
    (59.78, 60.96, 60.03, 61.80, 63.20),
    (60.73, 61.75, 62.57, 63.39, 61.67),
    (62.15, 60.88, 60.28, 63.45, 61.55),
    (62.14, 62.82, 61.63, 63.46, 62.14),
    (63.51, 60.82, 60.95, 63.77, 62.10),
    (61.89, 60.61, 62.28, 62.37, 63.63),
)
EPOCH_SECONDS = (
    66.41, 122.22, 184.57, 263.72, 316.51, 493.20, 976.02, 746.16, 858.01, 893.73, 846.24, 925.23,
    1008.97, 1118.85, 1213.72, 989.50,
)  # fmt: skip
CODE_MILLISECONDS = (
    (4.742, 4.740, 4.611, 4.681, 4.434),
    (7.459, 7.487, 7.308, 8.554, 7.301),
    (12.065, 11.951, 12.181, 12.759, 11.719),
    (15.585, 15.547, 15.396, 15.466, 15.195),
    (19.171, 20.864, 19.608, 19.375, 21.466),
    (24.742, 23.099, 23.048, 22.829, 23.353),
    (28.367, 29.662, 28.236, 27.878, 28.090),
    (32.157, 32.456, 32.519, 35.739, 35.644),
    (42.584, 36.746, 36.796, 37.188, 37.602),
    (41.369, 41.465, 39.899, 40.693, 40.899),
    (45.037, 45.581, 45.704, 45.617, 47.807),
    (45.984, 46.679, 47.000, 46.013, 46.119),
    (50.138, 50.132, 50.546, 50.083, 50.481),
    (55.317, 55.431, 55.111, 55.547, 55.202),
    (60.405, 60.070, 60.767, 61.635, 60.037),
    (66.277, 65.623, 65.376, 67.263, 67.551),
)
# Table 5.2 at 12, 32 and 48 bits, without DRHN-15, which is in MAP.
OTHERS = {
    "DLBHC": (89.30, 89.72, 89.73),
    "CNNBH": (53.2, 61.0, 61.7),
    "DHN": (55.5, 60.3, 62.1),
    "DNNH": (55.2, 55.8, 58.1),
    "CNNH+": (46.5, 52.1, 53.2),
    "CNNH": (43.9, 50.9, 52.2),
    "KSH": (30.3, 34.6, 35.6),
    "ITQ-CCA": (26.4, 28.8, 29.5),
    "LSH": (12.1, 12.0, 12.0),
}
# Figure 5.5, precision of the first K at 48 bits: points that DLBHC's authors (Lin 2015) read off
# other papers' curves and published beside their programs, which the thesis drew its figure from.
PRECISION_KS = (100, 200, 400, 600, 800, 1000)
PRECISION = {
    "CNNH+": (0.59, 0.595, 0.599, 0.602, 0.605, 0.608),
    "CNNH": (0.58, 0.585, 0.589, 0.592, 0.595, 0.598),
    "KSH": (0.45, 0.45, 0.451, 0.45, 0.449, 0.45),
    "ITQ-CCA": (0.40, 0.40, 0.398, 0.395, 0.390, 0.388),
    "MLH": (0.37, 0.36, 0.358, 0.355, 0.351, 0.34),
    "BRE": (0.32, 0.319, 0.314, 0.31, 0.305, 0.30),
    "ITQ": (0.305, 0.30, 0.29, 0.285, 0.283, 0.28),
    "SH": (0.25, 0.23, 0.22, 0.21, 0.20, 0.19),
    "LSH": (0.18, 0.17, 0.168, 0.166, 0.164, 0.162),
}

PERCENT, MILLISECOND = 0.01, 0.001
# What differs from train_hasher's defaults, which are the published recipe; with GREEDY, it is
# ours.flags.
MODERN = {
    "learning_rate": 0.2, "schedule": "one_cycle", "weight_decay": 5e-4, "nesterov": True,
    "label_smoothing": 0.1,
}  # fmt: skip
GREEDY = {"relaxation": "sign", "cubic": 0.1}
OURS = MODERN | GREEDY
# What may shape the bits; how it is called, and the papers' names.
LOSSES = {
    "classification alone": {},
    "quantisation (DHN)": {"quantisation": 0.1},
    "sign, cubic (GreedyHash)": GREEDY,
    "quantisation, central (CSQ)": {"quantisation": 0.1, "central": 1.0},
    "sign, cubic, central": GREEDY | {"central": 1.0},
}
# Settings as published, ours, and how ours is.
Recipes = tuple[dict, dict, str]
TRAINED: Recipes = ({}, OURS, "one cycle, smoothed labels, classified by sign")
# A recipe does not change how long a network takes; the numbers that it computes with do.
EPOCH: Recipes = ({}, {"dtype": "bfloat16"}, "bfloat16")
CODE: Recipes = ({"what": "code"}, {"what": "code", "dtype": "bfloat16"}, "bfloat16")


def _row(n: int, bits: int, published: float, recipes: Recipes = TRAINED, **about) -> Row:
    """A network as published and as we do it."""
    network = {"depth": n, "bits": bits}
    as_published, ours, how = recipes
    name = f"DRHN-{n} at {bits} bits"
    return Row(name, round(published, 6), as_published | network, ours | network, how, **about)


def _grid(
    figures: Sequence[Sequence[float]], unit: float, recipes: Recipes = TRAINED
) -> tuple[Row, ...]:
    """Rows of every depth and code length, one curve of a chart for each length."""
    return tuple(
        _row(n, bits, figure * unit, recipes, x=n, series=f"{bits} bits")
        for n, row in zip(DEPTHS, figures, strict=True)
        for bits, figure in zip(BITS, row, strict=True)
    )


def _comparison(n: int, lengths: Sequence[int]) -> Iterator[Row]:
    """DRHN-n beside the other methods."""
    for bits in lengths:
        yield _row(n, bits, MAP[n - 1][BITS.index(bits)] * PERCENT, x=bits)
    for name, figures in OTHERS.items():
        for bits, figure in zip(lengths, figures, strict=True):
            published = round(figure * PERCENT, 6)
            yield Row(f"{name} at {bits} bits", published, None, x=bits, series=name)


CIFAR10 = {"dataset": "cifar10", "protocol": "cifar10-full@1000", "script": "train_hasher"}
CIFAR100 = CIFAR10 | {"dataset": "cifar100", "protocol": "cifar100-full@1000"}
RETRIEVAL = {
    "metric": "map@1000/retrieved",
    "beside": ("accuracy", "map@1000/min", "precision@1000", "precision@radius2"),
}
ACCURACIES = {"metric": "accuracy", "beside": ("accuracy/train", "map@1000/retrieved")}
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
                 metric="seconds_per_code", beside=("codes_per_second",)),
    "losses": Table("what shapes the bits: DRHN-1, 48 bits, 4 epochs, training images held out",
                    tuple(Row(name, None, None, MODERN | {"epochs": 4} | settings, "one cycle")
                          for name, settings in LOSSES.items()),
                    **CIFAR10 | RETRIEVAL | {"protocol": "validation"}),
    "5.6": Table("accuracy of the classifier, 100 classes", _grid(ACCURACY_100, PERCENT), "depth n",
                 **CIFAR100 | ACCURACIES),
    "5.7": Table("depth and bits, mAP of the first 1000, 100 classes", _grid(MAP_100, PERCENT),
                 "depth n", **CIFAR100 | RETRIEVAL),
}  # fmt: skip
