"""Throughput of the pretrained encoder's network, EfficientNet-Lite0: photos to feature vectors.

    python benchmarks/encode_photos.py --json=FILE [--quick] [--seconds=40]

Photos are random bytes of 224 x 224 pixels (and 96 x 96), in the host's memory, and so are the
features; normalising the bytes is part of the work, decoding files is not. The weights are those of
the extra `photos` where it is installed, and else random: speed does not depend on them. The peers,
with the same weights in the same process and in turn, are eager PyTorch as the network was
published and with folded normalisation, and ONNX Runtime, where these are installed. Cases that the
JSON file already holds are skipped.
"""

import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import timing

# side, batch: of a CPU, and of an accelerator
CPU = ((224, 1), (224, 8), (224, 32), (128, 64), (96, 8), (96, 32), (96, 128))
ACCELERATOR = ((224, 128), (224, 1), (224, 1024), (96, 128), (96, 1024))
QUICK = ((64, 4),)
PAUSE = 0.2  # seconds between runs
CLOSE = 1e-4  # relative error of equal features: of the norm of a vector


def variables() -> dict[str, Any]:
    """Return the variables of the plain network: those that are published, or random ones."""
    import jax
    import jax.numpy as jnp

    from jaxret.features import FeaturesError
    from jaxret.features.efficientnet import read_variables, weights_file
    from jaxret.models.efficientnet import EfficientNet

    try:
        return read_variables(weights_file())
    except FeaturesError as error:
        print(f"{error}. Here they are random.")
    shapes = jax.eval_shape(EfficientNet().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    draw = functools.partial(rng.uniform, 0.01, 0.1)
    return jax.tree.map(lambda array: draw(array.shape).astype(np.float32), dict(shapes))


def network(folded: Mapping[str, Any]):
    """Return jaxret's function from photos u8[n h w 3] to features f32[n 1280]."""
    import jax

    from jaxret.features import FEATURES, extract

    extractor, weights = FEATURES["efficientnet-lite0"](), jax.device_put(folded["params"])
    on_cpu = jax.default_backend() == "cpu"

    def features(photos):
        own = extractor._replace(image_size=photos.shape[1])
        return extract(own, photos, weights, batch_size=None if on_cpu else len(photos))

    return features


def peers_of(plain: Mapping[str, Any], folded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the peers that are installed, by name."""
    import photo_peers

    peers = {}
    installed = timing.installed("torch", "onnx", "onnxruntime")
    if "torch" in installed:
        import torch

        name = f"PyTorch {torch.__version__} eager"
        make = functools.partial(photo_peers.pytorch, plain, folded)
        peers = {
            name: make(channels_last=False, fold=False),
            f"{name}, channels_last": make(channels_last=True, fold=False),
            f"{name}, channels_last, folded": make(channels_last=True, fold=True),
        }
    if {"onnx", "onnxruntime"} <= set(installed):
        import onnxruntime

        peers[f"ONNX Runtime {onnxruntime.__version__}"] = photo_peers.onnx_runtime(folded)
    return peers


def are_close(features: np.ndarray, theirs: np.ndarray) -> bool:
    """Return whether every vector is the same up to rounding."""
    error = np.linalg.norm(features - theirs, axis=1) / np.linalg.norm(features, axis=1)
    return bool(error.max() < CLOSE)


def main() -> None:
    """Time and write."""
    parser = timing.parser(__doc__, quick="Time one tiny case.")
    timing.add_seconds(parser.add_argument_group("cases"))
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    print(timing.machine())
    import jax

    from jaxret.models.efficientnet import fold

    rows = timing.read(options.json)
    done, left = {row["case"] for row in rows}, []
    plain = variables()
    folded = fold(plain)
    ours, peers = network(folded), peers_of(plain, folded)
    cases = CPU if jax.default_backend() == "cpu" else ACCELERATOR
    for side, batch in QUICK if options.quick else cases:
        case = f"features of photos, {side} x {side}, batch {batch}"
        if case in done:
            continue
        if time.monotonic() >= deadline:
            left.append(case)
            continue
        photos = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), np.uint8)
        features = ours(photos)
        equal = {name: are_close(features, peer(photos)) for name, peer in peers.items()}
        run = {name: functools.partial(peer, photos) for name, peer in peers.items()}
        rows += timing.compare(
            case, functools.partial(ours, photos), run, equal=equal, work=batch,
            calls=max(1, 8 // batch), repeats=3 if options.quick else 7, unit="photos",
            pause=0 if options.quick else PAUSE,
        )  # fmt: skip
        timing.write(options.json, rows)
    timing.end(left)


if __name__ == "__main__":
    main()
