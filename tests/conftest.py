"""Strict settings for every test, and the options that run the long ones.

Typed shapes are enforced, and silent broadcasting is an error. A test of more than a few seconds is
marked `slow`, one of many minutes `soak`; `pytest --slow` and `pytest --soak` run them too.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")

# Stays installed: whatever a test imports from jaxret is checked against its annotations.
install_import_hook("jaxret", "beartype.beartype")

# marker -> what its tests are; the option of the same name runs them
LONG = {
    "slow": "takes more than a few seconds",
    "soak": "takes many minutes",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --slow and --soak."""
    for name, description in LONG.items():
        help_text = f"Also run the tests marked {name}: each {description}."
        parser.addoption(f"--{name}", action="store_true", help=help_text)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; any other is an error (--strict-markers)."""
    for name, description in LONG.items():
        config.addinivalue_line("markers", f"{name}: {description}; --{name} runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long tests whose option is not given."""
    for name, description in LONG.items():
        if config.getoption(f"--{name}"):
            continue
        skip = pytest.mark.skip(reason=f"{description}: pytest --{name} runs it")
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(skip)
