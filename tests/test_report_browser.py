"""The reports in a real browser: they work, ours on a phone and on a desk, and load nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabricate import CATEGORIES, EXPERIMENTS, ODD, fabricate
from indad.reporting import report, tables
from small_run import succeed

playwright = pytest.importorskip("playwright.sync_api", reason="playwright not here: make setup")

pytestmark = pytest.mark.slow

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZES = {"phone": (375, 760), "desk": (1280, 900)}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def find_chromium() -> str:
    """The browser that ``INDAD_TEST_BROWSER`` names, or one of the usual names."""
    names = (os.environ.get("INDAD_TEST_BROWSER"), "chromium", "chromium-browser", "google-chrome")
    for name in filter(None, names):
        if found := shutil.which(name):
            return found
    pytest.skip("no browser here: apt-get install chromium, or set INDAD_TEST_BROWSER")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    categories = [*CATEGORIES[: 15 - len(ODD)], *ODD]
    sources = fabricate(folder, categories, [*EXPERIMENTS[:7], ODD[0]], height=400)
    report.write(sources, folder / "report/index.html")
    return (folder / "report/index.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    """A browser; the driver gives it a profile of its own, and removes that afterwards."""
    executable = find_chromium()
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def page(request, browser, address) -> Iterator:
    """The opened report; whatever it complains of or asks for, the test fails."""
    width, height = SIZES[getattr(request, "param", "desk")]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="light",
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    opened, complaints, asked = context.new_page(), [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("dialog", lambda dialog: complaints.append(dialog.message))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    yield opened
    context.close()
    assert not complaints
    assert {url for url in asked if not url.startswith("data:")} == {address}


def column(page, number: int) -> list[str]:
    """What stands in a column of the first table, without its small print."""
    return page.eval_on_selector_all(
        f"#table-0-image_auroc tbody tr:not([hidden]) > :nth-child({number})",
        "cells => cells.map(cell => cell.dataset.v ?? cell.textContent.trim())",
    )


@pytest.mark.parametrize("page", SIZES, indirect=True)
def test_nothing_is_wider_than_the_page(page):
    assert page.evaluate(OVERFLOW) <= 0
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for tab in page.locator("[role=tab]").all():
        tab.click()
        assert page.evaluate(OVERFLOW) <= 0
    for number in (0, 11):
        page.select_option("#category", str(number))
        assert page.evaluate(OVERFLOW) <= 0


def test_sorting_goes_down_up_and_back(page):
    before = column(page, 1)
    button = page.locator("#table-0-image_auroc thead th:nth-child(4) button")
    button.click()
    values = [float(value) for value in column(page, 4)]
    assert values == sorted(values, reverse=True)
    assert page.get_attribute("#table-0-image_auroc th:nth-child(4)", "aria-sort") == "descending"
    button.press("Enter")
    assert [float(value) for value in column(page, 4)] == values[::-1]
    button.press("Enter")
    assert column(page, 1) == before
    pinned = page.locator("#table-0-image_auroc tfoot tr")
    assert pinned.last.locator("th").inner_text() == "average"


def test_the_filter_and_the_columns(page):
    page.fill("#filter", "metal nut")
    assert column(page, 1) == ["metal_nut"]
    assert page.inner_text("#filter-count") == "1 of 15"
    page.fill("#filter", "")
    assert len(column(page, 1)) == 15
    second = page.locator("#table-0-image_auroc thead th:nth-child(3)")
    assert second.is_visible()
    page.uncheck("[data-toggle='1']")
    assert not second.is_visible()
    small = page.locator("#table-0-image_auroc tbody td:nth-child(2) .ci").first
    assert small.is_visible()
    page.uncheck("[data-show=intervals]")
    assert not small.is_visible()


def test_one_category_at_a_time(page):
    shown = page.locator(".category:visible")
    assert shown.count() == 1
    page.select_option("#category", label=ODD[0])
    assert shown.count() == 1
    assert ODD[0] in shown.locator("h3").inner_text()
    assert page.url.endswith("#category-11")
    page.click("#next")
    assert ODD[1] in shown.locator("h3").inner_text()
    picture = shown.locator("figure img").first
    picture.scroll_into_view_if_needed()
    page.wait_for_function(
        "image => image.complete && image.naturalWidth > 0", arg=picture.element_handle()
    )
    page.locator("#table-0-image_auroc tbody a").nth(2).click()
    assert CATEGORIES[2] in shown.locator("h3").inner_text()
    assert page.input_value("#category") == "2"


def test_an_address_opens_its_category(page):
    page.goto(page.url + "#category-4")
    page.reload()
    assert CATEGORIES[4] in page.locator(".category:visible h3").inner_text()


def test_light_and_dark(page):
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colour)
    assert dark != "rgb(255, 255, 255)"
    assert page.inner_text("#theme") == "Light"
    page.click("#theme")
    assert page.evaluate(colour) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert page.evaluate(colour) == dark


def test_tabs_follow_the_keyboard(page):
    first = page.locator("#tab-0-image_auroc")
    first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-0-pixel_auroc").is_visible()
    assert not page.locator("#panel-0-image_auroc").is_visible()
    assert page.evaluate("document.activeElement.id") == "tab-0-pixel_auroc"


def test_a_table_is_copied_as_it_is_shown(page):
    page.uncheck("[data-toggle='0']")
    page.click("[data-copy=table-0-image_auroc]")
    page.wait_for_selector("text=Copied")
    lines = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert len(lines) == 1 + 15 + 2
    assert lines[0].startswith("category,PaDiM,PatchCore-25,")
    assert lines[0].endswith('"<script>alert(""x"")</script>"')
    assert lines[1].split(",")[0] == CATEGORIES[0]
    assert all(0 <= float(value) <= 100 for value in lines[1].split(",")[1:])


def test_marks_tell_what_they_are(page):
    mark = page.locator("#results circle.of").first
    mark.focus()
    assert page.locator("#tip").is_visible()
    assert page.inner_text("#tip").startswith("SPADE, average: ")
    mark.evaluate("mark => mark.blur()")
    assert not page.locator("#tip").is_visible()


def test_a_picture_opens_at_full_size(page):
    page.locator(".category:visible .frame button").first.click()
    assert page.locator("#zoom").is_visible()
    assert page.evaluate("document.querySelector('#zoom img').naturalWidth") == 1200
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()


def test_it_can_be_read_without_script(browser, address):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 375, "height": 700})
    opened = context.new_page()
    opened.goto(address)
    assert opened.locator(".category h3").count() == 15
    assert opened.locator(".category h3").last.is_visible()
    assert opened.locator("#panel-0-aupro").is_visible()
    assert not opened.locator("#theme").is_visible()
    context.close()


def test_it_prints(browser, address, tmp_path: Path):
    opened = browser.new_page()
    opened.goto(address)
    opened.emulate_media(media="print")
    assert opened.locator("#panel-0-aupro").is_visible()
    assert not opened.locator("nav.contents").is_visible()
    assert opened.locator(".category:visible").count() == 15
    opened.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
    opened.close()


def test_snakemakes_own_report_shows_tables_pictures_and_rules(finished, browser):
    """No script of it fails, and it loads nothing."""
    succeed(finished, "--report", "report.html")
    opened, errors, asked = browser.new_page(), [], []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    opened.on("request", lambda request: asked.append(request.url))
    address = (finished / "report.html").as_uri()

    def choose(*entries: str) -> str:
        """Open the report, click entries of its menu, and return its text."""
        opened.goto(address)
        opened.get_by_text("This run measured").wait_for()
        for entry in entries:
            opened.get_by_text(entry, exact=True).first.click()
        return opened.inner_text("#app")

    listed = choose("Tables")
    assert [title for title in tables.Layout([]).titles.values() if title not in listed] == []
    opened.locator("tr", has_text="all metrics, tidy").locator("a").last.click()
    opened.get_by_text("Every metric of every category, experiment and seed").wait_for()
    assert "aggregate" in opened.inner_text("#app").splitlines()  # the rule that makes it

    menu = {"Anomaly maps", "Comparisons", "Figures", "Report", "Tables"}
    assert menu <= set(choose().splitlines())
    opened.get_by_text("Anomaly maps", exact=True).first.click()
    opened.get_by_text("drawn", exact=True).first.click()
    opened.locator("tr", has_text="wood").locator("a").first.click()
    picture = opened.locator("img[src^='data:image/png']")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 500

    choose("Workflow")
    opened.locator("canvas").wait_for()
    known = set(opened.evaluate("Object.keys(rules)"))
    assert {"extract", "score", "evaluate", "aggregate"} <= known
    assert not errors
    assert {url for url in asked if not url.startswith("data:")} == {address}
