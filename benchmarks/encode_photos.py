"""Throughput of the pretrained encoder's network, EfficientNet-Lite0: photos to feature vectors.

    python benchmarks/encode_photos.py --json=FILE [--quick] [--seconds=40]

Photos are random bytes of 224 x 224 pixels (and 96 x 96), in the host's memory, and so are the
features; normalising the bytes is part of the work, decoding files is not. The weights are random,
because speed does not depend on them, so that no file of weights is needed. PyTorch has no peer
here: it has no network of this name. Cases that the JSON file already holds are skipped.
"""

import functools
import time

import numpy as np
import timing

CASES = ((224, 128), (224, 1), (224, 1024), (96, 128), (96, 1024))  # side, batch
QUICK = ((64, 4),)


def network(side: int):
    """Return a jitted function from photos u8[n h w 3] to features f32[n 1280]."""
    import jax
    import jax.numpy as jnp

    from jaxret import train
    from jaxret.models.efficientnet import EfficientNet

    model = EfficientNet(folded=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    rng = np.random.default_rng(0)

    def draw(array):
        return jnp.asarray(0.05 * rng.standard_normal(array.shape, np.float32))

    variables = jax.tree.map(draw, dict(shapes))

    def features(variables, photos):
        return model.apply(variables, (photos.astype(jnp.float32) - 127) / 128)

    run = jax.jit(features, compiler_options=train.convolution_options())
    return lambda photos: np.asarray(run(variables, photos))


def main() -> None:
    """Time and write."""
    parser = timing.parser(__doc__, quick="Time one tiny case.")
    timing.add_seconds(parser.add_argument_group("cases"))
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    print(timing.machine())
    rows = timing.read(options.json)
    done, left, networks = {row["case"] for row in rows}, [], {}
    for side, batch in QUICK if options.quick else CASES:
        case = f"features of photos, {side} x {side}, batch {batch}"
        if case in done:
            continue
        if time.monotonic() >= deadline:
            left.append(case)
            continue
        if side not in networks:
            networks[side] = network(side)
        shape = (batch, side, side, 3)
        photos = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        repeats = 3 if options.quick else 7
        rows += timing.compare(
            case, functools.partial(networks[side], photos), {}, equal={}, work=batch,
            repeats=repeats, unit="photos",
        )  # fmt: skip
        timing.write(options.json, rows)
    timing.end(left)


if __name__ == "__main__":
    main()
