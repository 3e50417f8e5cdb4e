"""`convmark report`: its formats, its page's numbers, and what it refuses."""

from __future__ import annotations

import csv
import html
import html.parser
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import COMMAND, Forks
from mixed_history import mixed_history
from report_rows import (
    HOSTILE,
    SLOW,
    keep_prices,
    keep_run,
    measured,
    results_of_two_machines,
    suite,
)
from rich_rows import rich_results

from convmark.cli import main
from convmark.core.text import code_marked
from convmark.report.command import report
from convmark.results.reading import HEADER
from convmark.results.store import AB_FOLDER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["report", *arguments]) == 0
    return capsys.readouterr().out


def values_of_csv(text: str) -> dict[tuple[str, int, str], str]:
    rows = csv.DictReader(io.StringIO(text))
    return {(row["table"], int(row["row"]), row["column"]): row["value"] for row in rows}


class Cells(html.parser.HTMLParser):
    """Collects the cells of the page's tables: value where there is one, and text."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: dict[tuple[str, int, str], tuple[str | None, str]] = {}
        self.keys: list[str] = []
        self.table, self.row, self.column = "", 0, 0
        self.rows: dict[str, int] = {}
        self.shared: dict[str, tuple[str | None, str]] = {}
        self.share: tuple[str, str | None] | None = None
        self.value: str | None = None
        self.text: list[str] | None = None
        self.scripts: dict[str, str] = {}
        self.script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self.table, self.keys = given["data-key"] or "", []
            self.row = self.rows.get(self.table, 0)
        elif tag == "b" and "data-key" in given:
            self.share = (given["data-key"] or "", given.get("data-v"))
        elif tag == "th":
            self.keys.append(given["data-key"] or "")
        elif tag == "tbody":
            self.column = 0
        elif tag == "tr" and self.table and self.column == 0 and self.keys:
            self.row, self.column = self.row + 1, 0
            self.cells |= {(self.table, self.row, key): own for key, own in self.shared.items()}
        elif tag == "td" and self.table:
            self.value, self.text = given.get("data-v"), []
        elif tag == "script":
            self.script = given.get("id") or "script"

    def handle_endtag(self, tag: str) -> None:
        if tag == "td" and self.text is not None:
            key = (self.table, self.row, self.keys[self.column])
            self.cells[key] = (self.value, "".join(self.text))
            self.column, self.text = self.column + 1, None
        elif tag == "b":
            self.share = None
        elif tag == "tr":
            self.column = 0
        elif tag == "table":
            self.rows[self.table] = self.row
            self.table, self.shared = "", {}
        elif tag == "script":
            self.script = None

    def handle_data(self, data: str) -> None:
        if self.text is not None:
            self.text.append(data)
        if self.share:
            key, value = self.share
            self.shared[key] = (value, self.shared.get(key, (value, ""))[1] + data)
        if self.script:
            self.scripts[self.script] = data


def page_of(path: Path) -> Cells:
    cells = Cells()
    cells.feed(path.read_text(encoding="utf-8"))
    return cells


@pytest.mark.parametrize("write", [results_of_two_machines, rich_results])
def test_every_number_of_the_page_is_that_of_the_csv(
    write: Callable[[Path], Path], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder)
    keep_prices(folder, SLOW)
    assert main(["report", "-o", "report.html", "--prices", "prices.toml"]) == 0
    told = values_of_csv(printed(capsys, "--format", "csv", "--prices", "prices.toml"))
    expected = {
        key: re.sub("</?code>", "", html.unescape(code_marked(html.escape(value))))
        for key, value in told.items()
    }
    page = page_of(folder / "report.html")
    found = {key: value if value is not None else text for key, (value, text) in page.cells.items()}
    found = {key: value for key, value in found.items() if value}
    long = json.loads(page.scripts["drawings"])["figures"]["history"]["data"]["columns"]
    for key, column in long.items():
        own, at = column.get("raw") or column["values"], column["at"]
        if isinstance(at, dict):
            at = [place for place, n in zip(at["runs"][::2], at["runs"][1::2], strict=True)
                  for _ in range(n)]  # fmt: skip
        for row, value in enumerate((own[place] for place in at), 1):
            if value not in (None, ""):
                found["history", row, key] = str(value)
    assert len(found) > 900
    text = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    text = re.sub('</?(?:code|span)(?: class="whole")?>', "", text)
    tiles = {key: value for key, value in expected.items() if key[0] == "answers"}
    assert all(value.capitalize() in text or value in text for value in tiles.values())
    # the word of a note's kind is in the heading above its rows
    kinds = {key: value for key, value in expected.items() if key[::2] == ("troubles", "what")}
    assert all(value.capitalize() in text for value in kinds.values())
    assert found == {key: value for key, value in expected.items() if key not in {*tiles, *kinds}}


def test_every_number_of_the_architectures_is_worked_out_from_the_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pd = pytest.importorskip("pandas")
    results = results_of_two_machines(folder)
    values = values_of_csv(printed(capsys, "--format", "csv"))
    rows = pd.read_csv(results / SLOW / "0004.csv", dtype={"run": str})
    rows = rows[rows["status"].isin(["ok", "unsteady"])]
    medians = rows.groupby(["model", "task", "batch_size"]).median(numeric_only=True)
    checked = 0
    for number in {row for table, row, _ in values if table == "architectures"}:
        row = {key[2]: value for key, value in values.items()
               if key[:2] == ("architectures", number)}  # fmt: skip
        if row["hardware"] == f"{SLOW} cpu":
            median = medians.loc[row["model"], row["task"], int(row["batch_size"])]
            for name in ("step_time_p50_s", "step_time_p99_s", "throughput_samples_per_s",
                         "time_to_first_step_s", "peak_host_memory_bytes"):  # fmt: skip
                assert float(row[name]) == pytest.approx(median[name], rel=1e-15), name
                checked += 1
    assert checked == 9 * 5


def test_the_page_stands_alone_and_a_hostile_name_is_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results_of_two_machines(folder)
    assert main(["report", "-o", "report.html"]) == 0
    assert "report.html" in capsys.readouterr().err
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(src|href)=["'](?!#)""", markup)
    assert "default-src 'none'" in text
    assert text.count("<script") == text.count("</script>") == 5
    assert any(text == HOSTILE for _, text in page_of(folder / "report.html").cells.values())


@pytest.mark.parametrize(
    ("name", "start"), [("r.md", "## In short"), ("r.txt", "In short"),
                        ("r.csv", "table,row,column,unit,value")]
)  # fmt: skip
def test_the_suffix_tells_the_format(folder: Path, name: str, start: str) -> None:
    results_of_two_machines(folder)
    assert main(["report", "-o", name]) == 0
    assert (folder / name).read_text(encoding="utf-8").startswith(start)


def test_the_terminal_is_the_default_and_folders_can_be_given(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results_of_two_machines(folder / "a")
    keep_run(folder / "b", suite("mac-8", 1, models=["lenet5"]))
    text = printed(capsys, "a/results", "b")
    assert "mac-8 cpu" in text
    assert "Architectures\n=====" in text


def test_the_terminal_alone_has_colours(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results_of_two_machines(folder)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in printed(capsys)
    assert "\x1b[" not in printed(capsys, "--format", "markdown")


def test_the_applications_style_is_one_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results_of_two_machines(folder)
    text = printed(capsys, "--style", "applications", "--format", "markdown")
    assert text.startswith("## Models, as Keras lists its applications\n\n| model ")
    assert text.count("##") == 1


BAD = [
    (["--format", "xml"], "--format: must be one of text, json, csv, parquet, markdown, html, got"),
    (["--format", "html"], "--format html: needs a file, give one by -o report.html"),
    (
        ["-o", "report.pdf"],
        "--output: must end in .html, .htm, .md, .txt, .csv, .json, .parquet without",
    ),
    (["--style", "fancy"], "--style: must be one of full, applications, accuracy, got 'fancy'"),
    (["--style", "accuracy", "--reference", SLOW], "--reference: must not be given with --style"),
    (["--style", "applications", "--prices", "a.toml"], "--prices: must not be given with --style"),
    (["--prices", "cheap"], "--prices: cheap cannot be read: No such file or directory; give a"),
    (["--reference", "mac"], "--reference: no row is from the machine 'mac'; known: xeon-2"),
    (["nowhere"], "nowhere: no such file or folder"),
    (["empty"], "empty: has no runs yet; `convmark run` makes one"),
    (["header.csv"], "header.csv:1: must have the rows of a run after its header, it has none"),
    (["nothing.csv"], "nothing.csv:1: must hold a run's rows, it is empty"),
    (["--format", "csv", "header.csv"], "header.csv:1: must have the rows of a run after its"),
    (["--format", "markdown", "later.csv"], "later.csv:3: must be of schema"),
    (["-o", "r.html", "--style", "applications", "later.csv"], "later.csv:3: must be of schema"),
    (["other.csv"], "other.csv:1: must have the columns of schema"),
    (["results", "other.csv"], "other.csv:1: must have the columns of schema"),
    (["later.csv"], "later.csv:3: must be of schema"),
    (["-o", "nowhere/report.md"], "--output: nowhere/report.md must be writable: No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = keep_run(folder / "results", suite(SLOW, 1, models=["lenet5"]))
    lines = path.read_text().splitlines()
    (folder / "empty").mkdir()
    Path("header.csv").write_text(",".join(HEADER) + "\n")
    Path("nothing.csv").write_text("")
    Path("other.csv").write_text("schema\nx\n")
    mixed = [*lines[:2], lines[2].replace(lines[2].split(",")[0] + ",", "99,", 1)]
    Path("later.csv").write_text("\n".join(mixed) + "\n")
    assert main(["report", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"convmark report: {message}")


def test_sessions_of_a_comparison_beside_the_machines_are_no_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of_two_machines(folder)
    alone = printed(capsys, str(results))
    (results / AB_FOLDER).mkdir()
    (results / AB_FOLDER / "0001.csv").write_text("ab,started\n0001,2026-01-01T00:00:00+00:00\n")
    assert printed(capsys, str(results)) == alone


def test_what_is_left_out_is_a_line_on_standard_error(folder: Path, harness: Forks) -> None:
    keep_run(folder / "results", [measured(SLOW, 1, "lenet5", 1)])
    done = harness.run(COMMAND, "report")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"convmark: results/{SLOW}/0001.csv:2: is the only row")
    assert "Architectures" in done.stdout


def test_a_report_needs_no_framework_and_help_nothing_heavy(folder: Path) -> None:
    results_of_two_machines(folder)
    script = (
        "import sys, contextlib\nfrom convmark.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['report', '--help'])\n"
        "heavy = {'numpy', 'pandas', 'jinja2', 'vl_convert', 'scipy', 'tabulate', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "assert main(['report', '-o', 'r.html']) == 0\n"
        "print(sorted({'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == ["[]", "[]"]


def test_without_the_package_that_draws_the_page_has_its_tables(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results_of_two_machines(folder)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert main(["report", "-o", "r.html"]) == 0
    page = (folder / "r.html").read_text()
    assert "mini_resnet" in page
    assert "vegaEmbed =" not in page
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "vl_convert" in line]
    assert line.startswith("convmark: the page has no figures: vl_convert cannot be imported: ")
    assert main(["report", "-o", "r.csv", "--figures", "figures"]) == 2
    assert (folder / "r.csv").read_text()
    assert "vl_convert cannot be imported" in capsys.readouterr().err.splitlines()[-1]


def test_a_figure_that_cannot_be_drawn_leaves_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import vl_convert

    drawn = vl_convert.vegalite_to_svg

    def broken(spec: dict[str, Any]) -> str:
        if "geometric mean" in str(spec):
            raise ValueError("no such mark\n  at line 3")
        return str(drawn(spec))

    monkeypatch.setattr(vl_convert, "vegalite_to_svg", broken)
    results_of_two_machines(folder)
    assert main(["report", "--figures", "figures"]) == 0
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert "hardware" not in names
    assert "pareto" in {name.partition("-")[0] for name in names}
    assert (
        "convmark: --figures: hardware is left out: vl_convert cannot draw it: no such mark"
        in capsys.readouterr().err
    )


def test_figures_are_written_as_svg_and_png(folder: Path, monkeypatch: Any) -> None:
    from convmark.report.figures import figure

    monkeypatch.setattr(figure, "MOST_CHOICES", 1)
    results_of_two_machines(folder)
    assert main(["report", "--figures", "figures"]) == 0
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"hardware.svg", "hardware.png"} <= names
    assert any(name.startswith("history-") for name in names)
    svg = (folder / "figures" / "hardware.svg").read_text()
    assert svg.startswith("<svg")
    assert "geometric mean" in svg
    assert HOSTILE not in svg
    assert (folder / "figures" / "hardware.png").read_bytes().startswith(b"\x89PNG")


def test_a_choice_is_the_same_text_in_the_page_and_in_its_data(tmp_path: Path) -> None:
    for run, model in enumerate(("a `b`", "c ` d", "lenet5"), 1):
        rows = [measured(SLOW, run, model, n) for n in (1, 2, 3)]
        keep_run(tmp_path / "results", rows)
    report([tmp_path / "results"], output=str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    data = json.loads(page_of(tmp_path / "page.html").scripts["drawings"])
    options = re.findall(r"<option[^>]*>([^<]*)</option>", page)
    cases = data["figures"]["history"]["data"]["columns"]["case"]["values"]
    assert set(cases) <= set(map(html.unescape, options))
    boxes = re.findall(r'name="model"[^>]*> <span>([^<]*)</span>', page)
    assert list(map(html.unescape, boxes)) == data["facets"]["values"]["model"]
    assert "a b" in data["facets"]["values"]["model"]


def test_no_text_of_the_page_has_raw_markdown(tmp_path: Path) -> None:
    seen = []
    for number, results in enumerate((rich_results, mixed_history, results_of_two_machines)):
        page = tmp_path / f"{number}.html"
        report([results(tmp_path / str(number))], output=str(page))
        text = re.sub(
            r"<style>.*?</style>|<script>.*?</script>", "", page.read_text(), flags=re.DOTALL
        )
        assert re.findall(r".{0,30}(?:`|\*\*|\]\(http).{0,30}", text) == []
        seen.append("<code>" in text)
    assert any(seen)
