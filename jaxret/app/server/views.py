"""An index kept open between requests: the newest generation, without reading it anew each time."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxret.index import snapshot
from jaxret.index.catalogue import Catalogue
from jaxret.index.places import CATALOGUE
from jaxret.index.reader import View, root_of


class Views:
    """Views of one index: a connection for each thread, and what was read by it."""

    def __init__(self, index: Path):
        self.index = index
        self._own = threading.local()

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
            yield self._own.view

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
