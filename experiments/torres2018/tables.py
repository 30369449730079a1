"""Every table of Torres 2018, chapter 4: what was published, and what to run.

A row is settings of train_vae.
Where the text contradicts a table, the table is followed. Tables 4.1 and 4.3 are read with N = 20,
the text's default: the figure of table 4.1's n2 = 100 is that of table 4.3's K = 5.
"""

from table import Row, Table

PROTOCOL = "test"


def _rows(key: str, published: dict, **settings) -> tuple[Row, ...]:
    """One row for each value of a setting."""
    return tuple(
        Row(f"{key} = {value}", figure, {**settings, key: value})
        for value, figure in published.items()
    )


def _gumbel(classes: int, distributions: int, published: float) -> Row:
    settings = {"num_classes": classes, "num_distributions": distributions, "latent": "gumbel"}
    return Row(f"N_c = {classes}, N_d = {distributions}", published, settings)


SIGN = {"latent": "sign", "sign_gradient": "zero"}
SAMPLE = {"features": "sample"}

TABLES = {
    "4.1": Table(
        "size n2 of the encoder's second layer (N = 20, K = 5)",
        tuple(
            Row(
                f"n2 = {n2}",
                figure,
                {"hidden": f"500,{n2}", "latent_dim": 20, "eval_k": 5} | SAMPLE,
            )
            for n2, figure in {
                100: 0.8896,
                500: 0.85764,
                784: 0.8468,
                1000: 0.84918,
                10000: 0.84912,
            }.items()
        ),
    ),
    "4.2": Table(
        "overview (N = 10, K = 2)",
        (
            Row("Default", 0.95005, SAMPLE),
            Row("Binary", 0.65445, SAMPLE | {"quantise_levels": 2}),
            Row("Embedded binarization", 0.14465, SIGN | SAMPLE),
            Row("Range [-1, 1]", 0.9577, SAMPLE | {"latent": "clipped"}),
            Row("mean", 0.96435, {}),
            Row("mean and range [-1, 1]", 0.96355, {"latent": "clipped"}),
        ),
    ),
    "4.3": Table(
        "number K of results (N = 20)",
        _rows(
            "eval_k",
            {1: 0.8594, 2: 0.9006, 5: 0.8896, 10: 0.8637, 20: 0.82609, 50: 0.78502, 100: 0.74512},
            latent_dim=20,
            **SAMPLE,
        ),
    ),
    "4.4": Table(
        "latent dimension N (K = 2)",
        _rows(
            "latent_dim",
            {
                2: 0.7729,
                5: 0.9356,
                10: 0.95005,
                20: 0.9006,
                50: 0.65865,
                100: 0.43885,
                500: 0.23805,
            },
            **SAMPLE,
        ),
    ),
    "4.5": Table(
        "levels of quantisation after training, 0 for none (N = 10, mean, K = 2)",
        _rows(
            "quantise_levels",
            {2: 0.65445, 4: 0.7769, 8: 0.9088, 16: 0.95285, 32: 0.96235, 0: 0.96435},
        ),
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
            Row(f"n3 = {n3}", figure, {"hidden": f"500,100,{n3}"})
            for n3, figure in {200: 0.9576, 100: 0.96455, 50: 0.96475}.items()
        ),
    ),
    "4.8": Table(
        "embedded binarization (N = 10, K = 2)",
        (
            Row("2 layers", 0.14465, SIGN | SAMPLE),
            Row("2 layers, mean", 0.14755, SIGN),
            Row("3 layers, mean", 0.16235, SIGN | {"hidden": "500,100,50"}),
        ),
    ),
}
