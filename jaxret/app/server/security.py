"""Who may ask: the checks that every request passes, and the headers that every answer has.

A page on this machine is reachable by every page that the browser shows and by every user of the
machine. So each request must name this server in its Host header (a name that a stranger's DNS
points here does not), must not come from another page, and must carry the token: as the cookie that
the printed address sets, or as `Authorization: Bearer TOKEN`.

Browsers send a cookie to every port of a host. A server of another user of this machine, if the
browser visits it, is therefore told the cookie; `jaxret serve` cannot prevent that.
"""

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from jaxret.app.output import json_bytes, tell

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; img-src 'self' blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
# Goes to the page itself: a redirect of a navigation from elsewhere would not carry the cookie.
ENTRANCE = b'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
REFUSED = "open the address that jaxret serve printed: its token is missing or wrong"


class RefusedError(Exception):
    """A request that is refused, with its status, a code for programs and words for people."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def body(self) -> bytes:
        """Return the JSON document that says so."""
        return json_bytes({"error": {"code": self.code, "message": self.message}})


def hosts_of(host: str, port: int) -> frozenset[bytes]:
    """Return the Host headers by which a server may be named."""
    names = {"127.0.0.1", "localhost", "[::1]"} if is_loopback(host) else set()
    names.add(f"[{host}]" if ":" in host else host.lower())
    ports = {f":{port}"} | ({""} if port == 80 else set())
    return frozenset(f"{name}{end}".encode() for name in names for end in ports)


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application that lets checked requests through to another one.

    Args:
        app: the other one.
        hosts: Host headers, in lower case, that are answered.
        token: what a request must carry; None for nothing.
        cookie: the name of the cookie.
        entered: called when a browser has exchanged the token for the cookie.
    """

    def __init__(
        self,
        app: App,
        hosts: frozenset[bytes],
        token: str | None,
        cookie: str = "jaxret",
        entered: Callable[[], None] = lambda: None,
    ):
        self.app, self.hosts, self.cookie, self.entered = app, hosts, cookie, entered
        self.token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        answer = _Answer(send)
        try:
            if not await self._enters(scope, answer):
                self._check(scope)
                await self.app(scope, receive, answer)
        except RefusedError as refused:
            await answer.refuse(refused)
        except Exception as error:
            tell(f"jaxret serve: {type(error).__name__} in {scope['method']} {scope['path']}")
            await answer.refuse(RefusedError(500, "defect", "this went wrong inside jaxret"))
            if not answer.is_own:  # half an answer must not look whole
                raise

    def _check(self, scope: Scope) -> None:
        host = self._host(scope)
        sites = _values(scope, b"sec-fetch-site")
        origins = _values(scope, b"origin")
        ours = {b"http://" + host}
        others = set(sites) - {b"same-origin", b"none"} or {o.lower() for o in origins} - ours
        if others or scope["method"] == "OPTIONS" or not self._is_known(scope):
            raise RefusedError(403, "forbidden", REFUSED)

    def _host(self, scope: Scope) -> bytes:
        found = [value.lower() for value in _values(scope, b"host")]
        if len(found) != 1 or found[0] not in self.hosts:
            raise RefusedError(400, "host", "this server is not of that name")
        return found[0]

    def _is_known(self, scope: Scope) -> bool:
        if self.token is None:
            return True
        given = [
            value[7:].strip()
            for value in _values(scope, b"authorization")
            if value[:7].lower() == b"bearer "
        ]
        name = self.cookie.encode() + b"="
        for value in _values(scope, b"cookie"):
            parts = (part.strip() for part in value.split(b";"))
            given += [part[len(name) :] for part in parts if part.startswith(name)]
        return any(hmac.compare_digest(self.token, value) for value in given)

    async def _enters(self, scope: Scope, answer: "_Answer") -> bool:
        """Exchange the token of the printed address for a cookie; return whether it was one."""
        if self.token is None or scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"]).get(b"token", [])
        if len(given) != 1 or not hmac.compare_digest(self.token, given[0]):
            return False
        self._host(scope)
        sites = _values(scope, b"sec-fetch-site")
        if sites and _values(scope, b"sec-fetch-dest") != [b"document"]:
            return False
        cookie = b"%s=%s; Path=/; HttpOnly; SameSite=Strict" % (self.cookie.encode(), self.token)
        headers = [(b"set-cookie", cookie)]
        if set(sites) <= {b"none", b"same-origin"}:
            await answer.whole(303, b"", [*headers, (b"location", b"/")])
        else:
            kind = (b"content-type", b"text/html; charset=utf-8")
            await answer.whole(200, ENTRANCE, [*headers, kind])
        self.entered()
        return True


class _Answer:
    """The way back of one request: adds the headers that each answer has."""

    def __init__(self, send: Send):
        self.send = send
        self.has_started = False
        self.is_own = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            present = {name.lower() for name, _ in message.get("headers", [])}
            more = [
                (name.lower().encode(), value.encode())
                for name, value in HEADERS.items()
                if name.lower().encode() not in present
            ]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await self.send(message)

    async def whole(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send a whole answer."""
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body})

    async def refuse(self, refused: RefusedError) -> None:
        """Send why a request is refused, unless something was sent already."""
        if not self.has_started:
            self.is_own = True
            kind = (b"content-type", b"application/json")
            await self.whole(refused.status, refused.body(), [kind])


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key.lower() == name]
