"""A variational autoencoder as a hasher: Torres 2018 and its relatives."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from jaxret import losses, relax, train
from jaxret.models import Autoencoder

from . import network
from .latents import Latent

Images = UInt8[Array, "n h w c"]

View = Callable[[PRNGKeyArray, Float[Array, "n h w c"]], Float[Array, "n h w c"]]

# name -> (negative log-likelihood of scaled images, link from the decoder's output to pixels)
LIKELIHOODS = {
    "bernoulli": (losses.bernoulli_nll, jax.nn.sigmoid),
    "gaussian": (losses.gaussian_nll, lambda mean: mean),
    # Of variance 1/2 about the sigmoid, without its constant: the squared error itself.
    "squared": (lambda y, x: losses.squared_error(jax.nn.sigmoid(y), x), jax.nn.sigmoid),
}


class VAE(NamedTuple):
    """A variational autoencoder as pure functions of its params."""

    trainer: train.Trainer
    parameters: Callable[[train.PyTree, Images], Float[Array, "n p"]]  # of the posterior
    mean: Callable[[train.PyTree, Images], Float[Array, "n b"]]  # codes, posterior's centre
    sample: Callable[[train.PyTree, Images], Float[Array, "n b"]]  # codes, drawn once an image
    decode: Callable[[train.PyTree, Float[Array, "n b"]], Float[Array, "n h w c"]]  # in [0, 1]
    reconstruct: Callable[[train.PyTree, Images], Float[Array, "n h w c"]]  # from the mean
    # (params, key, n) -> n images decoded from latents drawn from the prior
    generate: Callable[[train.PyTree, PRNGKeyArray, int], Float[Array, "n h w c"]]
    # (params, key, images[, temperature]) -> negative log-likelihood and KL of each image, nats
    negative_elbo: Callable[..., tuple[Float[Array, " n"], Float[Array, " n"]]]


def scale(images: Images) -> Float[Array, "n h w c"]:
    """Stored bytes to [0, 1]."""
    return images.astype(jnp.float32) / 255


def make_vae(
    model: Autoencoder,
    latent: Latent,
    image_shape: tuple[int, int, int],
    likelihood: str = "bernoulli",
    optimizer: Callable[[train.Hyper], optax.GradientTransformation] = lambda hyper: optax.adam(
        hyper["learning_rate"]
    ),
    view: View | None = None,
    paired: bool = False,
) -> VAE:
    """Join a network and a latent.

    Training minimises nll + beta KL, the negative evidence lower bound at beta = 1 (Kingma 2014,
    eq. 10; Higgins 2017 for other beta). hyper holds learning_rate, beta and temperature. With a
    view the encoder is trained on changed images and the decoder still rebuilds the images as they
    were: a code need not tell what the view changed (denoising: Vincent 2008; Im 2017). With a
    balance in hyper, balance times the latent's marginal_kl is added: bits and categories that all
    images share cost something though beta is small, so they do not saturate before they have
    learnt anything. With a contrast in hyper, two views of each image are seen, and contrast times
    losses.contrastive_nll of their codes is added; if paired, the second is of the image's partner
    (`train.fit`). params are those of `network.weights`, for models with batch statistics.
    """
    nll_of, link = LIKELIHOODS[likelihood]

    def init(key):
        return network.initial(model, key, image_shape, lambda _: jnp.zeros((1, latent.code_size)))

    def loss(params, model_state, key, images, labels, hyper):
        del labels  # unsupervised
        if "contrast" in hyper and view is None and not paired:
            raise ValueError(
                "a contrast needs a view or pairs: without them, no two codes are of one image"
            )
        x = scale(images)
        if "contrast" in hyper and not paired:
            x = jnp.concatenate([x, x])
        seen = x
        if view is not None:
            key, view_key = jax.random.split(key)
            seen = view(view_key, x)
        (parameters, pixels), model_state = network.run_training(
            model,
            params,
            model_state,
            jax.random.fold_in(key, 1),  # dropout's; the latent's noise stays that of the key
            seen,
            lambda p: latent.sample(key, p, hyper["temperature"]),
        )
        nll, kl = jnp.mean(nll_of(pixels, x)), jnp.mean(latent.kl(parameters))
        value, terms = nll + hyper["beta"] * kl, {"nll": nll, "kl": kl}
        if "balance" in hyper:
            terms["marginal_kl"] = latent.marginal_kl(parameters)
            value = value + hyper["balance"] * terms["marginal_kl"]
        if "contrast" in hyper:
            drawn = latent.sample(key, parameters, hyper["temperature"])
            terms["contrast"] = jnp.mean(losses.contrastive_nll(drawn))
            value = value + hyper["contrast"] * terms["contrast"]
        return value, (model_state, {"loss": value, **terms})

    def negative_elbo(params, key, images, temperature=1.0):
        x = scale(images)
        parameters, pixels = model.apply(
            network.variables(params), x, lambda p: latent.sample(key, p, temperature)
        )
        return nll_of(pixels, x), latent.kl(parameters)

    def parameters_of(params, images):
        return model.apply(network.variables(params), scale(images), method="encode")

    def mean(params, images):
        return latent.code(latent.mean(parameters_of(params, images)))

    def sample(params, images):
        keys = jax.vmap(_key_of_image)(images)

        def draw(key, parameters):
            return latent.code(latent.sample(key, parameters[None], 1.0))[0]

        return jax.vmap(draw)(keys, parameters_of(params, images))

    def decode(params, z):
        return link(model.apply(network.variables(params), z, method="decode"))

    def reconstruct(params, images):
        return decode(params, latent.mean(parameters_of(params, images)))

    def generate(params, key, n):
        # In every latent the parameters 0 are the prior.
        return decode(params, latent.sample(key, jnp.zeros((n, latent.head_size)), 1.0))

    return VAE(
        trainer=train.make_trainer(init, loss, optimizer),
        parameters=parameters_of,
        mean=mean,
        sample=sample,
        decode=decode,
        reconstruct=reconstruct,
        generate=generate,
        negative_elbo=negative_elbo,
    )


def _key_of_image(image: UInt8[Array, "h w c"]) -> PRNGKeyArray:
    """A key from an image's content.

    A code drawn with it does not depend on the batch in which the image stands, and two images
    share their noise only if they are the same image.
    """
    flat = image.reshape(-1).astype(jnp.uint32)
    # Odd multipliers by position (Knuth's 2^32 / golden ratio), summed modulo 2^32.
    weights = (2 * jnp.arange(flat.size, dtype=jnp.uint32) + 1) * jnp.uint32(2654435761)
    digest = jnp.sum(flat * (weights ^ (weights >> 15)), dtype=jnp.uint32)
    return jax.random.fold_in(jax.random.key(0), digest)


def quantised(
    encode: Callable[[train.PyTree, Images], Float[Array, "n b"]], levels: int
) -> Callable[[train.PyTree, Images], Float[Array, "n b"]]:
    """Codes quantised after training: Torres 2018, section 3.3.4."""
    return lambda params, images: relax.quantise_uniform(encode(params, images), levels)
