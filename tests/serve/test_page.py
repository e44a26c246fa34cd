"""The page in a real browser, used as a person would: look, hide and ask, search, find out why, see the map, label; and
nothing that a table holds runs.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import drawing, tone
from live_server import Served, wait_until

from sensorium.model import Model

pytestmark = pytest.mark.browser

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SHOTS = os.environ.get("SENSORIUM_SHOTS")
"""A folder for pictures of the page, to be looked at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        raise RuntimeError("Chromium is needed: apt-get install chromium")
    with sync_api.sync_playwright() as playing:
        browser = playing.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"],
        )
        yield browser
        browser.close()


@pytest.fixture
def wrong() -> list[str]:
    """What the browser complains of."""
    return []


def opened(
    browser: sync_api.Browser, served: Served, wrong: list[str], at: str = "/", **given: object
) -> sync_api.Page:
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 800}, "accept_downloads": True} | given)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on(
        "request",
        lambda request: (
            wrong.append(f"asked {request.url}")
            if not request.url.startswith((f"http://127.0.0.1:{served.port}/", "data:", "blob:"))
            else None
        ),
    )
    page.goto(f"http://127.0.0.1:{served.port}{at}")
    return page


@pytest.fixture
def page(browser: sync_api.Browser, served: Served, wrong: list[str]) -> Iterator[sync_api.Page]:
    page = opened(browser, served, wrong)
    page.wait_for_selector(".rows .cell img")
    yield page
    page.context.close()
    assert not wrong


def shot(page: sync_api.Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def until(page: sync_api.Page, true: str, seconds: float = 30) -> None:
    """Until an expression is true; the page's own policy forbids Playwright to wait for one."""
    wait_until(lambda: page.evaluate(true), seconds)


def cell(page: sync_api.Page, row: int, column: int) -> sync_api.Locator:
    return page.locator(f".rows [data-place='{row}'] [data-column='{column}']")


def column_of(page: sync_api.Page, name: str) -> int:
    return page.locator(".row.head [role=columnheader]").all_inner_texts().index(name) - 1


def test_the_sheet_shows_every_kind_of_cell(page: sync_api.Page, shown: pa.Table) -> None:
    assert page.locator("#about").inner_text() == "tiny · 40 rows of shown"
    assert cell(page, 2, column_of(page, "name")).inner_text() == shown["name"][2].as_py()
    assert (
        cell(page, 0, column_of(page, "curve")).locator("svg path").count() == 2
        and cell(page, 0, column_of(page, "tone")).locator("button").count() == 1
    )
    page.set_viewport_size({"width": 700, "height": 700})
    cell(page, 2, column_of(page, "curve")).click()  # columns beyond the window are reached, too
    assert page.locator("#panel h2").inner_text() == "curve of row 2"
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 1300, "height": 800})
    page.locator(".grid").evaluate("grid => { grid.scrollTop = 1e6 }")
    page.wait_for_selector(".rows [data-place='39'] .cell")
    assert page.locator(".rows .row").count() < 30
    shot(page, "sheet")


def test_rows_are_filtered_and_a_wrong_condition_is_said(
    page: sync_api.Page, shown: pa.Table, wrong: list[str]
) -> None:
    page.fill("input[type=search]", 'colour = "red" and width > 20')
    page.click("text=Filter")
    wanted = sum(
        colour == "red" and (width or 0) > 20
        for colour, width in zip(shown["colour"].to_pylist(), shown["width"].to_pylist(), strict=True)
    )
    until(page, f"document.querySelector('.count').textContent === '{wanted} rows'")
    cells = page.locator(f".rows [data-column='{column_of(page, 'colour')}']")
    wait_until(
        lambda: "" not in cells.all_inner_texts(), 30
    )  # the count stands before the rows that it counts have come
    assert set(cells.all_inner_texts()) == {"red"}
    page.fill("input[type=search]", "colour >")
    page.click("text=Filter")
    page.wait_for_selector("#notice.bad:not(:empty)")
    assert [words for words in wrong if "422" in words] == wrong
    wrong.clear()


def test_it_is_walked_through_with_the_keys(page: sync_api.Page) -> None:
    page.locator(".grid").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    heading = page.wait_for_selector("#panel h2")
    assert heading.inner_text().endswith("of row 2") and page.evaluate(
        "document.activeElement === document.querySelector('#panel h2')"
    )
    page.keyboard.press("Escape")
    assert (
        page.locator("#panel").is_hidden()
        and page.evaluate("document.activeElement.getAttribute('role')") == "gridcell"
    )
    page.keyboard.press("End")
    page.wait_for_selector(".rows [data-place='39'] .cell")
    page.locator("[role=tab][aria-selected=true]").focus()
    page.keyboard.press("ArrowRight")
    assert (
        page.evaluate("document.activeElement.textContent") == "Search" and page.locator("section.search").count() == 1
    )


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("colour", ".answer strong"),
        ("width", ".answer p"),
        ("name", ".answer strong"),
        ("picture", ".samples img"),
        ("tone", ".samples audio"),
        ("curve", ".samples svg"),
    ],
)
def test_a_cell_is_hidden_and_asked_for(page: sync_api.Page, column: str, what: str) -> None:
    cell(page, 4, column_of(page, column)).click(position={"x": 120, "y": 60})
    boxes = page.locator("#panel fieldset input")
    assert boxes.count() >= 4 and page.locator("#panel .truth").count() == 1
    boxes.nth(0).uncheck()
    page.click("text=Hide it and ask")
    page.wait_for_selector(what)
    if column == "picture":
        until(page, "[...document.querySelectorAll('.samples img')].every(one => one.naturalWidth === 16)")
        assert page.locator(what).count() == 4
    if column == "tone":
        until(page, "document.querySelector('.samples audio').duration > 0.05")
    shot(page, f"asked-{column}")


def test_it_says_why(page: sync_api.Page, shown: pa.Table) -> None:
    cell(page, 4, column_of(page, "colour")).click()
    page.click("text=Why?")
    page.wait_for_selector(".bars", timeout=60_000)
    assert (
        page.locator(".bars tr").count() >= 4
        and page.locator(".over rect").count() >= 9
        and page.locator(".words mark").count() == len(shown["name"][4].as_py().split())
    )
    until(page, "[...document.querySelectorAll('.stack img')].every(one => one.naturalWidth > 0)")
    assert page.locator(".stack.wide").count() == sum(shown[name][4].is_valid for name in ("tone", "curve")), (
        "heat lies on the spectrogram and on the channels, too"
    )
    shot(page, "why")
    for way in ("gradients", "attention"):
        before = page.locator(".over rect").first.evaluate(
            "one => [...one.parentNode.children].map(rect => rect.style.fill).join()"
        )
        page.locator("select").filter(has_text="leaving parts out").select_option(way)
        page.click("text=Why?")
        until(
            page,
            f"document.querySelector('.over') && [...document.querySelector('.over').children].map(rect => "
            f"rect.style.fill).join() !== {json.dumps(before)}",
            60,
        )
        shot(page, f"why-{way}")
    page.locator(".near .example").first.click()
    until(page, "!document.querySelector('#panel h2').textContent.endsWith('row 4')")


def test_rows_are_searched_by_words_files_drops_and_records(page: sync_api.Page, shown: pa.Table) -> None:
    page.click("[role=tab]:has-text('Search')")
    page.fill("input[aria-label=name]", "red bar")
    page.click("form .main")
    page.wait_for_selector(".results .card")
    assert page.locator(".results .card").count() == 40
    page.set_input_files(
        "input[aria-label=picture]", {"name": "x.png", "mimeType": "image/png", "buffer": shown["picture"][6].as_py()}
    )
    page.wait_for_selector(".preview img")
    page.locator("input[aria-label='How much name counts']").fill("0")
    page.get_by_label("Only rows where").fill("width > 5")
    page.click("form .main")
    until(page, "document.querySelectorAll('.results .card').length < 40")
    shot(page, "search")
    page.evaluate(
        """bytes => {
            const data = new DataTransfer(), name = "<img src=x onerror=alert(1)>.png";
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
            document.querySelector("section.search").dispatchEvent(drop);
        }""",
        list(shown["picture"][9].as_py()),
    )
    until(page, "document.querySelector('#notice').textContent.includes('rows in')")
    page.click(".record")
    page.wait_for_selector("text=■ Stop")
    time.sleep(0.5)
    page.click(".record")
    page.wait_for_selector(".preview audio")
    page.click("form .main")
    page.wait_for_selector(".results .card")
    page.locator(".results .card").first.click()
    page.wait_for_selector("#panel h2")


def test_rows_are_seen_on_a_map_and_caught_with_a_lasso(page: sync_api.Page) -> None:
    page.click("[role=tab]:has-text('Map')")
    page.wait_for_selector(".legend li")
    assert set(page.locator(".legend li").all_inner_texts()) >= {"red", "green", "blue"}
    box = page.locator("canvas.map").bounding_box()
    page.click("text=Lasso")
    corners = [(2, 2), (box["width"] - 2, 2), (box["width"] - 2, box["height"] - 2), (2, box["height"] - 2), (2, 2)]
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=3)
    page.mouse.up()
    page.wait_for_selector(".results.small .card")
    assert page.locator(".results.small .card").count() >= 36
    shot(page, "map")
    page.locator("canvas.map").focus()
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    page.select_option(".mapped select", "width")
    until(page, "document.querySelectorAll('.legend li').length === 2")


def test_a_map_of_a_hundred_thousand_rows_is_moved_and_asked(page: sync_api.Page) -> None:
    points = [[number % 40, (number % 400) / 400, (number // 400) / 250] for number in range(100_000)]
    page.route("**/table/map", lambda route: route.fulfill(json={"points": points, "columns": ["colour", "width"]}))
    page.click("[role=tab]:has-text('Map')")
    page.wait_for_selector(".legend li")
    box = page.locator("canvas.map").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    before = time.monotonic()
    for _ in range(10):
        page.mouse.wheel(0, -120)
    page.mouse.move(middle[0] + 3, middle[1] + 3)
    until(page, "!document.querySelector('.tip').hidden")
    print(f"ten steps of the wheel and a look: {time.monotonic() - before:.2f} s")
    # In the middle of the map lies row 200 of line 125 or one of its neighbours, whose number is the rest of 40.
    assert int(page.locator(".tip").inner_text().split()[-1]) % 40 in {(200 + step) % 40 for step in range(-6, 7)}
    coloured = page.evaluate(
        "(() => { const c = document.querySelector('canvas.map'), d = c.getContext('2d').getImageData(c.width / 2 - "
        "20, c.height / 2 - 20, 40, 40).data; return new Set(new Uint32Array(d.buffer)).size; })()"
    )
    assert coloured > 1
    shot(page, "map-large")


def test_more_classes_than_digits_have_keys_too(page: sync_api.Page) -> None:
    def more(route: sync_api.Route) -> None:
        answer = route.fetch()
        about = answer.json()
        about["columns"]["colour"]["classes"] += [f"class{number}" for number in range(40)]
        route.fulfill(response=answer, json=about)

    page.route("**/columns", more)
    page.reload()
    page.click("[role=tab]:has-text('Label')")
    page.click("text=Find what it is unsure of")
    page.wait_for_selector(".labelling kbd")
    keys = page.locator(".labelling .chips kbd").all_inner_texts()
    assert keys[:10] == [*"123456789a"] and len(keys) == 36
    row = page.locator(".labelling p").inner_text()
    page.keyboard.press("b")
    until(page, f"document.querySelector('.labelling p').textContent !== {json.dumps(row)}")
    page.wait_for_selector("text=1 corrected")
    row = page.locator(".labelling p").inner_text()
    page.select_option(".labelling select[aria-label='More classes']", "class39")
    until(page, f"document.querySelector('.labelling p').textContent !== {json.dumps(row)}")
    page.wait_for_selector("text=2 corrected")


def test_labels_are_corrected_and_saved_as_a_table_that_fit_takes(
    page: sync_api.Page, shown: pa.Table, quick_fit: Callable[..., Model]
) -> None:
    page.click("[role=tab]:has-text('Label')")
    page.click("text=Find what it is unsure of")
    page.wait_for_selector(".labelling kbd")
    shot(page, "label")
    changed = {}
    for _ in range(14):
        row = int(page.locator(".labelling p").inner_text().split()[1].rstrip(":"))
        choices = [words.split(" ", 1)[1] for words in page.locator(".labelling .chips button").all_inner_texts()]
        pick = choices.index("blue")
        page.keyboard.press(str(pick + 1))
        if shown["colour"][row].as_py() != "blue":
            changed[row] = "blue"
        until(page, f"!document.querySelector('.labelling p').textContent.startsWith('Row {row}:')")
    assert changed
    with page.expect_download() as waiting:
        page.click("text=Save corrections")
    saved = pq.read_table(io.BytesIO(Path(waiting.value.path()).read_bytes()))
    assert (
        saved.num_rows == len(changed)
        and set(saved["colour"].to_pylist()) == {"blue"}
        and saved.column_names == shown.column_names
    )
    assert sorted(saved["name"].to_pylist(), key=str) == sorted(
        (shown["name"][row].as_py() for row in changed), key=str
    )
    assert quick_fit(pa.concat_tables([shown, saved])).columns


def test_the_card_says_what_the_model_is(page: sync_api.Page) -> None:
    page.click("[role=tab]:has-text('Model')")
    assert {"picture", "name", "colour"} <= set(page.locator(".model .wide th[scope=row]").all_inner_texts())
    shot(page, "model")


@pytest.mark.parametrize("given", [{"viewport": {"width": 390, "height": 780}}, {"color_scheme": "dark"}])
def test_phones_and_the_dark_see_it_too(
    browser: sync_api.Browser, served: Served, wrong: list[str], given: dict
) -> None:
    page = opened(browser, served, wrong, **given)
    page.wait_for_selector(".rows .cell img")
    cell(page, 0, 0).click()
    page.wait_for_selector("#panel .truth img")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, "phone" if "viewport" in given else "dark")
    page.context.close()
    assert not wrong


def test_the_routes_are_described(browser: sync_api.Browser, served: Served, wrong: list[str]) -> None:
    page = opened(browser, served, wrong, "/docs")
    page.wait_for_selector("code:has-text('POST /predict')")
    page.context.close()
    assert not wrong


EVIL = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "javascript:alert(3)",
    '"><svg onload=alert(4)>',
    "{{7*7}}",
    "</td><iframe src=javascript:alert(5)>",
]


def test_nothing_that_a_table_holds_runs(
    browser: sync_api.Browser, started: Callable[..., Served], kept: tuple, tmp_path: Path, wrong: list[str]
) -> None:
    rows = 12
    picture = drawing("red", "bar", 1)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(6)'><script>alert(7)</script></svg>"
    table = pa.table(
        {
            "picture": [picture, svg] + [picture] * (rows - 2),
            "name": [EVIL[n % len(EVIL)] for n in range(rows)],
            "colour": [EVIL[n % 3] for n in range(rows)],
            "width": [1.0] * rows,
            "tone": [tone(300.0)] * rows,
            EVIL[0]: [EVIL[n % len(EVIL)] for n in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "evil<b>.parquet")
    told: list[str] = []
    Model.load(kept[0]).index(table, tmp_path / "index", note=told.append)
    assert any("can't be read" in words for words in told) and any(
        "'colour': none of its cells" in words for words in told
    )
    served = started(str(tmp_path / "index"), "--table", str(tmp_path / "evil<b>.parquet"), index=False)
    page = opened(browser, served, wrong)
    page.wait_for_selector(".rows .cell img")
    assert EVIL[0] in page.locator(".row.head").inner_text() and EVIL[0] in page.locator(".rows").inner_text()
    cell(page, 0, column_of(page, "name")).click()
    page.click("text=Why?")
    page.wait_for_selector(".bars", timeout=60_000)
    page.click("[role=tab]:has-text('Search')")
    page.fill("input[aria-label=name]", EVIL[1])
    page.click("form .main")
    page.wait_for_selector(".results .card")
    page.click("[role=tab]:has-text('Map')")
    page.wait_for_selector(f".mapped option:has-text('{EVIL[0][:8]}')", state="attached")
    page.select_option(".mapped select", EVIL[0])
    page.wait_for_selector(".legend li")
    page.click("[role=tab]:has-text('Label')")
    page.click("text=Find what it is unsure of")
    page.wait_for_selector(".labelling kbd")
    page.wait_for_timeout(500)
    page.context.close()
    assert not [
        words for words in wrong if "dialog" in words or "asked" in words or "Content Security Policy" in words
    ], wrong
