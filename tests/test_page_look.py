"""The page as it is seen and heard, and what other pages see of it, in a real Chromium."""

import contextlib
import http.server
import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chromium import (
    MARKS,
    PATIENCE,
    SCRIPT,
    browser,
    client,
    driver,
    ids,
    root,
    searched,
    until,
    visit,
    visiting,
    visitor,
)
from PIL import Image
from serving import index_by_hand, serving

__all__ = ["browser", "client", "ids", "root", "visit", "visitor"]
pytestmark = MARKS
expect = driver.expect


def test_everything_is_read_aloud(visit, client, ids):
    page = visit(f"/?item={ids['a/1.jpg']}")
    found = client.ask(f"/api/search?item={ids['a/1.jpg']}&k=60").json["results"]
    for image in found[:20]:
        if "/" in image["path"] and image["path"].isascii() and "<" not in image["path"]:
            same = "the same" if image["label"] == "a" else "another"
            name = f"{image['path']}, distance {image['distance']}, class {image['label']}, {same}"
            expect(page.get_by_role("gridcell", name=name, exact=True)).to_have_count(1)
            expect(page.get_by_alt_text(name, exact=True)).to_have_count(1)
    columns = int(page.locator("#grid").get_attribute("data-width"))
    assert page.get_by_role("row").count() == -(-len(found) // columns) > 1
    tree = page.locator("body").aria_snapshot()
    assert "- status: 60 of" in tree
    for name in ("Folder", "Class", "From", "To", "Distance up to", "Sort by", "Show", "Colours"):
        assert (
            re.search(rf'(combobox|textbox|slider|.*) "{name}', tree)
            or page.get_by_label(name).count()
        )
    nameless = page.eval_on_selector_all(
        "button, a, input, select",
        """all => all
          .filter(one => !(one.textContent.trim() || one.labels?.length || one.ariaLabel))
          .map(one => one.outerHTML)""",
    )
    assert nameless == []


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = (color) => [...rgba(color)].slice(0, 3).map((x) => x / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const color = getComputedStyle(one).backgroundColor;
      if (rgba(color)[3] > 200) return color;
    }
    return "white";
  };
  const worst = [];
  for (const one of document.querySelectorAll("body *")) {
    const text = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !one.checkVisibility({ opacityProperty: true })) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) worst.push([one.outerHTML.slice(0, 90), ratio]);
  }
  return worst;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast_in_both_schemes(visit, ids, scheme, tmp_path):
    page = visit(f"/?item={ids['a/1.jpg']}&item={ids['a/2.jpg']}&not=5", scheme=scheme)
    searched(page)
    for width in (320, 768, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        picture = Image.open(io.BytesIO(page.screenshot())).convert("L")
        corner = picture.getpixel((3, 890))
        assert corner > 200 if scheme == "light" else corner < 60
    assert page.evaluate(CONTRAST) == []
    page.locator("#to-duplicates").click()
    page.wait_for_selector(".group")
    assert page.evaluate(CONTRAST) == []


def test_a_chosen_scheme_is_kept(visit):
    page = visit(scheme="light")
    page.locator("#theme").select_option("dark")
    page.reload()
    page.wait_for_selector(".card")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").select_option("")
    assert max(map(int, re.findall(r"\d+", ground)[:3])) < 60


@pytest.mark.parametrize("width", [320, 768, 1920])
def test_it_fits_screens_of_any_width(visit, ids, width):
    page = visit(f"/?item={ids['a/1.jpg']}&not=5", width=width)
    searched(page)
    if width == 320:
        page.locator("#to-filters").click()
    for step in ("search", "details", "duplicates"):
        if step == "details":
            page.locator(".card").first.focus()
            page.keyboard.press("i")
            page.wait_for_selector("#details[open]")
        if step == "duplicates":
            page.keyboard.press("Escape")
            page.locator("#to-duplicates").click()
            page.wait_for_selector(".group")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.eval_on_selector_all(
            "button, a, select, input, .choose", """all => all.filter(one => one.checkVisibility())
              .filter(one => !one.closest('.away, .skip') && !one.matches('.away, .skip'))
              .map(one => [one.outerHTML, one.getBoundingClientRect()])
              .filter(([, box]) => Math.min(box.width, box.height) < 24)""")  # fmt: skip
        assert small == []


def test_a_thousand_results_are_scrolled(browser, tmp_path):
    for number in range(1001):
        Image.new("RGB", (8, 8), (number % 256, number // 4 % 256, 90)).save(
            tmp_path / f"{number}.png"
        )
    with serving(index_by_hand(tmp_path)) as many, visiting(browser, many) as visit:
        page = visit("/?item=0&k=1000")
        searched(page)
        assert page.locator(".card").count() == 1000
        page.locator(".card").first.focus()
        page.keyboard.press("End")
        last = page.locator(".card").last
        expect(last).to_be_in_viewport()
        until(page, "[...document.querySelectorAll('.card img')].at(-1).naturalWidth")
        loaded = page.eval_on_selector_all(
            ".card img", "all => all.filter(x => x.naturalWidth).length"
        )
        assert loaded < 500  # the others are not asked for before they are near


def test_results_are_there_before_their_pictures_on_a_slow_line(visit, ids):
    page = visit("/?in=c")
    held = []
    page.route("**/thumb/*", lambda request: held.append(request))  # as long as it takes
    page.locator("#in").select_option("b")
    until(page, "document.querySelector('.card').ariaLabel.startsWith('b/')")
    until(page, "document.querySelector('.card img').naturalWidth === 0")
    end = time.monotonic() + PATIENCE
    while not held and time.monotonic() < end:
        page.wait_for_timeout(20)
    assert held
    for request in held:
        request.continue_()
    page.unroute("**/thumb/*")
    until(page, "document.querySelector('.card img').naturalWidth > 0")


def test_names_are_text_and_show_what_is_hidden(visit, ids):
    page = visit(f"/?item={ids['a/1.jpg']}&k=200")
    labels = searched(page)
    assert any(label.startswith(f"a/{SCRIPT}, distance") for label in labels)
    assert any(label.startswith("b/\\u{202e}gpj.exe\\u{a}.jpg, distance") for label in labels)
    assert page.locator("img[src='x']").count() == 0
    page.locator(f".card[data-id='{ids['a/' + SCRIPT]}']").focus()
    page.keyboard.press("i")
    expect(page.locator("#details-name")).to_have_text(f"a/{SCRIPT}")


ATTACK = """<!doctype html><title>elsewhere</title>
<img id="img" src="{base}/thumb/1"><iframe id="frame" src="{base}/"></iframe>
<script>
const tried = {{}};
const sent = {{ method: "POST", body: '{{"ids":[1,2]}}', credentials: "include" }};
const attempt = async (name, options) => {{
  try {{
    const answer = await fetch("{base}" + name, options);
    tried[name + answer.type] = await answer.text();
  }} catch {{
    tried[name] = "failed";
  }}
}};
(async () => {{
  await attempt("/api/info", {{ credentials: "include" }});
  await attempt("/api/items/1", {{ credentials: "include", mode: "no-cors" }});
  const headers = {{ "Content-Type": "image/jpeg" }};
  await attempt("/api/search", {{ ...sent, headers }});
  await attempt("/api/ignore", {{ ...sent, mode: "no-cors" }});
  window.tried = tried;
}})();
</script>
<form id="form" method="post" enctype="text/plain" action="{base}/api/ignore">
<input name='{{"ids":[1,2],"x":"' value='"}}'></form>"""


def test_a_page_of_another_origin_cannot_read_write_or_embed(visit, browser, client, root):
    body = ATTACK.format(base=f"http://127.0.0.1:{client.port}").encode()

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        page = visit()  # the browser has the cookie
        page = page.context.new_page()
        answers = []
        page.on("response", lambda response: answers.append((response.url, response.status)))
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        until(page, "window.tried")
        tried = page.evaluate("window.tried")
        assert tried["/api/info"] == tried["/api/search"] == "failed"
        assert set(tried.values()) <= {"failed", ""}  # an opaque answer is empty
        assert page.evaluate("document.querySelector('#img').naturalWidth") == 0
        assert page.evaluate("document.querySelector('#frame').contentDocument") is None
        with page.expect_navigation():
            page.evaluate("document.querySelector('#form').submit()")
        assert "forbidden" in page.content()
        ours = {status for url, status in answers if f":{client.port}/" in url}
        assert ours == {403}
        assert not (root / ".jaxret/not-duplicates.txt").exists()
        page.close()
    finally:
        server.shutdown()
        server.server_close()
    assert client.ask("/api/search?item=1").status == 200


def test_open_leads_to_the_page_and_tells_no_one_the_token(browser, root, tmp_path):
    opener = tmp_path / "opener"
    steps = ('stat -c %a "${1#file://}" > mode', 'echo "$1" > new', "mv new opened")
    opener.write_text("\n".join(("#!/bin/sh", f"cd {tmp_path}", *steps, "")))
    opener.chmod(0o755)
    command = [sys.executable, "-m", "jaxret.app.cli", "serve", str(root), "--port", "0", "--open"]
    environment = os.environ | {"BROWSER": str(opener), "TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=environment, cwd=tmp_path, **pipes) as process:
        try:
            address = process.stdout.readline().strip()
            for _ in range(200):
                if (tmp_path / "opened").exists():
                    break
                threading.Event().wait(0.05)
            file = (tmp_path / "opened").read_text().strip()
            assert (tmp_path / "mode").read_text().strip() == "600"
            assert address.partition("token=")[2] not in file
            with contextlib.closing(browser.new_context()) as context:
                page = context.new_page()
                page.goto(file)
                page.wait_for_selector(".card")
                assert page.url == address.partition("?")[0]
        finally:
            process.terminate()
            process.wait(20)
    assert not Path(file.removeprefix("file://")).exists()
