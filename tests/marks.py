"""Cases of a parametrized test that run with --slow only."""

import pytest


def slow(*values):
    """Return the values as cases that are marked slow.

    As a decorator it would hide a test; `@pytest.mark.slow` marks one.
    """
    for value in values:
        if getattr(value, "__name__", "").startswith("test_"):
            raise TypeError(f"mark {value.__name__} with @pytest.mark.slow")
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
