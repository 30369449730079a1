"""What the rows of Torres 2018's tables are made of: flags of train_vae, and descriptions.

Ours are recipes of the library; train_vae's defaults are the thesis's settings.
"""

from table import Row, flags_of

from jaxret.hashers import recipes
from jaxret.hashers.recipes import Recipe

SIGN = {"latent": "sign", "sign_gradient": "zero"}
SAMPLE = {"features": "sample"}
STRAIGHT = {"latent": "sign"}
SHORT = {"epochs": 25}  # where treatments are compared with each other, not with the thesis

# Extra metrics.
LONG_LISTS = ("map@1000/retrieved",)
TIES = tuple(f"map@2/retrieved/{order}" for order in ("expected", "lowest", "highest"))


def ours(recipe: Recipe, **settings) -> tuple[dict, str]:
    """Return a recipe as flags, with further ones, and its description."""
    return flags_of(recipe) | settings, recipe.description + ", {epochs} epochs"


def categories(classes: int, distributions: int) -> dict:
    """Return a Gumbel-Softmax latent of N_d distributions over N_c classes."""
    return {"latent": "gumbel", "num_classes": classes, "num_distributions": distributions}


def comparisons(classes: int, distributions: int) -> dict[str, dict]:
    """Return settings by name that compare the codes of the same parameters in other ways."""
    return {
        f"N_c = {classes}, N_d = {distributions}, {codes.replace('_', ' ')}":
            categories(classes, distributions) | {"gumbel_codes": codes}
        for codes in ("one_hot", "probabilities", "log_ratios")
    }  # fmt: skip


GUMBEL_30 = categories(10, 30) | {"gumbel_codes": "probabilities"} | SHORT
BERNOULLI_64 = recipes.BERNOULLI | {"latent_dim": 64} | SHORT


def open_row(
    name: str, settings: dict, description: str, x: float | None = None, series: str = ""
) -> Row:
    """Return a row of a question that the thesis leaves open."""
    return Row(name, None, None, settings, description, x, series)
