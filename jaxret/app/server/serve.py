"""Starts the server: its socket, its token, the address that is printed, and its end."""

import contextlib
import errno
import html
import logging
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxret.app.output import tell
from jaxret.app.server.answers import Answers
from jaxret.app.server.decoders import Decoders
from jaxret.app.server.security import Guard, hosts_of, is_loopback
from jaxret.index.places import PhotoIndexError
from jaxret.index.reader import view

GRACE = 5  # seconds that requests have to end
KEEP_ALIVE = 75  # seconds between two requests on one connection
NEEDED = "the page needs two more packages: pip install 'jaxret[app]'"


class Page(NamedTuple):
    """A server that is ready to run, and the address to open. token is None where none is used."""

    server: Any
    sockets: list[socket.socket]
    address: str
    port: int
    token: str | None
    answers: Answers
    decoders: Decoders

    def warm(self) -> None:
        """Start what an upload needs, so that the first one does not wait for it."""
        self.decoders.start()
        self.answers.warm()


def serve(
    index: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    browser: bool = False,
    with_token: bool = True,
    quiet: bool = False,
) -> None:
    """Serve the page of an index until Ctrl-C or SIGTERM.

    Args:
        index: its folder.
        host: an address of this machine.
        port: 0 for one that is free.
        browser: whether to open the page.
        with_token: whether the token of the printed address is needed.
        quiet: print the address and errors only.

    Raises:
        PhotoIndexError: where there is no index, the address cannot be had, or a package is
            missing.
    """
    with prepared(index, host=host, port=port, with_token=with_token) as page:
        _end_by_signals(page.server)
        if not is_loopback(host):
            tell(
                f"warning: {host} is reached from other machines, and the connection is not "
                "encrypted: whoever reads the address can see every photo"
            )
        threading.Thread(target=page.warm, daemon=True).start()
        sys.stdout.write(f"{page.address}\n")
        sys.stdout.flush()
        if not quiet:
            tell("Ctrl-C ends it")
        with _opened(page) if browser else contextlib.nullcontext():
            page.server.run(sockets=page.sockets)


@contextlib.contextmanager
def prepared(
    index: Path, *, host: str = "127.0.0.1", port: int = 0, with_token: bool = True
) -> Iterator[Page]:
    """Give a server that listens and is yet to run, and end what belongs to it afterwards.

    Arguments and errors are those of `serve`.
    """
    try:
        import uvicorn

        from jaxret.app.server.routes import application
    except ImportError as error:
        raise PhotoIndexError(f"{NEEDED} ({error})") from error
    with view(index):  # else an error is told now
        pass
    if not is_loopback(host) and not with_token:
        raise PhotoIndexError(f"--no-token is for this machine only, not for --host {host}")
    listening = _listen(host, port)
    answers, decoders = Answers(index), Decoders()
    try:
        port = listening.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        token = secrets.token_urlsafe(32) if with_token else None
        address = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
        site = application(answers, decoders)
        guard = Guard(site, hosts_of(host, port), token, f"jaxret-{port}")
        config = uvicorn.Config(
            guard,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL + 1)  # it would print addresses
        yield Page(uvicorn.Server(config), [listening], address, port, token, answers, decoders)
    finally:
        listening.close()
        decoders.close()


def _listen(host: str, port: int) -> socket.socket:
    if host in ("0.0.0.0", "::", ""):
        raise PhotoIndexError(
            f"--host must be one address of this machine, such as 192.168.1.5, got {host!r}"
        )
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = "; --port 0 takes a free one" if is_port else "; --host must be of this machine"
        words = f"{host}, port {port}: {error.strerror}{advice}"
        raise PhotoIndexError(words) from error
    return listening


def _end_by_signals(server: Any) -> None:
    """Let Ctrl-C and SIGTERM end a server as soon as it runs: it does so itself only from then on.

    A handler that raises would not do: what it raises is dropped where it happens to interrupt the
    callback of a weak reference, and importing calls many of them.
    """

    def stop(*_: Any) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


@contextlib.contextmanager
def _opened(page: Page) -> Iterator[None]:
    """Open the page in the browser, by a file that only its user can read.

    The browser's command line is seen by every user of the machine, so the token is not in it.
    """
    place = os.environ.get("XDG_RUNTIME_DIR")
    handle, name = tempfile.mkstemp(
        ".html", "jaxret-", place if os.path.isdir(place or "") else None
    )
    address = html.escape(page.address, quote=True)
    with open(handle, "w") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={address}">')
    try:
        threading.Thread(target=webbrowser.open, args=(f"file://{name}",), daemon=True).start()
        yield
    finally:
        os.unlink(name)
