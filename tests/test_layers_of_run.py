"""Layers beside the rows of a run: shown with rows of the same code and settings, and no others."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fake_worker
import pytest

from convmark.cli import main
from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.core.interval import Interval
from convmark.core.options import Options
from convmark.core.table import Table
from convmark.interpreter import Answer
from convmark.report.command import report
from convmark.report.tables.layers import remedies_table
from convmark.results.reading import read_run
from convmark.session.layers import LAYERS_TABLE, layers_of, layers_path, read_layers
from convmark.session.remedies import Remedy, Tried, faster, remedies
from convmark.worker.protocol import file_digest

LENET5 = "lenet5-infer-cpu-b32-float32"
STEP = f"{LENET5}: step time"
ONE_CASE = ("--models", "lenet5", "--tasks", "infer", "--batch-sizes", "32", "--processes", "2")


class Worker(fake_worker.FakeInterpreter):
    """Runs the code of nets.py in the working folder."""

    edits_after = ""
    """Kind of request after which somebody edits the file."""
    missed = ""
    """Why it may have read more files than it tells."""

    def answer(
        self,
        request: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Answer:
        answer = super().answer(request, on_event)
        if request["kind"] not in ("measure", "layers"):
            return answer
        path, folder = os.path.abspath("nets.py"), os.getcwd()
        size, sha256 = file_digest(path) or (0, "")
        code = {"event": "code", "folder": folder, "sys_path": [folder], "packages": {}}
        files = [{"path": path, "size": size, "sha256": sha256}]
        if request["kind"] == self.edits_after:
            edit()
        code |= {"missed": self.missed} if self.missed else {}
        events = [*answer.events, {**code, "files": files, "environ": {}}]
        return dataclasses.replace(answer, events=events)


def edit() -> None:
    with open("nets.py", "a", encoding="utf-8") as file:
        file.write("# one more line\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", Worker)
    (tmp_path / "nets.py").write_text("WIDTH = 8\n")
    return tmp_path


def run(*more: str) -> int:
    return main(["run", *ONE_CASE, *more])


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["show", name]) == 0
    return capsys.readouterr().out


def page(place: str = "results") -> str:
    report([Path(place)], output="report.html")
    return Path("report.html").read_text(encoding="utf-8")


def machine(place: str = "results") -> Path:
    (found,) = Path(place).glob("*/layers.csv")
    return found.parent


def test_layers_are_shown_with_the_rows_of_their_code_and_with_no_other(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--layers") == 0
    printed = capsys.readouterr().out
    assert STEP in printed
    assert STEP in shown("1", capsys)
    assert f'<summary><span class="whole">{LENET5}</span> on ' in page()
    assert run() == 0  # the same code
    assert STEP in shown("2", capsys)
    edit()
    assert run() == 0
    assert STEP not in shown("3", capsys)
    assert STEP in shown("1", capsys)
    assert '<section id="layers"' not in page()  # the newest rows are of other code


def test_a_file_of_earlier_columns_takes_layers_that_a_profiler_has_seen(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--layers") == 0
    lines = (machine() / "layers.csv").read_text().splitlines()
    assert lines[0].endswith(",profiled_share")
    cut = [line.rpartition(",")[0] for line in lines]
    (machine() / "layers.csv").write_text("\n".join([*cut, ""]))
    answered = Worker.answer

    def answer(self: Worker, request: Mapping[str, Any], *more: Any) -> Answer:
        found = answered(self, request, *more)
        for event in (event for event in found.events if event["event"] == "layers"):
            event["profiled"] = [5.0, 3.0]
            for unit, group in zip(event["units"], (0, 0, 1), strict=True):
                unit["group"] = group
        return found

    monkeypatch.setattr(Worker, "answer", answer)
    assert run("--layers") == 0
    before, after = read_layers(machine() / "layers.csv")
    assert [row.profiled_share for row in before] == [None] * 4
    assert [row.profiled_share for row in after] == [0.625, None, 0.375, None]
    assert "by the framework's profiler" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("form", ["text", "json"])
def test_layers_that_the_disk_does_not_take_are_printed_all_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def full(path: Path, rows: object) -> None:
        raise StoreError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(LAYERS_TABLE, "append", full)
    assert run("--layers", "--format", form) == 1
    printed, said = capsys.readouterr()
    assert STEP in printed
    assert f"{LENET5}: its layers are not saved: results/" in printed + said
    assert "rows in results/" not in said.partition("not kept")[2]


def test_layers_of_code_that_was_edited_meanwhile_are_not_those_of_the_rows(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "edits_after", "measure")
    assert run("--layers", "--processes", "1") == 1
    said = capsys.readouterr()
    assert "its layers ran other code, software or settings than its rows" in said.err
    assert STEP not in said.out
    assert STEP not in shown("1", capsys)
    monkeypatch.setattr(Worker, "edits_after", "layers")
    assert run("--layers") == 1
    said = capsys.readouterr().err
    assert "no layers: the sessions ran different code (nets.py); close programs that open" in said


@pytest.mark.filterwarnings("always::convmark.results.reading.StoreWarning")
def test_layers_and_descriptions_that_find_no_room_hide_no_figure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--layers") == 0
    (machine() / "models").rename(machine() / "elsewhere")
    (machine() / "models").write_text("no folder")
    capsys.readouterr()
    assert run("--layers", "--describe") == 0
    printed = capsys.readouterr()
    assert "step p50" in printed.out
    assert STEP in printed.out
    assert "layers.csv, not drawn: " in printed.err
    assert "lenet5: its description: " in printed.err


def test_settings_are_tried_in_turns_and_one_that_cannot_be_measured_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = Worker.answer

    def answer(self: Worker, request: Mapping[str, Any], *more: Any) -> Answer:
        case = request.get("case", {})
        if case.get("precision") == "mixed_bfloat16":
            return Answer(status="error", message="no such kernel", ready_s=0.01)
        self.factor = 0.5 if case.get("jit") == "on" else 1.0
        return answered(self, request, *more)

    monkeypatch.setattr(Worker, "answer", answer)
    assert main(["layers", "lenet5", "--suggest", "--ceilings", "off"]) == 0
    said = capsys.readouterr()
    steps = r"as it is +(9\.9|10)[.\d]* ms\n--jit on +(4\.9|5)[.\d]* ms"
    assert re.search(steps + r" +-(49|50)[.\d]* % .* yes", said.out)
    assert "mixed_bfloat16" not in said.out
    assert "--precisions mixed_bfloat16: no such kernel" in said.err


def test_changes_of_the_model_are_tried_where_its_layers_ask_for_them(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = Worker.answer

    def answer(self: Worker, request: Mapping[str, Any], *more: Any) -> Answer:
        variant = request.get("variant")
        if variant == "folded":
            return Answer(status="error", message="has no such layer", ready_s=0.01)
        self.factor = 0.5 if variant == "channels" else 1.0
        found = answered(self, request, *more)
        for units in (event["units"] for event in found.events if event["event"] == "layers"):
            units[0] |= {"shape": [32, 6]}
            units[1] |= {"folds_into": "conv"}
        return found

    asked = ["layers", "lenet5", "--suggest", "--ceilings", "off", "--tasks", "infer"]
    assert main(asked) == 0
    assert "channels" not in capsys.readouterr().out
    monkeypatch.setattr(Worker, "answer", answer)
    assert main(asked) == 0
    said = capsys.readouterr()
    line = r"channels in multiples of 8 +(4\.9|5)[.\d]* ms +-(49|50)[.\d]* % .* yes"
    assert re.search(line, said.out)
    assert "batch normalisation: can be folded into conv" in " ".join(said.out.split())
    assert "batch normalisation folded: has no such layer" in said.err
    assert "Other channels make another network" in " ".join(said.out.split())
    assert main([*asked, "--isolation", "none"]) == 0  # a module's own model would stay changed
    assert "channels in" not in capsys.readouterr().out


def test_a_setting_that_the_models_code_overrules_is_not_told_of(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = Worker.answer

    def answer(self: Worker, request: Mapping[str, Any], *more: Any) -> Answer:
        found = answered(self, request, *more)
        read = {"event": "read_back", "precision": "float32"}
        return dataclasses.replace(found, events=[*found.events, read])

    monkeypatch.setattr(Worker, "answer", answer)
    case = Case(model="lenet5", task="infer", batch_size=32)
    found = remedies(case, Worker().answer, Options(processes=2), print)
    assert found is not None
    assert [one.option for one in found.remedies] == ["--jit on"]
    assert "mixed_bfloat16: cannot be tried: the model's own code" in capsys.readouterr().out


def test_a_machine_that_is_slower_in_one_process_than_in_the_next_is_no_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered, speeds = Worker.answer, itertools.cycle([1.0, 3.0, 1.5])

    def answer(self: Worker, request: Mapping[str, Any], *more: Any) -> Answer:
        found, slower = answered(self, request, *more), next(speeds)
        scaled = [
            {name: [slower * one for one in value] if name.endswith("_s") else value
             for name, value in event.items()}
            if event["event"] in ("steps", "rounds") else event
            for event in found.events
        ]  # fmt: skip
        return dataclasses.replace(found, events=scaled)

    monkeypatch.setattr(Worker, "answer", answer)
    case = Case(model="lenet5", task="infer", batch_size=32)
    found = remedies(case, Worker().answer, Options(processes=2), print)
    assert found is not None
    for one in found.remedies:
        assert one.change == pytest.approx(0.0, abs=0.01)
        assert one.step_s / found.step_s == pytest.approx(math.exp(one.change))


def test_two_processes_tell_no_interval_of_a_setting_and_the_table_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def table(processes: int) -> Table:
        case = Case(model="lenet5", task="infer", batch_size=32)
        found = remedies(case, Worker().answer, Options(processes=processes), print)
        assert found is not None
        return remedies_table(found, faster([found]))

    few = "Fewer than 3 processes tell no interval, so none is marked faster: give --processes 3"
    assert (few in table(2).caption, few in table(3).caption) == (True, False)
    assert "interval" not in [heading.key for heading in table(2).headings]
    assert all(table(3).column("interval")[1:])


def tried(*chances: float) -> Tried:
    """Return a case with a setting for each chance that it changes nothing."""
    interval = Interval(-0.2, -0.1)
    found = [
        Remedy(option=f"--{place}", step_s=0.9, change=-0.15, interval=interval, chance=chance)
        for place, chance in enumerate(chances)
    ]
    return Tried(case="lenet5", step_s=1.0, remedies=found)


def test_settings_of_all_cases_are_faster_at_95_percent_together() -> None:
    alone = faster([tried(0.02)])
    assert [one.option for one in alone] == ["--0"]
    assert faster([tried(0.02), tried(0.03, 0.6)]) == []  # 0.05 / 3 for the first of three
    sure = faster([tried(0.016), tried(0.024, 0.6)])
    assert [one.chance for one in sure] == [0.016, 0.024]
    table = remedies_table(tried(0.024, 0.6), sure)
    assert table.column("helps") == [None, "yes", "not for sure"]
    doubtful = dataclasses.replace(alone[0], interval=Interval(-0.2, 0.01))
    assert faster([dataclasses.replace(tried(), remedies=[doubtful])]) == []


def test_settings_of_code_that_is_edited_meanwhile_are_not_compared(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "edits_after", "measure")
    case = Case(model="lenet5", task="infer", batch_size=32)
    assert remedies(case, Worker().answer, Options(processes=2), print) is None
    assert "no settings: " in (said := capsys.readouterr().out)
    assert "nets.py was edited; measure again" in said


def test_a_row_whose_code_is_not_known_has_no_layers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    assert run("--layers") == 1
    assert [rows[0].ran for rows in read_layers(layers_path(machine()))] == [None]
    assert layers_of(read_run(machine() / "0001.csv"), layers_path(machine())) == []


def test_what_may_have_read_more_than_is_known_is_no_known_code(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == 0
    monkeypatch.setattr(Worker, "missed", "the kernel's queue was full")
    assert run() == 0
    words = (
        "; the code that ran is not known for 2 rows, so it is never called the same as other "
        "code: the kernel's q"
    )
    assert words in capsys.readouterr().out
    (path,) = Path("results").glob("*/0002.csv")
    assert [(row.status, row.code, row.commit) for row in read_run(path)] == [
        ("ok", None, None)
    ] * 2


def test_cases_without_layers_are_named_and_no_run_begins_for_them_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--models", "lenet5", "--tasks", "accuracy", "--layers"]) == 2
    assert "--layers: no case has layers: --tasks: " in capsys.readouterr().err
    assert run("--layers", "--tasks", "infer,waterfall") == 0
    said = capsys.readouterr().err
    assert "no layers: --tasks: layers are measured in train, infer, got waterfall" in said
    assert run("--layers", "--dry-run") == 0
    assert "--layers takes at least 12 s more" in capsys.readouterr().err


def test_pytest_measures_the_layers_after_the_cases(
    folder: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pytester.path)
    (pytester.path / "nets.py").write_text("")
    pytester.makepyfile(
        test_bench="import pytest\n"
        "from convmark.core.suites import Suite\n"
        "@pytest.mark.convmark(Suite(models=('lenet5',), tasks=('infer',), batch_sizes=(32,)))\n"
        "def test_lenet(measured, benchmark):\n"
        "    measured.replay(benchmark)\n"
    )
    result = pytester.runpytest_inprocess("--convmark-layers", "--convmark-processes=2")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"*{STEP}*"])


def test_merged_runs_have_their_layers_once(folder: Path) -> None:
    assert run("--layers", "--results", "a") == 0
    assert run("--results", "a") == 0
    edit()
    assert run("--layers", "--results", "b") == 0
    assert main(["merge", "a", "b", "--results", "all"]) == 0
    assert len(read_layers(layers_path(machine("all")))) == 2
    for number, place in ((1, "a"), (2, "a"), (3, "b")):
        records = read_run(machine("all") / f"{number:04}.csv")
        (rows,) = layers_of(records, layers_path(machine("all")))
        assert rows in read_layers(layers_path(machine(place)))


def test_merge_leaves_layers_behind_that_are_of_no_row(folder: Path) -> None:
    assert run("--results", "a") == 0
    edit()
    alone = ["layers", "lenet5", "--batch-sizes", "32", "--ceilings", "off", "--results", "a"]
    assert main(alone) == 0
    assert main(["merge", "a", "--results", "all"]) == 0
    assert not list(Path("all").glob("*/layers.csv"))


def change(**cells: str) -> None:
    """Give all rows of the file other cells; of names, the rest keeps its own."""
    path = layers_path(machine())
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        for name, cell in cells.items():
            place = header.index(name)
            if name not in ("kind", "shape", "note") or row[header.index("kind")]:
                row[place] = cell
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def test_names_from_elsewhere_are_text_wherever_they_are_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--layers") == 0
    bad = "</script><script>alert(1)</script>"
    change(kind=bad, shape=bad, note="'=1+1")
    path = layers_path(machine())
    path.write_text(path.read_text().replace(",conv,", f",{bad},"))
    assert STEP in shown("1", capsys)
    assert bad not in page()
    assert page().count("&lt;/script&gt;&lt;script&gt;alert(1)") >= 6


HOSTILE = {
    "a control character": ({"layer": "conv\x1b[2J"}, "column 'layer' must"),
    "a place twice": ({"place": "1"}, "places must be 1 to 4 in order"),
    "no rest": ({"layer": "conv"}, "the last row, and no other, must be (rest)"),
    "all rest": ({"layer": "(rest)"}, "the last row, and no other, must be (rest)"),
    "other sum": ({"time_s": "1.0"}, "times must sum to step_s"),
    "no time": ({"step_s": "0.0"}, "column 'step_s' must be above 0"),
    "endless": ({"step_s": "inf"}, "column 'step_s' must"),
    "negative work": ({"flops": "-1"}, "column 'flops' must be at least 0"),
    "no session": ({"sessions": "0"}, "column 'sessions' must be above 0"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_file_that_does_not_fit_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run("--layers") == 0
    values, words = HOSTILE[name]
    change(**values)
    with pytest.raises(StoreError) as caught:
        read_layers(layers_path(machine()))
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(layers_path(machine())))
    for command in (["show", "1"], ["report", "-o", "page.html"], ["merge", "results"]):
        more = ["--results", "all"] if command[0] == "merge" else []
        assert main([*command, *more]) != 0, command
        assert words in capsys.readouterr().err
    assert not list(Path("all").glob("*/*.csv"))
