"""Strict settings for every test: typed shapes are enforced and silent broadcasting is an error."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_numpy_rank_promotion", "raise")

# Stays installed: whatever a test imports from jaxret is checked against its annotations.
install_import_hook("jaxret", "beartype.beartype")
