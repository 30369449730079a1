"""A process that decodes images for the server: what a bad file breaks or eats is this alone.

python -P -m jaxret.app.server.worker FD: answers jobs over the socket FD until it is closed. Its
address space is limited, and the processor time of each job. A message is two lengths, a header in
JSON, and bytes; a job's image is these bytes, or a file whose handle is passed along.
"""

import contextlib
import importlib
import io
import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import IO, Any

LENGTHS = struct.Struct("<IQ")
MOST_HEADER = 2**16
MEMORY = 3 * 2**30  # bytes of address space: an image of 250 megapixels and its copy
SECONDS = 20  # of processor time for one job


def send(channel: socket.socket, header: dict[str, Any], body: bytes, handle: int = -1) -> None:
    """Send a message, and the handle of a file with it."""
    head = json.dumps(header).encode()
    first = LENGTHS.pack(len(head), len(body))
    if handle < 0:
        channel.sendall(first)
    else:
        socket.send_fds(channel, [first], [handle])
    channel.sendall(head)
    channel.sendall(body)


def receive(channel: socket.socket, most: int) -> tuple[dict[str, Any], bytes, int]:
    """Return the next message: header, body, and the handle of a file, or -1.

    Raises EOFError where the other side is gone, ValueError where it breaks the form.
    """
    first, handles, _, _ = socket.recv_fds(channel, LENGTHS.size, 1)
    handle = handles[0] if handles else -1
    first += _exactly(channel, LENGTHS.size - len(first)) if first else b""
    if not first:
        raise EOFError
    lengths = LENGTHS.unpack(first)
    if lengths[0] > MOST_HEADER or lengths[1] > most:
        raise ValueError(f"a message of {lengths} bytes")
    head, body = (_exactly(channel, length) for length in lengths)
    return json.loads(head), body, handle


def _exactly(channel: socket.socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = channel.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(data)


def main() -> None:
    """Answer jobs until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    _limit(resource.RLIMIT_AS, int(os.environ.get("JAXRET_WORKER_MEMORY", min(MEMORY, half))))
    _limit(resource.RLIMIT_CORE, 0)
    _prepare()
    with contextlib.suppress(EOFError):
        while True:
            header, body, handle = receive(channel, 2**32)
            used = resource.getrusage(resource.RUSAGE_SELF)
            _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + SECONDS + 1)
            with io.BytesIO(body) if handle < 0 else open(handle, "rb") as file:
                try:
                    answer = _answer(header, file)
                except _RefusedError as refused:
                    answer = {"code": refused.args[0], "message": refused.args[1]}, b""
            send(channel, *answer)


def _prepare() -> None:
    """Import what jobs need, before the first is there."""
    importlib.import_module("jaxret.data.images")
    from jaxret.index import contents

    contents.heic_is_known()
    contents.formats()


class _RefusedError(Exception):
    """An image that is refused: code, message."""


def _limit(which: int, value: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS has not all of them
        resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


def _answer(header: dict[str, Any], file: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    from jaxret.index import contents, thumbs
    from jaxret.index.contents import UnreadableError

    side = header["side"]
    try:
        _check_pixels(file, header["most_pixels"])
        if header["do"] == "webp":
            return {}, thumbs.small(file, side)
        with contents.many_pixels():
            return {}, contents.decode(file, side, header["name"]).pixels.tobytes()
    except UnreadableError as error:
        raise _RefusedError("not_an_image", str(error)[:500]) from error


def _check_pixels(file: IO[bytes], most: int) -> None:
    """Refuse an image by its header, before any of it is decoded."""
    from PIL import Image

    from jaxret.index import contents

    with contents.many_pixels():
        try:
            with Image.open(file, formats=contents.formats()) as image:
                pixels = image.width * image.height
        except Image.DecompressionBombError:
            pixels = most + 1
        except Exception as error:  # a damaged file may raise nearly anything
            words = "this is no image that jaxret reads"
            raise _RefusedError("not_an_image", words) from error
    if pixels > most:
        limit = f"more than {most // 1_000_000} megapixels"
        raise _RefusedError("too_many_pixels", f"the picture has {limit}")
    file.seek(0)


if __name__ == "__main__":
    main()
