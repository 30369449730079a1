"""Bodies of requests: read while they are counted, refused early, never written anywhere."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from jaxret.app.server.security import Receive, RefusedError, Scope, Send

MOST_BYTES = 32_000_000
MOST_JSON = 64_000
IDLE = 10.0  # seconds without a byte
LONGEST = 120.0  # seconds for a whole body
RUNNING, WAITING = 2, 16


class ClientGoneError(Exception):
    """The other side has closed the connection."""


class Gate:
    """Counts what is being done; who comes when too much is waiting is told to come later."""

    def __init__(self, most: int = RUNNING + WAITING):
        self.most, self.count = most, 0

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Hold a place, in the thread of the event loop. Raises RefusedError where none is free."""
        if self.count >= self.most:
            raise RefusedError(429, "busy", "too many pictures at once: try again in a moment")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


async def read_body(scope: Scope, receive: Receive, most: int = MOST_BYTES) -> bytes:
    """Return the body of a request.

    Raises RefusedError where it has more bytes, or comes too slowly; ClientGoneError where it ends
    early.
    """
    too_large = RefusedError(413, "too_large", f"more than {most:,} bytes")
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    if lengths and int(lengths[0]) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(LONGEST):
            while True:
                message = await asyncio.wait_for(receive(), IDLE)
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                body += message.get("body", b"")
                if len(body) > most:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise RefusedError(400, "slow", f"nothing came for {IDLE:g} seconds") from None


class EarlyResponse(Response):
    """An answer that may come before the body is read: the rest of it is read and dropped.

    Else the connection would be reset, and the other side might not see the answer.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then read on for a moment."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE):
                await _drop(receive)
        await send({"type": "http.response.body", "body": b""})


async def _drop(receive: Receive) -> None:
    count = 0
    while count <= MOST_BYTES:
        message: Any = await receive()
        count += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
