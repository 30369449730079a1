"""Cases of a parametrized test that run with --slow only."""

import pytest


def slow(*values):
    """Return the values as cases that are marked slow."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
