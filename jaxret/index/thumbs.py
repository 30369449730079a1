"""Small pictures of an index's images: made on demand, kept by content, capped."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from jaxret.files import WriteError, write_whole
from jaxret.index import contents
from jaxret.index.contents import UnreadableError
from jaxret.index.places import THUMBS as FOLDER

SIDE = 256
DRAFT = 1.4  # times the side, at least, before it is made smaller
MOST_BYTES = 512 * 2**20


def thumbnail(
    index: Path, file: str, digest: str, make: Callable[[str], bytes] | None = None
) -> bytes:
    """Return a WEBP of at most 256 pixels a side, upright, without metadata.

    It is kept in the index where that can be written. The oldest go when they exceed 512 MB.

    Args:
        index: its folder.
        file: the image.
        digest: of its bytes, in hex: the name under which the thumbnail is kept.
        make: makes the thumbnail of a file; None for `small`.

    Returns:
        The thumbnail's bytes.

    Raises:
        UnreadableError: where the file is no image.
    """
    target = index / FOLDER / digest[:2] / f"{digest}.webp"
    with contextlib.suppress(OSError):
        return target.read_bytes()
    content = (make or small)(file)
    with contextlib.suppress(WriteError):
        write_whole(target, content)
    return content


def small(file: str | IO[bytes], side: int = SIDE) -> bytes:
    """Return an image file as a small WEBP; raise UnreadableError where it is no image."""
    from PIL import Image, ImageOps

    with contents.many_pixels():
        try:
            with Image.open(file, formats=contents.formats()) as image:
                if image.width * image.height > contents.MOST_PIXELS:
                    raise UnreadableError("too many pixels")
                # A JPEG is decoded at a reduced size, at least DRAFT times the thumbnail's.
                share = DRAFT * side / max(image.size)
                image.draft("RGB", (int(image.width * share), int(image.height * share)))
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((side, side))
                kept = "RGBA" if upright.has_transparency_data else "RGB"
                output = io.BytesIO()
                upright.convert(kept).save(output, "WEBP", quality=80, method=2)
        except UnreadableError:
            raise
        except Exception as error:  # a damaged file may raise nearly anything
            raise UnreadableError(str(error) or type(error).__name__) from error
    return output.getvalue()


def trim(index: Path, most_bytes: int = MOST_BYTES) -> int:
    """Remove the oldest thumbnails while they exceed a number of bytes; return how many went."""
    found = []
    for path in (index / FOLDER).glob("*/*.webp"):
        with contextlib.suppress(OSError):
            facts = path.stat()
            found.append((facts.st_mtime_ns, facts.st_size, path))
    total, removed = sum(size for _, size, _ in found), 0
    for _, size, path in sorted(found):
        if total <= most_bytes:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            removed += 1
        total -= size
    return removed
