"""Deep hashing methods on one trainer: they differ in an objective, a code book and a few numbers.

METHODS: name -> Method. All of them learn a trunk and a hash layer, from images or from vectors
such as the features of a pretrained network, by the same optimizer. A new method is one entry.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxret import losses, relax

from .books import central_book, random_book, similarity_book
from .deep import TERMS
from .objective import Term

Book = Callable[[Any, int, int], Float[np.ndarray, "k b"]]
Units = Float[Array, "n b"]


class Method(NamedTuple):
    """What one method adds to the trainer; see `method_hasher`.

    terms: its objective, of deep.Outputs; a scalar of a term's name is its weight.
    scalars: numbers that terms use, published values where they carry over.
    visible: what the classifier sees of the hash layer's units.
    code: the code that terms shape, from the units.
    book: (labels, num_classes, bits) -> the fixed code of each class.
    classifies: whether there is a classifier; needs labels.
    supervised: whether it learns from labels.
    pairs: whether a batch holds a positive of each image.
    divided, norm: see models.trunks.HashHead.
    settings: of training, where they differ from MethodSettings' defaults.
    about: name, source and objective, which the help of the entry in HASHERS begins with.
    """

    terms: Mapping[str, Term]
    scalars: Mapping[str, float] = {}
    visible: Callable[[Units], Units] = lambda z: z
    code: Callable[[Units], Units] = lambda z: z
    book: Book | None = None
    classifies: bool = False
    supervised: bool = True
    pairs: bool = False
    divided: bool = False
    norm: bool = False
    settings: Mapping[str, Any] = {}
    about: str = ""


def _tanh_signs(z):
    """Signs, whose gradient is that of tanh."""
    return relax.sign_identity(jnp.tanh(z))


def _probable_signs(z):
    """Signs of sigmoid(z) - 1/2, whose gradient is that of the sigmoid."""
    return relax.sign_identity(jax.nn.sigmoid(z) - 0.5)


def _regression(outputs, hyper):
    del hyper
    return jnp.mean((outputs.code - outputs.centres) ** 2)


def _triplets(outputs, hyper):
    return losses.triplet_ranking(outputs.code, outputs.labels, hyper["margin"])


def _beta(done):
    """HashNet's scale of z before tanh, which grows from 1 to about 7 over a run.

    As over its 10,000 published steps; `done` is the share of the run that is done.
    """
    return jnp.sqrt(1 + 50 * done)


def _continuation(outputs, hyper):
    beta = _beta(hyper["step"] / hyper["steps"])
    z, labels = jnp.tanh(beta * outputs.z), outputs.labels
    return losses.weighted_pairwise_likelihood(z, labels, hyper["alpha"] / z.shape[1])


def _certainty(outputs, hyper):
    del hyper
    return jnp.mean((jnp.abs(outputs.code) - 1) ** 2)


def _polarisation(outputs, hyper):
    return jnp.mean(losses.polarisation(outputs.z, outputs.centres, hyper["margin"]))


def _cosine_margin(outputs, hyper):
    numbers = hyper["scale"], hyper["margin"]
    return jnp.mean(losses.cosine_margin(outputs.z, outputs.labels, outputs.book, *numbers))


def _matching(outputs, hyper):
    bits = relax.half_signs(outputs.z, hyper["gamma"])
    return losses.cosine_matching(bits, outputs.x.reshape(len(bits), -1))


def _contrast(outputs, hyper):
    return jnp.mean(losses.ntxent(outputs.code, hyper["temperature"]))


def _clustering(outputs, hyper):
    return losses.neighbor_clustering(outputs.logits, hyper["entropy"])


def _agreement(outputs, hyper):
    del hyper
    return jnp.mean(losses.symmetric_bernoulli_kl(outputs.z))


CLASSIFICATION = {"classification": TERMS["classification"]}
SMOOTHING = {"label_smoothing": 0.0}
CONTRASTIVE = {"contrast": _contrast}

METHODS: dict[str, Method] = {
    "cnnh": Method(
        {"regression": _regression} | CLASSIFICATION,
        {"classification": 0.0} | SMOOTHING,
        code=jnp.tanh,
        book=similarity_book,
        classifies=True,
        about="CNNH (Xia 2014): the squared distance of tanh(z) to the code of the class, which "
        "follows from the similarity of labels. CNNH+ also classifies: classification=1.",
    ),
    "dnnh": Method(
        {"triplets": _triplets}, {"margin": 1.0}, code=jax.nn.sigmoid, divided=True,
        about="DNNH (Lai 2015): the hinge of triplets of sigmoid(z), each bit of which sees "
        "features of its own.",
    ),
    "dhn": Method(
        {name: TERMS[name] for name in ("pairwise", "quantisation")},
        {"quantisation": 0.1},
        code=jnp.tanh,
        about="DHN (Zhu 2016): the likelihood of pairs by the inner product of their codes, plus "
        "the codes' distance from their signs.",
    ),
    "cnnbh": Method(
        CLASSIFICATION, SMOOTHING, visible=jax.nn.relu, classifies=True,
        settings={"classifier_dropout": 0.5},
        about="CNNBH (Guo 2015): cross-entropy of a classifier whose first dense layer is "
        "binarised at 0.",
    ),
    "dlbhc": Method(
        CLASSIFICATION, SMOOTHING, visible=jax.nn.sigmoid, classifies=True,
        about="DLBHC (Lin 2015): cross-entropy of a classifier of sigmoid(z).",
    ),
    "hashnet": Method(
        {"pairs": _continuation}, {"alpha": 10.0},
        about="HashNet (Cao 2017): the weighted likelihood of pairs by the inner product of "
        "tanh(beta z), where beta grows.",
    ),
    "csq": Method(
        {"central": TERMS["central"], "certainty": _certainty}, {"certainty": 1e-4},
        code=lambda z: jnp.tanh(z / 2), book=central_book,
        about="CSQ (Yuan 2020): cross-entropy of each bit with that of the class's Hadamard code, "
        "plus the codes' distance from their signs.",
    ),
    "dpn": Method(
        {"polarisation": _polarisation}, {"margin": 1.0}, book=random_book,
        about="DPN (Fan 2020): the hinge of each unit on the side of the class's random code.",
    ),
    "orthohash": Method(
        {"margin_softmax": _cosine_margin}, {"scale": 8.0, "margin": 0.2}, book=random_book,
        norm=True,
        about="OrthoHash (Hoe 2021): the softmax, with a margin, of cosines with the random codes "
        "of all classes.",
    ),
    "greedyhash": Method(
        CLASSIFICATION | {"cubic": TERMS["cubic"]}, {"cubic": 0.1} | SMOOTHING,
        visible=relax.sign_identity, classifies=True,
        about="GreedyHash (Su 2018): cross-entropy of a classifier of sign(z), whose gradient "
        "passes, plus the cubed distance of z from its signs.",
    ),
    "bihalf": Method(
        {"matching": _matching}, {"gamma": 6.0}, supervised=False, settings={"hidden": ()},
        about="BiHalf (Li 2021), without labels: cosines of codes match those of features; half of "
        "a batch has each bit. One linear layer.",
    ),
    "cibhash": Method(
        CONTRASTIVE | {"agreement": _agreement}, {"temperature": 0.3, "agreement": 0.001},
        code=_probable_signs, supervised=False, pairs=True, settings={"hidden": (1024,)},
        about="CIBHash (Qiu 2021), without labels: NT-Xent of two augmented views, or of an image "
        "and one of its positives, plus the divergence of their bits' probabilities.",
    ),
    "contrastive": Method(
        CONTRASTIVE | {"clustering": _clustering},
        {"temperature": 0.3, "clustering": 1.0, "entropy": 5.0},
        code=_tanh_signs, visible=_tanh_signs, classifies=True, supervised=False, pairs=True,
        about="Ours, without labels: NT-Xent of the codes of an image and one of its nearest "
        "neighbors, which a classifier of the code sorts into the same of num_classes clusters "
        "(Van Gansbeke 2020).",
    ),
}  # fmt: skip
