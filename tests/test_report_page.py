"""The page of a mixed history: what its first screen answers, and what clicks and links show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mixed_history import DESKTOP, LOAD, SERVER, mixed_history
from test_report_browser import columns, head, opened_anew, pytestmark, still, wait_for

from convmark.core.text import load_text
from convmark.report.command import report
from convmark.report.figures.series import MARKS

__all__ = ["pytestmark"]

FIRST_SCREEN = 900
CUT = """
return [...document.querySelectorAll('main .scroll table')].filter((table) => {
  const box = table.closest('.scroll');
  return box.clientWidth && table.scrollWidth > box.clientWidth + 1;
}).map((table) => table.id);
"""
"""Tables that are wider than their place."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    report([mixed_history(folder)], output=str(folder / "report.html"))
    return folder / "report.html"


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    return opened_anew(browser, page, width=1280, scheme="light")


@pytest.fixture
def untouched(browser: Any, page: Path) -> Any:
    """The same for tests that leave the page as it is."""
    return still(browser, page, width=1280, scheme="light")


OUTSIDE = """
return [...document.querySelectorAll('.drawing svg')].flatMap((svg) => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter((text) => {
    const own = text.getBoundingClientRect();
    return own.width && (own.left < box.left - 1 || own.right > box.right + 1);
  }).map((text) => text.textContent);
});
"""
"""Texts of figures that are cut off."""


BROKEN = """
const places = ['h1', 'td', '.same', '.detail', '.lead', '.sides-answer', 'h3'];
return [places.filter((place) => !document.querySelector(place + ' .whole')),
  [...document.querySelectorAll('.whole')].filter((word) =>
    word.offsetHeight > 1.5 * parseFloat(getComputedStyle(word).lineHeight))
  .map((word) => word.textContent)];
"""
"""Places that have no name or number to be kept whole, and those that are broken all the same."""


LOOKS = """
return [...document.querySelectorAll('.drawing svg')].map((svg) =>
  [...svg.querySelectorAll('.role-legend')].flatMap((legend) => {
    const marks = [...legend.querySelectorAll('.role-legend-symbol path')].map((mark) => {
      const { fill, stroke } = getComputedStyle(mark);
      return ['none', 'transparent', 'rgba(0, 0, 0, 0)'].includes(fill) ? stroke : fill;
    });
    return [...legend.querySelectorAll('.role-legend-label text')].map(
      (text, place) => [text.textContent, marks[place]]);
  }));
"""
"""Of each drawing the values of its legends with their colours."""


HALVES = """
const ends = [...document.querySelectorAll('main table')].filter(
  (table) => table.querySelector('th[data-key=low]') && table.querySelector('th[data-key=high]'));
document.querySelectorAll('main .scroll').forEach((box) => {
  if (!ends.includes(box.querySelector('table'))) box.remove();
});
document.querySelectorAll('.drawing, main tbody tr:nth-child(n + 4)').forEach((e) => e.remove());
const boxes = ends.map((table) => table.closest('.scroll'));
const [found, hidden] = [new Set(), new Set()];
for (let width = 300; width <= 1800; width += 25) {
  boxes.forEach((box) => { box.style.width = width + 'px'; });
  window.dispatchEvent(new Event('resize'));
  for (const table of ends) {
    const shown = [...table.tHead.rows[0].cells].filter((head) => head.offsetWidth);
    const keys = shown.map((head) => head.dataset.key);
    if (!keys.includes('low')) hidden.add(table.id);
    if (keys.includes('low') !== keys.includes('high')) found.add(table.id);
  }
}
return [[...found], ends.length, hidden.size];
"""
"""Tables that show one end of an interval without the other, at some width.

Of those with both ends three rows each, and no figure: a layout takes a tenth of the time. Beside
them how many tables these are, and of how many the ends are hidden where there is no room.
"""


def tick(browser: Any, facet: str, value: str) -> None:
    """Open a facet and click a value."""
    browser.find_element("css selector", f"details[data-facet='{facet}'] summary").click()
    label = f"//details[@data-facet='{facet}']//label[normalize-space()='{value}']"
    browser.find_element("xpath", label).click()


def tile(browser: Any, answer: str) -> str:
    return str(browser.find_element("css selector", f"[data-answer='{answer}']").text)


def test_the_first_screen_says_who_wins_what_changed_and_how_far_to_trust_it(
    untouched: Any,
) -> None:
    assert untouched.get_log("browser") == []
    title = untouched.find_element("css selector", "h1").text
    assert title == f"Benchmark of 6 models on {DESKTOP} and {SERVER}"
    when = untouched.find_element("css selector", ".when").text
    assert "2026-02-02 to 2026-02-21 (UTC), TensorFlow 2.19.1 to 2.21.0, JAX 0.9.0" in when
    fastest = tile(untouched, "fastest model")
    assert "train, batch 32\nlenet5: 1.76 ms a step\n4.54 times as fast as mini_resnet [" in fastest
    ratios = tile(untouched, "machines and versions")
    assert (
        f"{SERVER} cpu against {DESKTOP} cpu\n0.258 times as fast\nover 14 of 33 cases [0.25"
        in ratios
    )
    bent = "other code, which may bend the ratio: measure both again with the same code"
    assert f"under {load_text(LOAD)} other load, {bent}" in ratios
    models = untouched.execute_script(
        "return [...document.querySelectorAll('#facets input[name=model]')]"
        ".map((e) => e.parentNode.textContent.trim())"
    )
    assert models == ["lenet5", "mini_inception", "mini_resnet", "mobilenetv2", "resnet50", "vgg16"]
    link = untouched.find_element("css selector", "nav a[href='#history']")
    untouched.execute_script("arguments[0].click()", link)
    covered = (
        "return document.querySelector('#h-history').getBoundingClientRect().bottom"
        " - document.querySelector('#facets').getBoundingClientRect().bottom"
    )
    assert untouched.execute_script(covered) > 0  # no heading is covered by the choices
    untouched.execute_script("history.replaceState(null, '', location.pathname); scrollTo(0, 0)")
    assert "TensorFlow 2.21.0 against 2.20.0\nnot distinguishable" in ratios
    assert f"1 of 15 cases in run 0019 of {DESKTOP}\nmobilenetv2-infer-cpu-b1-float32" in tile(
        untouched, "changes"
    )
    assert "poor\n15 of 48 figures measured under other load" in tile(untouched, "trust")
    tops = untouched.execute_script(
        "return ['.tile:last-of-type', '#facets', '#figure-architectures-0']"
        ".map((e) => document.querySelector(e).getBoundingClientRect()).map((e) => e.top)"
    )
    assert max(tops) < FIRST_SCREEN - 150


def test_a_case_has_one_step_time_on_the_page_and_its_run_beside_it(untouched: Any) -> None:
    def of_lenet(table: str) -> set[tuple[str, str]]:
        found = columns(untouched, table)
        wanted = ("lenet5", f"{DESKTOP} cpu", "train", "32", "")
        keys = ("model", "hardware", "task", "batch_size", "setting")
        found.setdefault("setting", [""] * len(found["model"]))  # all are at their defaults
        rows = zip(*(found[key] for key in (*keys, "step_time_p50_s")), strict=True)
        runs = found.get("run", ["0020"] * len(found["model"]))
        return {(row[-1], run) for row, run in zip(rows, runs, strict=True) if row[:-1] == wanted}

    newest = of_lenet("table-architectures")
    assert len(newest) == 1
    assert of_lenet("table-hardware") == newest


@pytest.mark.parametrize("width", [1280, 400, 1920])
def test_no_table_is_cut_off_and_columns_without_room_are_a_click_away(
    browser: Any, page: Path, width: int
) -> None:
    opened_anew(browser, page, width=width, scheme="light")
    browser.execute_script("document.querySelectorAll('main details').forEach(e => e.open = true)")
    wait_for(browser, "document.querySelector('#table-troubles-failed').scrollWidth > 0")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(CUT) == []
    assert browser.execute_script(OUTSIDE) == []
    if width != 400:  # where a name has room
        assert browser.execute_script(BROKEN) == [[], []]
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#table-architectures th')]"
        ".filter((e) => e.offsetWidth).map((e) => e.dataset.key)"
    )
    assert shown[0] == "model"
    assert {"step_time_p50_s", "load"} <= set(shown)
    assert ("model_bytes" in shown) == (width == 1920)
    if width == 400:  # what a row is of stands below the model's name
        also = "return document.querySelector('#table-architectures td').dataset.also"
        told = browser.execute_script(also).replace("\u2060", "")
        assert told == f"train, batch 32, jax, {DESKTOP} cpu"
        more = browser.find_element("css selector", "#architectures .more")
        more.click()
        assert more.text == "Show the columns that fit"
        all_ = "return [...document.querySelectorAll('#table-architectures th')]"
        assert browser.execute_script(f"{all_}.every((e) => e.offsetWidth)")


def test_the_two_ends_of_an_interval_are_shown_or_hidden_together(opened: Any) -> None:
    opened.execute_script("document.querySelectorAll('main details').forEach(e => e.open = true)")
    wait_for(opened, "document.querySelector('#table-history').scrollWidth > 0")
    halves, tables, hidden = opened.execute_script(HALVES)
    assert halves == []
    assert tables > 2
    assert hidden == tables


def test_a_facet_matches_its_own_column_exactly_and_the_address_keeps_it(
    opened: Any, page: Path
) -> None:
    tick(opened, "batch", "32")
    tick(opened, "task", "infer")
    found = columns(opened, "table-architectures")
    # the server's name has `32` in it, and its cases of batch 1 are not chosen
    assert set(found["batch_size"]) == {"32"}
    assert set(found["task"]) == {"infer"}
    assert {f"{DESKTOP} cpu", f"{SERVER} cpu"} == set(found["hardware"])
    words = opened.find_element("css selector", "#facets .words").text
    assert words == "Only task infer; batch 32"
    after = "getComputedStyle(document.querySelector('#hardware > .lead'), '::after').content"
    assert "of all rows" in opened.execute_script(f"return {after}")  # its mean is of no choice
    count = opened.find_element("css selector", "#architectures .count").text
    assert count == f"{len(found['model'])} of 48 rows"
    drawn = "return document.getElementById('figure-architectures-0').dataset.drawn"
    wait_for(opened, f"(() => {{ {drawn} }})() === 'infer, batch 32'")
    assert opened.current_url.endswith("?task=infer&batch=32")
    opened.get(opened.current_url)
    wait_for(opened, "[...document.querySelectorAll('.drawing')].every(e => e.dataset.drawn)")
    assert columns(opened, "table-architectures") == found
    opened.find_element("css selector", "#facets button").click()
    wait_for(opened, "location.search === ''")
    assert opened.execute_script(f"return {after}") == "none"
    assert len(columns(opened, "table-architectures")["model"]) == 48


def test_a_link_shows_the_same_rows_order_and_case(opened: Any, page: Path) -> None:
    head(opened, "table-architectures", "throughput_samples_per_s").click()
    tick(opened, "version", "JAX 0.9.0")
    address = opened.current_url
    assert address.endswith("?version=JAX+0.9.0&sort.architectures=-throughput_samples_per_s")
    first = columns(opened, "table-architectures")
    opened.get("about:blank")
    named = "show.history=mini_resnet-infer-cpu-b1-float32-jax&model=%3Cb%3Enobody&colour=red"
    hostile = "%3Cimg+src=x+onerror=alert(1)%3E=&side=%3Cb%3E&side-a=1"
    opened.get(f"{address}&{named}#{hostile}")
    wait_for(opened, "[...document.querySelectorAll('.drawing')].every(e => e.dataset.drawn)")
    assert columns(opened, "table-architectures") == first
    assert set(columns(opened, "table-history")["case"]) == {"mini_resnet-infer-cpu-b1-float32-jax"}
    # the page has no such model, so the address chooses none
    assert opened.find_element("css selector", "#facets .words").text == "Only version JAX 0.9.0"
    assert opened.get_log("browser") == []


def test_a_link_to_the_notes_finds_each_kind_with_its_cause_and_its_rows(opened: Any) -> None:
    opened.find_element("css selector", "[data-answer='trust'] h2 a").click()
    wait_for(opened, "document.querySelector('#troubles details').open")
    kinds = opened.execute_script(
        "return [...document.querySelectorAll('#troubles summary')].map(e => e.textContent)"
    )
    assert kinds == ["Failed: 2 notes", "Other load: 15 notes", "Unsteady: 1 note"]  # none missing
    loaded = columns(opened, "table-troubles-other-load")
    assert set(loaded["detail"]) == {"other programs took 82 % of the CPUs' time"}
    cause = opened.find_element("css selector", "#troubles .kind:nth-of-type(2) .caption").text
    assert "close them and measure again" in cause


def test_a_value_has_one_colour_in_every_drawing_and_under_every_choice(opened: Any) -> None:
    whole = opened.execute_script(LOOKS)
    tick(opened, "machine", SERVER)
    wait_for(opened, f"JSON.stringify((() => {{{LOOKS}}})()) !== {json.dumps(compact(whole))}")
    seen: dict[str, str] = {}
    for drawing in [*whole, *opened.execute_script(LOOKS)]:
        looks = {value: colour for value, colour in drawing if value not in MARKS}
        assert len(set(looks.values())) == len(looks)
        for value, colour in looks.items():
            assert seen.setdefault(value, colour) == colour
    assert {f"{DESKTOP} cpu", f"{SERVER} cpu"} <= set(seen)
    assert {"TensorFlow 2.19.1", "TensorFlow 2.20.0", "TensorFlow 2.21.0"} <= set(seen)


def compact(value: Any) -> str:
    """Return JSON as a browser writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_printed_the_page_has_all_columns_and_says_what_was_chosen(opened: Any) -> None:
    tick(opened, "machine", SERVER)
    try:
        for scheme in ("light", "dark"):
            chosen = [{"name": "prefers-color-scheme", "value": scheme}]
            media = {"media": "print", "features": chosen}
            opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            check_print(opened)
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def check_print(browser: Any) -> None:
    hidden = browser.execute_script(
        "return [...document.querySelectorAll('#table-architectures th')]"
        ".filter((e) => !e.offsetWidth).length"
    )
    assert hidden == 0
    assert browser.find_element("css selector", "#facets").text == f"Only machine {SERVER}"
    shown = "return getComputedStyle(document.querySelector('thead button')).display"
    assert browser.execute_script(shown) == "contents"  # else later pages have no headings
    broken = "getComputedStyle(document.querySelector('.panels > div')).breakInside"
    assert browser.execute_script(f"return {broken}") == "avoid"  # a name stays at its drawing
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert browser.execute_script(ground) == "rgb(255, 255, 255)"
