"""Train a variational autoencoder, search the whole gallery with its codes, score it, draw it.

    python experiments/train_vae.py --flagfile=experiments/digits/vae.flags --workdir=runs/digits

The flagfiles in experiments/torres2018 are rows of Torres 2018, each with the published score and
ours. The work folder gets args.flags, metrics.json, encoder/, checkpoints/ and plots/.
"""

import dataclasses
import sys

import drawing
import harness
import report
import training
from harness import flag

AUGMENTATION = ("shift", "degrees", "zoom")
ADVICE = (
    "--contrastive_weight=100 --knn_positives=10",
    "more --epochs",
    "a smaller --beta",
    "more --latent_dim",
)
VERSION = 2  # grows when the same flags compute something else


@dataclasses.dataclass(frozen=True)
class VaeConfig(harness.Config):
    """Flags; the defaults are the settings of Torres 2018 where it states them."""

    latent: str = flag(
        "gaussian", "Choose the latent variable between encoder and decoder.",
        ("gaussian", "clipped", "sign", "bernoulli", "gumbel"), "model",
    )  # fmt: skip
    latent_dim: int = flag(
        10, "Give codes this many numbers or bits (gumbel: see --num_distributions).", topic="model"
    )
    hidden: str = flag(
        "500,100", "Give the encoder hidden layers of these widths, which the decoder mirrors.",
        topic="model",
    )  # fmt: skip
    likelihood: str = flag(
        "bernoulli", "Choose the likelihood of a pixel.", ("bernoulli", "gaussian"), "model"
    )
    sign_gradient: str = flag(
        "clipped", "Pass gradients through the sign where |z| <= 1 (clipped), everywhere "
        "(identity), or nowhere (zero), as the thesis did.", ("clipped", "identity", "zero"),
        "training",
    )  # fmt: skip
    bit_gradient: str = flag(
        "straight_through", "Train Bernoulli bits by the gradient of their expectation "
        "(straight_through) or of a sample relaxed at --temperature (concrete).",
        ("straight_through", "concrete"), "training",
    )  # fmt: skip
    num_classes: int = flag(
        10, "Give each distribution of a gumbel latent this many classes, N_c.", topic="model"
    )
    num_distributions: int = flag(
        10, "Give a gumbel latent this many distributions, N_d.", topic="model"
    )
    temperature: float = flag(
        1.0, "Relax samples of gumbel and concrete latents at this temperature.", topic="training"
    )
    temperature_end: float = flag(
        0.0, "Move the temperature geometrically to this value; 0 keeps it constant.",
        topic="training",
    )  # fmt: skip
    gumbel_hard: bool = flag(
        False, "Feed the decoder one-hot samples of a gumbel latent, with the gradient of the "
        "relaxed sample.", topic="training",
    )  # fmt: skip
    gumbel_codes: str = flag(
        "one_hot", "Take the likeliest class of each gumbel distribution as the code (one_hot, "
        "Hamming distance), or the probabilities or their centred log ratios (Euclidean distance).",
        ("one_hot", "probabilities", "log_ratios"), "codes and scores",
    )  # fmt: skip
    beta: float = flag(
        1.0, "Weight the KL divergence by beta; 1 is the evidence lower bound.", topic="training"
    )
    beta_end: float = flag(
        0.0, "Move beta geometrically to this value; 0 keeps it constant.", topic="training"
    )
    balance: float = flag(
        0.0, "Weight the KL divergence of the batch's mean posterior from the prior, which keeps "
        "bits in use when beta is small (bernoulli, gumbel).", topic="training",
    )  # fmt: skip
    contrastive_weight: float = flag(
        0.0, "Weight the contrastive loss (NT-Xent) between the codes of each image and its "
        "positive: another augmented copy, or a neighbor of --knn_positives.", topic="training",
    )  # fmt: skip
    knn_positives: int = flag(
        0, "Draw positives from this many nearest training images by 50 principal components; 0 "
        "uses augmented copies.", topic="training",
    )  # fmt: skip
    learning_rate_end: float = flag(
        0.0, "Move the learning rate geometrically to this value; 0 keeps it constant.",
        topic="training",
    )  # fmt: skip
    shift: float = flag(
        0.0, "Move each image that the encoder sees by up to this many pixels; the decoder "
        "reconstructs it unchanged.", topic="augmentation",
    )  # fmt: skip
    degrees: float = flag(
        0.0, "Rotate each image that the encoder sees by up to this many degrees.",
        topic="augmentation",
    )  # fmt: skip
    zoom: float = flag(
        0.0, "Scale each image that the encoder sees by up to 1 plus this factor.",
        topic="augmentation",
    )  # fmt: skip
    features: str = flag(
        "mean", "Take the mean of an image's posterior as its code, or one sample of it.",
        ("mean", "sample"), "codes and scores",
    )  # fmt: skip
    distance: str = flag(
        "", "Rank codes by this distance; the default is the latent's own. Gaussian posteriors "
        "also have mahalanobis (by the query's variances) and symmetric_kl, Bernoulli bits "
        "expected_hamming.", ("", "cosine", "mahalanobis", "symmetric_kl", "expected_hamming"),
        "codes and scores",
    )  # fmt: skip
    quantise_levels: int = flag(
        0, "Quantise each number of a trained code to 2, 4, 8, 16 or 32 levels; 0 leaves it.",
        topic="codes and scores",
    )  # fmt: skip
    eval_k: int = flag(
        2, "Report map@K/retrieved and precision@K at this K.", topic="codes and scores"
    )

    SCALARS = (
        "learning_rate", "learning_rate_end", "beta", "beta_end", "balance", "contrastive_weight",
        "temperature", "temperature_end",
    )  # fmt: skip
    EVALUATION = ("features", "quantise_levels", "eval_k", "distance", "gumbel_codes")
    RENAMED = {"contrast": "contrastive_weight", "neighbours": "knn_positives"}  # noqa: RUF012

    def check(self) -> None:
        """See options.Config."""
        super().check()
        for name in ("latent_dim", "eval_k"):
            harness.at_least(self, name, 1)
        harness.at_least(self, "knn_positives", 0)
        harness.check_settings(lambda: self.settings().check())
        if self.knn_positives and not self.contrastive_weight:
            raise ValueError("--knn_positives needs --contrastive_weight above 0, got 0")
        sources = (*AUGMENTATION, "knn_positives")
        if self.contrastive_weight and not any(getattr(self, name) for name in sources):
            raise ValueError(
                f"--contrastive_weight needs one of --{', --'.join(AUGMENTATION)} or "
                "--knn_positives above 0"
            )

    def settings(self):
        """Return the hasher's settings: the flags of the same names."""
        from jaxret.hashers.vae import VaeSettings

        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(VaeSettings)}
        values["hidden"] = harness.positive_integers("hidden", self.hidden)
        return VaeSettings(**values)


CONFIG = VaeConfig


def hasher(config: VaeConfig, protocol):
    """Return the hasher that the flags describe, for a protocol's images."""
    from jaxret import hashers

    settings = dataclasses.asdict(config.settings())
    return hashers.vae_hasher(config.latent_dim, protocol.train.images.shape[1:], **settings)


def positives(config: VaeConfig, images):
    """Return the rows of each training image's nearest others, or None."""
    if not config.knn_positives:
        return None
    from jaxret.positives import knn_positives

    if config.knn_positives >= len(images):
        raise ValueError(
            f"--knn_positives must be below the number of training images, {len(images)}, "
            f"got {config.knn_positives}"
        )
    print(
        f"finding {config.knn_positives} neighbors of each of {len(images):,} images",
        file=sys.stderr,
        flush=True,
    )
    return knn_positives(images, config.knn_positives)


def score(config: VaeConfig, hasher, params, protocol, overlap: int) -> dict[str, float]:
    """Return retrieval scores, and the bound on the likelihood of the query images."""
    likelihood = report.measured(hasher, params, protocol.query, config.seed)
    names = ("negative_elbo_nats", "nll_nats", "kl_nats")
    return report.retrieval(config, hasher, params, protocol, overlap) | {
        name: likelihood[name] for name in names
    }


def pictures(config: VaeConfig, hasher, params, protocol, title: str) -> drawing.Pictures:
    """Return what the decoder makes of the prior: samples, and a plane's manifold."""
    drawn = {"samples": lambda: drawing.samples(hasher, params, config.seed, title)}
    if config.latent_dim == 2 and config.latent in ("gaussian", "clipped"):
        drawn["manifold"] = lambda: _manifold(config, hasher, params, title)
    return drawn


def _manifold(config: VaeConfig, hasher, params, title):
    import jax
    import jax.numpy as jnp

    shares = (jnp.arange(20) + 0.5) / 20
    if config.latent == "gaussian":
        axis, meaning = jax.scipy.special.ndtri(shares), "equal shares of the prior between lines"
    else:
        axis, meaning = 2 * shares - 1, "[-1, 1] squared"
    return drawing.plane(hasher, params, axis, axis, title, f"Decoded from a grid: {meaning}")


if __name__ == "__main__":
    training.run(sys.modules[__name__])
