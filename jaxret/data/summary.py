"""What was read, in lines that a script prints."""

import numpy as np

from jaxret.data.protocols import Protocol
from jaxret.data.sets import ImageSet, has_labels

_SHOWN = 20  # classes


def describe(data: ImageSet | Protocol) -> list[str]:
    """Return what was read: sizes, classes with their counts, the split, what was left out.

    Each line is one sentence without a full stop, to be printed as it is.
    """
    if isinstance(data, Protocol):
        parts = {"training": data.train, "gallery": data.gallery, "queries": data.query}
        sizes = ", ".join(f"{len(part.images):,} {name}" for name, part in parts.items())
        lines = [f"{data.name}: {sizes}"]
        # Where the gallery holds the training images, or they the gallery, count each image once.
        largest = max(data.train, data.gallery, key=lambda part: len(part.images))
        images = [largest, data.query]
    else:
        lines = [f"{len(data.images):,} images"]
        images = [data]
    lines[0] += f", each {' x '.join(map(str, images[0].images.shape[1:]))}"
    lines.append(_classes(images))
    notes = [note for part in images for note in part.notes]
    return lines + list(dict.fromkeys(notes))


def _classes(parts: list[ImageSet]) -> str:
    if not any(map(has_labels, parts)):
        return "no labels: the images can be trained on and searched, but not scored"
    names = parts[0].class_names
    counts = np.sum([_counts(part) for part in parts], axis=0)
    shown = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True)]
    if len(shown) > _SHOWN:
        rest = counts[_SHOWN:]
        shown[_SHOWN:] = [f"and {len(rest)} more, {min(rest):,} to {max(rest):,} images each"]
    line = f"{len(names)} class{'' if len(names) == 1 else 'es'}: {', '.join(shown)}"
    without = sum(int(np.sum(_unlabelled(part))) for part in parts)
    return line + (f"; {without:,} without a label" if without else "")


def _counts(images: ImageSet) -> np.ndarray:
    if images.labels.ndim == 2:
        return images.labels.sum(axis=0)
    return np.bincount(images.labels[images.labels >= 0], minlength=len(images.class_names))


def _unlabelled(images: ImageSet) -> np.ndarray:
    return (images.labels if images.labels.ndim == 2 else images.labels[:, None] >= 0).sum(1) == 0
