"""Every table of Torres 2018, chapter 4: what was published, and what to run.

A row is settings of train_vae. Where the text contradicts a table, the table is followed. Tables
4.1 and 4.3 are read with N = 20, the text's default: the figure of table 4.1's n2 = 100 is that of
table 4.3's K = 5. The tables after 4.8 answer what the thesis leaves open (its chapter 5); they
have no published figures. Those named choice are where ours was chosen.
"""

import math

from table import Row, Table

from jaxret.hashers import recipes

from . import baselines, choices
from .settings import (
    BERNOULLI_64,
    GUMBEL_30,
    LONG_LISTS,
    SAMPLE,
    SHORT,
    SIGN,
    STRAIGHT,
    TIES,
    categories,
    comparisons,
    open_row,
    ours,
)


def _continuous(n: int, **settings) -> tuple[dict, str]:
    return ours(recipes.vae_reals(n), **settings)


def _bits(n: int, **settings) -> tuple[dict, str]:
    return ours(recipes.vae_bits(n), **settings)


def _gumbel(classes: int, distributions: int, published: float) -> Row:
    """Return a row of table 4.6."""
    settings = categories(classes, distributions) | {"gumbel_codes": "probabilities"}
    best = ours(recipes.vae_categories(classes, distributions))
    return Row(f"N_c = {classes}, N_d = {distributions}", published, settings, *best)


def _other_images(dataset: str, title: str, *further: Row) -> Table:
    """Return a table of the same codes of images other than MNIST's."""
    rows = (
        open_row("N = 10, as published", SHORT, "mean, {epochs} epochs"),
        *(open_row(f"N = {n}, ours", _continuous(n, **SHORT)[0], "as on MNIST, {epochs} epochs")
          for n in (10, 32)),
        *(open_row(f"{n} bits, ours", _bits(n, **SHORT)[0], "as on MNIST, {epochs} epochs")
          for n in (10, 64)),
        *further,
    )  # fmt: skip
    return Table(title, rows, dataset=dataset, extra_metrics=LONG_LISTS)


TABLES = {
    "4.1": Table(
        "size n2 of the encoder's second layer (N = 20, K = 5)",
        tuple(
            Row(f"n2 = {n2}", figure,
                {"hidden": f"500,{n2}", "latent_dim": 20, "eval_k": 5} | SAMPLE,
                *_continuous(20, eval_k=5), x=n2)
            for n2, figure in {
                100: 0.8896, 500: 0.85764, 784: 0.8468, 1000: 0.84918, 10000: 0.84912
            }.items()
        ),
        axis="n2",
    ),
    "4.2": Table(
        "overview (N = 10, K = 2)",
        (
            Row("Default", 0.95005, SAMPLE, *_continuous(10)),
            Row("Binary", 0.65445, SAMPLE | {"quantise_levels": 2}, *_bits(10)),
            Row("Embedded binarization", 0.14465, SIGN | SAMPLE, *_bits(10)),
            Row("Range [-1, 1]", 0.9577, SAMPLE | {"latent": "clipped"},
                *_continuous(10, quantise_levels=32)),
            Row("mean", 0.96435, {}, *_continuous(10)),
            Row("mean and range [-1, 1]", 0.96355, {"latent": "clipped"},
                *_continuous(10, quantise_levels=32)),
        ),
    ),
    "4.3": Table(
        "number K of results (N = 20)",
        tuple(
            Row(f"eval_k = {k}", figure, {"latent_dim": 20, "eval_k": k} | SAMPLE,
                *_continuous(20, eval_k=k), x=k)
            for k, figure in {
                1: 0.8594, 2: 0.9006, 5: 0.8896, 10: 0.8637, 20: 0.82609, 50: 0.78502, 100: 0.74512
            }.items()
        ),
        axis="K",
    ),
    "4.4": Table(
        "latent dimension N (K = 2)",
        tuple(
            Row(f"latent_dim = {n}", figure, {"latent_dim": n} | SAMPLE, *_continuous(n), x=n)
            for n, figure in {
                2: 0.7729, 5: 0.9356, 10: 0.95005, 20: 0.9006, 50: 0.65865, 100: 0.43885,
                500: 0.23805,
            }.items()
        ),
        axis="N",
    ),
    "4.5": Table(
        "levels of quantisation after training, 0 for none (N = 10, mean, K = 2)",
        tuple(
            Row(f"quantise_levels = {levels}", figure, {"quantise_levels": levels},
                *_continuous(10, quantise_levels=levels), x=levels or None)
            for levels, figure in {
                2: 0.65445, 4: 0.7769, 8: 0.9088, 16: 0.95285, 32: 0.96235, 0: 0.96435
            }.items()
        ),
        axis="levels",
    ),
    "4.6": Table(
        "Gumbel-Softmax, N_d distributions over N_c classes (mean, K = 2)",
        (
            _gumbel(10, 10, 0.95135),
            _gumbel(5, 10, 0.935),
            _gumbel(30, 10, 0.9453),
            _gumbel(10, 5, 0.92658),
            _gumbel(10, 30, 0.95248),
        ),
    ),
    "4.7": Table(
        "size n3 of a third layer (N = 10, mean, K = 2)",
        tuple(
            Row(f"n3 = {n3}", figure, {"hidden": f"500,100,{n3}"}, *_continuous(10), x=n3)
            for n3, figure in {200: 0.9576, 100: 0.96455, 50: 0.96475}.items()
        ),
        axis="n3",
    ),
    "4.8": Table(
        "embedded binarization (N = 10, K = 2)",
        (
            Row("2 layers", 0.14465, SIGN | SAMPLE, *_bits(10)),
            Row("2 layers, mean", 0.14755, SIGN, *_bits(10)),
            Row("3 layers, mean", 0.16235, SIGN | {"hidden": "500,100,50"}, *_bits(10)),
        ),
    ),
    "bits": Table(
        "accuracy against code size, the thesis's layers unless it says otherwise (K = 2)",
        (
            *(open_row(f"continuous, N = {n}", {"latent_dim": n} | SHORT,
                    "mean, 32 bits a number, {epochs} epochs", 32 * n, "continuous")
              for n in (2, 5, 10, 20)),
            *(open_row(f"N = 10, {levels} levels", {"quantise_levels": levels},
                    "mean, quantised after training, {epochs} epochs", 10 * math.log2(levels),
                    "quantised") for levels in (2, 4, 8, 16, 32)),
            *(open_row(f"sign, {n} bits", STRAIGHT | {"latent_dim": n} | SHORT,
                    "straight-through sign, {epochs} epochs", n, "sign") for n in (10, 32, 64)),
            *(open_row(f"Bernoulli, {n} bits", recipes.BERNOULLI | {"latent_dim": n} | SHORT,
                    "stochastic bits, {epochs} epochs", n, "Bernoulli")
              for n in (10, 16, 32, 64, 128)),
            *(open_row(f"Gumbel, {d} of {c}, one-hot", categories(c, d),
                    "likeliest classes, Hamming, {epochs} epochs", d * math.log2(c),
                    "Gumbel, one-hot")
              for c, d in ((10, 5), (5, 10), (10, 10), (30, 10), (10, 30))),
            *(open_row(f"N = 10, {levels} levels, ours", *_continuous(10, quantise_levels=levels),
                    10 * math.log2(levels), "ours, quantised") for levels in (2, 4, 8, 16, 32)),
            *(open_row(f"{n} bits, ours", *_bits(n), n, "ours, bits")
              for n in (10, 16, 32, 64)),
            *(open_row(f"N = {n}, ours", *_continuous(n), 32 * n, "ours, continuous")
              for n in (2, 5, 10, 20, 32)),
        ),
        axis="bits per code",
        extra_metrics=LONG_LISTS,
    ),
    "positives": Table(
        "contrastive training with nearest neighbors as positives (K = 2)",
        (
            open_row("N = 10, ours", *_continuous(10)),
            *(open_row(f"{n} bits, ours", *_bits(n)) for n in (10, 32, 64)),
            *(open_row(f"N = 10, kNN positives{name}",
                       *ours(recipes.vae_reals_with_positives(10), **settings))
              for name, settings in {"": {}, ", by cosine": {"distance": "cosine"}}.items()),
            *(open_row(f"{n} bits, kNN positives", *ours(recipes.vae_bits_with_positives(n)))
              for n in (10, 32, 64)),
        ),
        extra_metrics=LONG_LISTS,
    ),
    "gumbel-codes": Table(
        "Gumbel-Softmax as published: how the codes are compared (mean, K = 2)",
        tuple(
            open_row(name, settings, "{epochs} epochs")
            for d in (5, 30) for name, settings in comparisons(10, d).items()
        ),
        extra_metrics=LONG_LISTS,
    ),
    "temperature": Table(
        "Gumbel-Softmax 10 x 30: temperature, fixed or falling (mean, K = 2)",
        (
            *(open_row(f"temperature {start:g}", GUMBEL_30 | {"temperature": start},
                    "fixed, {epochs} epochs", start)
              for start in (0.25, 0.5, 1.0, 2.0)),
            *(open_row(f"temperature {start:g} to {end:g}",
                    GUMBEL_30 | {"temperature": start, "temperature_end": end},
                    "falling, {epochs} epochs")
              for start, end in ((1.0, 0.5), (2.0, 0.25))),
        ),
        axis="temperature",
        extra_metrics=LONG_LISTS,
    ),
    "depth": Table(
        "ten bits by straight-through sign: layers of the encoder (K = 2)",
        tuple(
            open_row(hidden, STRAIGHT | {"hidden": hidden} | SHORT,
                  "straight-through sign, {epochs} epochs")
            for hidden in ("500", "500,100", "500,100,50", "500,500,500,100")
        ),
        extra_metrics=(*LONG_LISTS, *TIES),
    ),
    "distances": Table(
        "other distances between the codes, 25 epochs (K = 2)",
        (
            open_row("N = 10, Euclidean", SHORT, "means"),
            open_row("N = 10, cosine", SHORT | {"distance": "cosine"}, "means"),
            open_row("N = 10, Mahalanobis", SHORT | {"distance": "mahalanobis"},
                  "by the query's variances"),
            open_row("N = 10, symmetrised KL", SHORT | {"distance": "symmetric_kl"},
                  "between posteriors"),
            open_row("64 bits, Hamming", BERNOULLI_64, "likelier bits"),
            open_row("64 bits, expected Hamming", BERNOULLI_64 | {"distance": "expected_hamming"},
                  "of the bits' probabilities"),
        ),
        extra_metrics=LONG_LISTS,
    ),
    "elbo": Table(
        "negative evidence lower bound of the test images in nats, the thesis's layers",
        tuple(
            open_row(f"N = {n}", {"latent_dim": n, "learning_rate_end": 1e-4},
                  "{epochs} epochs, falling learning rate", n)
            for n in (2, 10, 20)
        ),
        axis="N",
        metric="negative_elbo_nats",
        lower=True,
        extra_metrics=("nll_nats", "kl_nats", "map@2/retrieved", "map@1000/retrieved"),
    ),
    "fashion": _other_images(
        "fashion_mnist", "Fashion-MNIST (K = 2)",
        open_row("N = 10, kNN positives", ours(recipes.vae_reals_with_positives(10), **SHORT)[0],
                 "as on MNIST, {epochs} epochs"),
        open_row("64 bits, kNN positives", ours(recipes.vae_bits_with_positives(64), **SHORT)[0],
                 "as on MNIST, {epochs} epochs"),
    ),
    "cifar10": _other_images("cifar10", "CIFAR-10 (K = 2)"),
    **baselines.TABLES,
    **choices.TABLES,
}  # fmt: skip
