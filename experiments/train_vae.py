"""Train a variational autoencoder, search the whole gallery with its codes, score it, draw it.

    python experiments/train_vae.py --flagfile=experiments/digits/vae.flags --workdir=runs/digits

Flagfiles of Torres 2018's rows lie in experiments/torres2018, each with the published figure and
ours. The work folder gets args.flags, metrics.json, checkpoints/ and plots/.
"""

import dataclasses
import functools
import sys

import harness
import report
import table
from harness import flag

VIEWS = ("shift", "degrees", "zoom")
COMPONENTS = 50  # by which neighbours are found
# Distances beyond the latents' own: which compare whole posteriors, and which latents have them.
POSTERIOR = ("mahalanobis", "symmetric_kl", "expected_hamming")
OF_LATENTS = {
    "cosine": ("gaussian", "clipped"),
    "mahalanobis": ("gaussian",),
    "symmetric_kl": ("gaussian",),
    "expected_hamming": ("bernoulli",),
}


@dataclasses.dataclass(frozen=True)
class VaeConfig(harness.Config):
    """Flags; the defaults are the settings of Torres 2018 where it states them."""

    latent: str = flag(
        "gaussian", "what stands between encoder and decoder",
        ("gaussian", "clipped", "sign", "bernoulli", "gumbel"),
    )  # fmt: skip
    latent_dim: int = flag(10, "numbers or bits per code (gumbel: see num_distributions)")
    hidden: str = flag("500,100", "widths of the encoder's layers; the decoder mirrors them")
    likelihood: str = flag("bernoulli", "of a pixel", ("bernoulli", "gaussian"))
    sign_gradient: str = flag(
        "clipped", "what goes back through the sign: where |z| <= 1, all, or (as in the thesis) "
        "nothing", ("clipped", "identity", "zero"),
    )  # fmt: skip
    bit_gradient: str = flag(
        "straight_through", "bernoulli: that of a bit's expectation, or of a relaxed sample (see "
        "temperature)", ("straight_through", "concrete"),
    )  # fmt: skip
    num_classes: int = flag(10, "gumbel: classes of each distribution, N_c")
    num_distributions: int = flag(10, "gumbel: number of distributions, N_d")
    temperature: float = flag(1.0, "gumbel, concrete: temperature while training")
    temperature_end: float = flag(0.0, "what it goes to, geometrically; 0: it stays")
    gumbel_hard: bool = flag(False, "gumbel: one-hot samples forward, soft gradient backward")
    gumbel_codes: str = flag(
        "one_hot", "gumbel: the likeliest class of each distribution, by Hamming distance, or the "
        "probabilities or their centred log ratios, by Euclidean distance",
        ("one_hot", "probabilities", "log_ratios"),
    )  # fmt: skip
    beta: float = flag(1.0, "weight of the KL divergence; 1 is the evidence lower bound")
    beta_end: float = flag(0.0, "what it goes to, geometrically; 0: it stays")
    balance: float = flag(
        0.0, "bernoulli, gumbel: weight of the divergence of the batch's mean posterior from the "
        "prior, which keeps bits in use where beta is small",
    )  # fmt: skip
    contrast: float = flag(
        0.0, "weight of how badly a code tells which other one is of the same image: two views of "
        "each are seen; needs one of --shift, --degrees, --zoom, or --neighbours",
    )  # fmt: skip
    neighbours: int = flag(
        0, "contrast: the second view is not of the same image but of one of its so many nearest "
        "among the training images, by 50 principal components",
    )  # fmt: skip
    learning_rate_end: float = flag(0.0, "what it goes to, geometrically; 0: it stays")
    shift: float = flag(0.0, "the encoder is trained on images moved by up to so many pixels,")
    degrees: float = flag(0.0, "turned by up to so many degrees,")
    zoom: float = flag(0.0, "and scaled by up to 1 + so much; the decoder rebuilds them unchanged")
    features: str = flag(
        "mean", "an image's code: its posterior's mean, or one sample of it", ("mean", "sample")
    )
    distance: str = flag(
        "", "how codes are ranked; none: as the latent has it. Of a Gaussian latent also cosine, "
        "or between posteriors mahalanobis (by the query's variances) and symmetric_kl; of "
        "Bernoulli bits also expected_hamming",
        ("", "cosine", "mahalanobis", "symmetric_kl", "expected_hamming"),
    )  # fmt: skip
    quantise_levels: int = flag(0, "levels per number after training: 2, 4, 8, 16, 32; 0: none")
    eval_k: int = flag(2, "K of map@K/retrieved and precision@K")

    def check(self) -> None:
        """See harness.Config."""
        super().check()
        for name in ("latent_dim", "num_distributions", "eval_k"):
            harness.at_least(self, name, 1)
        harness.at_least(self, "num_classes", 2)
        harness.positive_integers("hidden", self.hidden)
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"--beta must be at least 0, got {self.beta}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"--temperature must be above 0, got {self.temperature}")
        for name in (
            "beta_end",
            "balance",
            "contrast",
            "temperature_end",
            "learning_rate_end",
            *VIEWS,
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be at least 0, got {getattr(self, name)}")
        if self.balance and self.latent not in ("bernoulli", "gumbel"):
            raise ValueError(f"--balance is for bernoulli and gumbel latents, not {self.latent}")
        harness.at_least(self, "neighbours", 0)
        if self.neighbours and not self.contrast:
            raise ValueError("--neighbours needs --contrast above 0, got 0")
        if self.contrast and not any(getattr(self, name) for name in (*VIEWS, "neighbours")):
            raise ValueError(
                f"--contrast needs one of --{', --'.join(VIEWS)} or --neighbours above 0"
            )
        if self.beta_end and not self.beta:
            raise ValueError("--beta_end needs --beta above 0, got 0")
        if self.quantise_levels not in (0, 2, 4, 8, 16, 32):
            raise ValueError(
                f"--quantise_levels must be 0, 2, 4, 8, 16 or 32, got {self.quantise_levels}"
            )
        needed = OF_LATENTS.get(self.distance, (self.latent,))
        if self.latent not in needed:
            raise ValueError(
                f"--distance={self.distance} is for {' and '.join(needed)} latents, "
                f"not {self.latent}"
            )
        if self.distance in POSTERIOR and (self.features == "sample" or self.quantise_levels):
            raise ValueError(
                f"--distance={self.distance} compares posteriors, not samples or levels"
            )
        if self.quantise_levels and self.latent not in ("gaussian", "clipped"):
            raise ValueError(f"--quantise_levels is for continuous latents, not {self.latent}")

    def hyper(self) -> dict[str, float]:
        """The scalars of training, which a sweep may vary."""
        used = ("beta_end", "balance", "contrast")  # a loss does without what is 0
        return {name: getattr(self, name) for name in used if getattr(self, name)} | {
            "learning_rate": self.learning_rate,
            "learning_rate_end": self.learning_rate_end or self.learning_rate,
            "beta": self.beta,
            "temperature": self.temperature,
            "temperature_end": self.temperature_end or self.temperature,
        }


def build(config: VaeConfig, image_shape: tuple[int, int, int]):
    """The autoencoder that the flags describe, and the distance of its codes."""
    from jaxret import augment, hashers, models

    latent = hashers.LATENTS[config.latent](config)
    hidden = harness.positive_integers("hidden", config.hidden)
    model = models.dense_autoencoder(image_shape, latent.head_size, hidden)
    changes = {name: getattr(config, name) for name in VIEWS}
    view = functools.partial(augment.affine, **changes) if any(changes.values()) else None
    vae = hashers.make_vae(
        model, latent, image_shape, config.likelihood, view=view, paired=config.neighbours > 0
    )
    return vae, config.distance or latent.distance


def make_encode(config: VaeConfig, vae):
    """The code that the flags describe, jitted: (params, images) -> f32[n b]."""
    import jax

    from jaxret import hashers

    encode = {"mean": vae.mean, "sample": vae.sample}[config.features]
    if config.distance in POSTERIOR:
        encode = vae.parameters
    if config.quantise_levels:
        encode = hashers.quantised(encode, config.quantise_levels)
    return jax.jit(encode)


def partners(config: VaeConfig, images):
    """For each training image the rows of its nearest others, i32[n m], where they are asked for.

    By principal components: all that is known of likeness before anything is learnt.
    """
    import jax
    import numpy as np

    from jaxret import evaluate, hashers, search

    if not config.neighbours:
        return None
    if config.neighbours >= len(images):
        raise ValueError(
            f"--neighbours must be below the number of training images, {len(images)}, "
            f"got {config.neighbours}"
        )
    print(
        f"finding {config.neighbours} neighbours of each of {len(images):,} images",
        file=sys.stderr,
        flush=True,
    )
    hasher = hashers.pca_hasher(min(COMPONENTS, images[0].size))
    params, _ = hasher.fit(jax.random.key(0), images)
    codes = np.asarray(evaluate.encode_in_batches(hasher.encode, params, images))
    found = np.asarray(search.euclidean_topk(codes, codes, config.neighbours + 1).indices)
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True  # enough copies of it come before
    return found[~own].reshape(len(found), config.neighbours)


def score(config: VaeConfig, vae, trained: report.Trained) -> dict[str, float]:
    """Retrieval, and the bound on the likelihood of the query images."""
    return report.score(trained, config.eval_k) | negative_elbo(vae, trained, config.seed)


CONFIG = VaeConfig
run_rows = functools.partial(
    table.train_rows, build=build, make_encode=make_encode, score=score, partners=partners
)


def main(config: VaeConfig) -> None:
    """One run."""
    import jax
    import jax.numpy as jnp

    from jaxret import viz

    protocol, overlap = harness.load_data(config)
    vae, distance = build(config, protocol.train.images.shape[1:])
    near = partners(config, protocol.train.images)
    workdir = harness.Workdir(config)
    state, history = harness.train(
        workdir, vae.trainer, config.hyper(), protocol.train, config, partners=near
    )
    encode = make_encode(config, vae)
    trained = report.Trained(protocol, overlap, encode, state.params, distance)
    metrics = score(config, vae, trained)

    examples = protocol.query.images[:12]
    rebuilt = vae.reconstruct(state.params, jnp.asarray(examples))
    workdir.plot("reconstructions", viz.reconstructions(examples, jax.device_get(rebuilt)))
    _draw_prior(workdir, vae, state.params, config)
    report.draw(workdir, trained, history)
    elbo = {"elbo_nats": -(history[-1]["nll"] + history[-1]["kl"])}
    report.finish(workdir, config, trained, metrics, report.training_record(history) | elbo)


def _draw_prior(workdir: harness.Workdir, vae, params, config: VaeConfig) -> None:
    """What the decoder makes of the prior: samples, and over a plane of latents the manifold."""
    import jax
    import jax.numpy as jnp

    from jaxret import viz

    def grid(images, side, title):
        images = jax.device_get(images)
        return viz.image_grid(images.reshape(side, side, *images.shape[1:]), title)

    drawn = vae.generate(params, jax.random.key(config.seed), 100)
    workdir.plot("samples", grid(drawn, 10, "decoded from the prior"))
    if config.latent_dim == 2 and config.latent in ("gaussian", "clipped"):
        middles = (jnp.arange(20) + 0.5) / 20
        axis = jax.scipy.special.ndtri(middles) if config.latent == "gaussian" else 2 * middles - 1
        z = jnp.stack(jnp.meshgrid(axis, -axis), axis=2).reshape(-1, 2)
        title = "decoded from a grid over the latents, equal shares of the prior between lines"
        if config.latent == "clipped":
            title = "decoded from a grid over the latents, [-1, 1] squared"
        workdir.plot("manifold", grid(vae.decode(params, z), 20, title))


def negative_elbo(vae, trained: report.Trained, seed: int) -> dict[str, float]:
    """Mean over the query images, in nats, by one sample of each posterior."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    of_batch = jax.jit(vae.negative_elbo)
    images, total = trained.protocol.query.images, np.zeros(2)
    for start in range(0, len(images), 1000):
        key = jax.random.fold_in(jax.random.key(seed), start)
        batch = of_batch(trained.params, key, jnp.asarray(images[start : start + 1000]))
        total += [part.sum() for part in batch]
    nll, kl = (float(value) for value in total / len(images))
    return {"negative_elbo_nats": nll + kl, "nll_nats": nll, "kl_nats": kl}


if __name__ == "__main__":
    harness.run(VaeConfig, main)
