"""Encoding throughput: images to codes, batch by batch, jaxret and PyTorch.

    python benchmarks/encode.py [--quick] [--json=FILE] [--batches=1,100,10000] [--cases=784]

The encoder of Torres 2018 (784-500-100-10), convolutional ones, and DRHN-1's (Jimenez 2017), from
bytes in the host's memory to codes in the host's memory, as a server has them; scaling to [0, 1] is
part of the work. With --on_device images and codes stay on the accelerator. PyTorch, where it is
installed, convolves in its own layout and as channels_last. Rows are written after each case, and
those that the JSON file already holds are skipped.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import timing

SHAPE, COLOR, LATENT = (28, 28, 1), (32, 32, 3), 10
DRHN = "DRHN-1, 48 bits"
TARGET_SECONDS = 0.25  # of one timed run


def started(hasher):
    """Return (encode, params) of a hasher with its first weights, which do not matter for speed."""
    import jax

    from jaxret import hashers

    init, hyper = hasher.training.trainer.init, hasher.training.hyper
    state = jax.jit(lambda key: init(key, hyper))(jax.random.key(0))  # one program, not fifty
    return hasher.encode, hashers.weights(state)


def dense():
    """Return (encode, params) of the VAE of Torres 2018."""
    import jaxret

    return started(jaxret.vae_hasher(LATENT, SHAPE))


def convolutional(name: str, channels: tuple[int, ...], head_size: int):
    """Return (encode, params) of an autoencoder of jaxret.models.MODELS; head size 0: no head."""
    import jaxret

    return started(jaxret.autoencoder_hasher(head_size, SHAPE, model=name, channels=channels))


def deep_hash():
    """Return (encode, params) of DRHN-1 with 48 bits."""
    import jaxret

    return started(jaxret.deep_hasher(48, 10, COLOR))


CASES = {
    "784-500-100-10": dense,
    "conv_up 16-8-8, no head (Sahu, C)": lambda: convolutional("conv_up", (16, 8, 8), 0),
    "conv_dense_transposed 16-32, 32": lambda: convolutional("conv_dense_transposed", (16, 32), 32),
    DRHN: deep_hash,
}


def random_images(case: str, count: int) -> np.ndarray:
    """Return random images of the shape that a case encodes, u8[n h w c]."""
    shape = (count, *(COLOR if case == DRHN else SHAPE))
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def to_host(encode: Callable, params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from images to codes, both in the host's memory.

    On a CPU many images go in batches, whose activations stay in the caches.
    """
    import jax

    from jaxret.evaluate import encode_in_batches

    on_cpu = jax.default_backend() == "cpu"

    def codes(images):
        if on_cpu and len(images) > 1000:
            return np.asarray(encode_in_batches(encode, params, images))
        return np.asarray(encode(params, images))

    return codes


def on_device(encode: Callable, params: Any, images: np.ndarray) -> Callable[[], Any]:
    """Return a function that encodes images which are on the device, and leaves the codes there."""
    import jax
    import jax.numpy as jnp

    images = jnp.asarray(images)
    return lambda: jax.block_until_ready(encode(params, images))


def pytorch(params: Any, channels_last: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Return the encoder in PyTorch with the same weights; variances follow a VAE's codes."""
    import peers
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    make = peers.hash_encoder if "trunk" in params.get("params", {}) else peers.encoder
    encoder = make(params).eval().to(device, memory_format=layout)
    at_once = 1000 if device == "cpu" else 100_000

    def batch(images):
        x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
        return encoder(x.contiguous(memory_format=layout))

    @torch.inference_mode()
    def codes(images):
        parts = np.split(images, range(at_once, len(images), at_once))
        return torch.cat([batch(part) for part in parts])

    return lambda images: codes(images).cpu().numpy()


def peers_of(params: Any) -> dict[str, Callable]:
    """Return PyTorch's encoders by name; none where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    name = f"PyTorch {torch.__version__} eager"
    encoders = {name: pytorch(params, False)}
    if "Conv_0" in params.get("encoder", ["Conv_0"]):
        encoders[f"{name}, channels_last"] = pytorch(params, True)
    return encoders


def rows_of(case: str, batch: int, encode, params, peers, options) -> list[timing.Row]:
    """Return the rows of one case and batch size."""
    images = random_images(case, batch)
    ours = to_host(encode, params)
    name = f"encode {case}, batch {batch}"
    codes = ours(images)
    equal = {
        peer: bool(np.allclose(codes, theirs(images)[:, : codes.shape[1]], atol=1e-3))
        for peer, theirs in peers.items()
    }
    start = time.perf_counter()
    ours(images)
    seconds = time.perf_counter() - start
    calls = max(1, int(TARGET_SECONDS / (5 if options.quick else 1) / seconds))
    sizes = {"work": batch, "calls": calls, "repeats": 3 if options.quick else 9}
    functions = {peer: partial(theirs, images) for peer, theirs in peers.items()}
    rows = timing.compare(name, partial(ours, images), functions, equal=equal, **sizes)
    if options.on_device:
        run = on_device(encode, params, images)
        rows += timing.compare(f"{name}, on the device", run, {}, equal={}, **sizes)
    return rows


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = timing.parser(__doc__)
    cases = parser.add_argument_group("cases")
    cases.add_argument(
        "--batches", type=timing.numbers, metavar="LIST",
        help="Encode batches of these sizes (default: 1,100,10000; quick: 1,100).",
    )  # fmt: skip
    cases.add_argument(
        "--cases", default="", metavar="TEXT", help="Run only the encoders whose name has this."
    )
    cases.add_argument(
        "--on_device", action="store_true",
        help="Also time images and codes that stay on the accelerator.",
    )  # fmt: skip
    timing.add_seconds(cases)
    options = parser.parse_args()
    if options.batches is None:
        options.batches = (1, 100) if options.quick else (1, 100, 10_000)
    return options


def main() -> None:
    """Time and write."""
    options = parse()
    deadline = time.monotonic() + options.seconds
    print(timing.machine())
    timing.installed("torch")
    rows = timing.read(options.json)
    done, left = {row["case"] for row in rows}, []
    for case, make in CASES.items():
        missing = [b for b in options.batches if f"encode {case}, batch {b}" not in done]
        if options.cases not in case or not missing:
            continue
        encode, params = make()
        peers = peers_of(params)
        for batch in missing:
            if time.monotonic() >= deadline:
                left.append(f"{case}, batch {batch}")
                continue
            rows += rows_of(case, batch, encode, params, peers, options)
            timing.write(options.json, rows)
    timing.end(left)


if __name__ == "__main__":
    main()
