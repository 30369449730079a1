"""An index kept open between requests: the newest generation, without reading it anew each time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxret.index import snapshot
from jaxret.index.catalogue import Catalogue
from jaxret.index.places import CATALOGUE, PhotoIndexError
from jaxret.index.reader import View, root_of, view

LARGE = 2**20  # words of codes: NumPy searches fewer in about a millisecond


class _Compiled(NamedTuple):
    """Rows that a program searches, and of which state of which file they are."""

    place: tuple[int, int] | None
    facts: dict[str, Any]
    rows: snapshot.Snapshot


class Views:
    """Views of one index: a connection for each thread, and what was read by it."""

    def __init__(self, index: Path):
        self.index = index
        self._own = threading.local()
        self._compiled: _Compiled | None = None
        self._compiling = threading.Lock()

    def compile(self) -> None:
        """Have a compiled program search the newest rows, if these are many.

        Later generations are prepared for it beside the first searches of them.
        """
        with contextlib.suppress(PhotoIndexError), view(self.index) as seen:
            rows = seen.snapshot
            if rows.values.size >= LARGE:
                rows = snapshot.compiled(rows)
            self._compiled = _Compiled(self._place(), seen.facts, rows)

    @contextlib.contextmanager
    def newest(self) -> Iterator[View]:
        """Give a view of the newest generation; it stays the same until the end.

        Raises PhotoIndexError where there is no index that can be searched.
        """
        catalogue = self._opened()
        with catalogue.reading():
            catalogue.query("SELECT 1 FROM facts LIMIT 1")  # from here on it is one state
            version = catalogue.query("PRAGMA data_version")
            if self._own.version != version:
                self._own.view = self._read(catalogue, self._own.view)
                self._own.version = version
            yield self._with_program(self._own.view)

    def _with_program(self, seen: View) -> View:
        made = self._compiled
        if made is None:
            return seen
        if (made.place, made.facts) == (self._own.key[:2], seen.facts):
            return seen._replace(snapshot=made.rows)
        if self._compiling.acquire(blocking=False):
            threading.Thread(target=self._compile_again, daemon=True).start()
        return seen

    def _compile_again(self) -> None:
        try:
            self.compile()
        finally:
            self._compiling.release()

    def _place(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            facts = os.stat(self.index / CATALOGUE)
            return facts.st_dev, facts.st_ino
        return None

    def _opened(self) -> Catalogue:
        """Return this thread's connection; a new one where the file is another one now."""
        try:
            facts = os.stat(self.index / CATALOGUE)
            key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        except OSError:
            key = None  # Catalogue says what is wrong
        own: Any = self._own
        if key is None or getattr(own, "key", None) != key:
            if getattr(own, "key", None) is not None:
                own.key = None
                own.catalogue.__exit__()
            own.catalogue = Catalogue(self.index)
            own.key, own.version, own.view = key, None, None
        return own.catalogue

    def _read(self, catalogue: Catalogue, before: View | None) -> View:
        facts = catalogue.facts()
        same = before is not None and all(
            facts.get(name) == before.facts.get(name) for name in ("generation", "model")
        )
        rows = before.snapshot if before is not None and same else snapshot.read(catalogue)
        return View(catalogue, facts, rows, root_of(self.index, facts))
