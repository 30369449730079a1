"""Parameters of a request: read strictly, so that a slip is told and not ignored."""

import math
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from jaxret.app.server.security import RefusedError, Scope
from jaxret.index.groups import IN, RULES
from jaxret.index.reader import Filters, checked_date

MOST_RESULTS = 1000
MOST_VALUES = 50  # of one parameter
MOST_LENGTH = 4096  # bytes of a value
WHOLE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
CURSOR = re.compile(r"[0-9T:.+-]{0,40}~(0|[1-9][0-9]{0,17})")
DISTANCE = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?(e-?[0-9]{1,2})?")
FILTERS = ("in", "label", "newer", "older")

T = TypeVar("T")


class Parameters:
    """The parameters of a request, by name.

    Raises RefusedError for a name that is not in `names`, and for a value that breaks a rule.
    """

    def __init__(self, scope: Scope, *names: str):
        self._values: dict[str, list[bytes]] = {}
        for part in scope["query_string"].split(b"&"):
            key, _, value = part.replace(b"+", b" ").partition(b"=")
            if not part:
                continue
            name = unquote_to_bytes(key).decode("utf-8", "replace")
            if name not in names:
                raise RefusedError(422, "parameter", f"unknown parameter: {name[:50]}")
            values = self._values.setdefault(name, [])
            values.append(unquote_to_bytes(value))
            if len(values) > MOST_VALUES or len(values[-1]) > MOST_LENGTH:
                raise RefusedError(422, name, f"{name}: too many values, or too long a one")

    def one(self, name: str, read: Callable[[str], T], default: T) -> T:
        """Return the value of a parameter that is given at most once."""
        values = self.all(name, read)
        if len(values) > 1:
            raise RefusedError(422, name, f"{name} is given {len(values)} times")
        return values[0] if values else default

    def all(self, name: str, read: Callable[[str], T]) -> list[T]:
        """Return all values of a parameter."""
        values = self._values.get(name, [])
        try:
            return [read(os.fsdecode(value)) for value in values]
        except ValueError as error:
            raise RefusedError(422, name, f"{name} must be {error}") from None

    def filters(self) -> Filters:
        """Return which images are meant."""
        return Filters(
            tuple(self.all("in", folder)),
            tuple(self.all("label", text)),
            self.one("newer", date, None),
            self.one("older", date, None),
        )


def whole(most: int = 10**18, least: int = 0) -> Callable[[str], int]:
    """Return what reads a whole number from least to most."""

    def read(value: str) -> int:
        if not WHOLE.fullmatch(value) or not least <= int(value) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(value)

    return read


def distance(value: str) -> int | float | None:
    """Return a distance."""
    found = float(value) if DISTANCE.fullmatch(value) else math.nan
    if not 0 <= found < math.inf:
        raise ValueError("a distance of at least 0")
    return int(found) if found.is_integer() else found


def date(value: str) -> str | None:
    """Return a date or a time, ISO 8601."""
    try:
        return checked_date(value)
    except ValueError:
        raise ValueError("a date such as 2024-05-31") from None


def folder(value: str) -> str:
    """Return a folder below the root, by its parts."""
    return os.path.normpath(value).strip("/") if value not in ("", ".") else ""


def text(value: str) -> str:
    """Return text that is valid."""
    return os.fsencode(value).decode("utf-8", "replace")


def rule(value: str) -> str:
    """Return a keep rule, whose folder is below the root, as that of `folder`."""
    if value not in RULES and not (value.startswith(IN) and value != IN):
        raise ValueError(f"{', '.join(RULES)} or {IN}FOLDER")
    return f"{IN}{folder(value.removeprefix(IN)) or '.'}" if value.startswith(IN) else value


def cursor(value: str) -> str | None:
    """Return where a page of images begins."""
    if not CURSOR.fullmatch(value):
        raise ValueError("what `next` of the page before says")
    return value


def ids_of(document: Any) -> list[int]:
    """Return the ids of a request to note images that are no duplicates."""
    ids = document.get("ids") if isinstance(document, dict) else None
    good = isinstance(ids, list) and 2 <= len(ids) <= MOST_RESULTS and len(document) == 1
    if not good or not all(type(x) is int and 0 <= x < 10**18 for x in ids or ()):
        raise RefusedError(
            422, "ids", f'{{"ids": [...]}} of 2 to {MOST_RESULTS} images is expected'
        )
    return list(dict.fromkeys(ids or ()))
