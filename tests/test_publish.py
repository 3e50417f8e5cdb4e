"""`convmark publish`: the files of a site, and the page in a real browser from file://."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_rows import (
    FAST,
    HOSTILE,
    SLOW,
    keep_run,
    measured,
    results_of_two_machines,
    suite,
)
from test_report_browser import pytestmark as in_a_browser
from test_report_browser import wait_for

from convmark.cli import main
from convmark.report.page import site as site_module
from convmark.report.page.site import PARQUET, site_files


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of two contributors; its parts are small."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "ada").mkdir()
    results_of_two_machines(folder / "ada")
    for machine in (SLOW, FAST, "=cmd()"):
        keep_run(folder / "grace" / "results", suite(machine, 5, models=("lenet5", HOSTILE)))
    places = [str(folder / name / "results") for name in ("ada", "grace")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site_module, "PART", 7)
        assert main(["publish", *places, "-o", str(folder / "site")]) == 0
    return folder / "site"


def told(path: Path) -> list[Any]:
    """Return what a script hands to the page."""
    call = re.fullmatch(r"site\.\w+\((.*)\);\n", path.read_text("ascii"), re.DOTALL)
    assert call
    return json.loads(f"[{call[1]}]")


def values(column: Any) -> list[Any]:
    return [column["values"][at] for at in column["at"]] if isinstance(column, dict) else column


def test_the_parts_have_every_row_once_with_its_provenance(site: Path) -> None:
    lines: dict[str, list[int]] = {}
    for path in sorted(site.glob("parts/*.js")):
        number, part = told(path)
        assert path.name == f"{number:04d}.js"
        assert {len(values(column)) for column in part.values()} <= {7, 198 % 7}
        for file, line, software in zip(*(values(part[k]) for k in ("file", "line", "software")),
                                        strict=True):  # fmt: skip
            lines.setdefault(file, []).append(line)
            assert "tensorflow 2.2" in software
    assert {file: sorted(found) for file, found in lines.items()} == {
        f"{person}/results/{machine}/{run:04d}.csv": list(range(2, 2 + rows))
        for person, machine, run, rows in [
            *(("ada", SLOW, run, 27) for run in (1, 2, 3, 4)),
            *(("ada", FAST, run, 18) for run in (1, 2)),
            *(("grace", machine, 5, 18) for machine in (SLOW, FAST, "=cmd()")),
        ]
    }


def test_every_text_of_the_data_is_ascii_and_the_page_has_none(site: Path) -> None:
    for path in site.rglob("*.js"):
        path.read_text("ascii")
    assert HOSTILE not in (site / "index.html").read_text("utf-8")
    assert (site / "index.html").stat().st_size < 100_000


def test_the_parquet_has_the_same_rows(site: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(site / PARQUET)
    assert len(frame) == 4 * 27 + 5 * 18
    assert set(frame["source"]) == {"ada/results", "grace/results"}


def test_without_pyarrow_there_is_no_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: known(name) if name != "pyarrow" else None
    )
    files = dict(site_files([results_of_two_machines(tmp_path)], made="today"))
    assert PARQUET not in files
    assert b"Parquet" not in files["index.html"]


@pytest.mark.parametrize("output", ["results", "results/site", f"results/{FAST}", ".", "there"])
def test_the_output_is_a_new_folder_apart_from_what_is_read(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results_of_two_machines(tmp_path)
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["publish", "results", "-o", output]) == 2
    assert capsys.readouterr().err.startswith("convmark publish: --output: must not ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_figure_is_of_rows_like_the_newest_and_days_sort_by_date(tmp_path: Path) -> None:
    suites = [  # the newest run of lenet5 has failed, the one before has another Keras
        [measured("a", 1, "lenet5", n, step_s=1.0, keras="3.9.0") for n in (1, 2, 3)],
        [measured("a", 2, "lenet5", 1, step_s=0.5, keras="3.10.0")],
        [measured("a", 4, "lenet5", 1, step_time_p50_s=None, throughput_samples_per_s=None,
                  status="crashed", error="killed", tensorflow="2.20.0")],
        [measured("a", 3, "vgg16", 1, started="2025-12-31T00:00:00.000+00:00")],
    ]  # fmt: skip
    for rows in suites:
        keep_run(tmp_path / "results", rows)
    assert main(["publish", str(tmp_path / "results"), "-o", str(tmp_path / "site")]) == 0
    (groups,) = told(tmp_path / "site" / "groups.js")
    assert groups["figures"]["step_time_p50_s"][0] == 0.5  # the median of all would be 1.0
    assert (groups["rows"][0], groups["alike"]) == (5, [1, 1])
    assert groups["columns"]["newest"]["values"] == ["2025-12-31", "2026-01-05"]
    assert groups["columns"]["newest"]["at"] == [1, 0]


def test_nothing_is_left_of_a_site_that_fails(tmp_path: Path) -> None:
    results = results_of_two_machines(tmp_path)
    (results / FAST / "0002.csv").write_text("a,b\n1,2\n")
    assert main(["publish", str(results), "-o", str(tmp_path / "site")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


# -- in a browser ----------------------------------------------------------------------------------


SHOWN = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"


def texts(browser: Any, what: str) -> list[str]:
    return browser.execute_script(SHOWN, what)  # type: ignore[no-any-return]


def opened(browser: Any, site: Path, fragment: str = "") -> None:
    browser.get_log("browser")
    browser.get("about:blank")
    browser.get((site / "index.html").as_uri() + fragment)
    wait_for(browser, "document.querySelectorAll('#table-cases tbody tr').length > 0")


def typed(browser: Any, text: str) -> str:
    box = browser.find_element("id", "search")
    box.clear()
    box.send_keys(text)
    return texts(browser, "#found")[0]


@pytest.fixture
def drawn(browser: Any, site: Path) -> Any:
    opened(browser, site)
    return browser


@in_a_browser[0]
@in_a_browser[1]
class TestInABrowser:
    def test_the_grid_has_models_by_machines(self, drawn: Any) -> None:
        assert texts(drawn, "#table-grid thead th") == ["model", "=cmd()", FAST, SLOW]
        assert texts(drawn, "#table-grid tbody td:first-child") == [
            "<script>alert(1)</script>", "lenet5", "mini_resnet",
        ]  # fmt: skip
        assert drawn.get_log("browser") == []

    def test_words_and_boxes_choose_and_the_address_keeps_them(
        self, drawn: Any, site: Path
    ) -> None:
        assert typed(drawn, "lenet5 epyc grace") == "3 cases, 9 rows"
        drawn.find_element("css selector", "details[data-facet='task'] summary").click()
        wait_for(drawn, "document.querySelector('input[name=task][value=infer]') !== null")
        drawn.find_element("css selector", "input[name='task'][value='infer']").click()
        assert texts(drawn, "#found") == ["2 cases, 6 rows"]
        opened(drawn, site, "#" + drawn.current_url.partition("#")[2])
        assert texts(drawn, "#found") == ["2 cases, 6 rows"]
        assert typed(drawn, "nothing-such") == "0 cases, 0 rows"

    def test_a_case_shows_its_rows_from_the_parts_on_demand(self, drawn: Any) -> None:
        loaded = "return document.querySelectorAll('script[src^=parts]').length"
        assert drawn.execute_script(loaded) == 0
        typed(drawn, f"lenet5 {SLOW} ada 2.21.0 train")
        drawn.find_element("css selector", "#table-cases tbody tr").click()
        wait_for(drawn, "document.querySelectorAll('#table-rows tbody tr').length == 6")
        assert 1 <= drawn.execute_script(loaded) <= 2
        files = texts(drawn, "#table-rows tbody td:nth-last-child(2)")
        assert files == 3 * [f"ada/results/{SLOW}/0004.csv"] + 3 * [f"ada/results/{SLOW}/0003.csv"]
        assert drawn.get_log("browser") == []

    def test_a_cell_of_the_grid_opens_its_case(self, drawn: Any) -> None:
        drawn.find_element(
            "css selector", "#table-grid tbody tr:nth-child(2) td:nth-child(3)"
        ).click()
        wait_for(drawn, "document.querySelectorAll('#table-rows tbody tr').length > 0")
        (of,) = texts(drawn, "#of")
        assert of.startswith("lenet5, ")
        assert FAST in of

    def test_the_address_of_a_case_opens_its_rows(self, drawn: Any, site: Path) -> None:
        typed(drawn, f"lenet5 {FAST} grace")
        drawn.find_element("css selector", "#table-cases tbody tr").click()
        wait_for(drawn, "document.querySelectorAll('#table-rows tbody tr').length == 3")
        shown = texts(drawn, "#table-rows tbody td")
        opened(drawn, site, "#" + drawn.current_url.partition("#")[2])
        wait_for(drawn, "document.querySelectorAll('#table-rows tbody tr').length == 3")
        assert texts(drawn, "#table-rows tbody td") == shown
        lines = texts(drawn, "#table-rows tbody td:last-child")
        assert sorted(map(int, lines)) == [int(line) for line in lines[::-1]]

    def test_sorting_is_of_all_cases(self, drawn: Any) -> None:
        head = "#table-cases thead th:nth-child(8) button"
        for sign in (1, -1):
            drawn.find_element("css selector", head).click()
            rates = texts(drawn, "#table-cases tbody td:nth-child(8)")
            found = [float(text.replace(",", "")) for text in rates if text]
            assert found == sorted(found, reverse=sign == 1)

    def test_versions_are_of_one_machine_which_is_named(self, drawn: Any) -> None:
        assert texts(drawn, "#cut-grid") == [""]
        drawn.execute_script(BY_VERSION)
        assert texts(drawn, "#cut-grid") == [f"On {SLOW}: choose another machine by its box. "]
        assert texts(drawn, "#table-grid thead th")[1:] == [
            "TensorFlow 2.20.0", "TensorFlow 2.21.0",
        ]  # fmt: skip

    def test_what_is_not_drawn_is_said_and_keras_times_stand_beside_measured_ones(
        self, browser: Any, wide: Path
    ) -> None:
        opened(browser, wide)
        drawn = "Of 61 machines the first 60 are drawn: search or choose to see the others."
        assert texts(browser, "#cut-grid") == texts(browser, "#cut-keras") == [drawn]
        assert len(texts(browser, "#table-grid thead th")) == 61
        heads = texts(browser, "#table-keras thead th")
        assert heads[:5] == [
            "model", "published: CPU, AMD EPYC, 92 cores", "published: GPU, NVIDIA A100",
            "machine-0", "machine-0 gpu:0",
        ]  # fmt: skip
        assert texts(browser, "#table-keras tbody td")[:5] == [
            "resnet50", "58.2", "4.6", "1,000", "10",
        ]  # fmt: skip
        assert texts(browser, "#table-keras tbody td:first-child") == ["resnet50"]
        assert typed(browser, "machine-59") == "3 cases, 3 rows"
        assert texts(browser, "#cut-grid") == [""]


BY_VERSION = """
document.getElementById("across").value = "framework";
document.getElementById("across").dispatchEvent(new Event("change"));
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of 60 machines, one with a card; of other input, and another network of the name."""
    folder = tmp_path_factory.mktemp("wide")
    facts = {"task": "infer", "parameters": 25_636_712, "step_s": 1.0}
    for place in range(60):
        rows = [
            measured(f"machine-{place}", 1, "resnet50", 1, **facts),
            measured(f"machine-{place}", 1, "resnet50", 2, **facts, asked_shape="64x64x3"),
            measured(f"machine-{place}", 1, "vgg16", 3, **facts),
        ]
        if place == 0:
            card = {**facts, "step_s": 0.01, "device": "gpu:0", "gpu": "NVIDIA H100"}
            rows.append(measured("machine-0", 1, "resnet50", 4, **card))
        keep_run(folder / "results", rows)
    assert main(["publish", str(folder / "results"), "-o", str(folder / "site")]) == 0
    return folder / "site"
