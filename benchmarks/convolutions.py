"""Convolutions of 3 x 3 on a CPU: XLA's, and the same as products of matrices.

    python benchmarks/convolutions.py [--quick] [--json=FILE] [--channels=16,64,256]

A training step has three: the map, the gradient of the map before it, and that of the kernel. XLA's
own are timed as training compiles them (train.convolution_options), as are Winograd's
(jaxret.models.winograd, which layers train by where channels are many). Beside them are XLA's
without these options, the shifted form, a product for each of the nine taps, and one product of all
windows, which are written out for it. A batch has 128 maps with about as many numbers each. All
cores are used: `taskset -c 0` for one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import timing

BATCH = 128
SIDES = {16: 32, 32: 16, 64: 32, 128: 16, 256: 8, 512: 4}  # channels -> pixels a side
TAPS = [(i, j) for i in range(3) for j in range(3)]


def convolved(x: Any, kernel: Any) -> Any:
    """Return the map [n h w f] of a map [n h w c] by XLA's convolution."""
    from jax import lax

    axes = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=axes)


def shifts(x: Any) -> list[Any]:
    """Return the map as each tap sees it, nine matrices [n h w, c]."""
    import jax.numpy as jnp

    n, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, i : i + h, j : j + w].reshape(n * h * w, c) for i, j in TAPS]


def by_taps(x: Any, kernel: Any) -> Any:
    """Return the same map as a sum of nine products."""
    from jax import lax

    parts = map(lax.optimization_barrier, shifts(x))
    y = sum(part @ kernel[i, j] for part, (i, j) in zip(parts, TAPS, strict=True))
    return y.reshape(*x.shape[:3], -1)


def by_windows(x: Any, kernel: Any) -> Any:
    """Return the same map by one product."""
    import jax.numpy as jnp

    windows = jnp.concatenate(shifts(x), axis=1)
    return (windows @ kernel.reshape(windows.shape[1], -1)).reshape(*x.shape[:3], -1)


def kernel_gradient(x: Any, y: Any, kernel: Any) -> Any:
    """Return the kernel's gradient by XLA, where y is that of the map."""
    import jax

    return jax.vjp(lambda kernel: convolved(x, kernel), kernel)[1](y)[0]


def kernel_gradient_by_taps(x: Any, y: Any, kernel: Any) -> Any:
    """Return the same by nine products."""
    import jax.numpy as jnp

    y = y.reshape(-1, y.shape[3])
    return jnp.stack([part.T @ y for part in shifts(x)]).reshape(kernel.shape)


def kernel_gradient_by_windows(x: Any, y: Any, kernel: Any) -> Any:
    """Return the same by one product."""
    import jax.numpy as jnp

    windows = jnp.concatenate(shifts(x), axis=1)
    return (windows.T @ y.reshape(-1, y.shape[3])).reshape(kernel.shape)


def map_gradient(x: Any, y: Any, kernel: Any) -> Any:
    """Return the gradient of the map before by XLA, where y is that of the map."""
    import jax

    return jax.vjp(lambda x: convolved(x, kernel), x)[1](y)[0]


def gradient_by_winograd(argument: int) -> Callable:
    """Return Winograd's gradient of the map before (argument 0) or of the kernel (1)."""

    def gradient(x: Any, y: Any, kernel: Any) -> Any:
        import jax

        from jaxret.models import winograd

        return jax.vjp(winograd.convolve, x, kernel)[1](y)[argument]

    return gradient


def convolved_by_winograd(x: Any, y: Any, kernel: Any) -> Any:
    """Return the map by Winograd's way."""
    from jaxret.models import winograd

    del y
    return winograd.convolve(x, kernel)


# what is computed -> (XLA's way, name -> other way), each of (x, y, kernel)
CASES: dict[str, tuple[Callable, dict[str, Callable]]] = {
    "map": (
        lambda x, y, kernel: convolved(x, kernel),
        {
            "Winograd": convolved_by_winograd,
            "nine products": lambda x, y, kernel: by_taps(x, kernel),
            "one product": lambda x, y, kernel: by_windows(x, kernel),
        },
    ),
    "gradient of the map before": (map_gradient, {"Winograd": gradient_by_winograd(0)}),
    "gradient of the kernel": (
        kernel_gradient,
        {
            "Winograd": gradient_by_winograd(1),
            "nine products": kernel_gradient_by_taps,
            "one product": kernel_gradient_by_windows,
        },
    ),
}


def rows_of(channels: int, repeats: int) -> list[timing.Row]:
    """Return the rows of one number of channels; rates are of 10^9 operations."""
    import jax

    from jaxret import train

    rng, side = np.random.default_rng(0), SIDES[channels]
    shape = BATCH, side, side, channels
    x, y = (rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    kernel = rng.standard_normal((3, 3, channels, channels), dtype=np.float32)
    arrays = jax.device_put((x, y, kernel))
    work = 2 * 9 * channels * x.size / 1e9

    def run(function, options=None):
        compiled = jax.jit(function, compiler_options=options)
        return lambda: jax.block_until_ready(compiled(*arrays))

    rows = []
    for name, (own, others) in CASES.items():
        options = train.convolution_options()
        ours, peers = run(own, options), {"XLA without options": run(own)}
        for other, function in others.items():
            peers[other] = run(function, options if other == "Winograd" else None)
        equal = {peer: bool(np.allclose(call(), ours(), 2e-3, 0.5)) for peer, call in peers.items()}
        case = f"{name}, {channels} channels, {side} x {side}"
        compare = partial(timing.compare, unit="gigaflops", repeats=repeats)
        rows += compare(case, ours, peers, equal=equal, work=work)
    return rows


def main() -> None:
    """Time what the flags say."""
    options = timing.parser(__doc__)
    options.add_argument(
        "--channels", type=timing.numbers, default=tuple(SIDES), metavar="C,...",
        help=f"Time maps of these channels, of {', '.join(map(str, SIDES))}.",
    )  # fmt: skip
    flags = options.parse_args()
    unknown = set(flags.channels) - SIDES.keys()
    if unknown:
        options.error(f"--channels must be of {', '.join(map(str, SIDES))}, got {min(unknown)}")
    print(timing.machine())
    rows: list[timing.Row] = []
    for channels in (64,) if flags.quick else flags.channels:
        rows += rows_of(channels, 3 if flags.quick else 7)
        timing.write(flags.json, rows)


if __name__ == "__main__":
    main()
