"""Tables of Sahu, Keerthana and Gopalakrishnan, "Autoencoders for Image Retrieval".

Table 1 is of MNIST; "cifar4" and "classifier" are sections 3 and 4. The document says neither how
many results were taken for precision, recall and F1 (10 here) nor how long its networks trained.

The document calls its figures mean squared errors. On pixels in [0, 1] they cannot be: an image of
nothing but black has 0.1120 on MNIST. They are the binary cross-entropies that the networks of
Chollet 2016 ("Building autoencoders in Keras"), whose text this one follows, are trained with; so
the table's metric is the cross-entropy, with the true squared error beside it. The document gives
no widths: they are Chollet's. It trained on 50,000 of MNIST's images, this table on the protocol's;
and model C for 80 epochs, of which 40 are enough here.
"""

from table import Row, Table

from jaxret.hashers import recipes

CODE = {"latent_dim": 0}  # the last layer of the encoder, with its ReLU, is the code
KERAS = CODE | {"batch_size": 256}
ADADELTA = KERAS | {"optimizer": "adadelta", "learning_rate": 1.0}
ADAM = {"batch_size": 128, "learning_rate": 2e-3, "learning_rate_end": 1e-5}

PUBLISHED = {"trunk_epochs": 21}  # over three hours of a core; how many were published is not known
AVERAGED = {"trunk_epochs": 20, "clean_statistics": True, "ema": 0.995}  # an hour of two cores
LONGER = AVERAGED | {"trunk_epochs": 35}  # level from pass 28 on
TWO_STAGE = {"method": "two-stage", "epochs": 50}
SMALLER = {"channels": "16,32,64,128", "dense": "512", "trunk_learning_rate": 1e-3,
           "trunk_epochs": 25, "clean_statistics": True}  # fmt: skip
LAST_BLOCKS = {"method": "last-blocks"} | {
    name: recipes.ON_MAPS[name] for name in ("epochs", "batch_size", "learning_rate")
}
LAST_BLOCKS_224 = LAST_BLOCKS | {"maps": "efficientnet-lite0@224-block12"}
MIRRORED = LAST_BLOCKS_224 | {"mirror": True, "epochs": 4}
BOTH_VIEWS = MIRRORED | {"both_views": True}
F1 = {"dataset": "cifar4", "script": "search_cifar4"}
ROWS = (
    Row("raw pixels", None, None, {"method": "pixels"}, "3,072 numbers"),
    Row(
        "approach 1, end to end",
        None,
        None,
        {"method": "end-to-end", "learning_rate": 1e-3},
        "channels 16 to 128, {dims} numbers, {epochs} passes",
    ),
    Row(
        "approach 2, 128 numbers",
        0.9829,
        TWO_STAGE | PUBLISHED | {"dims": 128},
        {"method": "features-autoencoder", "dims": 128},
        "pretrained network, its features rebuilt",
    ),
    Row(
        "approach 2, 64 numbers",
        None,
        None,
        {"method": "features-autoencoder"},
        "pretrained network, its features rebuilt",
    ),
    Row("approach 2, smaller network", None, None, TWO_STAGE | SMALLER | {"learning_rate": 1e-3},
        "classifier of {channels} channels, {dims} numbers"),
    Row("features, 1,280 numbers", None, None, {"method": "features"}, "pretrained network"),
    Row(
        "bits without labels",
        None,
        None,
        {"method": "photo"},
        "pretrained network, PCA and ITQ, {bits} bits",
    ),
    Row(
        "bits from labels",
        None,
        None,
        {"method": "labels"},
        "pretrained network, a hash layer, {bits} bits",
    ),
    Row(
        "bits from labels, 224 pixels",
        None,
        None,
        {"method": "labels", "features": "efficientnet-lite0@224"},
        "pretrained network, a hash layer, {bits} bits",
    ),
    Row("bits from labels, last blocks", None, None, LAST_BLOCKS,
        "pretrained network, its last 4 blocks trained too, {bits} bits"),
    Row("bits from labels, last blocks, 224 pixels", None, None, LAST_BLOCKS_224 | {"epochs": 3},
        "pretrained network, its last 4 blocks trained too, {epochs} passes, {bits} bits"),
    Row("bits from labels, last blocks, 224 pixels, mirrored", None, None, MIRRORED,
        "its last 4 blocks trained too, {epochs} passes, mirror images too, {bits} bits"),
    Row("the same, both views", None, None, BOTH_VIEWS,
        "the mean of an image's and its mirror image's units, before they become bits"),
    Row("one view, too long", None, None, MIRRORED | {"epochs": 8}, "{epochs} passes"),
)  # fmt: skip

INDEXES = {
    "bits": "64 bits, exact, packed", "faiss-bits": "64 bits, exact, faiss",
    "floats-128": "128 numbers, exact", "floats-64": "64 numbers, exact",
    "annoy-20x128": "128 numbers, Annoy, 20 trees", "annoy-10x64": "64 numbers, Annoy, 10 trees",
    "hnsw-128": "128 numbers, HNSW", "hnsw-64": "64 numbers, HNSW",
}  # fmt: skip
SIZES = (20_000, 100_000, 1_000_000)

TABLES = {
    "index": Table(
        "indexes of the same images: queries per second, one at a time",
        tuple(
            Row(f"{name}, {rows:,} rows", None, None, {"index": index, "rows": rows}, "one thread")
            for rows in SIZES
            for index, name in INDEXES.items()
        ),
        dataset="cifar4",
        script="search_index",
        metric="queries_per_second",
        extra_metrics=("queries_per_second/batch", "megabytes", "build_seconds", "recall/own",
                       "recall/floats", "f1"),
    ),
    "cifar4": Table(
        "search among four classes: each of the first 10 results as a guess",
        ROWS,
        metric="f1",
        extra_metrics=("precision", "recall", "f1/leaky", "vote", "map@1000/retrieved",
                       "megabytes"),
        **F1,
    ),
    "classifier": Table(
        "accuracy on four classes",
        (
            Row("the classifier", 0.927, {"method": "trunk"} | PUBLISHED, BOTH_VIEWS,
                "pretrained, last blocks, 224 pixels, both views; a vote of 10 by {bits} bits"),
            Row("the same network, averaged", None, None, {"method": "trunk"} | AVERAGED,
                "weights averaged, statistics without dropout, {trunk_epochs} passes"),
            Row("the same, longer", None, None, {"method": "trunk"} | LONGER,
                "{trunk_epochs} passes"),
            Row("a smaller network", None, None, {"method": "trunk"} | SMALLER,
                "channels {channels}, {trunk_epochs} passes"),
        ),
        metric="accuracy",
        extra_metrics=("f1", "map@1000/retrieved"),
        **F1,
    ),
    "1": Table(
        "three autoencoders: cross-entropy per pixel of images that did not train",
        (
            Row("A, 1 hidden layer", 0.1266, ADADELTA | {"hidden": "32", "epochs": 50},
                ADAM | CODE | {"hidden": "32", "epochs": 50}, "Adam, falling rate",
                series="A"),
            Row("B, 3 hidden layers", 0.1127, ADADELTA | {"hidden": "128,64,32", "epochs": 60},
                ADAM | {"hidden": "512,256", "latent_dim": 32, "epochs": 40},
                "512-256-32, linear code, Adam, falling rate", series="B"),
            Row("C, 3 convolution-pool blocks", 0.1015,
                KERAS | {"model": "conv_up", "channels": "16,8,8", "batch_size": 128, "epochs": 40},
                ADAM | {"model": "conv_dense_up", "channels": "16,32,32", "latent_dim": 32,
                        "batch_norm": True, "epochs": 10},
                "wider, batch norm, dense code of {latent_dim}, falling rate, {epochs} epochs",
                series="C"),
        ),
        axis="map@2/retrieved",
        script="train_autoencoder",
        metric="bce/test",
        lower=True,
        extra_metrics=("bce/train", "mse/test", "map@2/retrieved", "map@1000/retrieved",
                       "map@1/retrieved", "code_size"),
    ),
}  # fmt: skip
