"""Cases of a parametrized test that run with --slow, or with --soak, only."""

import pytest


def slow(*values):
    """Return the values as cases that are marked slow.

    As a decorator it would hide a test; `@pytest.mark.slow` marks one.
    """
    return _marked(pytest.mark.slow, values)


def soak(*values):
    """Return the values as cases that are marked soak; see `slow`."""
    return _marked(pytest.mark.soak, values)


def _marked(mark, values):
    for value in values:
        if getattr(value, "__name__", "").startswith("test_"):
            raise TypeError(f"mark {value.__name__} with @pytest.mark.{mark.name}")
    return [pytest.param(value, marks=mark) for value in values]
