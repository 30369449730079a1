"""Train a variational autoencoder, search the whole gallery with its codes, score it, draw it.

    python experiments/train_vae.py --flagfile=experiments/digits/vae.flags --workdir=runs/digits

Flagfiles of Torres 2018's rows lie in experiments/torres2018, each with the published figure and
ours. The work folder gets args.flags, metrics.json, checkpoints/ and plots/.
"""

import dataclasses

import harness
import report
from harness import flag


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
    num_classes: int = flag(10, "gumbel: classes of each distribution, N_c")
    num_distributions: int = flag(10, "gumbel: number of distributions, N_d")
    temperature: float = flag(1.0, "gumbel: temperature while training")
    gumbel_hard: bool = flag(False, "gumbel: one-hot samples forward, soft gradient backward")
    gumbel_codes: str = flag(
        "one_hot", "gumbel: the likeliest class of each distribution, by Hamming distance, or the "
        "probabilities, by Euclidean distance", ("one_hot", "probabilities"),
    )  # fmt: skip
    beta: float = flag(1.0, "weight of the KL divergence; 1 is the evidence lower bound")
    features: str = flag(
        "mean", "an image's code: its posterior's mean, or one sample of it", ("mean", "sample")
    )
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
        if self.quantise_levels not in (0, 2, 4, 8, 16, 32):
            raise ValueError(
                f"--quantise_levels must be 0, 2, 4, 8, 16 or 32, got {self.quantise_levels}"
            )
        if self.quantise_levels and self.latent not in ("gaussian", "clipped"):
            raise ValueError(f"--quantise_levels is for continuous latents, not {self.latent}")

    def hyper(self) -> dict[str, float]:
        """The scalars of training, which a sweep may vary."""
        return {name: getattr(self, name) for name in ("learning_rate", "beta", "temperature")}


def build(config: VaeConfig, image_shape: tuple[int, int, int]):
    """The autoencoder that the flags describe, and the distance of its codes."""
    from jaxret import hashers, models

    latent = hashers.LATENTS[config.latent](config)
    hidden = harness.positive_integers("hidden", config.hidden)
    model = models.dense_autoencoder(image_shape, latent.head_size, hidden)
    return hashers.make_vae(model, latent, image_shape, config.likelihood), latent.distance


def make_encode(config: VaeConfig, vae):
    """The code that the flags describe, jitted: (params, images) -> f32[n b]."""
    import jax

    from jaxret import hashers

    encode = {"mean": vae.mean, "sample": vae.sample}[config.features]
    if config.quantise_levels:
        encode = hashers.quantised(encode, config.quantise_levels)
    return jax.jit(encode)


def main(config: VaeConfig) -> None:
    """One run."""
    import jax
    import jax.numpy as jnp

    from jaxret import viz

    protocol, overlap = harness.load_data(config)
    vae, distance = build(config, protocol.train.images.shape[1:])
    workdir = harness.Workdir(config)
    state, history = harness.train(workdir, vae.trainer, config.hyper(), protocol.train, config)
    encode = make_encode(config, vae)
    trained = report.Trained(protocol, overlap, encode, state.params, distance)
    metrics = report.score(trained, config.eval_k) | negative_elbo(vae, trained, config.seed)

    examples = protocol.query.images[:12]
    rebuilt = vae.reconstruct(state.params, jnp.asarray(examples))
    workdir.plot("reconstructions", viz.reconstructions(examples, jax.device_get(rebuilt)))
    report.draw(workdir, trained, history)
    elbo = {"elbo_nats": -(history[-1]["nll"] + history[-1]["kl"])}
    report.finish(workdir, config, trained, metrics, report.training_record(history) | elbo)


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
