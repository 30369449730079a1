"""An encoder's programs, kept beside the compiled ones, so that a new photo is searched soon.

To trace a network, and to import what describes it, takes longer than to run it. So a program that
was traced once is exported (StableHLO) to the folder of the compilation cache, and read from there
later, where flatbuffers is installed. An index holds no program: that of a stranger runs nothing.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

import jaxret
from jaxret.batches import in_batches
from jaxret.files import WriteError, write_whole

CACHE = "JAX_COMPILATION_CACHE_DIR"  # the environment variable; without it nothing is kept
DIGEST = 32  # bytes before the content of a kept file
BUILT_IN = ("efficientnet-lite0", "layout")  # one of a user's own may change: it is not kept

Weights = Mapping[str, Any]
Program = tuple[dict[str, Any] | None, Any]  # options of the compiler, jax.export.Exported
Run = Callable[[Num[np.ndarray, "n ..."]], Num[np.ndarray, "n d"]]


def extractor_of(spec: Mapping[str, Any]) -> str | None:
    """Return the key in FEATURES of the features that a hasher works on; None for pixels."""
    if spec["name"] == "look":
        return "layout"
    return spec["settings"]["features"] if spec["name"] in ("photo", "labels") else None


def features(name: str, weights: Weights, image_size: int, batch: int) -> Run:
    """Return a function u8[n s s 3] -> f32[n d], run a batch at a time.

    Args:
        name: a key of FEATURES.
        weights: of the network.
        image_size: s.
        batch: images at once; the last batch is filled up.

    Raises:
        EncoderError: for features that this jaxret does not have.
    """
    example = ((batch, image_size, image_size, 3), "uint8")

    def compiled():
        import jax

        from jaxret.encoder import EncoderError
        from jaxret.features import FEATURES

        if name not in FEATURES:
            raise EncoderError(f"needs the features {name!r}, which FEATURES does not have")
        return jax.jit(FEATURES[name]().apply)

    return _batches({"features": name}, name in BUILT_IN, weights, example, compiled)


def latents(spec: Mapping[str, Any], weights: Weights, width: int, batch: int) -> Run:
    """Return a function f32[n d] -> a hasher's real-valued codes f32[n b].

    Args:
        spec: of the hasher.
        weights: its own, without those of the network.
        width: d.
        batch: rows at once.

    Raises:
        EncoderError: for a hasher that this jaxret does not have.
    """

    def compiled():
        from jaxret.hashers.keep import make_hasher

        return make_hasher(spec).encode

    kept, example = extractor_of(spec) in BUILT_IN, ((batch, width), "float32")
    return _batches({"latents": spec}, kept, weights, example, compiled)


def _batches(
    named: Mapping[str, Any], kept: bool, weights: Weights, example: Any, compiled: Callable
) -> Run:
    """Return a function that runs a program on rows, in batches of the example's shape.

    compiled returns what `jax.jit` returns, a function of weights and rows.
    """
    import jax

    folder = os.environ.get(CACHE) if kept and importlib.util.find_spec("flatbuffers") else None
    file = None if not folder else Path(folder) / f"jaxret-{_key(named, weights, example)}.program"
    found = None if file is None else _read(file)
    options, program = found or _export(weights, example, compiled(), file)
    run = jax.jit(program.call, compiler_options=options)
    weights = jax.device_put(weights)  # jnp.asarray would compile a copy for each shape
    batch_size = example[0][0]
    return lambda rows: in_batches(functools.partial(run, weights), rows, batch_size)


def _export(weights: Weights, example: Any, compiled: Any, file: Path | None) -> Program:
    """Trace a program for the platform that is here, and keep it in a file."""
    import jax
    import jax.export

    from jaxret.train import convolution_options

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights)
    program = jax.export.export(compiled)(shapes, jax.ShapeDtypeStruct(*example))
    options = convolution_options()
    if file is not None:
        content = json.dumps(options).encode() + b"\n" + bytes(program.serialize())
        with contextlib.suppress(WriteError):  # then it is traced again next time
            write_whole(file, hashlib.sha256(content).digest() + content)
    return options, program


def _read(file: Path) -> Program | None:
    """Return what a file keeps; None where there is none, or it is not whole."""
    import jax.export

    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, content = content[:DIGEST], content[DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        return None
    options, program = content.split(b"\n", 1)
    return json.loads(options), jax.export.deserialize(bytearray(program))


def _key(named: Mapping[str, Any], weights: Weights, example: Any) -> str:
    """Return a digest of all that a program depends on."""
    import jax

    leaves, tree = jax.tree.flatten(weights)
    package = Path(jaxret.__file__).parent
    sources = sorted((str(path), path.stat().st_mtime_ns) for path in package.rglob("*.py"))
    facts = {
        "program": named,
        "weights": [str(tree), [[list(x.shape), str(x.dtype)] for x in leaves]],
        "example": example,
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "jaxret": [jaxret.__version__, sources],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
