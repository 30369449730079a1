"""Losses: one value per example; likelihoods and divergences are in nats.

Losses over pairs of images, or over statistics of a batch, give one value.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def bernoulli_nll(
    logits: Float[Array, "n *shape"], images: Float[Array, "n *shape"]
) -> Float[Array, " n"]:
    """Bernoulli negative log-likelihood, summed over pixels.

    -sum x log p + (1 - x) log(1 - p), where p = sigmoid(logits): the cross-entropy of pixels x in
    [0, 1] (Kingma 2014, appendix C.1). It is computed from logits, so it needs no epsilon.
    """
    nll = jax.nn.softplus(logits) - images * logits
    return jnp.sum(nll.reshape(len(nll), -1), axis=1)


def gaussian_nll(
    mean: Float[Array, "n *shape"], images: Float[Array, "n *shape"], log_variance: float = 0.0
) -> Float[Array, " n"]:
    """Gaussian negative log-likelihood with one fixed variance, summed over pixels.

    Half the squared error over the variance, plus the normaliser log(2 pi sigma^2) / 2 per pixel
    (Torres 2018, eq. 2.21, with a constant sigma).
    """
    squared = (images - mean) ** 2 * jnp.exp(-log_variance)
    nll = 0.5 * (squared + log_variance + jnp.log(2 * jnp.pi))
    return jnp.sum(nll.reshape(len(nll), -1), axis=1)


def squared_error(
    mean: Float[Array, "n *shape"], images: Float[Array, "n *shape"]
) -> Float[Array, " n"]:
    """Squared error, summed over pixels."""
    return jnp.sum(((images - mean) ** 2).reshape(len(images), -1), axis=1)


def gaussian_kl(mean: Float[Array, "n d"], log_variance: Float[Array, "n d"]) -> Float[Array, " n"]:
    """KL(N(mean, variance) || N(0, 1)), summed over dimensions (Kingma 2014, appendix B)."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1, axis=1)


def ntxent(
    z: Float[Array, "m b"], temperature: Float[Array, ""] | float = 0.3
) -> Float[Array, " m"]:
    """NT-Xent: the contrastive loss of each code, in nats (Chen 2020, eq. 1; on bits: Qiu 2021).

    The first half of z are anchors, the second half their positives in the same order. Each code is
    to pick its partner out of the batch: the cross-entropy of the softmax over the cosines with all
    other codes, divided by the temperature.

    Raises ValueError if the number of codes is odd.
    """
    m = len(z)
    if m % 2:
        raise ValueError(f"z must hold as many positives as anchors, got {m} codes")
    z = z * jax.lax.rsqrt(jnp.sum(z**2, axis=1, keepdims=True) + 1e-12)
    similarity = z @ z.T / temperature
    similarity = jnp.where(jnp.eye(m, dtype=bool), -jnp.inf, similarity)
    positives = (jnp.arange(m) + m // 2) % m
    positive = jnp.take_along_axis(similarity, positives[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(similarity, axis=1) - positive


def bernoulli_kl(logits: Float[Array, "n b"]) -> Float[Array, " n"]:
    """KL(Bernoulli(sigmoid(logit)) || Bernoulli(1/2)), summed over bits.

    p log p + (1 - p) log(1 - p) + log 2 for each bit.
    """
    p = jax.nn.sigmoid(logits)
    kl = p * jax.nn.log_sigmoid(logits) + (1 - p) * jax.nn.log_sigmoid(-logits) + jnp.log(2.0)
    return jnp.sum(kl, axis=1)


def categorical_kl(logits: Float[Array, "n g c"]) -> Float[Array, " n"]:
    """KL(Categorical(softmax(logits)) || uniform over c classes), summed over g groups.

    Torres 2018, eq. 3.5.
    """
    log_p = jax.nn.log_softmax(logits)
    kl = jnp.exp(log_p) * (log_p + jnp.log(float(logits.shape[-1])))
    return jnp.sum(kl, axis=(1, 2))


def marginal_categorical_kl(logits: Float[Array, "n g c"]) -> Float[Array, ""]:
    """KL(mean over the batch of Categorical(softmax(logits)) || uniform), summed over g groups.

    The mean of `categorical_kl` is this plus the mutual information between a group and the images
    of the batch (Hoffman 2016).
    """
    p = jnp.mean(jax.nn.softmax(logits), axis=0)
    return jnp.sum(p * jnp.log(jnp.maximum(p, 1e-7) * logits.shape[-1]))


def marginal_bernoulli_kl(logits: Float[Array, "n b"]) -> Float[Array, ""]:
    """KL(mean over the batch of Bernoulli(sigmoid(logit)) || Bernoulli(1/2)), summed over bits.

    0 if the probabilities of each bit have the mean 1/2.
    """
    return marginal_categorical_kl(jnp.stack([logits, jnp.zeros_like(logits)], axis=2))


# Codes below hold numbers from -1 to 1, or real numbers that are to go there; a bit is their sign.
# Each loss is a mean over the bits, so its weight means the same for any code length.


def softmax_cross_entropy(
    logits: Float[Array, "n k"], labels: Int[Array, " n"], smoothing: Float[Array, ""] | float = 0.0
) -> Float[Array, " n"]:
    """Cross-entropy of the softmax of logits, in nats.

    Its target is (1 - smoothing) one_hot(label) + smoothing / k (Szegedy 2016, section 7).
    """
    log_p = jax.nn.log_softmax(logits)
    label_log_p = jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
    return -(1 - smoothing) * label_log_p - smoothing * jnp.mean(log_p, axis=1)


def quantisation(codes: Float[Array, "n b"]) -> Float[Array, " n"]:
    """Quantisation loss log cosh(|u| - 1): a smooth distance of u to its signs (Zhu 2016, DHN)."""
    distance = jnp.abs(codes) - 1
    # log cosh x = log(e^x + e^-x) - log 2, which cannot overflow.
    return jnp.mean(jnp.logaddexp(distance, -distance) - jnp.log(2.0), axis=1)


def cubic_quantisation(codes: Float[Array, "n b"]) -> Float[Array, " n"]:
    """Quantisation loss |z - sign z|^3, the companion of `relax.sign_identity` (Su 2018)."""
    return jnp.mean(jnp.abs(jnp.abs(codes) - 1) ** 3, axis=1)


def bit_balance(codes: Float[Array, "n b"]) -> Float[Array, ""]:
    """Squared mean of each bit over the batch: 0 if it is 1 for half of the images."""
    return jnp.mean(jnp.mean(codes, axis=0) ** 2)


def pairwise_likelihood(codes: Float[Array, "n b"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Negative log-likelihood that pairs share a label, where they do (Zhu 2016, DHN).

    p(same label) = sigmoid(<u, v> / 2). In nats, the mean over the pairs of two different images.
    """
    n = len(codes)
    logits = jnp.dot(codes, codes.T) / 2
    alike = (labels[:, None] == labels[None]).astype(codes.dtype)
    nll = jax.nn.softplus(logits) - alike * logits
    return (jnp.sum(nll) - jnp.trace(nll)) / (n * (n - 1))


def weighted_pairwise_likelihood(
    codes: Float[Array, "n b"], labels: Int[Array, " n"], scale: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Weighted likelihood of which pairs share a label (Cao 2017, HashNet), per pair, in nats.

    Pairs of a class are few: all pairs that share a label have together the weight of all that do
    not. If a batch holds both kinds, the weights are 2 in the mean. p(same label) is
    sigmoid(scale <u, v>).
    """
    logits = scale * jnp.dot(codes, codes.T)
    alike = (labels[:, None] == labels[None]).astype(codes.dtype)
    nll = jax.nn.softplus(logits) - alike * logits
    return jnp.mean(pair_weights(labels) * nll)


def pair_weights(labels: Int[Array, " n"]) -> Float[Array, "n n"]:
    """Weight of each pair: all pairs over those of its kind, which share a label or do not."""
    alike = labels[:, None] == labels[None]
    share = jnp.mean(alike)
    others = jnp.maximum(1 - share, 1 / alike.size)  # a batch may have one class only
    return jnp.where(alike, 1 / share, 1 / others)


def triplet_ranking(
    codes: Float[Array, "n b"], labels: Int[Array, " n"], margin: Float[Array, ""] | float = 1.0
) -> Float[Array, ""]:
    """Triplet ranking loss of all triplets of a batch (Lai 2015, DNNH; Jimenez 2017, eq. 3.8).

    The mean of max(0, |u - u+|^2 - |u - u-|^2 + margin) over anchors u, other images u+ of their
    label and images u- of another; 0 if there is no such triplet.
    """
    squares = jnp.sum(codes**2, axis=1)
    distances = squares[:, None] + squares[None] - 2 * jnp.dot(codes, codes.T)
    alike = labels[:, None] == labels[None]
    positive = alike & ~jnp.eye(len(codes), dtype=bool)
    hinge = jax.nn.relu(distances[:, :, None] - distances[:, None, :] + margin)
    triplets = positive[:, :, None] & ~alike[:, None, :]
    return jnp.sum(jnp.where(triplets, hinge, 0.0)) / jnp.maximum(jnp.sum(triplets), 1)


def polarisation(
    codes: Float[Array, "n b"], centres: Float[Array, "n b"], margin: Float[Array, ""] | float = 1.0
) -> Float[Array, " n"]:
    """Polarisation loss max(0, margin - u t), a mean over bits (Fan 2020, DPN).

    It is 0 where every number u lies on the side of its target t, -1 or 1, by the margin. With a
    margin of 1 its sum over bits is at least the Hamming distance of sign(u) and t.
    """
    return jnp.mean(jax.nn.relu(margin - codes * centres), axis=1)


def cosine_logits(codes: Float[Array, "n b"], book: Float[Array, "k b"]) -> Float[Array, "n k"]:
    """Cosine of each code with the code of each class."""
    lengths = jnp.sqrt(jnp.sum(codes**2, axis=1, keepdims=True) + 1e-12)
    return jnp.dot(codes / lengths, book.T) / jnp.linalg.norm(book, axis=1)[None]


def cosine_margin(
    codes: Float[Array, "n b"],
    labels: Int[Array, " n"],
    book: Float[Array, "k b"],
    scale: Float[Array, ""] | float,
    margin: Float[Array, ""] | float,
) -> Float[Array, " n"]:
    """Softmax cross-entropy of scale (cos(u, t_c) - margin [c = label]) (Hoe 2021, OrthoHash).

    Args:
        codes: real numbers whose signs are the bits.
        labels: classes.
        book: the fixed code of each class, -1 and 1.
        scale: factor of all logits.
        margin: what the cosine with the label's code must exceed the others by.
    """
    own = jax.nn.one_hot(labels, len(book))
    logits = scale * (cosine_logits(codes, book) - margin * own)
    return softmax_cross_entropy(logits, labels)


def cosine_matching(codes: Float[Array, "n b"], features: Float[Array, "n d"]) -> Float[Array, ""]:
    """Mean squared difference of the cosines of codes and of features (Li 2021, BiHalf).

    Over the pairs of row i of the first half of the batch with row i of the second.
    """
    half = len(codes) // 2
    pairs = [(z[:half], z[half : 2 * half]) for z in (codes, features)]
    of_codes, of_features = (_cosines(a, b) for a, b in pairs)
    return jnp.mean((of_codes - of_features) ** 2)


def _cosines(a: Float[Array, "n d"], b: Float[Array, "n d"]) -> Float[Array, " n"]:
    squares = jnp.sum(a**2, axis=1) * jnp.sum(b**2, axis=1)
    return jnp.sum(a * b, axis=1) * jax.lax.rsqrt(squares + 1e-12)


def neighbor_clustering(
    logits: Float[Array, "m k"], entropy_weight: Float[Array, ""] | float = 5.0
) -> Float[Array, ""]:
    """Clusters that an image shares with its neighbor (Van Gansbeke 2020, SCAN, eq. 2), in nats.

    Row i of the first half of the logits and row i of the second are an image and its neighbor. The
    loss is the mean of -log <p, q> of their probabilities of the clusters, less entropy_weight
    times the entropy of the mean probabilities, which keeps all clusters in use.
    """
    half = len(logits) // 2
    log_p = jax.nn.log_softmax(logits)
    agreement = jax.nn.logsumexp(log_p[:half] + log_p[half : 2 * half], axis=1)
    mean = jnp.mean(jnp.exp(log_p), axis=0)
    entropy = -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-12)))
    return -jnp.mean(agreement) - entropy_weight * entropy


def symmetric_bernoulli_kl(logits: Float[Array, "m b"]) -> Float[Array, " n"]:
    """KL divergence between the bits of two views, both ways (Qiu 2021, CIBHash), summed over bits.

    Row i of the first half of the logits and row i of the second are two views of an image. In each
    direction (KL(p || q) + KL(q || p)) / 2 the second distribution has no gradient.
    """
    half = len(logits) // 2
    a, b = logits[:half], logits[half:]

    def divergence(a, b):
        b = jax.lax.stop_gradient(b)
        difference = jax.nn.log_sigmoid(a) - jax.nn.log_sigmoid(b)
        other = jax.nn.log_sigmoid(-a) - jax.nn.log_sigmoid(-b)
        return jnp.sum(jax.nn.sigmoid(a) * difference + jax.nn.sigmoid(-a) * other, axis=1)

    return (divergence(a, b) + divergence(b, a)) / 2


def central_similarity(
    logits: Float[Array, "n b"], centres: Float[Array, "n b"]
) -> Float[Array, " n"]:
    """Cross-entropy of sigmoid(logits); its target is the centre of the image's class.

    `centres` holds -1 and 1: rows of `hash_centres`, taken by label (Yuan 2020, CSQ).
    """
    return bernoulli_nll(logits, (centres + 1) / 2) / logits.shape[1]


def hash_centres(num_classes: int, bits: int, seed: int = 0) -> Float[np.ndarray, "k b"]:
    """A code of -1 and 1 for each class, far from the other codes (Yuan 2020, algorithm 1).

    If bits is a power of two and there are at most 2 bits classes, the codes are random rows of a
    Hadamard matrix, negated at random, and then their negatives: any two differ in at least half of
    the bits. Its first rows, which are often taken, repeat their columns: of 10 classes 64 bits
    would hold 16 different ones, and 4 that are the same for all. Otherwise they are random codes
    with as many ones as minus ones: each is the one of 20,000 candidates that lies farthest from
    the nearest code before it.

    Raises ValueError if the bits are too few to tell the classes apart.
    """
    if num_classes < 1 or bits < 1:
        raise ValueError(f"num_classes and bits must be at least 1, got {num_classes} and {bits}")
    random = np.random.RandomState(seed)  # NumPy will not change the numbers that it gives
    if bits & (bits - 1) == 0 and num_classes <= 2 * bits:
        hadamard = np.ones((1, 1), np.float32)
        while len(hadamard) < bits:
            hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
        rows = hadamard[random.permutation(bits)] * random.choice([-1, 1], bits)[:, None]
        return np.concatenate([rows, -rows])[:num_classes].astype(np.float32)
    half = np.where(np.arange(bits) < bits // 2, -1, 1).astype(np.float32)
    codes = half[np.argsort(random.random_sample((20_000, bits)), axis=1)]
    centres, nearest = [half], np.full(len(codes), -bits, np.float32)
    while len(centres) < num_classes:
        nearest = np.maximum(nearest, codes @ centres[-1])
        if nearest.min() == bits:
            raise ValueError(f"{bits} bits are too few for codes of {num_classes} classes")
        centres.append(codes[np.argmin(nearest)])
    return np.stack(centres)
