"""How answers are written: lines, paths, JSON; and how names are shown."""

import base64
import json
import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

SCHEMA = 1
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def shown(file: str) -> str:
    """Return a file's path relative to the current folder; never one that looks like an option."""
    try:
        path = os.path.relpath(file)
    except (OSError, ValueError):  # the current folder is gone
        path = file
    return f"./{path}" if path.startswith("-") else path


def visible(text: str) -> str:
    """Return text without characters that move the cursor, or that are not text."""
    return "".join(
        char.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(char) in _INVISIBLE
        else char
        for char in text
    )


def write(data: bytes) -> None:
    """Write bytes to stdout; names need not be text."""
    sys.stdout.buffer.write(data)


def write_line(*fields: str) -> None:
    """Write fields with tabs between them; on a terminal control characters are escaped."""
    if sys.stdout.isatty():
        fields = tuple(map(visible, fields))
    write(os.fsencode("\t".join(fields)) + b"\n")


def write_paths(files: list[str], end: bytes) -> None:
    """Write one path after the other, each with an end; raw where the end is NUL."""
    for file in files:
        path = shown(file)
        raw = end == b"\0" or not sys.stdout.isatty()
        write(os.fsencode(path if raw else visible(path)) + end)


def write_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document, valid UTF-8 whatever names it holds."""
    write(json_bytes(document, indent=1) + b"\n")


def json_bytes(document: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return a JSON document, valid UTF-8 whatever names it holds."""
    whole = {"schema": SCHEMA, **document}
    try:
        return json.dumps(whole, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:  # names that are no UTF-8
        return json.dumps(_plain(whole), ensure_ascii=False, indent=indent).encode()


def _plain(value: Any) -> Any:
    """Return a value with its text valid, and the bytes of a name that is not beside it."""
    if isinstance(value, dict):
        plain = {}
        for name, item in value.items():
            plain[name] = _plain(item)
            if isinstance(item, str) and plain[name] != item:
                plain[f"{name}_base64"] = base64.b64encode(os.fsencode(item)).decode()
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def tell(text: str) -> None:
    """Write one line to stderr."""
    print(visible(text), file=sys.stderr, flush=True)


def number(value: float | int | None) -> str:
    """Return a distance as it is printed; nothing where there is none."""
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def counted(count: int, noun: str) -> str:
    """Return a number of things, the noun in the singular where there is one."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: int | float) -> str:
    """Return a number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if isinstance(count, float) else f"{count} {unit}"
        count = count / 1000
    return f"{count:.1f} GB"
