"""Strict settings for every test, and the options that run the long ones.

Typed shapes are enforced, and silent broadcasting is an error. A test that takes seconds is marked
`slow`, and one that takes longer, or is one of very many, `soak`; `pytest --slow` and
`pytest --soak` run them too.
"""

import gc
import os
import shutil
import tempfile
from importlib.metadata import version

# Compiling takes most of a test's time: XLA leaves its expensive passes out, and all processes of a
# run share what one of them has compiled. Their environment must say so before JAX is imported.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if version("jaxlib").startswith("0.10."):  # later ones do not know the flag, and abort
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )
OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxret-tests-xla-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Importing makes many objects and little garbage: looking for it is a seventh of collecting tests.
gc.set_threshold(200_000, 20, 100)

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")

# Stays installed: whatever a test imports from jaxret is checked against its annotations.
install_import_hook("jaxret", "beartype.beartype")

# marker -> what its tests are; the option of the same name runs them
LONG = {
    "slow": "takes seconds",
    "soak": "takes long, or is one of very many",
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


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the compiled programs, where this process made their folder; end quickly."""
    gc.freeze()  # else pytest, JAX and Python each look for garbage in all that was ever compiled
    if OWN_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the long tests whose option is not given, and let soaks take as long as they need."""
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(0))
    for name, description in LONG.items():
        if config.getoption(f"--{name}"):
            continue
        skip = pytest.mark.skip(reason=f"{description}: pytest --{name} runs it")
        for item in items:
            if item.get_closest_marker(name):
                item.add_marker(skip)
