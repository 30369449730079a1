"""Folders of tiny images, as a person keeps them, for the tests of data sets."""

import numpy as np
from PIL import Image

from jaxret import data


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (6, 5), "red")).save(path, **options)
    return path


def noise(seed, size=8):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return Image.fromarray(pixels)


def make_folder(root, classes=("cat", "dog"), each=10):
    for c, name in enumerate(classes):
        for i in range(each):
            save(root / name / f"{i}.png", noise(c * each + i))
    return root


def load_both(root, image_size=8):
    return [data.load(f"folder:{root}", split, None, image_size) for split in ("train", "test")]


def flat_folder(root, num=20):
    for i in range(num):
        save(root / f"{i}.png", noise(i))
    return root


def write_run(folder):
    """A work folder as a train script leaves it."""
    save(folder / "plots" / "loss.png")
    (folder / "args.flags").write_text("--epochs=1\n")
    (folder / "metrics.json").write_text('{"schema": 1}')


def make_runs(root):
    write_run(root / "runs" / "mine")
