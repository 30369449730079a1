"""A running server of an index, and a client that sends exactly what a test says."""

import contextlib
import hashlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxret.app.server.serve import Page, prepared
from jaxret.index import contents, places
from jaxret.index.catalogue import Catalogue, Content, Row, Skipped
from jaxret.index.model import Model
from jaxret.index.scan import scan

SIDE = 8  # pixels a side of what the encoder below takes
DIGEST = hashlib.sha256(b"brightness").hexdigest()


def brightness(images: np.ndarray) -> np.ndarray:
    """Return a code of 64 bits of each image: which of its pixels are brighter than the others."""
    grey = images.mean(axis=3).reshape(len(images), -1)
    bits = grey > np.median(grey, axis=1)[:, None]
    return np.packbits(bits, axis=1, bitorder="little").view("<u4")


def index_by_hand(root: Path) -> Path:
    """Make an index of a folder, or its next generation, without JAX: in milliseconds."""
    index = root / places.FOLDER
    places.prepare(index)
    rows, coded, skipped = [], [], []
    for number, (path, entry) in enumerate(scan(root, index=index).files.items()):
        try:
            file, picture = contents.read(str(root / path), path, SIDE)
        except contents.UnreadableError as error:
            skipped.append(Skipped(path, entry.size, entry.mtime_ns, 0, str(error), False))
            continue
        rows.append(Row(number, *file, None, False))
        code = brightness(picture.pixels[None])[0].tobytes()
        coded.append(Content(file.digest, code, picture.width, picture.height, picture.taken))
    model = {"name": "look", "asked": "look", "digest": DIGEST, "kind": "codes", "width": 64}
    with Catalogue(index, write=True) as catalogue, catalogue.transaction():
        generation = catalogue.facts()["generation"] + 1
        catalogue.set_facts(model=model | {"image_size": SIDE}, generation=generation, root="..")
        catalogue.set_facts(updated=time.time(), revision=generation)
        catalogue.stage([], coded, DIGEST)
        catalogue.remove(row.id for row in catalogue.rows())
        catalogue.put(rows)
        catalogue.skip(skipped)
    return index


def ids_of(index: Path) -> dict[str, int]:
    """Return the id of each path."""
    with Catalogue(index) as catalogue:
        return {row.path: row.id for row in catalogue.rows()}


class Reply(NamedTuple):
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the document in the body."""
        return json.loads(self.body)


class Client:
    """Asks one server."""

    def __init__(self, page: Page):
        self.page, self.port, self.token = page, page.port, page.token

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        token: str | None = "",
        **headers: str,
    ) -> Reply:
        """Return the answer to a request; "" is the server's own token, None is none."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.token}"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 60)) as link:
            link.request(method, path, body, sent)
            return _reply(link.getresponse())

    def upload(self, content: bytes, query: str = "", **headers: str) -> Reply:
        """Return the answer to a search by a picture."""
        sent = {"Content_Type": "image/jpeg"} | headers
        return self.ask(f"/api/search{query}", method="POST", body=content, **sent)

    def raw(self, *lines: str | bytes, body: bytes = b"", token: bool = True) -> Reply:
        """Return the answer to a request of these lines, over a socket of its own."""
        own = [f"Authorization: Bearer {self.token}"] if token and self.token else []
        parts = [
            line if isinstance(line, bytes) else line.encode()
            for line in (*lines, *own, "Connection: close")
        ]
        with socket.create_connection(("127.0.0.1", self.port), 30) as link:
            link.sendall(b"\r\n".join(parts) + b"\r\n\r\n" + body)
            answer = http.client.HTTPResponse(link)
            answer.begin()
            return _reply(answer)

    def get_raw(self, target: str, *, token: bool = True) -> Reply:
        """Return the answer to a target that is sent as it is."""
        return self.raw(f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", token=token)


def _reply(answer: http.client.HTTPResponse) -> Reply:
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, headers, answer.read())


@contextlib.contextmanager
def serving(index: Path, *, encoder: bool = True, **options: Any):
    """Serve an index in a thread of this process; encoder: that of `index_by_hand`."""
    with prepared(index, **options) as page:
        if encoder:
            page.answers._model = (DIGEST, Model(SIDE, np.asarray, brightness))
        thread = threading.Thread(target=page.server.run, args=(page.sockets,))
        thread.start()
        try:
            end = time.monotonic() + 20
            while not page.server.started and time.monotonic() < end:
                time.sleep(0.01)
            assert page.server.started
            yield Client(page)
        finally:
            page.server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def client(root):
    """Serve the index of a module's `root`."""
    with serving(root / ".jaxret") as running:
        yield running
