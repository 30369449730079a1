"""Vectors in the place of images: features that are not trained here, each image's computed once.

Vectors are kept below the user's cache folder ($XDG_CACHE_HOME/jaxret/features, or
$JAXRET_FEATURES_DIR), found again by the content of an image and by what computes them: protocols
that share images share the work.
"""

import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import harness

VERSION = 1  # grows when an extractor computes something else under the same name
BLOCK = 2_000  # images after which what was computed is kept, so that a stop loses little
# Cheaper to compute than to read.
NOT_KEPT = ("pixels",)


def check_features(name: str) -> None:
    """Refuse a value of --features that is neither empty nor a key of FEATURES."""
    if name:
        from jaxret.features import FEATURES

        if name not in FEATURES:
            raise ValueError(f"--features must be one of {', '.join(FEATURES)}, got {name!r}")


def of_protocol(protocol: Any, name: str, both_views: bool = False) -> Any:
    """Return a protocol whose images are vectors by an extractor, f32[n d].

    Args:
        protocol: a data.Protocol.
        name: a key of jaxret.features.FEATURES.
        both_views: whether gallery and queries have the vector of an image and that of its mirror
            image, one after the other, f32[n 2d].
    """
    import numpy as np

    from jaxret.features import FEATURES

    extractor = FEATURES[name]()
    found: dict[tuple[int, bool], Any] = {}  # gallery and training images are often one array

    def seen(images, both):
        if (id(images), both) not in found:
            x = vectors(extractor, images.images)
            if both:
                x = np.concatenate([x, vectors(extractor, images.images[:, :, ::-1])], axis=1)
            found[id(images), both] = images._replace(images=x)
        return found[id(images), both]

    searched = {part: seen(getattr(protocol, part), both_views) for part in ("gallery", "query")}
    return protocol._replace(train=seen(protocol.train, False), **searched)


def with_mirrored(images: Any) -> Any:
    """Return images and after them the same ones mirrored, left to right.

    Args:
        images: a data.ImageSet of u8[n h w c].
    """
    import numpy as np

    both = np.concatenate([images.images, images.images[:, :, ::-1]])
    labels = np.concatenate([images.labels] * 2)
    return images._replace(images=both, labels=labels, names=images.names and images.names * 2)


def vectors(extractor: Any, images: Any) -> Any:
    """Return the vectors of images, those of images that are not kept yet computed and kept.

    Args:
        extractor: a jaxret.features.Extractor.
        images: u8[n h w c].
    """
    import numpy as np

    from jaxret.features import extract

    if extractor.name in NOT_KEPT:
        return extract(extractor, images)
    folder = _folder(extractor)
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    known = _read(folder)
    missing = [i for i, digest in enumerate(digests) if digest not in known]
    begun = time.monotonic()
    for start in range(0, len(missing), BLOCK):
        rows = missing[start : start + BLOCK]
        computed = extract(extractor, images[rows])
        _tell(extractor.name, start + len(rows), len(missing), time.monotonic() - begun)
        _keep(folder, [digests[row] for row in rows], computed)
        known.update({digests[row]: vector for row, vector in zip(rows, computed, strict=True)})
    return np.stack([known[digest] for digest in digests])


def _tell(name: str, done: int, total: int, seconds: float) -> None:
    """Say how many vectors are there, how fast they come and how long the others take."""
    if total > BLOCK:
        rate = done / seconds
        left = f"{(total - done) / rate / 60:.1f} min left"
        print(f"{name}: {done:,} of {total:,} vectors, {rate:,.0f} a second, {left}", flush=True)


def _folder(extractor: Any) -> Path:
    root = os.environ.get("JAXRET_FEATURES_DIR")
    if not root:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(cache) / "jaxret" / "features"
    identity = json.dumps([VERSION, extractor.name, dict(extractor.preprocessing)], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return Path(root) / f"{extractor.name}-{digest}"


def _read(folder: Path) -> dict[bytes, Any]:
    """Return what is kept: the digest of an image -> its vector."""
    import numpy as np

    known = {}
    for path in sorted(folder.glob("*.npy")):
        # A record is a digest and a vector, so that one file is whole or not there.
        records = np.load(path, mmap_mode="r")
        keys = np.ascontiguousarray(records["digest"]).tobytes()
        known.update(
            (keys[16 * i : 16 * i + 16], vector) for i, vector in enumerate(records["vector"])
        )
    return known


def _keep(folder: Path, digests: list[bytes], computed: Any) -> None:
    import io

    import numpy as np

    kind = np.dtype([("digest", "V16"), ("vector", computed.dtype, computed.shape[1:])])
    records = np.empty(len(digests), kind)
    records["digest"] = np.frombuffer(b"".join(digests), "V16")
    records["vector"] = computed
    buffer = io.BytesIO()
    np.save(buffer, records)
    harness.write_whole(folder / f"{uuid.uuid4().hex}.npy", buffer.getvalue())


if __name__ == "__main__":
    print(__doc__)
