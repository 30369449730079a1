"""The server's side of the processes that decode images."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxret.app.server import worker
from jaxret.app.server.security import RefusedError
from jaxret.index.contents import MOST_PIXELS

COUNT = 2  # images that are decoded at once
SECONDS = 30  # for one image; the process that takes longer is ended
MOST_UPLOADED = 100_000_000  # pixels
MOST_ANSWER = 2**26  # bytes
STATUS = {"too_many_pixels": 413}
DAMAGED = "this picture cannot be decoded"


class Decoders:
    """Processes that decode images. A bad file ends at most the one that has it."""

    def __init__(self, count: int = COUNT):
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        self._all: set[_Process] = set()
        for _ in range(count):
            self._idle.put(None)

    def start(self) -> None:
        """Start processes ahead of the first image."""
        for _ in range(self._idle.qsize()):
            self._idle.put(self._idle.get() or self._begin())

    def pixels(self, content: bytes, side: int) -> UInt8[np.ndarray, "s s 3"]:
        """Return the picture in the bytes of an upload, as a square of side pixels, in RGB.

        Raises RefusedError where it is none, or has too many pixels.
        """
        job = {"do": "pixels", "side": side, "name": "-", "most_pixels": MOST_UPLOADED}
        body = self._ask(job, content)
        if len(body) != side * side * 3:
            raise RefusedError(422, "not_an_image", DAMAGED)
        return np.frombuffer(body, np.uint8).reshape(side, side, 3)

    def webp(self, handle: int, side: int) -> bytes:
        """Return an open image file as a WEBP of at most side pixels a side, without metadata.

        Raises RefusedError where it is no image.
        """
        return self._ask({"do": "webp", "side": side, "most_pixels": MOST_PIXELS}, b"", handle)

    def close(self) -> None:
        """End all processes."""
        for process in list(self._all):
            process.end()

    def _begin(self) -> "_Process":
        process = _Process()
        self._all.add(process)
        return process

    def _ask(self, job: dict[str, Any], content: bytes, handle: int = -1) -> bytes:
        process = self._idle.get()
        try:
            process = process or self._begin()
            answer, body = process.ask(job, content, handle)
        except (OSError, EOFError, ValueError):
            if process is not None:
                process.end()
                self._all.discard(process)
            process = None
            raise RefusedError(422, "not_an_image", DAMAGED) from None
        finally:
            self._idle.put(process)
        code = answer.get("code")
        if code is not None:
            raise RefusedError(STATUS.get(code, 422), str(code), str(answer.get("message")))
        return body


class _Process:
    """One process, and the channel to it."""

    def __init__(self):
        self.channel, other = socket.socketpair()
        self.channel.settimeout(SECONDS)
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # memory is limited
        # -P: nothing is imported from the current folder, which may be one of photos.
        command = [sys.executable, "-P", "-m", worker.__name__, str(other.fileno())]
        with other:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                env=environment,
                start_new_session=True,  # Ctrl-C is for the server
            )

    def ask(self, job: dict[str, Any], content: bytes, handle: int) -> tuple[dict, bytes]:
        """Return the answer to a job: header and bytes."""
        worker.send(self.channel, job, content, handle)
        answer, body, _ = worker.receive(self.channel, MOST_ANSWER)
        if not isinstance(answer, dict):
            raise ValueError("an answer without a header")
        return answer, body

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self.channel.close()
        self.process.kill()
        self.process.wait()
