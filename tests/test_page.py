"""The page is used in a real Chromium: by drop, paste, choice, click and keys."""

import base64
import contextlib
import io
import re
from pathlib import Path

from chromium import (
    COUNT,
    MARKS,
    browser,
    client,
    drag,
    driver,
    grid,
    ids,
    root,
    searched,
    settled,
    until,
    visit,
    visitor,
)
from PIL import Image

__all__ = ["browser", "client", "ids", "root", "visit", "visitor"]
pytestmark = MARKS
expect = driver.expect


def content_of(root, path="b/2.jpg"):
    return base64.b64encode((root / path).read_bytes()).decode()


# A file in a list that a script makes; what the browser makes itself is tested beside it.
TRANSFER = """(text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const made = new DataTransfer();
  made.items.add(new File([bytes], "mine.jpg", { type: "image/jpeg" }));
  return made;
}"""


def test_a_dropped_picture_shows_its_neighbors(visit, root):
    page = visit()
    page.evaluate(f"""(text) => {{
      const dataTransfer = ({TRANSFER})(text);
      const options = {{ dataTransfer, bubbles: true, cancelable: true }};
      document.querySelector("#grid").dispatchEvent(new DragEvent("dragenter", options));
      document.querySelector("#grid").dispatchEvent(new DragEvent("drop", options));
    }}""", content_of(root))  # fmt: skip
    assert searched(page)[0].startswith("b/2.jpg, distance 0")
    expect(page.locator("#chips li")).to_have_count(1)
    expect(page.locator("#over")).to_be_hidden()
    page.reload()
    expect(page.locator("#problem")).to_contain_text("no longer in this tab")


def test_a_picture_dragged_from_the_desktop_is_taken(visit, root):
    page = visit()
    drag(page, root / "b/2.jpg")
    assert searched(page)[0].startswith("b/2.jpg, distance 0")


def test_a_pasted_picture_shows_its_neighbors(visit, root):
    page = visit()
    page.evaluate(f"""(text) => document.body.dispatchEvent(new ClipboardEvent("paste", {{
      clipboardData: ({TRANSFER})(text), bubbles: true, cancelable: true,
    }}))""", content_of(root))  # fmt: skip
    assert searched(page)[0].startswith("b/2.jpg, distance 0")
    file = io.BytesIO()
    Image.open(root / "c/4.jpg").save(file, "PNG")
    page.evaluate("""async (text) => {
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const blob = new Blob([bytes], { type: "image/png" });
      await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    }""", base64.b64encode(file.getvalue()).decode())  # fmt: skip
    page.keyboard.press("Control+V")
    expect(page.locator(".card").first).to_have_attribute("aria-label", re.compile("^c/4.jpg"))


def test_a_chosen_picture_shows_its_neighbors(visit, root):
    page = visit()
    page.locator("#file").set_input_files(root / "a/5.jpg")
    assert searched(page)[0].startswith("a/5.jpg, distance 0")


def test_what_is_no_picture_is_answered_by_a_sentence(visit, root, tmp_path):
    visit.expected += ["422"]
    page = visit()
    said = page.locator("#problem")
    page.evaluate("""() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.setData("text/plain", "cat");
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
    }""")  # fmt: skip
    expect(said).to_contain_text("That is text")
    drag(page, root / "a/1.jpg", root / "a/2.jpg")
    expect(said).to_contain_text("Those are 2 files")
    drag(page, root / "a")
    expect(said).to_contain_text("That is a folder")
    (tmp_path / "large.jpg").write_bytes(bytes(40_000_000))
    drag(page, tmp_path / "large.jpg")
    expect(said).to_contain_text("the limit is 32 MB")
    page.keyboard.press("Escape")
    expect(said).to_be_hidden()
    (tmp_path / "words.jpg").write_text("no picture")
    page.locator("#file").set_input_files(tmp_path / "words.jpg")
    expect(said).to_contain_text("no image")
    page.locator("#home").click()
    expect(page.locator("#status")).to_have_text("The newest")


def test_back_forward_and_reload_show_equal_grids(visit):
    page = visit()
    start = grid(page)
    page.locator(".card").nth(3).click()
    first = searched(page)
    page.locator(".card").nth(5).click()
    until(page, "document.querySelector('#status').textContent")
    settled(page)
    second = grid(page)
    assert len({*map(tuple, (start, first, second))}) == 3
    for step, expected in (("go_back", first), ("go_back", start), ("go_forward", first),
                           ("go_forward", second), ("reload", second)):  # fmt: skip
        getattr(page, step)()
        until(
            page,
            "wanted => document.querySelector('.card')?.getAttribute('aria-label') === wanted",
            arg=expected[0],
        )
        settled(page)
        assert grid(page) == expected, step


def test_the_keyboard_is_enough(visit):
    page = visit()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('card')"):
            break
    seen = []
    for keys in ((), ("ArrowRight", "ArrowDown"), ("End", "Home", "PageDown", "ArrowLeft")):
        for key in keys:
            page.keyboard.press(key)
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert (
            page.evaluate(f"document.activeElement.matches('.card:focus-visible') && {outline}")
            == "solid"
        )
        chosen = page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.keyboard.press("Enter")
        until(
            page,
            "name => document.querySelector('#chips p')?.title === name",
            arg=re.split(", (distance|class) ", chosen)[0],
        )
        settled(page)
        seen.append(grid(page))
        assert page.evaluate("document.activeElement === document.querySelector('.card')")
    assert len({tuple(one) for one in seen}) == 3
    assert page.locator(".card[tabindex='0']").count() == 1
    page.keyboard.press("ArrowRight")
    page.keyboard.press("-")
    expect(page.locator("#chips li")).to_have_count(2)
    expect(page.locator("#chips .minus")).to_have_count(1)
    settled(page)
    page.keyboard.press("i")
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator("#details")).to_be_hidden()
    assert page.evaluate("document.activeElement === document.querySelectorAll('.card')[1]")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "in"


def test_offline_is_told_and_can_be_tried_again(visit):
    visit.expected += ["ERR_INTERNET_DISCONNECTED", "Failed to load resource"]
    page = visit()
    page.context.set_offline(True)
    page.locator(".card").nth(2).click()
    expect(page.locator("#problem")).to_contain_text("Is it still running?")
    page.context.set_offline(False)
    page.locator("#retry").click()
    assert "distance" in searched(page)[0]
    expect(page.locator("#problem")).to_be_hidden()


def test_the_later_of_two_searches_wins(visit):
    page = visit()
    held = []
    one, other = (page.locator(".card").nth(place).get_attribute("data-id") for place in (2, 3))
    page.route(f"**/api/search?*item={one}", lambda route: held.append(route))
    first, second = (page.locator(f".card[data-id='{number}']") for number in (one, other))
    first.click()
    until(page, "document.body.classList.contains('busy')")
    second.click()
    expected = searched(page)
    for route in held:
        with contextlib.suppress(driver.Error):  # the page has given it up
            route.continue_()
    page.unroute_all()
    page.wait_for_timeout(300)
    assert grid(page) == expected
    assert page.url.endswith(f"?item={other}")


def test_filters_narrow_and_are_in_the_address(visit, ids):
    page = visit(f"/?item={ids['a/1.jpg']}")
    everything = searched(page)
    page.locator("#label").select_option("b")
    until(page, "[...document.querySelectorAll('.card')].every(x => x.ariaLabel.startsWith('b/'))")
    assert "label=b" in page.url
    page.locator("#clear").click()
    until(page, "n => document.querySelectorAll('.card').length === n", arg=len(everything))
    distances = [int(re.search(r"distance (\d+)", label)[1]) for label in everything]
    page.locator("#max").fill(str(distances[4]))
    until(page, "!document.querySelector('#status').textContent.includes('60 of')")
    settled(page)
    assert len(grid(page)) == sum(d <= distances[4] for d in distances)
    expect(page.locator("#max-text")).to_have_text(f"{distances[4]} of 64 bits")
    expect(page.locator("#status")).to_contain_text(f"within {distances[4]} of 64 bits")
    page.reload()
    searched(page)
    assert len(grid(page)) == sum(d <= distances[4] for d in distances)
    page.locator("#sort").select_option("date")
    settled(page)
    dates = page.eval_on_selector_all(
        ".card .words p:nth-child(2)", "all => all.map(x => x.textContent.slice(-10))"
    )
    assert dates == sorted(dates, reverse=True)


def test_more_and_less_like_this_are_chips(visit, ids):
    page = visit(f"/?item={ids['a/1.jpg']}")
    searched(page)
    page.locator(".card").nth(1).click(modifiers=["Control"])
    expect(page.locator("#chips li")).to_have_count(2)
    settled(page)
    page.locator(".card").nth(2).click(modifiers=["Shift"])
    expect(page.locator("#chips .minus")).to_have_count(1)
    assert re.search(r"item=\d+&item=\d+&not=\d+", page.url)
    expect(page.locator("#max-of")).to_be_hidden()  # of one query only
    settled(page)
    card = page.locator(".card").nth(3)
    card.hover()
    card.get_by_role("button", name="more like it").click()
    expect(page.locator("#chips li")).to_have_count(4)
    page.get_by_role("button", name="Remove a/1.jpg").click()
    expect(page.locator("#chips li")).to_have_count(3)
    assert f"item={ids['a/1.jpg']}&" not in page.url


def test_details_give_the_path(visit, root, ids):
    page = visit(f"/?item={ids['a/1.jpg']}")
    searched(page)
    page.locator(".card").first.hover()
    page.locator(".card").first.get_by_role("button", name="details").click()
    until(page, "document.querySelector('#preview').naturalWidth")
    page.locator("#copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    path = page.evaluate("navigator.clipboard.readText()")
    assert Path(path).is_relative_to(root)
    with page.expect_download() as saved:
        page.locator("#original").click()
    assert Path(saved.value.path()).read_bytes() == Path(path).read_bytes()


def test_duplicates_show_the_keeper_its_reason_and_can_be_set_apart(visit, root, ids):
    page = visit("/?view=duplicates&max=0", wait=".group")
    group = page.locator(".group", has_text="copy.jpg")
    expect(group.get_by_role("heading")).to_contain_text("Keep a/3.jpg")
    expect(group.get_by_role("heading")).to_contain_text("largest: 64x48")
    expect(group.locator(".keeper")).to_have_count(1)
    before = page.locator(".group").count()
    group.get_by_role("button", name="Not duplicates").click()
    expect(page.locator(".group")).to_have_count(before - 1)
    assert "a/3.jpg, c/copy.jpg" in (root / ".jaxret/not-duplicates.txt").read_text()
    (root / ".jaxret/not-duplicates.txt").unlink()
    page.locator("#to-search").click()
    page.wait_for_selector(".card")


def test_more_images_follow_on_demand(visit):
    page = visit()
    assert page.locator(".card").count() == 60
    page.locator("#more").click()
    expect(page.locator(".card")).to_have_count(COUNT + 3)
    expect(page.locator("#more")).to_be_hidden()
    assert len(set(grid(page))) == COUNT + 3
