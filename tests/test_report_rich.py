"""The page of rows of all kinds from six kinds of hardware, looked at as a reader would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich_rows import GPU, rich_results
from test_report_browser import browser, choose, hover, labelled_rows, pytestmark, show

from convmark.report.command import report

__all__ = ["browser", "pytestmark"]

FIGURES = ["architectures", "hardware", "history", "history", "batch", "batch",
           "distribution", "pareto", "roofline", "scaling", "waterfall"]  # fmt: skip

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
    prices = [f"{GPU}=2.5"]
    report([rich_results(folder)], output=str(folder / "report.html"), prices=prices)
    return folder / "report.html"


@pytest.fixture(params=[400, 1400], ids=["phone", "wide"])
def opened(request: pytest.FixtureRequest, browser: Any, page: Path) -> Any:
    show(browser, page, width=request.param, scheme="dark")
    return browser


def test_every_figure_is_drawn_with_marks_and_the_console_is_silent(opened: Any) -> None:
    assert opened.get_log("browser") == []
    drawn = opened.execute_script(
        "return [...document.querySelectorAll('.drawing')].map(e => [e.id, "
        "e.querySelectorAll('svg .mark-symbol.role-mark path, svg .mark-rect.role-mark path')"
        ".length])"
    )
    assert [name.split("-")[1] for name, _ in drawn] == FIGURES
    assert all(marks for _, marks in drawn), drawn


@pytest.mark.parametrize("choices", ["first", "last"])
def test_no_words_of_a_figure_cover_each_other_or_are_cut(opened: Any, choices: str) -> None:
    if choices == "last":
        script = "return [...document.querySelector(arguments[0]).options].at(-1).value"
        for key in ("history", "batch", "distribution", "pareto", "roofline", "waterfall"):
            choose(opened, key, opened.execute_script(script, f"select[data-choose={key}]"))
    assert opened.execute_script(OVERLAPS) == []
    assert opened.execute_script(CUT) == []


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
def test_every_figure_shows_on_hover_what_its_table_says(
    browser: Any, page: Path, key: str, mark: str
) -> None:
    show(browser, page, width=1400, scheme="light")
    marks = browser.find_elements(
        "css selector", f"#figure-{key}-0 .mark-{mark}.role-mark path[aria-label]"
    )
    seen = hover(browser, marks[-1])
    assert seen in labelled_rows(browser, f"table-{key}")


def test_versions_are_lines_of_their_own_the_newest_on_top(browser: Any, page: Path) -> None:
    show(browser, page, width=1400, scheme="light")
    choose(browser, "history", "mini_resnet-train-cpu-b32-float32")
    labels = browser.execute_script(
        "return [...document.querySelectorAll('#figure-history-1 .role-axis-label text')]"
        ".map(e => [e.getBoundingClientRect().top, e.textContent]).sort((a, b) => a[0] - b[0])"
        ".map(e => e[1]).filter(e => e.startsWith('TensorFlow'))"
    )
    assert len(labels) == 10
    assert labels[0] == "TensorFlow 2.21.0"
    assert labels[-2:] == ["TensorFlow 2.13.1", "TensorFlow 2.12.1"]
    left = "return document.querySelector('#figure-history-%d .mark-group.role-frame g > path, "
    left += "#figure-history-%d svg .background').getBoundingClientRect().left"
    places = [browser.execute_script(left % (number, number)) for number in (0, 1)]
    assert abs(places[0] - places[1]) < 2  # the same moment lies at the same place in both


def test_a_page_begins_with_the_case_that_has_most_runs(browser: Any, page: Path) -> None:
    show(browser, page, width=1400, scheme="light")
    chosen = "return document.querySelector('select[data-choose=history]').value"
    assert browser.execute_script(chosen) == "lenet5-train-cpu-b32-float32"


def test_printed_no_number_is_parted_and_wide_tables_have_wide_pages(
    browser: Any, page: Path
) -> None:
    show(browser, page, width=1400, scheme="light")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        styles = browser.execute_script(
            "const of = (s, p) => getComputedStyle(document.querySelector(s))[p];"
            "return [of('#architectures .scroll', 'page'), of('#nodes .scroll', 'page'),"
            " of('#architectures td.n', 'whiteSpace'), of('#architectures td', 'overflowWrap'),"
            " of('.choose select', 'borderTopWidth'), of('nav', 'display')]"
        )
        assert styles == ["wide", "auto", "nowrap", "break-word", "0px", "none"]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
