"""Tables of photos that are searched by content. Nothing of them was published.

Under the protocol `others` each photo is searched among all the others, which also train, without
labels. Rows whose method learns from labels have queries that are held out (`test`), and so has a
row of `photo` to compare them with.
"""

from table import Row, Table

from jaxret.hashers import recipes

TEST = {"protocol": "test"}
VAE, DRHN = (recipe.settings for recipe in (recipes.vae_bits(64), recipes.DRHN_OURS))
SMALL = {"image_size": 32}


def _row(name: str, words: str, **settings) -> Row:
    return Row(name, None, None, settings, words)


ROWS = (
    _row("raw pixels", "32 x 32, Euclidean distance", method="pixels", **SMALL),
    _row("colour histogram", "8 x 8 x 8 HSV, Hellinger", method="colour-histogram", image_size=96),
    _row("look, 64 bits", "signs of layout and colour", method="look", image_size=64),
    _row("VAE, 64 bits", "trained on the folder, 32 x 32, {epochs} passes", method="vae", bits=64,
         epochs=VAE["epochs"], **SMALL),
    _row("features", "1280 numbers, cosine", method="features"),
    _row("features, centred", "1280 numbers, cosine", method="features", centre=True),
    _row("photo, 128 dims", "PCA, cosine", method="photo", dims=128),
    _row("photo, 64 bits", "PCA + ITQ", method="photo", bits=64),
    _row("photo, 128 bits", "PCA + ITQ", method="photo", bits=128),
    _row("photo, 256 bits", "PCA + ITQ", method="photo", bits=256),
    _row("photo, 256 bits, held out", "PCA + ITQ", method="photo", bits=256, **TEST),
    _row("labels, 256 bits", "a hash layer on features", method="labels", bits=256, **TEST),
    _row("DRHN-1, 48 bits", "trained on the folder, 32 x 32, {epochs} passes", method="drhn1",
         bits=48, epochs=DRHN["epochs"], batch_size=DRHN["batch_size"], **TEST, **SMALL),
)  # fmt: skip


def _table(title: str, name: str) -> Table:
    return Table(
        title,
        ROWS,
        dataset=f"photos:{name}",
        protocol="others",
        script="search_photos",
        metric="map@1/retrieved",
        extra_metrics=("precision@5", "precision@10", "map@all/all"),
    )


TABLES = {
    "caltech101": _table("Caltech-101, 10 photos of each class", "caltech101"),
    "landmarks36": _table("web photos of 36 landmarks", "landmarks36"),
}
