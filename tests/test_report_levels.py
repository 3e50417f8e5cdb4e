"""The report's levels: the same as those of `convmark history`, in its table and its figure."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from histories import MACHINE, keep, process, run_of
from test_trend import LENET, points

from convmark.cli import main
from convmark.cli.history import _point
from convmark.compare.files import NOISE, NOISE_TABLE, NoiseRow
from convmark.compare.index import Index
from convmark.compare.sessions_file import KeptSession, write
from convmark.compare.trend import trend
from convmark.core.table import Table
from convmark.report.build import build
from convmark.report.figures.series import history_figure
from convmark.report.rows import read_rows
from convmark.report.tables.history import levels, runs_of_levels, trends
from convmark.results.store import Store

RESNET = "mini_resnet-train-cpu-b32-float32"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen runs of a case that steps at the eleventh, and of one that does not.

    Some processes failed, are unsteady or not judged, a run is dirty and one under load.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    store = Store(Path("results"))
    for number, point in enumerate(points([0.0] * 10 + [0.06] * 6), 1):
        own = {"commit": point.commit, "dirty": number == 5, "code": None}
        own |= {"tensorflow": "2.20.0" if number == 1 else "2.21.0"}
        own |= {"other_cpu_share": 0.7 if number == 7 else 0.05}
        rows = run_of(point.run, point.log_ratio - 0.002, point.log_ratio + 0.002, **own)
        odd = {"paired_log_ratio": 0.9, "process": 3, "order": 3, "run": point.run, **own}
        rows.append(process(status=("ok", "unsteady")[number % 2], **odd,
                            not_judged=None if number % 2 else "the card was hot"))  # fmt: skip
        rows += run_of(point.run, 0.5, 0.501, 0.5005, model="mini_resnet", **own)
        if number == 9:  # by the mean of the processes it would be a run under another load
            rows[-1] = dataclasses.replace(rows[-1], other_cpu_share=0.6)
        keep(store, rows)
    return store.folder


def table_of(report_tables: tuple[Table, ...], key: str) -> Table:
    return next(table for table in report_tables if table.key == key)


def test_the_levels_are_those_of_the_command(results: Path) -> None:
    rows = read_rows([results])
    found = trends(rows.frame, rows.runs)
    paths = Store(results).runs(MACHINE)
    for case in (LENET, RESNET):
        index = Index(results / MACHINE, case)
        figures = [(path, one) for path in paths if (one := index.figures(path)) is not None]
        own = [_point(path, one) for path, one in figures if one.log_ratio is not None]
        expected, reported = trend(own), found[f"{MACHINE} cpu", case]
        assert len(own) == 16
        for one, other in zip(expected.stretches, reported.stretches, strict=True):
            assert [point.run for point in one.points] == [point.run for point in other.points]
            assert [point.commit for point in one.points] == [p.commit for p in other.points]
            assert one.conditions == other.conditions
            size, interval = one.level.change, one.level.interval
            assert other.level.change == (size and pytest.approx(size, abs=1e-12))
            assert other.level.interval == interval.mapped(
                lambda end: pytest.approx(end, abs=1e-12)
            )
        assert [one.run for one in expected.left_out] == [one.run for one in reported.left_out]


def test_the_median_of_a_level_is_taken_once_for_all_its_runs(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_rows([results])
    found = trends(rows.frame, rows.runs)
    taken: list[int] = []
    monkeypatch.setattr(
        "convmark.compare.trend.median_of", lambda values: taken.append(len(list(values))) or 0.01
    )
    assert len(runs_of_levels(found)) == sum(taken) > 2 * len(taken)


def test_a_step_has_its_row_its_command_and_its_mark_in_the_figure(results: Path) -> None:
    tables = build([results]).tables
    table = table_of(tables, "levels")
    first, second, step = [row for row in table.records() if row["case"] == LENET]
    assert (first["first"], first["last"], first["runs"]) == ("0001", "0001", 1)
    assert (second["first"], second["last"], second["kind"]) == ("0002", "0010", "new series")
    assert second["live"].startswith("tensorflow was 2.20.0, is 2.21.0")
    assert (step["first"], step["last"], step["kind"]) == ("0011", "0016", "step")
    assert step["low"] < 0.0618 < step["high"]
    assert "convmark ab git:00000000000a git:00000000000b --models lenet5" in step["live"]
    assert f"{LENET} on {MACHINE} cpu: left out, under another load (70 %" in table.caption
    history = table_of(tables, "history")
    marked = {row["run"]: row["moved"] for row in history.records() if row["moved"]}
    assert list(marked) == ["0011"]
    assert marked["0011"].startswith("0011: +6.")
    figure = history_figure(history)
    assert figure is not None
    assert any("moved" in str(layer) for layer in figure.specs[0]["layer"])


def test_levels_and_changes_of_one_run_are_not_shown_on_another_of_its_name(
    tmp_path: Path,
) -> None:
    for place, point in enumerate(points([0.0] * 6 + [0.69] * 6)):
        name, day = "alice" if place < 6 else "bob", f"2026-01-{place + 1:02d}"
        logs = [point.log_ratio + noise for noise in (-0.002, 0.0, 0.002)]
        rows = run_of(f"{place % 6 + 1:04d}", *logs, started=f"{day}T00:00:00.000+00:00")
        keep(Store(tmp_path / name / "results"), rows)
    report = build([tmp_path / name / "results" for name in ("alice", "bob")])
    rows = table_of(report.tables, "history").records()
    assert [row["level"] for row in rows] == ["1"] * 6 + ["2"] * 6
    assert [row["run"] for row in rows if row["moved"]] == ["bob/results/0001"]


def test_without_a_change_the_table_says_so_and_the_figure_has_no_mark(results: Path) -> None:
    rows = read_rows([results])
    flat = rows.frame[(rows.frame["case"] == RESNET) & (rows.frame["tensorflow"] == "2.21.0")]
    table = levels(trends(flat, rows.runs), Path(), {})
    assert (table.rows, table.empty) == ((), "no change of a case can be shown")
    assert "No change can be shown of 1 case." in table.caption


def test_in_the_command_and_the_report_another_model_begins_a_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    for number in range(1, 5):
        sizes = {"parameters": 61706 * (1 + number // 3)}
        step_s = 0.01 if number < 3 else 0.03
        rows = run_of(f"{number:04d}", 0.0, 0.1, **sizes)
        rows = [dataclasses.replace(row, step_time_p50_s=step_s) for row in rows]
        keep(Store(Path("results")), rows)
    told = "another model than run 0002: parameters 61,706 -> 123,412"
    assert main(["history", LENET, "--machine", MACHINE]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"from run 0003, a series of its own: {told}" in text
    tables = build([Path("results")]).tables
    shown = [
        (row["first"], row["last"], row["step_time_p50_s"], row.get("kind"), row.get("live"))
        for row in table_of(tables, "levels").records()
    ]
    assert shown == [
        ("0001", "0002", 0.01, None, None), ("0003", "0004", 0.03, "new series", told)
    ]  # fmt: skip
    history = table_of(tables, "history")
    levels = list(zip(history.column("level"), history.column("level_s"), strict=True))
    assert levels == [("1", 0.01)] * 2 + [("2", 0.03)] * 2


def test_the_noise_is_shown_where_it_is_known(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from convmark.cli import main

    assert all(table.key != "noise" for table in build([results]).tables)
    row = NoiseRow(
        measured="2026-11-25T10:00:00+00:00", convmark="1", case=LENET, cases=16, sessions=6,
        session_s=1.5, scatter=0.009, mean=0.0, budget_s=600.0, found_from=0.018,
        rules_out=0.012, seconds_for_3_percent=None, seconds_for_5_percent=18.0,
        seconds_for_10_percent=18.0, note=None,
    )  # fmt: skip
    older = dataclasses.replace(row, scatter=0.5)
    NOISE_TABLE.append(results / MACHINE / NOISE, [older, row])
    (shown,) = table_of(build([results]).tables, "noise").records()
    assert (shown["machine"], shown["case"], shown["scatter"]) == (MACHINE, LENET, 0.009)
    assert main(["history", LENET]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "noise, 2026-11-25: 0.9 % per session (6 sessions of 1.50 s); detects 1.8 %, "
        "`unchanged` excludes 1.2 %; 3 / 5 / 10 % in -/18/18 s"
    )


def test_a_creep_of_gates_is_named_by_the_command_and_by_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    store = Store(Path("results"))
    runs = points([0.0] * 6)
    for number, point in enumerate(runs):
        odd = 0.02 * (-1) ** number  # what runs of one process differ by hides 1 % a commit
        row = run_of(point.run, 0.01 * number + odd, commit=point.commit, dirty=False, code=None)
        keep(store, row)
        sessions = [
            KeptSession(
                **{"case": LENET, "conditions": "c", "old_code": "o", "new_code": point.run},
                **{"anchor": runs[0].commit[:12], "commit": point.commit, "decided": True},
                **{"run": None, "apart": False, "wall": 0.01 * number + more, "cpu": None},
                seconds=1.0,
            )
            for more in (-0.005, 0.0, 0.005)
        ]
        if number:
            write(store.folder / MACHINE / f"{point.run}.csv", sessions)
    assert main(["history", LENET, "--results", "results"]) == 0
    assert (
        f"creep, seen by the live sessions beside {runs[0].commit[:12]}" in capsys.readouterr().out
    )
    rows = read_rows([store.folder])
    (found,) = trends(rows.frame, rows.runs).values()
    assert [one.level.creep for one in found.stretches] == [False, True]
