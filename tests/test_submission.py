"""`convmark check-submission`: what a pull request brings is clean, or each finding is one line."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from json_tables import rows_of
from mutations import mutated
from report_rows import keep_run, measured
from valid_submission import CORES, CPUS, NAMES, NOW, steps_of, timed

from convmark.cli import main
from convmark.core.errors import OptionError, StoreError
from convmark.report.describe import Layer, diagram
from convmark.report.submission import Submission, check
from convmark.report.suspicion import REMEDIES
from convmark.report.tables.layers import keep_bars
from convmark.results.record import Record
from convmark.results.run_file import BESIDE, steps_path
from convmark.results.schema import MEASUREMENT_VERSION
from convmark.session.layers import REST, LayerRow

SLOW, FAST = NAMES["slow"], NAMES["fast"]
CLEAN: dict[str, Any] = {"code": "c0de" * 4, "seed": 0, "loss_first": 2.3, "loss": 2.0}


def rows(run: int = 1, machine: str = SLOW, **changes: Any) -> list[Record]:
    """Return two processes of a case."""
    kind = "fast" if machine == FAST else "slow"
    facts = {**CLEAN, "started": f"2025-01-{run:02d}T03:04:05.000+00:00", "cpu": CPUS[kind],
             "cores": CORES[kind]}  # fmt: skip
    found = []
    for number in (1, 2):
        row = measured(machine, run, "lenet5", number, order=number, **{**facts, **changes})
        step_s = row.step_time_p50_s or 0.01
        own = {
            **timed(step_s, 1.0),
            "measurement_version": str(MEASUREMENT_VERSION),
            "rounds": 100,
            "paired_step_time_p50_s": step_s,
            "reference_step_time_p50_s": 0.01,
            "paired_log_ratio": math.log(step_s / 0.01),
        }
        found.append(replace(row, **{name: own[name] for name in own if name not in changes}))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return results with one clean run."""
    monkeypatch.chdir(tmp_path)
    keep_run(Path("results"), rows())
    return Path("results")


def found(folder: Path, *against: str) -> list[tuple[str, int | None, str]]:
    """Return the findings: file, line and rule."""
    findings = check([folder], [Path(place) for place in against], NOW).findings
    return [(one.file.name, one.line, one.rule) for one in findings]


def test_a_clean_submission_passes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-submission", "results"]) == 0
    assert capsys.readouterr().out == "1 run with 2 rows checked, 0 findings\n"


SUSPECT: dict[str, dict[str, Any]] = {
    "dirty": {"dirty": True},
    "no code": {"code": None},
    "other load": {"other_cpu_share": 0.1},
    "concurrent": {"concurrent": True},
    "throttled": {"throttle_reasons": "SW thermal slowdown"},
    "not judged": {"not_judged": "two processes on the card"},
    "unsteady": {"status": "unsteady", "unsteady": "level changed"},
    "future": {"started": "2026-06-01T01:00:01.000+00:00"},
    "past": {"started": "2024-12-31T23:59:59.000+00:00"},
    "ceiling": {"flops_per_sample": 10**9, "training_flops_per_sample": 10**9, "code": "beef" * 4},
}


@pytest.mark.parametrize("rule", sorted(SUSPECT))
def test_rows_that_are_suspect_are_one_finding_of_their_run(rule: str, folder: Path) -> None:
    keep_run(folder, rows(2, **SUSPECT[rule]))
    (one,) = check([folder], [], NOW).findings
    assert (one.file.name, one.line, one.rule, one.rows) == ("0002.csv", 2, rule, 2)


def test_what_is_on_the_limit_passes(folder: Path) -> None:
    row = rows()[0]
    flops = int(2.25 * 0.5e12 * 2 / row.throughput_samples_per_s)  # two logical CPUs
    limits = {"other_cpu_share": 0.0999, "started": "2026-06-01T01:00:00.000+00:00",
              "code": "beef" * 4}  # fmt: skip
    keep_run(folder, rows(2, flops_per_sample=flops // 2, throttle_reasons="none", **limits))
    assert found(folder) == []


def test_a_measured_ceiling_counts_where_it_can_be(folder: Path) -> None:
    keep_run(folder, rows(2, peak_flops_per_s=1e9))  # 3,200 samples of 0.8 MFLOPs a second
    keep_run(folder, rows(3, peak_flops_per_s=1.1e12))
    assert found(folder) == [("0002.csv", 2, "ceiling"), ("0003.csv", 2, "ceiling")]


@pytest.mark.parametrize("name", ["step_time_mean_s", "started"])
def test_a_copied_row_is_found_under_another_name(name: str, folder: Path) -> None:
    changed = {"started": "2025-02-02T00:00:00.000+00:00", "step_time_mean_s": 0.00989}
    originals = [replace(row, process_start_s=row.process + 0.5) for row in rows()]
    keep_run(folder, originals)
    keep_run(folder, [replace(row, run="0002", **{name: changed[name]}) for row in originals])
    assert found(folder) == [("0002.csv", 2, "duplicate")]


def test_rows_of_one_run_are_held_against_each_other(folder: Path) -> None:
    first = rows(2)
    copies = [
        replace(row, process=row.process + 2, order=row.order + 2, processes=4,
                started=f"2025-02-02T00:00:0{row.process}.000+00:00")
        for row in first
    ]  # fmt: skip
    first = [replace(row, processes=4) for row in first]
    keep_run(folder, [*first, *copies])
    keep_run(folder, [rows(3, code="beef" * 4)[0], rows(3, code="beef" * 4, loss=4.0)[1]])
    findings = check([folder], [], NOW).findings
    assert [(one.file.name, one.line, one.rule, one.rows) for one in findings] == [
        ("0002.csv", 4, "duplicate", 2), ("0003.csv", 3, "loss", 1),
    ]  # fmt: skip


def test_published_runs_are_not_checked_again_and_must_not_change(folder: Path) -> None:
    keep_run(folder, rows(2, dirty=True))
    shutil.copytree("results", "main/results")
    assert found(folder, "main/results") == []
    keep_run(folder, rows(2))
    assert found(folder, "main/results") == [("0002.csv", None, "changed")]


def test_published_files_must_neither_change_nor_go(folder: Path) -> None:
    steps_path(folder / SLOW / "0001.csv").write_bytes(b"0")
    header = "run,accepted,commit,reason,case\n"
    write("accepted.csv", f"{header}0001,2026-01-01,,first,\n")(folder / SLOW)
    keep_run(folder, rows(2))
    shutil.copytree("results", "main/results")
    keep_run(folder, rows(3))
    with (folder / SLOW / "accepted.csv").open("a") as file:
        file.write("0003,2026-01-02,,new,\n")
    assert found(folder, "main/results") == []
    with (folder / SLOW / "accepted.csv").open("a") as file:
        file.write("0002,2026-01-02,,published,\n")
    steps_path(folder / SLOW / "0001.csv").write_bytes(b"1")
    (folder / SLOW / "0002.csv").unlink()
    write("0001.log", "")(folder / SLOW)
    changed = [
        ("0001.log", None, "changed"), ("0001.steps.npz", None, "changed"),
        ("0002.csv", None, "gone"), ("accepted.csv", None, "changed"),
    ]  # fmt: skip
    assert found(folder, "main/results") == changed
    assert found(folder / SLOW, f"main/results/{SLOW}") == changed
    assert found(folder / SLOW, "main/results") == changed


def test_a_table_of_published_rows_only_grows(folder: Path) -> None:
    header = "run,accepted,commit,reason,case\n"
    write("accepted.csv", f"{header}0009,2026-01-01,,first,\n")(folder / SLOW)
    shutil.copytree("results", "main/results")
    write("accepted.csv", f"{header}0009,2026-01-01,,other,\n")(folder / SLOW)
    assert found(folder, "main/results") == [("accepted.csv", None, "changed")]


def test_a_table_that_a_later_version_has_given_its_columns_has_only_grown(folder: Path) -> None:
    earlier = "run,accepted,commit,reason"
    write("accepted.csv", f"{earlier}\n0009,2026-01-01,,first\n")(folder / SLOW)
    shutil.copytree("results", "main/results")
    for reason, rule in (("first", []), ("other", [("accepted.csv", None, "changed")])):
        text = f"{earlier},case\n0009,2026-01-01,,{reason},\n0008,2026-01-02,,new,lenet5\n"
        write("accepted.csv", text)(folder / SLOW)
        assert found(folder, "main/results") == rule


def test_published_results_may_have_another_folder_name(folder: Path) -> None:
    shutil.copytree("results", "main/ada")
    keep_run(folder, rows(2))
    assert found(folder, "main/ada") == []
    (folder / SLOW / "0001.csv").unlink()
    assert found(folder, "main/ada") == []  # no run of both is the same: another person's


def test_a_copy_of_another_persons_rows_is_found(folder: Path) -> None:
    for place in ("main/ada", "new/ada", "new/eve"):
        shutil.copytree("results", place)
    findings = check([Path("new/ada"), Path("new/eve")], [Path("main/ada")], NOW).findings
    assert [(str(one.file), one.rule) for one in findings] == [
        (f"new/eve/{SLOW}/0001.csv", "duplicate")
    ]


def test_a_pattern_may_name_loose_files_or_nothing_published(folder: Path) -> None:
    Path("README.md").touch()
    Path("empty").mkdir()
    given = [Path("README.md"), folder]
    nothing = [Path("README.md"), Path("empty"), Path("none/*")]
    assert check(given, nothing, NOW) == Submission(runs=1, rows=2)
    shutil.copytree("results", "main/gone")
    (finding,) = check(given, [Path("main/gone")], NOW).findings
    assert (finding.file, finding.rule) == (Path("gone"), "gone")
    with pytest.raises(StoreError, match=r"^main: must be a folder of results, .* name main/\*$"):
        check(given, [Path("main")], NOW)


def test_rows_are_held_against_published_ones(folder: Path) -> None:
    shutil.copytree("results", "main/results")
    step_s = rows()[0].step_time_p50_s * 12
    keep_run(folder, [rows(2, step_s=step_s)[0], rows(2, step_s=step_s * 1.01)[1]])
    keep_run(folder, rows(3, loss_first=2.5, loss=2.6))
    keep_run(folder, rows(4, machine=FAST, loss=2.8))  # elsewhere the step time may be another
    keep_run(folder, rows(5, parameters=61_707))
    keep_run(folder, rows(6, loss_first=2.35, loss=2.2))
    assert found(folder, "main/results") == [
        ("0004.csv", 2, "loss"), ("0002.csv", 2, "contradicts"), ("0003.csv", 2, "loss"),
        ("0005.csv", 2, "contradicts"),
    ]  # fmt: skip


def test_throughput_is_that_of_the_step_time_on_an_idle_machine(folder: Path) -> None:
    rate = 32 / 0.01
    for run, factor in enumerate((0.54, 0.56, 2.9, 3.1), 2):
        figures = {"step_s": 0.01 + run / 1e6, "throughput_samples_per_s": rate * factor}
        keep_run(folder, rows(run, **figures, window_steps=100)[:1])
    assert found(folder) == [("0002.csv", 2, "contradicts"), ("0005.csv", 2, "contradicts")]


def test_windows_are_as_long_as_the_version_that_measured_them_took_them(folder: Path) -> None:
    for run, (version, steps) in enumerate((("5", 4), ("5", 7), ("6", 4), ("6", 2)), 2):
        figures = {"step_s": 0.01 + run / 1e6, "throughput_samples_per_s": 3200.0}
        keep_run(folder, rows(run, **figures, window_steps=steps, measurement_version=version)[:1])
    assert found(folder) == [("0002.csv", 2, "contradicts"), ("0005.csv", 2, "contradicts")]


def test_rows_of_a_file_have_no_parameters_and_contradict_nothing(folder: Path) -> None:
    of_a_file: dict[str, Any] = {"parameters": None, "flops_per_sample": None}
    of_a_file |= {"task": "infer", "runtime": "litert", "flops_note": "the file does not tell"}
    measured_rows = rows(2, **of_a_file, loss_first=None, loss=None)
    keep_run(folder, [replace(row, model="net.tflite") for row in measured_rows])
    assert found(folder) == []


def test_a_median_must_be_that_of_the_raw_step_times(folder: Path) -> None:
    first, second = rows(2)
    path = keep_run(folder, [first, second])
    times = {f"{row.order:05d}": steps_of(row) for row in (first, second)}
    np.savez(steps_path(path), **times)
    assert found(folder) == []
    for changed in (times["00002"] * 2, times["00002"][:-1], np.sort(times["00002"])[1:]):
        np.savez(steps_path(path), **{**times, "00002": changed})
        assert found(folder) == [("0002.csv", 3, "raw steps")]
    np.savez(steps_path(path), **{"00002": times["00002"]})
    assert found(folder) == [("0002.csv", 2, "raw steps")]
    steps_path(path).write_bytes(b"no archive")
    (finding,) = check([folder], [], NOW).findings
    assert (finding.rule, finding.line, finding.rows) == ("raw steps", 2, 2)


def write(name: str, content: bytes | str) -> Callable[[Path], None]:
    data = content if isinstance(content, bytes) else content.encode()

    def made(machine: Path) -> None:
        (machine / name).parent.mkdir(parents=True, exist_ok=True)
        (machine / name).write_bytes(data)

    return made


def append(data: bytes) -> Callable[[Path], None]:
    def made(machine: Path) -> None:
        with (machine / "0001.csv").open("ab") as file:
            file.write(data)

    return made


def manifest(path: str, sha256: str) -> str:
    """Return a manifest of one file whose hash is right."""
    from convmark.results.code.manifest import Code, CodeFile, Place

    file = CodeFile(Place(".", path), sha256, 1)
    code = Code(files=(file,), packages={})
    told = {"place": {"root": ".", "path": path}, "sha256": sha256, "size_bytes": 1}
    whole = {"files": [told], "packages": {}, "roots": {}, "import_roots": [], "of_commit": False,
             "folder": {"root": ".", "path": "."}}  # fmt: skip
    return json.dumps({"schema": 1, "codes": {code.hash: whole}})


FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a link to a file": ("link", lambda machine: (machine / "0002.csv").symlink_to("/etc/passwd")),
    "a linked folder": ("link", lambda machine: (machine / "code").symlink_to("/etc")),
    "a pipe": ("special file", lambda machine: os.mkfifo(machine / "name.txt")),
    "a script": ("no results file", write("run.py", "print()")),
    "a workflow": ("no results file", write(".github", "on: push")),
    "an escape": ("name", write("\x1b[31m.csv", "")),
    "bytes": ("name", lambda machine: open(os.fsencode(machine) + b"/\xff.csv", "w").close()),
    "a huge file": ("size", lambda machine: os.truncate(machine / "0001.csv", 2**26 + 1)),
    "a torn line": ("torn", append(b"4,0001,2025")),
    "a line too many": ("schema", append(b"4,0001,2025\n")),
    "no run": ("schema", write("0002.csv", "a,b\n1,2\n")),
    "a name": ("schema", write("name.txt", "../../etc\n")),
    "ceilings": ("schema", write("ceilings.csv", "a,b\n")),
    "verdicts": ("schema", write("0001.verdicts.csv", "a,b\n")),
    "a description": ("schema", write("models/x.json", "[" * 100_000)),
    "a diagram": ("script", write("models/x.svg", '<svg onload="alert(1)"/>')),
    "a path out": ("schema", write("0001.code.json", manifest("../../x", "0" * 64))),
    "a hash that leads out": ("path", write("0001.code.json", manifest("x", "/e" + "tc/passwd"))),
    "a kept file of another hash": ("path", write(f"code/00/{'0' * 62}", "")),
    "a comparison": ("comparison", write("../ab/0001.csv", "")),
    "another machine": ("machine", lambda one: one.rename(one.with_name("mine")) and None),
}


@pytest.mark.parametrize("what", sorted(FILES))
def test_files_that_are_no_results_are_found_and_inert(
    what: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule, make = FILES[what]
    make(folder / SLOW)
    assert main(["check-submission", "results"]) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert last.endswith(" 1 finding")
    assert f": {rule}: " in first
    assert first.endswith(REMEDIES[rule])
    assert first.isprintable()
    assert "root:" not in first


TABLES = (
    *("accepted", "ceilings", "layers", "noise", "verdicts"),
    *("0001.epochs", "0001.latency", "0001.layers", "0001.sessions", "0001.sustained"),
    "0001.verdicts",
)


def test_each_table_has_its_header_and_ends_with_a_newline(folder: Path) -> None:
    rules = {b"": "torn", b"\0\0": "torn", b"a,b\n": "schema", b"\0\n": "schema"}
    for content, rule in rules.items():
        for name in TABLES:
            (folder / SLOW / f"{name}.csv").write_bytes(content)
        assert found(folder) == [(f"{name}.csv", 1, rule) for name in sorted(TABLES)]


def test_each_description_is_blamed_for_its_own_fault(folder: Path) -> None:
    for name, content in (("a", "{"), ("b", "[]"), ("c", '{"schema": 0}')):
        write(f"models/{name}.json", content)(folder / SLOW)
    findings = check([folder], [], NOW).findings
    assert [(one.file.name, one.rule) for one in findings] == [
        (f"{name}.json", "schema") for name in "abc"
    ]
    assert len({one.value for one in findings}) == 3
    assert all(f"{folder}" not in one.value for one in findings)


def test_comparisons_are_one_finding_of_their_folder(folder: Path) -> None:
    for name in ("0001.csv", "0001-lenet5.svg", "verdicts.csv"):
        write(f"../ab/{name}", "")(folder / SLOW)
    assert found(folder) == [("ab", None, "comparison")]


def test_a_file_beside_no_run_is_found(folder: Path) -> None:
    for ending in BESIDE:
        write(f"0009{ending}", "\n")(folder / SLOW)
    assert found(folder) == [(f"0009{one}", None, "no results file") for one in sorted(BESIDE)]


NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'
DIAGRAMS: dict[str, bytes] = {
    "a prefix": b'<s:svg xmlns:s="http://www.w3.org/2000/svg"><s:script>alert(1)</s:script></s:svg>',
    "UTF-16": f"<svg {NAMESPACE}><script>alert(1)</script></svg>".encode("utf-16"),
    "UTF-16 without mark": f"<svg {NAMESPACE}><script>alert(1)</script></svg>".encode("utf-16-le"),
    "UTF-7": b'<?xml version="1.0" encoding="utf-7"?><svg>+ADw-script+AD4-</svg>',
    "a frame": f'<svg {NAMESPACE}><iframe xmlns="http://www.w3.org/1999/xhtml"/></svg>'.encode(),
    "a style": f'<svg {NAMESPACE}><style>@import "x";</style></svg>'.encode(),
    "a handler": f'<svg {NAMESPACE} onload="alert(1)"/>'.encode(),
    "a style's value": f'<svg {NAMESPACE}><rect fill="url(x)"/></svg>'.encode(),
    "a link": f'<svg {NAMESPACE}><a href="x"><text>click</text></a></svg>'.encode(),
    "an entity": f'<!DOCTYPE svg [<!ENTITY a "b">]><svg {NAMESPACE}>&a;</svg>'.encode(),
    "no drawing": b"<title/>",
    "no XML": b"alert(1)",
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(DIAGRAMS))
def test_a_drawing_has_only_what_convmark_draws(what: str, folder: Path) -> None:
    write("models/x.svg", DIAGRAMS[what])(folder / SLOW)
    assert found(folder) == [("x.svg", None, "script")]


def test_diagrams_and_bars_of_layers_pass(folder: Path) -> None:
    layer = Layer(name="a<b&c", kind="Dense", shape="10", parameters=850, flops=1_680,
                  weight_bytes=3_400, inputs=())  # fmt: skip
    layers = [layer, replace(layer, inputs=(0,)), replace(layer, inputs=(0, 1)), layer]
    write("models/x.svg", diagram("a<b", layers))(folder / SLOW)
    whole = {"measured": "2026-01-01T00:00:00+00:00", "case": "a", "model": "a", "machine": SLOW,
             "version": "1", "ran": None, "sessions": 3, "step_s": 2.0, "time_s": 1.0}  # fmt: skip
    optional = dict.fromkeys(LayerRow.__dataclass_fields__)
    keep_bars(folder / SLOW, [
        LayerRow(**{**optional, **whole, "place": place, "layer": name})
        for place, name in enumerate(("a<b", REST), 1)
    ])  # fmt: skip
    assert found(folder) == []


def test_a_folder_that_is_a_link_is_found(folder: Path) -> None:
    Path("linked").symlink_to(folder)
    assert found(Path("linked")) == [("linked", None, "link")]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_place_without_runs_is_a_usage_error(name: str, folder: Path) -> None:
    Path("empty").mkdir()
    with pytest.raises(OptionError, match=f"^{name}: "):
        check([Path(name)], [], NOW)


def test_the_table_has_file_line_rule_value_and_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_run(folder, rows(2, not_judged="a|<b>"))
    assert main(["check-submission", "results", "--format", "json"]) == 1
    (row,) = rows_of(capsys.readouterr().out, "check-submission")
    assert row == {
        "file": f"results/{SLOW}/0002.csv", "line": 2, "rule": "not judged", "rows": 2,
        "value": "a|<b>", "remedy": REMEDIES["not judged"],
    }  # fmt: skip
    assert main(["check-submission", "results", "--format", "markdown"]) == 1
    assert "| a\\|&lt;b&gt; |" in capsys.readouterr().out


def test_mutated_submissions_are_refused_or_inert(folder: Path) -> None:
    path = folder / SLOW / "0001.csv"
    whole, rng = path.read_bytes(), random.Random(7)
    refused = 0
    for _ in range(200):
        path.write_bytes(mutated(whole, rng))
        submission = check([folder], [], NOW)
        refused += bool(submission.findings)
        assert_inert(submission)
    assert refused > 150


def assert_inert(submission: Submission) -> None:
    from convmark.report.submission import findings_table

    for text in (text for row in findings_table(submission.findings).texts() for text in row):
        assert text.isprintable(), text
