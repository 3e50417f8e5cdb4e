"""The page of rows of all kinds from six kinds of hardware, looked at as a reader would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_rows import keep_prices
from rich_rows import GPU, LONG_HISTORY, rich_results
from test_report_browser import choose, hover, labelled_rows, pytestmark, still

from convmark.core.option import ReportOptions
from convmark.report.command import report

__all__ = ["pytestmark"]

FIGURES = ["architectures", "hardware", "history", "batch", "batch", "distribution", "pareto",
           "published", "roofline", "scaling", "cores", "waterfall"]  # fmt: skip

OVERLAPS = """
const shown = (e) => e.textContent.trim() && getComputedStyle(e).opacity !== '0'
  && getComputedStyle(e).visibility !== 'hidden';
return [...document.querySelectorAll('.drawing')].flatMap((drawing) => {
  const texts = [...drawing.querySelectorAll('svg text')].filter(shown);
  const boxes = texts.map((e) => e.getBoundingClientRect());
  const found = [];
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3) {
      found.push(`${drawing.id}: ${texts[i].textContent} / ${texts[i + j + 1].textContent}`);
    }
  }));
  return found;
});
"""
"""Words of a figure that cover each other; boxes of text have some air above and below."""

CUT = """
return [...document.querySelectorAll('.drawing')].flatMap((drawing) => {
  const frame = drawing.getBoundingClientRect();
  return [...drawing.querySelectorAll('svg text')].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && getComputedStyle(e).opacity !== '0'
      && (box.left < frame.left - 1 || box.right > frame.right + 1);
  }).map((e) => `${drawing.id}: ${e.textContent}`);
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich")
    prices = str(keep_prices(folder, GPU))
    report(
        [rich_results(folder)],
        output=str(folder / "report.html"),
        options=ReportOptions(prices=prices),
    )
    return folder / "report.html"


@pytest.fixture(scope="module", params=[400, 1400], ids=["phone", "wide"])
def width(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture
def opened(browser: Any, page: Path, width: int) -> Any:
    """The page, which no test here leaves changed."""
    return still(browser, page, width=width, scheme="dark")


@pytest.fixture
def wide(browser: Any, page: Path) -> Any:
    return still(browser, page, width=1400, scheme="dark")


def test_every_figure_is_drawn_with_marks_and_the_console_is_silent(opened: Any) -> None:
    assert opened.get_log("browser") == []
    drawn = opened.execute_script(
        "return [...document.querySelectorAll('.drawing')].map(e => [e.id, "
        "e.querySelectorAll('svg .mark-symbol.role-mark path, svg .mark-rect.role-mark path')"
        ".length])"
    )
    assert [name.split("-")[1] for name, _ in drawn] == FIGURES
    assert all(marks for _, marks in drawn), drawn


def test_no_words_of_a_figure_cover_each_other_or_are_cut(opened: Any) -> None:
    first, last = opened.execute_script(
        "const one = document.querySelector('select[data-choose=history]');"
        "return [one.value, [...one.options].at(-1).value]"
    )
    assert opened.execute_script(OVERLAPS) == []
    assert opened.execute_script(CUT) == []
    choose(opened, "history", last)
    try:
        assert opened.execute_script(OVERLAPS) == []
        assert opened.execute_script(CUT) == []
    finally:
        choose(opened, "history", first)


def test_names_and_legends_are_read_on_the_dark_ground(opened: Any) -> None:
    dark = opened.execute_script(
        "return [...document.querySelectorAll('.drawing .role-legend-symbol path')]"
        ".map((e) => e.getAttribute('fill')).filter((fill) => ['black', '#000'].includes(fill))"
    )
    assert dark == []


@pytest.mark.parametrize(
    ("key", "mark"),
    [("architectures", "symbol"), ("hardware", "symbol"), ("history", "symbol"),
     ("batch", "symbol"), ("pareto", "symbol"), ("distribution", "rect"),
     ("roofline", "symbol"), ("scaling", "symbol"), ("waterfall", "rect")],
)  # fmt: skip
def test_every_figure_shows_on_hover_what_its_table_says(wide: Any, key: str, mark: str) -> None:
    marks = wide.find_elements(
        "css selector", f"#figure-{key}-0 .mark-{mark}.role-mark path[aria-label]"
    )
    assert hover(wide, marks[-1]) in labelled_rows(wide, f"table-{key}")


def test_the_axis_of_threads_names_the_default(wide: Any) -> None:
    labels = "[...document.querySelectorAll('#figure-cores-0 .role-axis-label text')]"
    found = wide.execute_script(f"return {labels}.map((e) => e.textContent)")
    assert [label for label in found if "%" not in label] == ["1", "default"]


def test_each_hardware_has_a_drawing_of_its_own_with_its_levels(wide: Any) -> None:
    names, bars, moved = wide.execute_script(
        "const place = document.getElementById('figure-history-0');"
        "return [[...place.querySelectorAll('h3')].map(e => e.textContent),"
        " [...place.children].map(e => new Set([...e.querySelectorAll('line[stroke-width=\"7\"]')]"
        ".map(line => line.getBoundingClientRect().top)).size),"
        " [...place.querySelectorAll('.mark-text.role-mark text')].map(e => e.textContent)]"
    )
    assert f"{LONG_HISTORY} cpu" in names
    assert bars[names.index(f"{LONG_HISTORY} cpu")] >= 3
    assert all(bars), bars
    (said,) = [text for text in moved if text]
    assert said.startswith("0030: +")


def test_a_page_begins_with_the_case_that_has_most_runs(wide: Any) -> None:
    chosen = "return document.querySelector('select[data-choose=history]').value"
    assert wide.execute_script(chosen) == "lenet5-train-cpu-b32-float32"


def test_printed_no_number_is_parted_and_wide_tables_have_wide_pages(wide: Any) -> None:
    wide.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        styles = wide.execute_script(
            "const of = (s, p) => getComputedStyle(document.querySelector(s))[p];"
            "return [of('#architectures .scroll', 'page'), of('#nodes .scroll', 'page'),"
            " of('#architectures td.n', 'whiteSpace'), of('#architectures td', 'overflowWrap'),"
            " of('.choose select', 'borderTopWidth'), of('nav', 'display'),"
            " of('.sides-table tbody td:last-child', 'whiteSpace'),"
            " of('.sides-form select', 'borderTopWidth'), of('.sides-form button', 'display')]"
        )
        expected = ["wide", "auto", "nowrap", "break-word", "0px", "none", "nowrap", "0px", "none"]
        assert styles == expected
    finally:
        wide.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
