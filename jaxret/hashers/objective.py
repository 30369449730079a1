"""An objective is a sum of named terms, each times a weight that is a scalar of the training.

    loss = sum over names of hyper[name] * TERMS[name](outputs, hyper)

Weights are scalars so that runs with different weights share a compiled program; which terms there
are is fixed when a hasher is made.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtyping import Array, Float

from jaxret import train

Term = Callable[[Any, train.Hyper], Float[Array, ""]]


def weighted_sum(
    terms: Mapping[str, Term], outputs: Any, hyper: train.Hyper
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The value of an objective for one batch, and its terms by name, the sum among them as loss.

    A term without a scalar of its name has weight 1.
    """
    values = {name: term(outputs, hyper) for name, term in terms.items()}
    weighted = [hyper[name] * value if name in hyper else value for name, value in values.items()]
    total = functools.reduce(operator.add, weighted)
    return total, {"loss": total, **values}


def select(terms: Mapping[str, Term], names: Sequence[str]) -> dict[str, Term]:
    """Some of the terms, in the order of names; ValueError for a name that is not there."""
    for name in names:
        if name not in terms:
            raise ValueError(f"terms must be among {', '.join(terms)}, got {name!r}")
    return {name: terms[name] for name in names}
