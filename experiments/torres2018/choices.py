"""Tables where ours was chosen among settings, scored by training images that were held out."""

from table import Table, flags

from jaxret.hashers import recipes
from jaxret.hashers.recipes import (
    AUGMENTED,
    BALANCED,
    BERNOULLI,
    CONTRASTIVE,
    COOLED,
    FALLING,
    RELAXED,
    WIDE,
)

from .settings import LONG_LISTS, STRAIGHT, comparisons, open_row

POSITIVES = CONTRASTIVE | {"knn_positives": recipes.POSITIVES}


def _choice(
    title: str, settings: dict[str, dict], extra_metrics: tuple[str, ...] = LONG_LISTS
) -> Table:
    """Return settings that ours was chosen among, scored by training images held out."""
    rows = tuple(
        open_row(name, flags({"epochs": 20} | own), "{epochs} epochs")
        for name, own in settings.items()
    )
    return Table(f"{title} (K = 2)", rows, protocol="validation", extra_metrics=extra_metrics)


def _moved(degrees: float) -> dict:
    """Return an augmentation that is stronger than ours."""
    return {"shift": 3.0, "degrees": degrees, "zoom": degrees / 100}


TABLES = {
    "choice-numbers": _choice(
        "ours of continuous codes",
        {
            "N = 10, as published": {},
            "shift alone, beta 0.25, falling rate": {"shift": 2.0, "beta": 0.25} | FALLING,
            **{f"augmentation, beta {beta:g}": AUGMENTED | {"beta": beta}
               for beta in (1.0, 0.25, 0.05)},
            "augmentation, beta 0.05, layers 500,500": AUGMENTED | WIDE | {"beta": 0.05},
            **{f"augmentation, beta {beta:g}, N = 20": AUGMENTED | {"beta": beta, "latent_dim": 20}
               for beta in (0.25, 0.05)},
            "augmentation, beta 0.05, N = 32": AUGMENTED | {"beta": 0.05, "latent_dim": 32},
        },
    ),
    "choice-gumbel": _choice(
        "ours of categorical codes, augmentation and falling learning rate unless as published",
        {
            f"{name}, beta {beta:g}": AUGMENTED | {"beta": beta} | settings
            for d in (5, 10, 30) for beta in (1.0, 0.25)
            for name, settings in comparisons(10, d).items()
        } | {
            f"{name}, as published": settings
            for d in (5, 10, 30) for name, settings in comparisons(10, d).items()
        },
    ),
    "choice-10-bits": _choice(
        "ours of ten bits, augmentation, falling learning rate",
        {
            "Bernoulli, beta 1": AUGMENTED | BERNOULLI,
            "Bernoulli, beta 0.25": AUGMENTED | BERNOULLI | {"beta": 0.25},
            "Bernoulli, beta 1 to 0.1": AUGMENTED | BERNOULLI | {"beta_end": 0.1},
            "Bernoulli, beta 0.1, balance 10": AUGMENTED | BERNOULLI | BALANCED,
            **{f"sign, beta {beta:g}": AUGMENTED | STRAIGHT | {"beta": beta}
               for beta in (2.0, 1.0, 0.25)},
            "sign, beta 1, layers 500,500": AUGMENTED | STRAIGHT | WIDE,
            "relaxed, temperature 1 to 0.4, beta 0.5":
                AUGMENTED | RELAXED | {"beta": 0.5, "temperature_end": 0.4},
            "relaxed, temperature 1 to 0.4, beta 0.1":
                AUGMENTED | RELAXED | {"beta": 0.1, "temperature_end": 0.4},
            "relaxed, temperature 1 to 0.4, beta 0.1, balance 10":
                AUGMENTED | RELAXED | BALANCED | {"temperature_end": 0.4},
            **{f"relaxed, temperature 1 to {end:g}, beta 0.1, balance 10, layers 500,500":
               AUGMENTED | COOLED | {"temperature_end": end} for end in (0.6, 0.4, 0.2, 0.1)},
        },
    ),
    "choice-more-bits": _choice(
        "ours of 32 and 64 bits, augmentation, falling learning rate",
        {
            f"{n} bits, {name}": AUGMENTED | {"latent_dim": n} | settings
            for n in (32, 64)
            for name, settings in {
                "Bernoulli, beta 0.25": BERNOULLI | {"beta": 0.25},
                "sign, beta 0.25": STRAIGHT | {"beta": 0.25},
                "relaxed, temperature 1 to 0.2, beta 0.1, balance 10, layers 500,500": COOLED,
            }.items()
        },
    ),
    "choice-contrastive": _choice(
        "32 bits as ours, with a contrastive loss between augmented copies of an image",
        {
            name: AUGMENTED | COOLED | {"latent_dim": 32} | settings
            for name, settings in {
                "no contrastive loss, shift 3, 20 degrees, zoom 0.2": _moved(20.0) | {"epochs": 16},
                "weight 20, shift 3, 20 degrees, zoom 0.2":
                    _moved(20.0) | {"contrastive_weight": 20.0, "epochs": 8},
                "weight 30, shift 3, 30 degrees, zoom 0.3":
                    _moved(30.0) | {"contrastive_weight": 30.0, "epochs": 12},
                "weight 100, augmentation as ours": {"contrastive_weight": 100.0, "epochs": 8},
            }.items()
        },
        extra_metrics=(*LONG_LISTS, "map@all/all"),
    ),
    "choice-positives": _choice(
        "codes as ours, with a contrastive loss whose positives are nearest neighbors",
        {
            f"N = 10, 20 positives, weight 1000{name}":
                AUGMENTED | POSITIVES | WIDE | {"beta": 0.05, "epochs": 15} | settings
            for name, settings in {"": {}, ", by cosine": {"distance": "cosine"}}.items()
        } | {
            name: AUGMENTED | COOLED | POSITIVES | {"latent_dim": 32, "epochs": 15} | settings
            for name, settings in {
                "32 bits, 20 positives, weight 100": {"contrastive_weight": 100.0},
                "32 bits, 20 positives, weight 1000": {},
                "32 bits, 20 positives, weight 1000, no augmentation":
                    {"shift": 0.0, "degrees": 0.0, "zoom": 0.0},
                "32 bits, 10 positives, weight 1000": {"knn_positives": 10},
                "10 bits, 20 positives, weight 1000": {"latent_dim": 10},
                "64 bits, 20 positives, weight 1000": {"latent_dim": 64},
            }.items()
        },
    ),
}  # fmt: skip
