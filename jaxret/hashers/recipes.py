"""Recipes: the settings of hashers that a paper states or that we chose, each in one place.

A recipe is a value. Tables, flagfiles and README name it and never repeat its numbers:

    recipe = recipes.vae_bits(32)
    hasher = jaxret.vae_hasher(image_shape=(28, 28, 1), **recipe.settings)

"ours" was chosen on validation images, never on test queries; experiments/torres2018/RESULTS.md and
experiments/jimenez2017/RESULTS.md show what it was chosen among.
"""

from typing import Any, NamedTuple

Settings = dict[str, Any]


class Recipe(NamedTuple):
    """Settings of one hasher."""

    hasher: str  # key of HASHERS
    settings: Settings  # arguments of its constructor; the others keep their defaults
    description: str  # in a few words, without the number of epochs
    # Positives per image that fit is given (jaxret.knn_positives); 0: none.
    knn_positives: int = 0

    def replace(self, **settings: Any) -> "Recipe":
        """The recipe with other or further settings."""
        return self._replace(settings=self.settings | settings)


# Torres 2018: VaeSettings' defaults are the thesis's.
FALLING: Settings = {"learning_rate_end": 1e-4}
AFFINE: Settings = {"shift": 2.0, "degrees": 10.0, "zoom": 0.1}
AUGMENTED: Settings = AFFINE | FALLING
WIDE: Settings = {"hidden": (500, 500)}
BERNOULLI: Settings = {"latent": "bernoulli"}
RELAXED: Settings = BERNOULLI | {"bit_gradient": "concrete"}
BALANCED: Settings = {"beta": 0.1, "balance": 10.0}
COOLED: Settings = RELAXED | BALANCED | WIDE | {"temperature_end": 0.2}
CONTRASTIVE: Settings = {"contrastive_weight": 1000.0}
POSITIVES = 20
_HOW = "augmentation, falling learning rate"


def vae_reals(dims: int) -> Recipe:
    """Ours for codes of real numbers: few gain from wider layers and more epochs."""
    hidden, epochs = ((500, 500), 60) if dims <= 10 else ((500, 100), 30)
    settings = {"beta": 0.05, "latent_dim": dims, "hidden": hidden, "epochs": epochs}
    layers = ",".join(map(str, hidden))
    return Recipe("vae", AUGMENTED | settings, f"N = {dims}, layers {layers}, beta 0.05, {_HOW}")


def vae_bits(bits: int) -> Recipe:
    """Ours for bits: relaxed samples whose temperature falls, all bits kept in use."""
    description = (
        f"{bits} relaxed bits, temperature 1 to 0.2, layers 500,500, beta 0.1, balance 10, {_HOW}"
    )
    return Recipe("vae", AUGMENTED | COOLED | {"latent_dim": bits, "epochs": 60}, description)


def vae_categories(num_classes: int, num_distributions: int) -> Recipe:
    """Ours for categorical codes.

    Log ratios without augmentation retrieve most with few distributions, probabilities with
    augmentation with many.
    """
    settings = {
        "latent": "gumbel", "num_classes": num_classes, "num_distributions": num_distributions,
        "latent_dim": num_classes * num_distributions,
    }  # fmt: skip
    if num_distributions > 10:
        ours = {"gumbel_codes": "probabilities", "beta": 0.25, "epochs": 30}
        return Recipe("vae", AUGMENTED | settings | ours, f"probabilities, beta 0.25, {_HOW}")
    return Recipe("vae", settings | {"gumbel_codes": "log_ratios", "epochs": 20}, "log ratios")


def vae_reals_with_positives(dims: int) -> Recipe:
    """Ours for real numbers with nearest neighbors as positives of a contrastive loss."""
    settings = AUGMENTED | CONTRASTIVE | WIDE | {"beta": 0.05, "latent_dim": dims, "epochs": 30}
    return Recipe("vae", settings, _with_positives(f"N = {dims}"), POSITIVES)


def vae_bits_with_positives(bits: int) -> Recipe:
    """Ours for bits with nearest neighbors as positives of a contrastive loss."""
    settings = AUGMENTED | CONTRASTIVE | COOLED | {"latent_dim": bits, "epochs": 30}
    return Recipe("vae", settings, _with_positives(f"{bits} bits"), POSITIVES)


def _with_positives(code: str) -> str:
    return f"{code}, as ours, contrastive weight 1000, {POSITIVES} positives"


# Jimenez 2017, chapter 4, and the Lasagne recipe that it was built on (He 2016 on CIFAR-10). Two
# passes over the images, each mirrored at random, are one epoch of the thesis: it stops after 86,
# and the rate drops after 82.
DRHN_PUBLISHED = Recipe(
    "deep",
    {
        "relaxation": "sigmoid", "cubic": 0.0, "label_smoothing": 0.0, "learning_rate": 0.1,
        "schedule": "drops", "drops": (82, 122), "weight_decay": 2e-4, "nesterov": False,
        "mirror": True, "crop": 0.125, "epochs": 86, "batch_size": 128,
    },
    "as published",
)  # fmt: skip
DRHN_MODERN: Settings = {
    "learning_rate": 0.2, "schedule": "one_cycle", "warmup": 0.2, "weight_decay": 5e-4,
    "nesterov": True, "label_smoothing": 0.1,
}  # fmt: skip
GREEDY: Settings = {"relaxation": "sign", "cubic": 0.1}  # Su 2018
DRHN_OURS = Recipe(
    "deep",
    DRHN_MODERN | GREEDY | {"mirror": True, "crop": 0.125, "epochs": 86, "batch_size": 128},
    "one cycle, smoothed labels, classified by sign",
)


# Methods of METHODS on a network that starts from nothing, with few labels: the methods' own losses
# need an optimizer that does not depend on their scale.
ON_IMAGES: Settings = {
    "trunk": "residual", "learning_rate": 2e-3, "warmup": 0.2, "weight_decay": 0.05,
    "batch_size": 128, "epochs": 40,
}  # fmt: skip


def on_images(method: str, **settings: Any) -> Recipe:
    """Ours for a method of METHODS that trains DRHN-1 from scratch."""
    return Recipe(method, ON_IMAGES | settings, "DRHN-1 from scratch, {epochs} epochs")


# Vectors such as a pretrained network's features: chosen on held-out training images of CIFAR-10,
# see experiments/hashing/RESULTS.md.
ON_FEATURES: Settings = {
    "components": 256, "unit": True, "dropout": 0.2, "learning_rate": 0.003, "batch_size": 512,
    "epochs": 5,
}  # fmt: skip


def on_features(method: str, knn_positives: int = 0, **settings: Any) -> Recipe:
    """Ours for a method of METHODS on the features of a pretrained network."""
    trained = "{components} components of unit length, {epochs} epochs"
    positives = f", {knn_positives} positives" if knn_positives else ""
    return Recipe(method, ON_FEATURES | settings, trained + positives, knn_positives)


# The last blocks of the pretrained network trained too: the learning rate was chosen on held-out
# training images of CIFAR-10, see experiments/hashing/RESULTS.md.
MAPS = "efficientnet-lite0@160-block12"  # the key of FEATURES that they learn from
ON_MAPS: Settings = {
    "trunk": "efficientnet-lite0-block12", "dropout": 0.3, "learning_rate": 3e-4, "batch_size": 32,
    "epochs": 2,
}  # fmt: skip


def on_maps(method: str, **settings: Any) -> Recipe:
    """Ours for a method of METHODS that also trains the last blocks of a pretrained network."""
    return Recipe(method, ON_MAPS | settings, "last 4 blocks trained too, epochs: {epochs}")
