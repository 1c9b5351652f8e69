"""The pages as a browser shows them: no errors, sorting, searching, links between list and picture, speed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from reparamkit.compare.compare import compare
from reparamkit.compare.inputs.input_spec import parse
from reparamkit.hosts.fx.outline import Call, Outline
from reparamkit.report.check_document import Document
from reparamkit.report.check_html import html
from reparamkit.report.findings import Report
from reparamkit.report.fold_html import fold_html
from tests.compare.files import small, spoilt
from tests.report.networks import report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright, of the extra test, drives the browser"
)
pytest.importorskip("pygraphviz", reason="pygraphviz, of the extra html, lays the pictures out")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SIZES = [(1280, 900), (390, 844)]
_THEMES = ["light", "dark"]
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"there is no browser here ({', '.join(_BROWSERS)})")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page's text; a complaint of the browser, or a request of the page, fails the test."""
    pages, complaints, requests = list[Any](), list[str](), list[str]()

    def open_page(text: str, size: tuple[int, int] = _SIZES[0], theme: str = "light") -> Any:
        file = tmp_path / f"page{len(pages)}.html"
        file.write_text(text, encoding="utf-8")
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not complaints
    assert len(requests) == len(pages), "a page asks for nothing but itself"


@pytest.fixture(scope="module")
def fold_page() -> str:
    return fold_html(report())


@pytest.fixture(scope="module")
def check_page() -> str:
    found = compare(small(), spoilt(), described=parse(["1x3x12x10"])).comparison.as_dict(
        "reparamkit check a b"
    )
    return html(cast("Document", json.loads(json.dumps(found))))


@pytest.mark.parametrize("theme", _THEMES)
@pytest.mark.parametrize("size", _SIZES, ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", ["fold", "check"])
def test_it_fits_and_follows_the_theme(
    opened: Open, fold_page: str, check_page: str, kind: str, size: tuple[int, int], theme: str
) -> None:
    page = opened(fold_page if kind == "fold" else check_page, size, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    paper = "getComputedStyle(document.body).backgroundColor"
    given = page.evaluate(paper)
    assert (given == "rgb(255, 255, 255)") == (theme == "light")
    page.click("#theme")
    other = page.evaluate(paper)
    assert (other == "rgb(255, 255, 255)") == (theme == "dark")
    page.click("#theme")
    assert page.evaluate(paper) == given
    assert page.locator(".verdict").bounding_box()["y"] < size[1] / 3, "the verdict is seen first"


def rows(page: Any, table: str, column: int) -> list[str]:
    texts: list[str] = page.locator(
        f"{table} tbody tr:not(.detail):visible td:nth-child({column})"
    ).all_inner_texts()
    return texts


def test_tables_sort(opened: Open, fold_page: str) -> None:
    page = opened(fold_page)
    before = rows(page, "#folds", 2)
    assert before == ["1", "4"]
    head = page.locator("#folds th", has_text="times")
    head.click()
    assert rows(page, "#folds", 2) == ["1", "4"]
    head.click()
    assert rows(page, "#folds", 2) == ["4", "1"]
    assert head.get_attribute("aria-sort") == "descending"
    assert page.evaluate(
        "[...document.querySelectorAll('tr.fold')].every(row => row.nextElementSibling.matches('tr.detail'))"
    ), "details stay with their rows"
    counts = page.locator("#operators th", has_text="before")
    counts.click()
    numbers = [int(text) for text in rows(page, "#operators", 2)]
    assert numbers == sorted(numbers)


def test_search_hides_rows_and_fades_boxes(opened: Open, fold_page: str) -> None:
    page = opened(fold_page)
    count = len(rows(page, "#folds", 1)) + len(rows(page, "#stays", 1))
    page.fill("#search", "blocks.2")
    assert len(rows(page, "#folds", 1)) == 1
    assert page.inner_text("#hits") == f"{len(rows(page, '#folds', 1)) + len(rows(page, '#stays', 1))} rows"
    page.fill("#search", "9×9")
    assert (
        0 < page.locator("#picture-before .node.hit").count() < page.locator("#picture-before .node").count()
    )
    faded = page.locator("#picture-before .node:not(.hit)").first
    assert float(faded.evaluate("box => getComputedStyle(box).opacity")) < 1
    page.fill("#search", "")
    assert len(rows(page, "#folds", 1)) + len(rows(page, "#stays", 1)) == count
    assert page.locator(".net.searching").count() == 0


def test_list_and_picture_lead_to_each_other(opened: Open, fold_page: str) -> None:
    page = opened(fold_page)
    row = page.locator("tr.fold", has_text="blocks.0 … blocks.3")
    detail = row.locator("xpath=following-sibling::tr[1]")
    assert not detail.is_visible()
    row.click()
    assert detail.is_visible()
    assert page.locator("#picture-after .node.marked").count() == 1
    assert "conv2d 9×9" in page.locator("#picture-after .node.marked").text_content()
    assert page.locator("#picture-before .cluster.marked").count() == 1
    assert page.locator(".chart .point.marked").count() == 4
    row.click()
    assert not detail.is_visible()
    assert page.locator(".marked").count() == 0
    page.locator("#picture-after .node.folded").nth(1).click()
    assert detail.is_visible()
    assert page.locator("#picture-before .cluster.marked").count() == 1
    page.locator(".chart .point.linked").first.click()
    assert page.locator("tr.fold[aria-expanded=true]").count() == 2


def test_large_kernels_are_painted(opened: Open, fold_page: str) -> None:
    page = opened(fold_page)
    page.locator("tr.fold", has_text="blocks.0 … blocks.3").click()
    canvases = page.locator("canvas[data-kernel]:visible")
    assert canvases.count() == 3
    shades = canvases.first.evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((_, place) => place % 4 === 3)).size"
    )
    assert shades > 10


def test_pictures_zoom(opened: Open, fold_page: str) -> None:
    page = opened(fold_page)
    width = "document.querySelector('#picture-before svg').getBoundingClientRect().width"
    first = page.evaluate(width)
    page.click("#picture-before button[data-zoom=in]")
    assert page.evaluate(width) == pytest.approx(1.3 * first, rel=1e-3)
    page.click("#picture-before button[data-zoom=whole]")
    whole = page.evaluate(width)
    view = page.locator("#picture-before .view")
    assert view.evaluate("v => v.scrollHeight <= v.clientHeight + 1 && v.scrollWidth <= v.clientWidth + 1")
    assert whole < first * 1.3


def large(operators: int) -> Report:
    """A network in which no block is like another."""
    calls = [Call("x", "input", "", shape=(1, 3, 64, 64))]
    for index in range(operators // 3):
        module = f"stage{index // 60}.block{index // 6}.layer{index}"
        into = calls[-1].name
        channels, ones = (index + 8, index + 9), (1, 1)
        conv = Call(f"conv{index}", "conv2d", module, "", (into,), (), (3, 3), ones, ones, channels)
        norm = Call(f"norm{index}", "batch_norm", module, reads=(conv.name,))
        reads = (norm.name, into) if index % 3 else (norm.name,)
        calls += [conv, norm, Call(f"last{index}", "add" if index % 3 else "relu", module, reads=reads)]
    outlined = Outline(tuple(calls), 10**6)
    fold = report().folds[0]
    folds = [
        dataclasses.replace(
            cast("Any", fold), where=f"f{i}", nodes=(f"conv{i}", f"norm{i}"), layers={f"l{i}": f"Conv2d {i}"}
        )
        for i in range(operators // 3)
    ]
    return dataclasses.replace(report(), name="large", outlines=(outlined, outlined), folds=folds)


def test_a_network_of_1300_operators_opens_within_two_seconds(opened: Open) -> None:
    text = fold_html(large(1300))
    started = time.perf_counter()
    page = opened(text)
    page.wait_for_function(
        "document.querySelector('#picture-before svg').getBoundingClientRect().width > 100"
    )
    assert time.perf_counter() - started < 2
    assert len(rows(page, "#folds", 1)) == 433


def test_the_page_of_a_check(opened: Open, check_page: str) -> None:
    page = opened(check_page)
    assert page.inner_text(".verdict strong >> nth=0") == "DIFFERENT"
    assert page.locator(".chart .point.bad").count() > 0
    page.fill("#search", "checkerboard")
    assert page.locator("table.searchable tbody tr:visible").count() >= 2
