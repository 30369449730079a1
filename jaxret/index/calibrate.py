"""What a distance means in one index: between an image and its altered copies, and by chance."""

import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxret.index import snapshot
from jaxret.index.catalogue import Catalogue
from jaxret.index.pipeline import in_order
from jaxret.index.scan import path_digest
from jaxret.index.snapshot import Snapshot

IMAGES = 1000  # whose distances to random others are taken
OTHERS = 1000
COPIED = 32  # images that are altered, at most one in SHARE
SHARE = 16
REACH = 0.75  # of the altered copies are within the default radius of duplicates
SIDE = 1024  # pixels; larger originals are altered at this size
GROWTH = 2  # an index is calibrated again once it has grown by this factor


def calibrate(catalogue: Catalogue, root: Path, coder: Any) -> None:
    """Keep a calibration in the catalogue where there is none, or where it is out of date."""
    facts = catalogue.facts()
    count = catalogue.query("SELECT count(*) FROM images")[0][0]
    before = facts.get("calibration")
    if coder is None or count < 2:
        return
    if before and before["digest"] == coder.digest and count < GROWTH * before["images"]:
        return
    calibration = {"digest": coder.digest, "images": count}
    calibration["random"] = random_distances(snapshot.read(catalogue))
    if coder.image_size is not None:
        calibration["copies"] = _copies(catalogue, root, coder, count)
    with catalogue.transaction():
        catalogue.set_facts(calibration=calibration)


def random_distances(rows: Snapshot) -> dict[str, float]:
    """Return mean and deviation of the distance between two images, and how many pairs tell it.

    Pairs of equal codes are left out: they are copies.
    """
    count = len(rows.ids)
    draw = np.random.default_rng(0)
    others = np.sort(draw.permutation(count)[:OTHERS])
    part = rows._replace(ids=rows.ids[others], values=np.asarray(rows.values[others]))
    found = []
    for row in draw.permutation(count)[:IMAGES]:
        distances = snapshot.distances(part, rows.values[row])
        found.append(distances[(others != row) & (distances > 0)])
    distances = np.concatenate(found).astype(np.float64)
    if not len(distances):
        return {"mean": 0.0, "deviation": 0.0, "pairs": 0}
    mean, deviation = float(distances.mean()), float(distances.std())
    return {"mean": mean, "deviation": deviation, "pairs": len(distances)}


def chance_radius(random: dict[str, float], kind: str, width: int, images: int) -> int | float:
    """Return the largest radius within which at most one pair of different images is expected.

    Distances of different images are taken to be beta-binomial (bits) or gamma (squared Euclidean)
    of the measured mean and variance.

    Args:
        random: from `random_distances`.
        kind: "codes" or "vectors".
        width: of a code, in bits.
        images: in the index.
    """
    pairs = images * (images - 1) / 2
    if pairs < 1 or not random["pairs"] or not random["deviation"]:
        return 0 if kind == "codes" else 0.0
    mean, variance = random["mean"], random["deviation"] ** 2
    if kind == "vectors":
        from scipy.special import gammaincinv

        return float(gammaincinv(mean**2 / variance, min(1.0, 1 / pairs)) * variance / mean)
    share = np.cumsum(_beta_binomial(width, mean / width, variance))
    return int(max(0, np.searchsorted(share, 1 / pairs, side="right") - 1))


def default_radius(calibration: dict[str, Any], kind: str, width: int, images: int) -> int | float:
    """Return the radius of duplicates: the chance radius, or what altered copies reach if less.

    Photos of one scene are nearer to each other than chance has it, so the chance radius alone
    would join them: REACH of the altered copies must suffice.

    Args:
        calibration: as the catalogue keeps it.
        kind: "codes" or "vectors".
        width: of a code, in bits.
        images: in the index.
    """
    radius = chance_radius(calibration["random"], kind, width, images)
    copies = sorted(d for found in calibration.get("copies", {}).values() for d in found)
    if copies:
        radius = min(radius, copies[int(REACH * (len(copies) - 1))])
    return radius


def _beta_binomial(bits: int, p: float, variance: float) -> Shaped[np.ndarray, " b"]:
    """Return the probability of each distance 0..bits."""
    binomial = bits * p * (1 - p)
    if not 0 < p < 1 or bits == 1:
        return np.eye(bits + 1)[round(bits * p)]
    # variance = binomial * (1 + (bits - 1) * correlation)
    correlation = min(max((variance / binomial - 1) / (bits - 1), 1e-9), 1 - 1e-9)
    a, b = p * (1 / correlation - 1), (1 - p) * (1 / correlation - 1)
    log = math.lgamma
    logs = [
        log(bits + 1) - log(d + 1) - log(bits - d + 1)
        + log(d + a) + log(bits - d + b) - log(bits + a + b)
        + log(a + b) - log(a) - log(b)
        for d in range(bits + 1)
    ]  # fmt: skip
    return np.exp(np.array(logs))


def _copies(catalogue: Catalogue, root: Path, coder: Any, count: int) -> dict[str, list[Any]]:
    """Return distances of images to their altered copies, ascending, by the kind of alteration."""
    rows = sorted(catalogue.rows("missing = 0"), key=lambda row: path_digest(row.path))
    rows = rows[: max(1, min(COPIED, count // SHARE))]
    paths = [os.path.join(root, row.path) for row in rows]
    altered = in_order(lambda path: _altered(path, coder.image_size), paths)
    known = catalogue.contents_of(row.digest for row in rows)
    pairs = [(known[row.digest].code, x) for row, x in zip(rows, altered, strict=True) if x]
    originals = [np.frombuffer(code, snapshot.DTYPES[coder.facts["kind"]]) for code, _ in pairs]
    found = {}
    for name in pairs[0][1] if pairs else ():
        copies = coder.encode_pixels(np.stack([images[name] for _, images in pairs]))
        found[name] = sorted(_between(np.stack(originals), copies, coder.facts).tolist())
    return found


def _between(one: np.ndarray, other: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    if facts["kind"] == "codes":
        return np.bitwise_count(one ^ other).sum(axis=1, dtype=np.int64)
    return ((one.astype(np.float64) - other) ** 2).sum(axis=1)


def _altered(path: str, side: int) -> dict[str, np.ndarray] | None:
    """Return copies of an image: at half the size, as a JPEG of quality 60, cropped by 5 %."""
    from PIL import Image, ImageOps

    from jaxret.data.images import upright_square

    try:
        with Image.open(path) as file:
            file.draft("RGB", (SIDE, SIDE))
            image = ImageOps.exif_transpose(file).convert("RGB")
            image.thumbnail((SIDE, SIDE))
    except Exception:  # a file that was damaged since it was coded
        return None
    width, height = image.size
    compressed = io.BytesIO()
    image.save(compressed, "JPEG", quality=60)
    cut = (width // 40, height // 40, width - width // 40, height - height // 40)
    copies = {
        "scaled": image.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC),
        "jpeg60": Image.open(compressed),
        "cropped": image.crop(cut),
    }
    return {name: upright_square(copy, side) for name, copy in copies.items()}
