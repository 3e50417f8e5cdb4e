"""The page in a real browser: Debian's chromium, headless, from file://, the network off."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from histories import keep_said
from report_rows import HOSTILE, SLOW, keep_run, measured, results_of_two_machines
from test_verdicts_file import judgement

from convmark.report.command import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:selenium"),
]

LENET_INFER = "lenet5-infer-cpu-b1-float32"
WAIT_S = 60
FIRST_SCREEN = 700
"""Pixels that a phone shows at first."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    results = results_of_two_machines(folder)
    verdict = judgement(run="0003", case=LENET_INFER, verdict="regressed", fails=True)
    keep_said(results / SLOW, verdict)
    report([results], output=str(folder / "report.html"))
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    """The browser with the page drawn, 1200 pixels wide, in light, for a test that changes it."""
    return opened_anew(browser, page, width=1200, scheme="light")


@pytest.fixture
def untouched(browser: Any, page: Path) -> Any:
    """The same for a test that leaves the page as it is."""
    return still(browser, page, width=1200, scheme="light")


LOADED: list[object] = []
"""The page that the browser shows, its width and scheme; nothing where it may have changed since.

To draw a page takes seconds of CPU time.
"""


def still(browser: Any, page: Path, *, width: int, scheme: str) -> Any:
    """Have the browser show a page as it was loaded, for a test that leaves it so."""
    wanted = [page, width, scheme]
    if wanted != LOADED or browser.current_url.partition("?")[0] != page.as_uri():
        show(browser, page, width=width, scheme=scheme)
        LOADED[:] = wanted
    browser.execute_script("window.scrollTo(0, 0)")
    return browser


def opened_anew(browser: Any, page: Path, *, width: int, scheme: str) -> Any:
    """Have the browser show a page as it was loaded, for a test that changes it."""
    still(browser, page, width=width, scheme=scheme)
    LOADED.clear()
    return browser


def show(browser: Any, page: Path, *, width: int, scheme: str, fragment: str = "") -> None:
    LOADED.clear()
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get_log("browser")
    browser.get("about:blank")  # an address that differs in its fragment alone loads nothing
    browser.get(page.as_uri() + (f"#{fragment}" if fragment else ""))
    wait_for(browser, "[...document.querySelectorAll('.drawing')].every(e => e.dataset.drawn)")


def wait_for(browser: Any, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(browser, WAIT_S, poll_frequency=0.05)
    waiting.until(lambda b: b.execute_script(f"return {condition}"))


COLUMNS = """
const table = document.getElementById(arguments[0]);
const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
const shared = [...table.closest('section').querySelectorAll('.same .pair')];
return [
  ...[...table.tHead.rows[0].cells].map((head, place) => [
    head.dataset.key, head.textContent, rows.map((row) => row.cells[place].textContent)
  ]),
  ...shared.map((pair) => [
    pair.querySelector('b').dataset.key, pair.firstChild.textContent.trim(),
    rows.map(() => pair.querySelector('b').textContent)
  ]),
];
"""


def columns(browser: Any, table: str) -> dict[str, list[str]]:
    """Return the texts of a table's shown rows by the column's key, columns without room too."""
    return {key: texts for key, _, texts in browser.execute_script(COLUMNS, table)}


def labelled_rows(browser: Any, table: str) -> list[dict[str, str]]:
    """Return the shown rows by the labels of the columns, as a drawing tells them on hover."""
    found = browser.execute_script(COLUMNS, table)
    labels = [label for _, label, _ in found]
    assert len(set(labels)) == len(labels)  # two of one name would be one on hover
    cells = zip(*(texts for *_, texts in found), strict=True)
    return [{label: " ".join(text.split()) for label, text in zip(labels, row, strict=True)}
            for row in cells]  # fmt: skip


def head(browser: Any, table: str, key: str) -> Any:
    found = browser.find_element("css selector", f"#{table} th[data-key='{key}'] button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    return found


def test_it_draws_every_figure_and_the_console_is_silent(untouched: Any) -> None:
    assert untouched.get_log("browser") == []
    drawn = untouched.execute_script(
        "return [...document.querySelectorAll('.drawing')].map(e => [e.id, "
        "e.querySelectorAll('svg .mark-symbol path, svg .mark-rect path').length])"
    )
    names = [name for name, _ in drawn]
    assert [name.rsplit("-", 1)[0] for name in names] == [
        "figure-architectures", "figure-hardware", "figure-history", "figure-batch", "figure-batch",
        "figure-distribution", "figure-pareto",
    ]  # fmt: skip
    assert all(marks > 0 for _, marks in drawn), drawn


def test_nothing_is_asked_of_any_network(untouched: Any) -> None:
    asked = untouched.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert asked == []


def test_a_model_named_like_a_script_is_text(untouched: Any) -> None:
    assert HOSTILE in columns(untouched, "table-architectures")["model"]
    from selenium.common.exceptions import NoAlertPresentException

    with pytest.raises(NoAlertPresentException):
        _ = untouched.switch_to.alert.text
    panels = "return [...document.querySelectorAll('#figure-batch-0 h3')].map(e => e.textContent)"
    assert HOSTILE in untouched.execute_script(panels)
    label = "[...document.querySelectorAll('#figure-hardware-0 text')].map(e => e.textContent)"
    assert any(HOSTILE in text for text in untouched.execute_script(f"return {label}"))


def test_a_screen_reader_finds_names_headings_and_captions(untouched: Any) -> None:
    assert untouched.execute_script("return document.documentElement.lang") == "en"
    unnamed = untouched.execute_script(
        "return [...document.querySelectorAll('.drawing')].filter("
        "e => !(e.getAttribute('aria-label') || '').includes('The table below')).length"
    )
    assert unnamed == 0
    loose = untouched.execute_script(
        "return [...document.querySelectorAll('input, select')]"
        ".filter(e => !e.labels.length).length"
    )
    assert loose == 0
    captions = untouched.execute_script(
        "return [...document.querySelectorAll('figure')].map("
        "e => e.querySelector('figcaption').textContent.length)"
    )
    assert captions
    assert min(captions) > 80


def test_tables_sort_by_value_and_absent_cells_come_last(opened: Any) -> None:
    def speedups() -> list[float]:
        cells = columns(opened, "table-hardware")["speedup"]
        assert all(cells[: len(list(filter(None, cells)))])
        return [float(cell) for cell in cells if cell]

    sorted_by = "document.querySelector('#table-hardware th[data-key=speedup]').ariaSort"
    head(opened, "table-hardware", "speedup").click()
    assert speedups() == sorted(speedups(), reverse=True)
    assert opened.execute_script(f"return {sorted_by}") == "descending"
    head(opened, "table-hardware", "speedup").click()
    assert speedups() == sorted(speedups())
    head(opened, "table-architectures", "step_time_p50_s").click()
    values = opened.execute_script(
        "const place = [...document.querySelectorAll('#table-architectures th')]"
        ".findIndex(head => head.dataset.key === 'step_time_p50_s');"
        "return [...document.querySelectorAll('#table-architectures tbody tr')]"
        ".map(row => Number(row.cells[place].dataset.v))"
    )
    assert len(values) == 15
    assert values == sorted(values, reverse=True)
    assert columns(opened, "table-architectures")["step_time_p50_s"][-1].endswith(" us")
    opened.execute_script(  # as in a table over threads: a word stands beyond all numbers
        "const cells = [...document.querySelectorAll('#table-architectures tbody tr')]"
        ".map((line) => line.cells[arguments[0]]); cells[7].dataset.v = cells[7].textContent = "
        "'default (2)'",
        list(columns(opened, "table-architectures")).index("step_time_p50_s"),
    )
    head(opened, "table-architectures", "step_time_p50_s").click()
    texts = columns(opened, "table-architectures")["step_time_p50_s"]
    assert texts[0].endswith(" us")
    assert texts[-1] == "default (2)"


def choose(browser: Any, key: str, choice: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(
        browser.find_element("css selector", f"select[data-choose='{key}']")
    ).select_by_visible_text(choice)
    wait_for(
        browser,
        f"document.getElementById('figure-{key}-0').dataset.drawn === {choice!r}",
    )


def hover(browser: Any, mark: Any) -> dict[str, str]:
    """Return what shows on hover, by its labels."""
    from selenium.webdriver import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser, duration=0).move_to_element(mark).perform()
    wait_for(browser, "document.querySelector('#vg-tooltip-element.visible')")
    rows = browser.find_elements("css selector", "#vg-tooltip-element tr")
    return {
        row.find_element("css selector", ".key").text.rstrip(":"): row.find_element(
            "css selector", ".value"
        ).text
        for row in rows
    }


def hovers_as_its_table_says(browser: Any, key: str) -> bool:
    marks = browser.find_elements(
        "css selector", f"#figure-{key}-0 .mark-symbol.role-mark path[aria-label]"
    )
    return hover(browser, marks[-1]) in labelled_rows(browser, f"table-{key}")


@pytest.mark.parametrize("key", ["hardware", "pareto", "distribution", "batch"])
def test_a_figure_shows_on_hover_what_its_table_says(untouched: Any, key: str) -> None:
    assert hovers_as_its_table_says(untouched, key)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_it_is_readable_in_light_and_dark_on_a_phone_and_wide(
    browser: Any, page: Path, width: int, scheme: str
) -> None:
    still(browser, page, width=width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ends = [
        one.rect["y"] + one.rect["height"]
        for one in browser.find_elements("css selector", ".tile li:first-of-type strong")
    ]
    assert max(ends) < FIRST_SCREEN
    ground, ink, drawn = browser.execute_script(
        "const of = (s, p) => getComputedStyle(document.querySelector(s))[p];"
        "return [of('body', 'backgroundColor'), of('h1', 'color'), "
        "of('.drawing .role-axis-label text', 'fill')]"
    )
    assert contrast(ground, ink) >= 7
    assert contrast(ground, drawn) >= 7
    for svg in browser.find_elements("css selector", ".drawing svg"):
        assert svg.size["width"] <= width


def test_runs_over_time_are_those_of_the_chosen_case_with_their_verdicts(opened: Any) -> None:
    choose(opened, "history", LENET_INFER)
    assert hovers_as_its_table_says(opened, "history")
    found = columns(opened, "table-history")
    assert set(found["case"]) == {LENET_INFER}
    pairs = dict(zip(zip(found["hardware"], found["run"], strict=True), found["verdict"],
                     strict=True))  # fmt: skip
    assert len(pairs) == 6
    assert pairs[f"{SLOW} cpu", "0003"] == "regressed"
    points = "[...document.querySelectorAll('#figure-history-0 .mark-symbol.role-mark path')]"
    told = opened.execute_script(f"return {points}.map(e => e.getAttribute('aria-label'))")
    versions = [label.partition("; version: ")[2].partition(";")[0] for label in told]
    assert sorted(versions) == [*["TensorFlow 2.20.0"] * 4, *["TensorFlow 2.21.0"] * 2]


def test_no_panel_is_lost_in_print_though_none_is_drawn_in_time(
    browser: Any, tmp_path: Path
) -> None:
    models = [f"model_{number:02d}" for number in range(15)]
    keep_run(
        tmp_path / "results",
        [
            measured(SLOW, 1, model, number, batch_size=batch)
            for model in models
            for batch in (1, 32)
            for number in (1, 2, 3)
        ],
    )
    report([tmp_path / "results"], output=str(tmp_path / "report.html"))
    never = (
        "const timeout = window.setTimeout;"
        "window.setTimeout = (call, ms, ...more) => (ms ? timeout(call, ms, ...more) : 0);"
        "const bare = () => [...document.querySelectorAll('.panels > div')]"
        ".filter((one) => !one.querySelector('svg')).length;"
        "window.addEventListener('load', () => window.addEventListener('beforeprint',"
        " () => { window.bareInPrint = bare(); }));"
    )
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": never})
    try:
        show(browser, tmp_path / "report.html", width=1200, scheme="light")
        assert browser.execute_script("return bare()") >= 3
        browser.execute_cdp_cmd("Page.printToPDF", {})
        assert browser.execute_script("return window.bareInPrint") == 0
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_no_name_of_a_line_is_cut_on_a_phone(browser: Any, tmp_path: Path) -> None:
    machine = "amd-epyc-2cpu-24gib-b1e42e6f"
    rows = [measured(machine, 1, "lenet5", n, batch_size=b) for b in (1, 32) for n in (1, 2, 3)]
    keep_run(tmp_path / "results", rows)
    report([tmp_path / "results"], output=str(tmp_path / "report.html"))
    show(browser, tmp_path / "report.html", width=390, scheme="light")
    texts = "[...document.querySelectorAll('#figure-batch-0 .role-legend-label text')]"
    wait_for(browser, f"{texts}.length")
    (label,) = browser.execute_script(f"return {texts}.map((one) => one.textContent)")
    assert label.startswith(machine)
    assert label.endswith("train")
    assert "…" not in label


def contrast(first: str, second: str) -> float:
    """Return the contrast of two `rgb(r, g, b)`.

    Source:
        W3C, Web Content Accessibility Guidelines 2.1, "contrast ratio".
    """

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_printed_it_unfolds_every_table(opened: Any) -> None:
    opened.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    folded = "document.querySelectorAll('main details:not([open]):not(.facet)').length"
    assert opened.execute_script(f"return {folded}") == 0
