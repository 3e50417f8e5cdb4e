"""Two sides set beside each other on the page, in a real browser without a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from quotients import agree, skewed
from report_rows import FAST, HOSTILE, MODELS, SLOW, keep_run, measured, suite
from rich_rows import rich_results
from test_report_browser import pytestmark, show, wait_for

from convmark.core.interval import Interval
from convmark.core.table import Table
from convmark.report.build import build
from convmark.report.command import report
from convmark.report.page import render_page
from convmark.report.ratios import geometric_mean, ratio
from convmark.report.rows import read_rows
from convmark.report.tables.hardware import GEOMETRIC_MEAN

__all__ = ["pytestmark"]

ODD, UNLIKE = "mini_inception", "mini_resnet_norm"
"""Cases of which the sides have another number of processes, or another NumPy."""
SOME, MANY = 3, 7
SHOWN = "#sides[data-shown], #sides .sides-answer p"
ONCE = "each counted once whatever its machine"
COMMITS = {1: "a" * 40, 2: "b" * 40, 3: "b" * 40}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of one machine and the last two of another; run 9 has cases of its own."""
    folder = tmp_path_factory.mktemp("sides") / "results"
    for machine, run in ((SLOW, 1), (SLOW, 2), (FAST, 2), (SLOW, 3), (FAST, 3)):
        rows = suite(machine, run, tuple(MODELS) if machine == SLOW else ("lenet5", HOSTILE))
        keep_run(folder, [dataclasses.replace(row, commit=COMMITS[run]) for row in rows])
    for machine, processes, numpy in ((SLOW, SOME, "1.26.4"), (FAST, MANY, "2.1.0")):
        rows = [
            measured(machine, 9, ODD, number, step_s=0.011 * (1 + 0.004 * number**1.5))
            for number in range(1, processes + 1)
        ]
        keep_run(folder, [*rows, measured(machine, 9, UNLIKE, 1, numpy=numpy)])
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(results, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def rich_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich")
    return written(rich_results(folder), folder)


def written(results: Path, folder: Path) -> Path:
    """Write a page without figures: to draw them takes most of the time of a load.

    `test_the_run_is_the_unit_where_three_are_alike_and_facets_choose_rows` has them beside the
    sides.
    """
    path = folder / "report.html"
    page = render_page(build([results]), (), links=None, made="today")
    path.write_text(page, encoding="utf-8")
    return path


class Sides:
    """The section as a reader uses it."""

    def __init__(
        self,
        browser: Any,
        page: Path,
        choice: dict[str, str] | None = None,
        *,
        width: int = 1280,
        scheme: str = "light",
    ) -> None:
        self.browser = browser
        show(browser, page, width=width, scheme=scheme, fragment=urlencode(choice or {}))
        wait_for(browser, f"document.querySelector({SHOWN!r})")

    def choose(self, **chosen: str) -> None:
        from selenium.webdriver.support.ui import Select

        for name, value in chosen.items():
            select = self.browser.find_element("css selector", f"#sides select[name={name}]")
            Select(select).select_by_value(value)

    @property
    def shown(self) -> str:
        found = self.browser.find_element("css selector", "#sides")
        return str(found.get_attribute("data-shown"))

    @property
    def answer(self) -> list[str]:
        found = self.browser.find_elements("css selector", "#sides .sides-answer p")
        return [one.text for one in found]

    @property
    def said(self) -> list[Any]:
        """What the console has been told."""
        return list(self.browser.get_log("browser"))

    def rows(self) -> dict[str, list[str]]:
        """Return the cells of each row by its case."""
        found = self.browser.execute_script(
            "return [...document.querySelectorAll('#sides tr')].slice(1)"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))"
        )
        return {cells[0]: cells[2:] for cells in found}


@pytest.fixture
def sides(browser: Any, page: Path) -> Iterator[Sides]:
    found = Sides(browser, page)
    yield found
    assert found.said == []


def hardware_table(results: Path) -> Table:
    return next(table for table in build([results]).tables if table.key == "hardware")


def test_two_machines_have_the_ratios_of_the_text_report(sides: Sides, results: Path) -> None:
    table = hardware_table(results)
    (other,) = {row["hardware"] for row in table.records() if row["model"] == GEOMETRIC_MEAN}
    (base,) = {f"{SLOW} cpu", f"{FAST} cpu"} - {other}
    sides.choose(axis="hardware", a=base, b=other)
    assert sides.shown == f"hardware|{base}|{other}"
    shown = sides.rows()
    texts = [dict(zip([h.key for h in table.headings], row, strict=True)) for row in table.texts()]
    expected = {
        f"{row['model']} {row['task']} batch {row['batch_size']}": (
            row["speedup"], f"{row['low']} to {row['high']}", row["n"]
        )
        for row in texts
        if row["hardware"] == other and row["speedup"] and row["batch_size"]
    }  # fmt: skip
    assert any(HOSTILE in name for name in expected)
    assert expected.pop(f"{UNLIKE} train batch 32")
    del shown["geometric mean"]
    found = {name: (cells[0], cells[1], cells[5].split(", ")[1]) for name, cells in shown.items()}
    assert found == expected
    assert len(found) == 7


def test_the_run_is_the_unit_where_three_are_alike_and_facets_choose_rows(
    browser: Any, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    cases = [(model, task) for model in ("lenet5", "mini_resnet") for task in ("train", "infer")]
    for run in range(5):
        other = {} if run else {"os": "Linux 5.4"}
        for machine, speed in ((SLOW, 0.01), (FAST, 0.005 if run else 0.5)):
            rows = [
                measured(machine, run, model, number, task=task, code="c" * 12,
                         commit=COMMITS[1 if run < 3 else 2], tensorflow="2.21.0", **other,
                         step_s=speed * (1 + 0.05 * (run % 3) + 0.01 * number))
                for model, task in cases for number in (1, 2, 3)
            ]  # fmt: skip
            keep_run(results, rows)
    report([results], output=str(tmp_path / "report.html"))
    found = Sides(browser, tmp_path / "report.html")
    table = hardware_table(results)
    (other,) = {row["hardware"] for row in table.records() if row["model"] == GEOMETRIC_MEAN}
    (base,) = {f"{SLOW} cpu", f"{FAST} cpu"} - {other}
    found.choose(axis="hardware", a=base, b=other)
    texts = [dict(zip([h.key for h in table.headings], row, strict=True)) for row in table.texts()]
    expected = {
        (row["speedup"], f"{row['low']} to {row['high']}")
        for row in texts
        if row["hardware"] == other
    }
    shown = found.rows()
    assert {(cells[0], cells[1]) for cells in shown.values()} == expected
    assert {cells[5] for cells in list(shown.values())[1:]} == {"4 runs, 4 runs"}
    assert len(shown) == 5
    assert "Fewer than 3 runs" not in " ".join(found.answer)
    browser.execute_script(
        "const box = [...document.querySelectorAll('#facets input[name=task]')]"
        ".find((one) => one.parentNode.textContent.trim() === 'train');"
        "box.checked = true; box.dispatchEvent(new Event('change', { bubbles: true }));"
    )
    assert len(found.rows()) == 3
    assert "Shown are 2 of 4 cases, those chosen above." in found.answer
    browser.refresh()
    wait_for(browser, f"document.querySelector({SHOWN!r})")
    assert len(found.rows()) == 3
    assert found.said == []


def test_an_interval_with_1_in_it_is_called_not_distinguishable(sides: Sides) -> None:
    sides.choose(axis="commit")
    first, *_, last = sides.rows().values()
    assert first[2] == "not distinguishable"
    assert sides.answer[0].startswith("Geometric mean over ")
    assert "A and B are not distinguishable" in sides.answer[0]
    for cells in (first, last):
        low, high = map(float, cells[1].split(" to "))
        assert (cells[2] == "not distinguishable") == (low <= 1 <= high)


def _ends(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _units(rows: Any) -> dict[Any, list[float]]:
    """Return the times of one side's processes, each by its run and number."""
    names = ("source", "process", "step_time_p50_s")
    return {
        (run, number): [s] for run, number, s in zip(*(rows[one] for one in names), strict=True)
    }


def test_odd_degrees_of_freedom_and_the_geometric_mean_are_those_of_the_statistics(
    sides: Sides, results: Path
) -> None:
    sides.choose(axis="hardware", a=f"{SLOW} cpu", b=f"{FAST} cpu")
    frame = read_rows([results]).frame
    newest = frame[frame["source"] == frame.groupby(["hardware", "case"], observed=True)[
        "source"].transform("max")]  # fmt: skip
    both = [
        [_units(side[side["machine"] == name]) for name in (SLOW, FAST)]
        for case, side in newest.groupby("case", observed=True)
        if UNLIKE not in str(case) and side["machine"].nunique() == 2
    ]
    ratios = [one for a, b in both if (one := ratio(a, b)) is not None]
    (odd,) = [one for one in ratios if (one.freedom or 0) % 1 > 0.01 and one.value < 2]
    shown = sides.rows()
    for one, name in ((odd, f"{ODD} train batch 32"), (geometric_mean(ratios), "geometric mean")):
        assert one is not None
        assert shown[name][:2] == [f"{one.value:.3f}", _ends(one.interval)]


BATCHES = (1, 2, 4, 8, 16, 32)


def _run(machine: str, *, midnight: bool, failed: bool) -> list[Any]:
    """Return four processes of each case, of which the n-th ones of all cases are slow together.

    With `midnight` the run began the day before; with `failed` each case lacks another process.
    """
    rows = []
    for number, shared in enumerate((0.0, 0.10, -0.05, 0.02), 1):
        for place, batch in enumerate(BATCHES):
            if failed and machine == SLOW and number == 1 + place % 4:
                continue
            early = midnight and number == 1 and place < 3
            moment = "01T23:59" if early else "02T00:10"
            step_s = 0.01 * batch * math.exp(shared + 0.002 * ((number * place) % 5))
            rows.append(
                measured(machine, 1, "lenet5", number, batch_size=batch, step_s=step_s,
                         order=len(rows) + 1, tensorflow="2.21.0", code="c" * 12,
                         started=f"2026-03-{moment}:{len(rows):02d}.000+00:00")
            )  # fmt: skip
    return rows


@pytest.mark.parametrize("odd", ["midnight", "failed"])
def test_the_geometric_mean_takes_processes_of_one_number_of_a_run_together(
    browser: Any, tmp_path: Path, odd: str
) -> None:
    for machine in (SLOW, FAST):
        rows = _run(machine, midnight=odd == "midnight", failed=odd == "failed")
        keep_run(tmp_path / "results", rows)
    found = Sides(browser, written(tmp_path / "results", tmp_path))
    found.choose(axis="hardware", a=f"{SLOW} cpu", b=f"{FAST} cpu")
    frame = read_rows([tmp_path / "results"]).frame
    ratios = [
        ratio(*(_units(side[side["machine"] == name]) for name in (SLOW, FAST)))
        for _, side in frame.groupby("batch_size")
    ]
    mean = geometric_mean([one for one in ratios if one is not None])
    assert mean is not None
    assert found.rows()["geometric mean"][1] == _ends(mean.interval)


def test_what_is_left_out_is_counted_with_its_reason(sides: Sides) -> None:
    sides.choose(axis="hardware", a=f"{SLOW} cpu", b=f"{FAST} cpu")
    assert sides.answer[1] == (
        "Left out: 4 of 11 cases of A or B: 3 not measured on B; "
        "1 other numpy (1.26.4 against 2.1.0)."
    )
    sides.choose(axis="framework", a="TensorFlow 2.20.0", b="TensorFlow 2.21.0")
    assert sides.answer[1].startswith(
        f"Left out: 2 of 11 cases of A or B, {ONCE}: 2 not measured on A"
    )
    sides.choose(axis="commit")
    sides.choose(a="a" * 12)
    assert sides.shown == f"commit|{'a' * 12}|{'b' * 12}"
    sides.choose(b="0" * 12)
    assert sides.answer[0].startswith(f"No case of A ({'a' * 12}) has a like one of B")
    tables = sides.browser.find_elements("css selector", "#sides .sides-table")
    assert not any(table.is_displayed() for table in tables)


def test_the_choice_is_kept_in_the_address(sides: Sides) -> None:
    sides.choose(axis="hardware", a=f"{FAST} cpu", b=f"{SLOW} cpu")
    sides.browser.find_element("css selector", "#sides button[name=swap]").click()
    chosen, rows = sides.shown, sides.rows()
    assert chosen == f"hardware|{SLOW} cpu|{FAST} cpu"
    sides.browser.find_element("css selector", "a[href='#history']").click()
    wait_for(sides.browser, "location.hash.startsWith('#history=&side=')")
    sides.browser.refresh()
    wait_for(sides.browser, f"document.querySelector({SHOWN!r})")
    assert (sides.shown, sides.rows()) == (chosen, rows)


def test_an_address_with_other_values_shows_what_a_page_begins_with(
    browser: Any, page: Path
) -> None:
    wrong = {"side": "hardware", "side-a": "<img src=x onerror=alert(1)>", "side-b": SLOW}
    found = Sides(browser, page, wrong)
    assert found.shown.startswith("hardware|")
    assert found.said == []


def test_versions_under_which_other_code_ran_are_not_paired(browser: Any, tmp_path: Path) -> None:
    for run, version, code in ((1, "2.20.0", "c"), (2, "2.21.0", "d"), (3, "2.22.0", "d")):
        rows = [
            measured(SLOW, run, "lenet5", number, tensorflow=version, code=code * 12,
                     commit="a" * 40, dirty=True)
            for number in range(1, 4)
        ]  # fmt: skip
        keep_run(tmp_path / "results", rows)
    found = Sides(browser, written(tmp_path / "results", tmp_path))
    found.choose(axis="framework", a="TensorFlow 2.21.0", b="TensorFlow 2.22.0")
    assert "lenet5" in found.rows()
    found.choose(a="TensorFlow 2.20.0", b="TensorFlow 2.21.0")
    both = f"{'a' * 12} (dirty)"
    assert found.answer[1] == (
        f"Left out: 1 of 1 case of A or B, {ONCE}: 1 code not known to be the same "
        f"(commit {both} against {both})."
    )


def test_it_opens_on_machines_even_to_say_why_they_are_not_alike_and_on_batch_sizes_last(
    browser: Any, tmp_path: Path
) -> None:
    for place, machine in enumerate((SLOW, FAST)):
        rows = [
            measured(machine, 1, "lenet5", number, batch_size=batch, numpy=f"2.{place}.0",
                     tensorflow="2.21.0", code="c" * 12)
            for batch in (1, 32) for number in (1, 2, 3)
        ]  # fmt: skip
        keep_run(tmp_path / "results", rows)
    found = Sides(browser, written(tmp_path / "results", tmp_path))
    assert found.shown.startswith("hardware|")
    why = "Left out: 2 of 2 cases of A or B: 2 other numpy (2.0.0 against 2.1.0)."
    assert found.answer[1].replace("2.1.0 against 2.0.0", "2.0.0 against 2.1.0") == why
    found.choose(axis="batch_size", a="1")
    once = "each counted once whatever its batch size or machine"
    assert f"None is left out of 1 case of A or B, {once}." in found.answer
    assert "All of them: train TensorFlow 2.21.0 on " in " ".join(found.answer)


CUT = """
[...document.querySelectorAll('#sides :is(p, td, th, select, button, .label)')].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width && (box.left < -1 || box.right > document.documentElement.clientWidth + 1);
}).map((e) => e.textContent)
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280, 1920])
def test_nothing_of_it_is_cut_off(browser: Any, rich_page: Path, width: int, scheme: str) -> None:
    found = Sides(browser, rich_page, width=width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(f"return {CUT.strip()}") == []
    assert len(found.rows()) > 30
    assert found.said == []


def test_batch_sizes_are_compared_by_the_time_of_a_sample(browser: Any, rich_page: Path) -> None:
    found = Sides(browser, rich_page)
    found.choose(axis="batch_size", a="1")
    found.choose(b="32")
    cells = next(cells for name, cells in found.rows().items() if "resnet50 infer" in name)
    a_s, b_s = (float(text.split()[0]) * {"s": 1, "ms": 1e-3, "us": 1e-6}[text.split()[1]]
                for text in cells[3:5])  # fmt: skip
    assert float(cells[0]) == pytest.approx(a_s / b_s, rel=0.05)


def test_a_speed_up_is_the_quotient_of_the_two_figures_beside_it(
    browser: Any, tmp_path: Path
) -> None:
    for machine, step_s in ((SLOW, 0.0117), (FAST, 0.0041)):
        for run, by in enumerate((1.0, 1.7, 1.2), 1):
            rows = [skewed(machine, run, "lenet5", by * step_s * (batch / 32) ** 0.6,
                           batch_size=batch) for batch in (8, 32)]  # fmt: skip
            keep_run(tmp_path / "results", [row for its in rows for row in its])
    sides = Sides(browser, written(tmp_path / "results", tmp_path))
    heads = "return [...document.querySelectorAll('#sides th')].map((one) => one.textContent)"
    for axis, a, b, what in (
        ("hardware", f"{SLOW} cpu", f"{FAST} cpu", "step"),
        ("batch_size", "8", "32", "sample"),
    ):
        sides.choose(axis=axis)
        sides.choose(a=a)
        sides.choose(b=b)
        assert f"A: mean {what}" in browser.execute_script(heads)
        shown = sides.rows()
        del shown["geometric mean"]
        assert shown
        for cells in shown.values():
            assert agree(float(cells[0]), 3, cells[3], cells[4]), cells
