"""Tables of codes that need no learning, which learned codes must beat."""

from table import Row, Table

from .settings import LONG_LISTS, open_row

LINEAR_BITS = {"itq": "ITQ", "pcah": "PCA-sign", "lsh": "LSH"}


def _baselines(dataset: str, title: str, *further: Row) -> Table:
    """Return a table of codes that nothing is learned for."""
    pixels = 3072 if dataset == "cifar10" else 784
    rows = (
        open_row("raw pixels", {"method": "pixels"}, f"{pixels} numbers"),
        *(open_row(f"PCA, {n} components", {"method": "pca", "dim": n}, "{dim} numbers", n, "PCA")
          for n in (2, 5, 10, 20, 32, 50, 100)),
        *(open_row(f"{name}, {n} bits", {"method": method, "bits": n}, "{bits} bits", n, name)
          for method, name in LINEAR_BITS.items() for n in (10, 32, 64)),
        *further,
    )  # fmt: skip
    return Table(
        title, rows, axis="numbers (PCA) or bits per code", dataset=dataset, script="baseline",
        extra_metrics=LONG_LISTS,
    )  # fmt: skip


# Beside the tables with other K, and beside the choices, which are scored by training images.
MNIST_BASELINES = (
    *(open_row(f"PCA, 20 components, K = {k}", {"method": "pca", "dim": 20, "eval_k": k},
            "{dim} numbers") for k in (1, 5, 10, 20, 50, 100)),
    *(open_row(f"{name}, validation", settings | {"protocol": "validation"}, description)
      for name, settings, description in (
          ("raw pixels", {"method": "pixels"}, "784 numbers"),
          *((f"PCA, {n} components", {"method": "pca", "dim": n}, "{dim} numbers")
            for n in (10, 20, 32)),
          *((f"ITQ, {n} bits", {"method": "itq", "bits": n}, "{bits} bits")
            for n in (10, 32, 64)),
      )),
)  # fmt: skip

TABLES = {
    "baselines": _baselines("mnist", "codes without learning (K = 2)", *MNIST_BASELINES),
    "fashion-baselines": _baselines("fashion_mnist", "Fashion-MNIST without learning (K = 2)"),
    "cifar10-baselines": _baselines("cifar10", "CIFAR-10 without learning (K = 2)"),
}
