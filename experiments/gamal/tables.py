"""The tables of Gamal and Mohamed, "Search by Images Using Auto Encoders" (slides).

The slides name the families and give their errors, but no widths, code sizes, optimizer or epochs.
Those here are ours; a table states the size of each code. The figures are mean squared errors of
training images, per pixel; for the variational ones the loss, which can only be the squared error
times 784 plus the divergence (cross-entropy would be about 150 at two dimensions).
"""

from table import Row, Table

ERRORS = ("mse/train", "mse/test")
SEARCH = ("map@2/retrieved", "map@1000/retrieved", "map@1/retrieved", "code_size")

PLAIN = {"loss": "mse", "batch_size": 128, "epochs": 20}
CONV = PLAIN | {"channels": "16,8"}
WIDE = CONV | {"channels": "16,32"}
NORMED = {"batch_norm": True, "epochs": 10}
FALLING = {"learning_rate": 3e-3, "learning_rate_end": 1e-5}
SLOWER = {"learning_rate": 1e-3}  # at 0.003 the dense one dies in its first steps (mse 0.124)
SMALL = FALLING | {"latent_dim": 32}  # one size of code for all


def _zoo(fc: float, up: float, transposed: float, dense_up: float) -> tuple[Row, ...]:
    """Return the five families, then those announced on the slides."""
    code, normed = "code of {latent_dim}, falling rate", "batch norm, falling rate"
    return (
        Row("fully connected", fc, PLAIN | {"hidden": "512", "latent_dim": 128},
            PLAIN | SMALL | SLOWER | {"hidden": "1000,500", "epochs": 40}, code,
            series="fully connected"),
        Row("conv + upsampling", up, CONV | {"model": "conv_up", "latent_dim": 0},
            CONV | NORMED | FALLING | {"model": "conv_up", "latent_dim": 0}, normed,
            series="conv + upsampling"),
        Row("conv + transposed conv", transposed,
            CONV | {"model": "conv_transposed", "latent_dim": 0},
            CONV | NORMED | FALLING | {"model": "conv_transposed", "latent_dim": 0}, normed,
            series="conv + transposed conv"),
        Row("conv + FC + upsampling", dense_up,
            WIDE | {"model": "conv_dense_up", "latent_dim": 128},
            WIDE | NORMED | SMALL | {"model": "conv_dense_up"}, code + ", batch norm",
            series="conv + FC + upsampling"),
        Row("conv + FC + transposed conv", None, None,
            WIDE | NORMED | SMALL | {"model": "conv_dense_transposed"}, code + ", batch norm",
            series="conv + FC + transposed conv"),
        Row("GRU over rows", None, None, PLAIN | SMALL | {"model": "gru", "epochs": 10}, code,
            series="GRU over rows"),
        Row("attention between patches", None, None,
            PLAIN | SMALL | {"model": "attention", "epochs": 10}, code,
            series="attention between patches"),
    )  # fmt: skip


def _table(dataset: str, rows: tuple[Row, ...]) -> Table:
    return Table(
        f"autoencoders on {dataset}: squared error per pixel of training images",
        rows,
        axis="map@2/retrieved",
        dataset=dataset,
        script="train_autoencoder",
        metric="mse/train",
        lower=True,
        extra_metrics=("mse/test", *SEARCH),
    )


VAE = {"variational": True, "loss": "mse", "latent_dim": 2, "hidden": "512", "batch_size": 128,
       "epochs": 50}  # fmt: skip
LONGER = {"epochs": 100, "learning_rate": 2e-3, "learning_rate_end": 2e-4}
GRU = VAE | {"model": "gru", "hidden": "128", "epochs": 20}
ATTENTION = VAE | {"model": "attention", "hidden": "", "epochs": 10} | FALLING

TABLES = {
    "mnist": _table("mnist", _zoo(0.0026, 0.0065, 0.0091, 0.0050)),
    "fashion": _table("fashion_mnist", _zoo(0.00543, 0.0131, 0.049, 0.0091)),
    "vae": Table(
        "variational autoencoders: squared error times 784 plus divergence, test images",
        (
            Row("784-512-2", 37.3252, VAE, VAE | FALLING | {"hidden": "1000,500"},
                "1000-500-2, falling rate", series="dense"),
            Row("784-512-2, longer", 37.3252, None, VAE | LONGER,
                "the published network, {epochs} epochs, falling rate", series="dense"),
            Row("GRU", 67.4471, GRU, GRU | FALLING, "falling rate", series="GRU"),
            Row("attention between patches", None, None, ATTENTION, "falling rate",
                series="attention"),
        ),
        axis="map@2/retrieved",
        script="train_autoencoder",
        metric="mse784_plus_kl",
        lower=True,
        extra_metrics=("mse784_plus_kl/train", *ERRORS, *SEARCH),
    ),
}  # fmt: skip
