"""A contact sheet: one HTML file with its thumbnails in it, that loads nothing and runs nothing."""

import base64
import functools
import html
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxret.app.output import number, shown
from jaxret.files import write_whole
from jaxret.index.contents import UnreadableError
from jaxret.index.reader import Image
from jaxret.index.thumbs import small, thumbnail

_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }}
body {{ margin: 1rem }}
h2 {{ font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere }}
ul {{ display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; margin: 0; padding: 0 }}
li {{ width: 12rem }}
img {{ display: block; width: 100%; height: 12rem; object-fit: contain; background: #8882 }}
p {{ margin: .25rem 0; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
"""

Section = tuple[str, Sequence[Image]]  # a heading and its images


def write_sheet(
    target: Path,
    index: Path,
    title: str,
    sections: Sequence[Section],
    queries: Sequence[tuple[str, str]] = (),
) -> None:
    """Write a contact sheet in one step.

    Args:
        target: the file.
        index: the folder of the index, where thumbnails are kept.
        title: of the page.
        sections: headings with their images.
        queries: files that come before them, and what is said of each.
    """
    pieces = [_HEAD.format(title=_text(title))]
    if queries:
        pieces.append("<ul>\n")
        for file, words in queries:
            picture = _picture(functools.partial(small, file), file)
            pieces.append(f"<li>{picture}<p>{_name(file)}</p><p>{_text(words)}</p></li>\n")
        pieces.append("</ul>\n")
    for heading, images in sections:
        pieces.append(f"<h2>{_text(heading)}</h2>\n<ul>\n")
        pieces += [_item(index, image) for image in images]
        pieces.append("</ul>\n")
    write_whole(target, (piece.encode() for piece in pieces))


def _item(index: Path, image: Image) -> str:
    picture = _picture(lambda: thumbnail(index, image.file, image.digest), image.file)
    told = [] if image.distance is None else [f"distance {number(image.distance)}"]
    told += [] if image.label is None else [image.label]
    told += [f"{image.width}×{image.height}"] + ([image.taken] if image.taken else [])
    told += [image.state] if image.state != "ok" else []
    return f"<li>{picture}<p>{_name(image.file)}</p><p>{_text(', '.join(told))}</p></li>\n"


def _picture(make: Callable[[], bytes], file: str) -> str:
    try:
        data = base64.b64encode(make()).decode()
    except UnreadableError as error:
        return f"<p>{_text(f'no picture: {error}')}</p>"
    return f'<img alt="{_text(shown(file))}" src="data:image/webp;base64,{data}">'


def _name(file: str) -> str:
    """Return a path that breaks after folders and words."""
    return re.sub(r"([/_ -])", r"\1<wbr>", _text(shown(file)))


def _text(text: str) -> str:
    valid = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return html.escape(valid, quote=True)
