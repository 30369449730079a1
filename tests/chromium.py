"""The page of `jaxret serve` in a real Chromium, Debian's, without a display.

A visit fails if the page reports an error, breaks its content policy, or asks another host. No name
is resolved in this browser, so that all of it happens as with the network off.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_photos as photos
import pytest
from serving import Client, ids_of, index_by_hand, serving

CHROMIUM = shutil.which("chromium")
driver = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install -e '.[page-test]'"
)
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
SCRIPT = "<img src=x onerror=alert(1)>.jpg"
TURNED = "\u202egpj.exe\n.jpg"
COUNT = 60  # photos, beside three with odd names
PATIENCE = 10.0  # seconds


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of photos with odd names, one of them twice, and its index."""
    made = photos.make(tmp_path_factory.mktemp("page") / "photos", COUNT)
    photos.save(made / "a" / SCRIPT, 100)
    photos.save(made / "b" / TURNED, 101)
    (made / "c/copy.jpg").write_bytes((made / "a/3.jpg").read_bytes())
    index_by_hand(made)
    return made


@pytest.fixture(scope="module")
def client(root: Path):
    """The server of the folder's index."""
    with serving(root / ".jaxret") as running:
        yield running


@pytest.fixture(scope="module")
def ids(root: Path) -> dict[str, int]:
    """The id of each path."""
    return ids_of(root / ".jaxret")


@pytest.fixture(scope="module")
def browser():
    """Chromium, without names of hosts."""
    rules = "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
    with driver.sync_playwright() as playwright:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox", rules]}
        with contextlib.closing(playwright.chromium.launch(**options)) as started:
            yield started


@pytest.fixture(scope="module")
def visitor(browser, client):
    """The Visitor of the folder's page."""
    with visiting(browser, client) as made:
        yield made


@pytest.fixture
def visit(visitor):
    """Opens the folder's page; what was wrong in one test is told at its end."""
    visitor.expected.clear()
    yield visitor
    visitor.check()


class Visitor:
    """Opens pages; `expected` are words of complaints that are no error of the page."""

    def __init__(self, browser: Any, client: Client):
        self.browser, self.client = browser, client
        self.base = f"http://127.0.0.1:{client.port}"
        self.expected: list[str] = []
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.context = browser.new_context()
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.base)
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("console", self._hear)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def __call__(
        self, path: str = "", wait: str = ".card", width: int = 1100, scheme: Any = "light"
    ) -> Any:
        """Return the page at an address, with the cookie that the printed address would give."""
        page = self.page
        page.goto("about:blank")  # nothing of the test before goes on, without its cookie
        self.context.clear_cookies()
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        cookie = {"name": f"jaxret-{self.client.port}", "value": self.client.token}
        flags = {"url": self.base, "httpOnly": True, "sameSite": "Strict"}
        self.context.add_cookies([cookie | flags])
        page.goto(f"{self.base}{path or '/'}")
        page.wait_for_selector(wait)
        return page

    def _dismiss(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def check(self) -> None:
        """Fail if something was wrong, or another host was asked."""
        wrong = [x for x in self.wrong if not any(word in x for word in self.expected)]
        self.wrong.clear()  # or the next test would fail for it
        assert not wrong, wrong
        assert self.asked
        assert [x for x in self.asked if not x.startswith((self.base, "blob:", "about:"))] == []


@contextlib.contextmanager
def visiting(browser: Any, client: Client) -> Iterator[Visitor]:
    """Give a Visitor, and check at the end that nothing was wrong."""
    visitor = Visitor(browser, client)
    with contextlib.closing(visitor.context):
        yield visitor
        visitor.check()


def until(page: Any, expression: str, arg: Any = None) -> Any:
    """Return the value of an expression, or function, in the page once it is true."""
    end = time.monotonic() + PATIENCE
    while True:  # not wait_for_function: it needs eval, which the page's policy forbids
        value = page.evaluate(expression, arg)
        if value:
            return value
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def grid(page: Any) -> list[str]:
    """Return what is read aloud of each image: path, distance, class."""
    return page.eval_on_selector_all(
        ".card", "cards => cards.map(card => card.getAttribute('aria-label'))"
    )


def settled(page: Any) -> None:
    """Wait until nothing is loaded."""
    until(page, "!document.body.classList.contains('busy')")


def searched(page: Any) -> list[str]:
    """Return the grid once a search is done."""
    until(page, "document.querySelector('#status').textContent.includes('searched')")
    settled(page)
    return grid(page)


def drag(page: Any, *files: Path) -> None:
    """Drag files onto the page, as the browser sees it."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
