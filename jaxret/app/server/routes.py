"""The addresses of the server. None takes a path: images are named by the numbers of the index.

GET  /                                page, with its files /static/app.css and /static/app.js
GET  /api/info                        what the page begins with
GET  /api/search?item=&not=&k=&max=   the images nearest to indexed ones
POST /api/search                      ... and to the one in the body
GET  /api/items?after=&limit=         the newest images, in pages; /api/items/ID is one
GET  /api/duplicates?max=&keep=       groups, in pages
POST /api/ignore                      {"ids": [3, 8]}: these are no duplicates of each other
GET  /thumb/ID  /image/ID             256 and 2048 pixels a side, made anew, without metadata
GET  /original/ID                     the file, to be saved

`in`, `label`, `newer` and `older` narrow searches and items. The documents are in
`jaxret.app.schema`.
"""

import asyncio
import functools
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from jaxret.app.output import json_bytes
from jaxret.app.server import parameters
from jaxret.app.server.answers import Answers, StaleError, open_original
from jaxret.app.server.decoders import COUNT, Decoders
from jaxret.app.server.parameters import FILTERS, Parameters, whole
from jaxret.app.server.security import RefusedError
from jaxret.app.server.uploads import MOST_JSON, EarlyResponse, Gate, read_body
from jaxret.index import thumbs
from jaxret.index.catalogue import Row

STATIC = Path(__file__).parent.parent / "static"
FILES = {  # address -> file, media type
    "/": ("index.html", "text/html"),
    "/static/app.css": ("app.css", "text/css"),
    "/static/app.js": ("app.js", "text/javascript"),
}
PREVIEW = 2048  # pixels a side
FOR_EVER = "private, max-age=31536000, immutable"
PIECE = 2**18  # bytes of an original that are sent at once
IMAGES = re.compile(r"(image/[\w.+-]+|application/octet-stream)")
SEARCH = ("item", "not", "k", "max", *FILTERS)

Handler = Callable[[Request], Awaitable[Response]]


class _Number(Convertor[int]):
    """An image's number in an address."""

    regex = parameters.WHOLE.pattern

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Number())


def application(answers: Answers, decoders: Decoders) -> Starlette:
    """Return the application, to be guarded by `security.Guard`."""
    site = _Site(answers, decoders)
    routes = [Route(address, _file(*what)) for address, what in FILES.items()]
    routes += [
        Route("/favicon.ico", _nothing),
        Route("/api/info", site.info),
        Route("/api/search", site.search),
        Route("/api/search", site.upload, methods=["POST"]),
        Route("/api/items", site.items),
        Route("/api/items/{id:number}", site.item),
        Route("/api/duplicates", site.duplicates),
        Route("/api/ignore", site.ignore, methods=["POST"]),
        Route("/thumb/{id:number}", site.thumb),
        Route("/image/{id:number}", site.image),
        Route("/original/{id:number}", site.original),
    ]
    handlers: dict[Any, Any] = {HTTPException: _unknown, RefusedError: _refused}
    made = Starlette(routes=routes, exception_handlers=handlers)
    made.router.redirect_slashes = False
    return made


def _file(name: str, kind: str) -> Handler:
    content = (STATIC / name).read_bytes()

    async def file(_: Request) -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return file


async def _nothing(_: Request) -> Response:
    return Response(status_code=204)  # browsers ask for an icon; there is none


async def _unknown(_: Request, error: HTTPException) -> Response:
    codes = {404: "not_found", 405: "method"}
    refused = RefusedError(error.status_code, codes.get(error.status_code, "http"), error.detail)
    return await _refused(_, refused)


async def _refused(_: Request, error: RefusedError) -> Response:
    headers = {"Retry-After": "1"} if error.status == 429 else None
    return EarlyResponse(error.body(), error.status, headers, "application/json")


def _json(document: Any) -> Response:
    return Response(json_bytes(document), media_type="application/json")


class _Site:
    """The handlers, and the threads that work for them."""

    def __init__(self, answers: Answers, decoders: Decoders):
        self.answers, self.decoders = answers, decoders
        self.uploads, self.pictures = Gate(), Gate()
        # One search and one coding at a time; looking up and decoding go on beside them.
        self.searching, self.coding, self.comparing = (ThreadPoolExecutor(1) for _ in range(3))
        self.reading, self.decoding = ThreadPoolExecutor(2), ThreadPoolExecutor(COUNT)

    async def info(self, request: Request) -> Response:
        Parameters(request.scope)
        return _json(await _run(self.reading, self.answers.info))

    async def search(self, request: Request) -> Response:
        begun, given = time.perf_counter(), Parameters(request.scope, *SEARCH)
        found = await _run(self.searching, self._search(given))
        return _json(found | {"took_ms": _since(begun)})

    async def upload(self, request: Request) -> Response:
        begun, given = time.perf_counter(), Parameters(request.scope, *SEARCH)
        ask = self._search(given)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not IMAGES.fullmatch(kind):
            raise RefusedError(415, "content_type", "the body must be an image, by Content-Type")
        with self.uploads.entered():
            body = await read_body(request.scope, request.receive)
            for _ in range(3):
                side = await _run(self.reading, self.answers.side)
                pixels = await _run(self.decoding, self.decoders.pixels, body, side)
                try:
                    found = await _run(self.coding, ask, pixels=pixels)
                except StaleError:
                    continue
                return _json(found | {"took_ms": _since(begun)})
        raise RefusedError(409, "revision_gone", "the index changes its encoder: try again")

    def _search(self, given: Parameters) -> Callable[..., Any]:
        """Return the search that parameters ask for."""
        return functools.partial(
            self.answers.search,
            given.all("item", whole()),
            given.all("not", whole()),
            given.one("k", whole(parameters.MOST_RESULTS, 1), 20),
            given.one("max", parameters.distance, None),
            given.filters(),
        )

    async def items(self, request: Request) -> Response:
        given = Parameters(request.scope, "after", "limit", "revision", *FILTERS)
        ask = functools.partial(
            self.answers.items,
            given.one("after", parameters.cursor, None),
            given.one("limit", whole(200, 1), 60),
            given.filters(),
            given.one("revision", whole(), None),
        )
        return _json(await _run(self.reading, ask))

    async def item(self, request: Request) -> Response:
        Parameters(request.scope)
        return _json(await _run(self.reading, self.answers.item, request.path_params["id"]))

    async def duplicates(self, request: Request) -> Response:
        given = Parameters(request.scope, "max", "keep", "after", "revision")
        ask = functools.partial(
            self.answers.duplicates,
            given.one("max", parameters.distance, None),
            given.all("keep", parameters.rule),
            given.one("after", whole(), 0),
            given.one("revision", whole(), None),
        )
        return _json(await _run(self.comparing, ask))

    async def ignore(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise RefusedError(415, "content_type", "the body must be application/json")
        body = await read_body(request.scope, request.receive, MOST_JSON)
        try:
            ids = parameters.ids_of(json.loads(body))
        except (ValueError, RecursionError):
            raise RefusedError(422, "json", "the body is no JSON") from None
        return _json(await _run(self.reading, self.answers.ignore, ids))

    async def thumb(self, request: Request) -> Response:
        given = Parameters(request.scope, "v")
        number = request.path_params["id"]
        row, root, content = await _run(self.reading, self.answers.kept_thumbnail, number)
        if content is None:
            with self.pictures.entered():
                content = await _run(self.decoding, self._picture, root, row, thumbs.SIDE)
            await _run(self.reading, self.answers.keep_thumbnail, row, content)
        version = given.one("v", str, "")
        named = len(version) >= 8 and row.digest.hex().startswith(version)
        headers = {"Cache-Control": FOR_EVER} if named else None
        return Response(content, media_type="image/webp", headers=headers)

    async def image(self, request: Request) -> Response:
        Parameters(request.scope, "v")
        number = request.path_params["id"]
        row, root, _ = await _run(self.reading, self.answers.kept_thumbnail, number)
        with self.pictures.entered():
            content = await _run(self.decoding, self._picture, root, row, PREVIEW)
        return Response(content, media_type="image/webp")

    def _picture(self, root: Path, row: Row, side: int) -> bytes:
        handle = open_original(root, row)
        try:
            return self.decoders.webp(handle, side)
        finally:
            os.close(handle)

    async def original(self, request: Request) -> Response:
        Parameters(request.scope)
        number = request.path_params["id"]
        row, root, _ = await _run(self.reading, self.answers.kept_thumbnail, number)
        handle = await _run(self.reading, open_original, root, row)
        name = quote(os.fsencode(row.path).rpartition(b"/")[2].decode("utf-8", "replace"), safe="")
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "Content-Length": str(row.size),
            "Content-Security-Policy": "default-src 'none'; sandbox",
        }
        kind = "application/octet-stream"  # whatever its name says
        file = open(handle, "rb")  # noqa: SIM115 (the pieces close it)
        return StreamingResponse(_pieces(file), media_type=kind, headers=headers)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece


async def _run(pool: ThreadPoolExecutor, function: Callable, *arguments: Any, **named: Any) -> Any:
    """Return a function's value, computed in a thread of a pool."""
    call = functools.partial(function, *arguments, **named)
    return await asyncio.get_running_loop().run_in_executor(pool, call)


def _since(begun: float) -> float:
    """Return the milliseconds since a moment."""
    return round(1000 * (time.perf_counter() - begun), 1)
