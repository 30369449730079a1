"""Tables of codes that need no learning, which learned codes must beat."""

from table import Row, Table

from .settings import LONG_LISTS, open_row

LINEAR_BITS = {"itq": "ITQ", "pcah": "PCA-sign", "lsh": "LSH"}


def _rows(pixels: int, dims: tuple[int, ...], **settings) -> tuple[Row, ...]:
    """Return raw pixels, principal components and linear bits."""
    return (
        open_row("raw pixels", {"method": "pixels"} | settings, f"{pixels} numbers"),
        *(open_row(f"PCA, {n} components", {"method": "pca", "dim": n} | settings,
                   "{dim} numbers", n, "PCA") for n in dims),
        *(open_row(f"{name}, {n} bits", {"method": method, "bits": n} | settings,
                   "{bits} bits", n, name)
          for method, name in LINEAR_BITS.items() for n in (10, 32, 64)),
    )  # fmt: skip


def _table(title: str, rows: tuple[Row, ...], **about) -> Table:
    return Table(title, rows, **about, script="baseline", extra_metrics=LONG_LISTS)


AXIS = "numbers (PCA) or bits per code"
DIMS = (2, 5, 10, 20, 32, 50, 100)
TABLES = {
    "baselines": _table("codes without learning (K = 2)", _rows(784, DIMS), axis=AXIS),
    # Beside tables 4.1 and 4.3.
    "k-baselines": _table(
        "20 principal components: number K of results",
        tuple(
            open_row(f"K = {k}", {"method": "pca", "dim": 20, "eval_k": k}, "{dim} numbers", k)
            for k in (1, 2, 5, 10, 20, 50, 100)
        ),
        axis="K",
    ),
    # Beside the tables named choice.
    "choice-baselines": _table(
        "codes without learning (K = 2)", _rows(784, (10, 20, 32)), axis=AXIS,
        protocol="validation",
    ),
    "fashion-baselines": _table(
        "Fashion-MNIST without learning (K = 2)", _rows(784, DIMS),
        axis=AXIS, dataset="fashion_mnist",
    ),
    "cifar10-baselines": _table(
        "CIFAR-10 without learning (K = 2)", _rows(3072, DIMS), axis=AXIS, dataset="cifar10"
    ),
}  # fmt: skip
