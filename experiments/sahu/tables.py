"""Table 1 of Sahu, Keerthana and Gopalakrishnan, "Autoencoders for Image Retrieval".

The document calls its figures mean squared errors. On pixels in [0, 1] they cannot be: an image of
nothing but black has 0.1120 on MNIST. They are the binary cross-entropies that the networks of
Chollet 2016 ("Building autoencoders in Keras"), whose text this one follows, are trained with; so
the table's metric is the cross-entropy, with the true squared error beside it. The document gives
no widths: they are Chollet's. It trained on 50,000 of MNIST's images, this table on the protocol's;
and model C for 80 epochs, of which 40 are enough here.
"""

from table import Row, Table

CODE = {"latent_dim": 0}  # the last layer of the encoder, with its ReLU, is the code
KERAS = CODE | {"batch_size": 256}
ADADELTA = KERAS | {"optimizer": "adadelta", "learning_rate": 1.0}
ADAM = {"batch_size": 128, "learning_rate": 2e-3, "learning_rate_end": 1e-5}

TABLES = {
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
