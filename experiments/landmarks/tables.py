"""Table 1 of "Image Retrieval with Autoencoder", the landmarks report, on three sets of images.

`models` is of Google Landmarks v2, as the report has it. Its images are too many to come with this
repository, so two folders of photos stand in for it, by the same split and the same settings:
`models-landmarks36` and `models-caltech101`. The report gives no k of k-means: it is the number of
landmarks here. It gives no batch size: it is 32.
"""

from table import Row, Table

PUBLISHED = {"m1": 0.139366, "m2": 0.182436, "m3": 0.189234}  # NMI
MODELS = {"m1": "M1, no batch norm", "m2": "M2, batch norm", "m3": "M3, batch norm, 11 x 11"}
SIDES = {"m1": 92, "m2": 92, "m3": 96}  # that their decoders make
OTHERS = {  # method -> name, description
    "random": ("random clusters", "drawn"),
    "pixels": ("raw pixels", "32 x 32"),
    "colour-histogram": ("colour histogram", "8 x 8 x 8 HSV, Hellinger"),
    "gist": ("GIST", "512 numbers"),
    "vlad": ("VLAD", "dense SIFT, 16 words, 128 components"),
    "features": ("pretrained network", "EfficientNet-Lite0, 1280 numbers of unit length"),
}

BASELINES = (
    *(Row(name, None, None, {"method": method}, how) for method, (name, how) in OTHERS.items()),
    Row("pretrained network, 224 pixels", None, None, {"method": "features", "image_size": 224},
        "the same, of photos at the size that it was trained for"),
)  # fmt: skip


def _settings(name: str) -> dict:
    return {"method": name, "image_size": SIDES[name]}


def _table(words: str, dataset: str, rows: tuple[Row, ...]) -> Table:
    return Table(
        f"k-means on embeddings of {words}: mutual information with classes",
        (*rows, *BASELINES),
        dataset=dataset,
        protocol="landmarks",
        script="search_landmarks",
        metric="nmi",
        extra_metrics=("nmi/geometric", "ami", "ri", "ari", "loss/validation", "loss/train",
                       "map@1/retrieved", "classes", "clusters"),
    )  # fmt: skip


REPORT = tuple(Row(MODELS[name], PUBLISHED[name], _settings(name)) for name in MODELS)
# Of other images nothing was published.
STAND_IN = tuple(
    Row(MODELS[name], None, None, _settings(name), "settings of the report") for name in MODELS
)

TABLES = {
    "models": _table("Google Landmarks v2, landmarks 1000 to 2000", "landmarks", REPORT),
    "models-landmarks36": _table(
        "web photos of 36 landmarks, a stand-in", "photos:landmarks36", STAND_IN
    ),
    "models-caltech101": _table("Caltech-101, a stand-in", "photos:caltech101", STAND_IN),
}
