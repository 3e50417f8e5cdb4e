"""Logs of wall meters: what is read, what is refused, and which rows are joined, by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from report_rows import FAST, SLOW, keep_run, measured

from convmark.cli import main
from convmark.core.errors import OptionError
from convmark.report.build import build
from convmark.report.power_log import read_power_log
from convmark.report.rows import read_rows
from convmark.report.wall import with_wall_power

pytestmark = pytest.mark.filterwarnings("ignore:.*is the only row")  # one is enough here

BEGAN = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
EPOCH = BEGAN.timestamp()


def written(folder: Path, *lines: str, name: str = "meter.csv") -> Path:
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("header", "times", "cells", "watts"),
    [
        ("time,watts", ["2026-01-31T12:00:00Z", "2026-01-31T14:00:01+02:00",
                        "2026-01-31 12:00:02.5 UTC"], ["80", "81.5", "82"], [80, 81.5, 82]),
        ("timestamp;Power (kW)", ["1769860800", "1769860801.5", "1769860803"],
         ["0.08", "0.0815", "8.2e-2"], [80, 81.5, 82]),
        ("Date/time UTC\tVoltage\tpower_mW", ["2026-01-31 12:00:00", "2026-01-31 12:00:01",
                                              "2026-01-31 12:00:02"],
         ["230\t80000", "229\t81500", "230\t82000"], [80, 81.5, 82]),
        ("ts,apower,aenergy.total,id", ["1769860800", "1769860801", "1769860802"],
         ["80,1,7", "81.5,1,8", "82,1,9"], [80, 81.5, 82]),
        ("Time,Total,Today,Power,Voltage", ["2026-01-31T12:00:00+00:00",
                                            "2026-01-31T12:00:05+00:00",
                                            "2026-01-31T12:00:10+00:00"],
         ["1,1,80,230", "1,1,81.5,230", "1,1,82,230"], [80, 81.5, 82]),
    ],
)  # fmt: skip
def test_common_meters_are_read(
    tmp_path: Path, header: str, times: Sequence[str], cells: Sequence[str], watts: Sequence[float]
) -> None:
    parted = next(sign for sign in ";\t," if sign in header)
    lines = [f"{time}{parted}{cell}" for time, cell in zip(times, cells, strict=True)]
    for order in (lines, lines[::-1]):
        log = read_power_log(written(tmp_path, header, *order))
        assert log.watts == pytest.approx(watts)
        assert log.first_s == EPOCH


def line(second: float, watts: float = 80.0) -> str:
    return f"{(BEGAN + timedelta(seconds=second)).isoformat()},{watts}"


LINES = [line(n) for n in range(4)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time,watts", "2026-01-31T12:00:00,80"],
         "meter.csv:2: time must have a zone, as 2026-01-31T12:00:00+01:00 or with Z for UTC"),
        (["time,watts", "31.01.2026 12:00,80"], ":2: time must be as 2026-01-31T12:00:00+01:00 or"),
        (["time,watts", "1769860800000,80"], ":2: a time in numbers must be in epoch seconds"),
        (["time,watts", *LINES, line(2)], ":6: times must increase from line to line"),
        (["time,watts", *LINES[:2]], "must have at least 3 values, it has 2"),
        (["time,watts", line(0, -1.0)], ":2: power must be a number from 0 with a decimal point"),
        (["time;watts", "2026-01-31T12:00:00Z;80,5"], ":2: power must be a number from 0 with a"),
        (["time,watts", "2026-01-31T12:00:00Z,nan"], ":2: power must be a number from 0 with a"),
        (["time,power", *LINES], ":1: must have one column of power with its unit"),
        (["time,power_VA", *LINES], ":1: must have one column of power with its unit"),
        (["time,Power (MW)", *LINES], ":1: must have one column of power with its unit"),
        (["time,energy_kWh", *LINES], ":1: must have one column of power with its unit"),
        (["time,a_w,b_w", *LINES], "it has 2; keep one"),
        (["time,watts,device", *(f"{line(n, 80 - 68 * (n % 2))},{'ab'[n % 2]}" for n in range(4))],
         ":1: must be of one meter, its column device has 2 (a, b); keep the lines of one"),
        (["when,watts", *LINES], ":1: must have a column time or timestamp, it has when, watts"),
        (["time,watts", "2026-01-31T12:00:00Z"], ":2: must have 2 cells"),
        (["time,watts", "2026-01-31T12:00:00Z,1,234.5"], ":2: must have 2 cells, it has 3; write"),
        ([], ":1: must have a column time or timestamp, it has none"),
    ],
)  # fmt: skip
def test_what_is_no_log_is_refused_in_one_line(
    tmp_path: Path, lines: Sequence[str], message: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(message)) as refused:
        read_power_log(written(tmp_path, *lines))
    assert str(refused.value).startswith("--power-log: ")
    assert "\n" not in str(refused.value)


def test_values_that_the_meter_lacks_are_gaps_and_a_torn_last_line_is_left_out(
    tmp_path: Path,
) -> None:
    gone = [line(n).replace("80.0", "unavailable") for n in range(4, 9)]
    path = written(tmp_path, "time,watts", *LINES, *gone, *[line(n) for n in range(9, 14)])
    path.write_text(path.read_text() + line(14)[:-3])
    log = read_power_log(path)
    assert (len(log.watts), log.last_s) == (9, EPOCH + 13)
    assert ":11: no value for 6 s from 2026-01-31 12:00:03 UTC" in log.gap(EPOCH, EPOCH + 12)
    assert log.gap(EPOCH, EPOCH + 3) == ""


def test_the_mean_is_over_the_time_and_not_over_the_lines(tmp_path: Path) -> None:
    """A ramp from 0 to 40 W over 40 s, whose first values lie close together."""
    at = (0.0, 1.0, 2.0, 3.0, 40.0)
    log = read_power_log(written(tmp_path, "time,watts", *[line(n, n) for n in at]))
    assert log.mean_w(EPOCH + 10, EPOCH + 30) == pytest.approx(20.0)
    assert log.mean_w(EPOCH + 0.5, EPOCH + 40) == pytest.approx(20.25)


# Joined with rows: idle at 50 W until 12:01:00, where the command begins; the row from 12:01:10 to
# 12:06:10, its last quarter of sustained steps from 12:05:00 to 12:06:00 at 110 W.


def sustained_row(machine: str = SLOW, began_s: float = 70.0, **changes: Any) -> Any:
    began = BEGAN + timedelta(seconds=began_s)
    fields: dict[str, Any] = {
        "started": began.isoformat(timespec="milliseconds"),
        "command_started": (BEGAN + timedelta(seconds=60)).isoformat(timespec="milliseconds"),
        **{"took_s": 300.0, "windows_from_s": 5.0, "windows_until_s": 5.6},
        **{"sustained_from_s": 230.0, "sustained_until_s": 290.0, "sustained_s": 280.0},
        "sustained_throughput_samples_per_s": 100.0,
    }
    return measured(machine, 1, "lenet5", changes.pop("process", 1), **{**fields, **changes})


def power_log(
    folder: Path, until_s: float = 400.0, step_s: float = 1.0, shift_s: float = 0.0
) -> Path:
    def watts(second: float) -> float:
        return 50.0 if second < 60 else 110.0 if second < 362 else 50.0

    times = [n * step_s for n in range(int(until_s / step_s) + 1)]
    lines = [line(second + shift_s, watts(second)) for second in times]
    return written(folder, "time,watts", *lines)


def joined(folder: Path, *rows: Any, log: Path) -> tuple[Any, list[str]]:
    keep_run(folder / "results", rows)
    return with_wall_power(read_rows([folder / "results"]), [str(log)])


def test_a_row_has_the_power_of_its_own_time_and_idle_power_from_before_the_command(
    tmp_path: Path,
) -> None:
    frame, (said,) = joined(tmp_path, sustained_row(), log=power_log(tmp_path))
    assert frame["wall_power_w"].tolist() == pytest.approx([110.0])
    assert frame["wall_idle_power_w"].tolist() == pytest.approx([50.0])
    assert frame["wall_joules_per_sample"].tolist() == pytest.approx([1.1])
    assert frame["wall_above_idle_joules_per_sample"].tolist() == pytest.approx([0.6])
    assert said.endswith("2026-01-31 12:00:00 UTC to 2026-01-31 12:06:40 UTC, joined with 1 row.")


def test_the_energy_table_and_the_cost_have_the_wall(tmp_path: Path) -> None:
    keep_run(tmp_path / "results", [sustained_row()])
    found = build([tmp_path / "results"], power_logs=[str(power_log(tmp_path))])
    (table,) = (one for one in found.tables if one.key == "energy")
    (row,) = table.records()
    assert (row["scope"], row["power_w"], row["gross_j"]) == ("wall", 110.0, pytest.approx(1.1))
    assert table.lead[0].startswith(f"Wall: {SLOW} by ")


def test_the_windows_of_other_processes_are_not_mixed_with_sustained_steps(tmp_path: Path) -> None:
    """Of a GPU the windows take five seconds, which is enough of a meter with a value a second."""
    others = [
        sustained_row(process=n, began_s=380.0 + 10 * n, took_s=9.0, sustained_from_s=None,
                      sustained_until_s=None, windows_from_s=1.0, windows_until_s=8.0,
                      command_started=None)
        for n in (2, 3)
    ]  # fmt: skip
    log = power_log(tmp_path, until_s=500.0)
    frame, (said,) = joined(tmp_path, sustained_row(), *others, log=log)
    assert frame["wall_power_w"].dropna().tolist() == pytest.approx([110.0])
    assert "2 rows of windows, beside sustained steps of the same case" in said


def test_a_later_run_does_not_hide_the_energy_at_the_wall(tmp_path: Path) -> None:
    keep_run(tmp_path / "results", [sustained_row()])
    later = measured(SLOW, 2, "lenet5", 1, cpu_power_scope="package", cpu_joules_per_sample=0.5)
    keep_run(tmp_path / "results", [later])
    found = build([tmp_path / "results"], power_logs=[str(power_log(tmp_path))])
    (table,) = (one for one in found.tables if one.key == "energy")
    rows = {row["scope"]: (row["run"], row["gross_j"]) for row in table.records()}
    assert rows == {"package": ("0002", 0.5), "wall": ("0001", pytest.approx(1.1))}


def test_the_load_beside_the_energy_at_the_wall_is_that_of_the_same_steps(tmp_path: Path) -> None:
    loads = {"other_cpu_share": 0.0, "sustained_other_cpu_share": 0.4}
    keep_run(tmp_path / "results", [sustained_row(**loads)])
    found = build([tmp_path / "results"], power_logs=[str(power_log(tmp_path))])
    (table,) = (one for one in found.tables if one.key == "energy")
    assert table.column("load") == [0.4]


def test_idle_power_is_unknown_where_the_machine_was_busy_before(tmp_path: Path) -> None:
    before = sustained_row(began_s=20.0, took_s=30.0, process=2, sustained_from_s=None,
                           sustained_until_s=None, windows_until_s=25.0, batch_size=64,
                           command_started=None)  # fmt: skip
    frame, (said,) = joined(tmp_path, before, sustained_row(), log=power_log(tmp_path))
    assert frame["wall_power_w"].tolist() == pytest.approx([50.0, 110.0])
    assert frame["wall_idle_power_w"].isna().all()
    assert ", joined with 2 rows, 2 without idle power." in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sustained_from_s": None, "sustained_until_s": None}, "1 row too short for one value"),
        ({"took_s": None}, "1 row without times: from an earlier convmark, or the clock was set"),
        ({"cluster": "hosts2", "replicas": 2}, "1 row of several machines"),
        ({"sustained_until_s": 298.0, "sustained_from_s": 286.0},
         "1 row with power that changed: compare the clocks"),
        ({"status": "error", "error": "no", "step_time_p50_s": None}, "1 row failed"),
    ],
)  # fmt: skip
def test_a_row_without_a_sure_time_has_no_power_and_the_reason_is_told(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    other = sustained_row(process=2, began_s=380.0, took_s=10.0, **{
        "windows_from_s": 1.0, "windows_until_s": 8.0,
        "sustained_from_s": None, "sustained_until_s": None,
        "command_started": None,
    })  # fmt: skip
    frame, (said,) = joined(tmp_path, sustained_row(**changes), other, log=power_log(tmp_path))
    assert frame["wall_power_w"].isna().tolist() == [True, False]
    assert f"; without power from the wall: {why}" in said


def test_a_row_in_whose_time_the_machine_was_idle_by_the_log_has_no_power(tmp_path: Path) -> None:
    """The meter's clock is an hour off, and its noise lets the row draw a little more than idle."""
    watts = [50.0 + 0.5 * (n % 7 == 0) + 0.05 * (n > 60) for n in range(400)]
    log = written(tmp_path, "time,watts", *(line(n, value) for n, value in enumerate(watts)))
    with pytest.raises(OptionError, match="1 row with no more power than before the run"):
        joined(tmp_path, sustained_row(), log=log)


def test_rows_that_were_measured_together_have_no_power(tmp_path: Path) -> None:
    both = sustained_row(), sustained_row(began_s=90.0, process=2)
    with pytest.raises(OptionError, match="joins no row: 2 rows measured at the same time as anot"):
        joined(tmp_path, *both, log=power_log(tmp_path))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ({"until_s": 340.0}, "covers 2026-01-31 12:00:00 UTC to 2026-01-31 12:05:40 UTC, but "
         "lenet5-train-cpu-b32-float32 was measured from 2026-01-31 12:05:00 UTC"),
        ({"shift_s": 3600.0}, "joins no row: 1 row measured at another time; is the offset of its "
         "times right?"),
        ({"shift_s": -340.0, "until_s": 1000.0}, "1 row with no more power than before the run"),
        ({"step_s": 30.0}, "1 row too short for one value every 30 s"),
    ],
)  # fmt: skip
def test_a_log_of_another_time_is_refused_and_gives_no_row_its_power(
    tmp_path: Path, log: dict[str, float], message: str
) -> None:
    with pytest.raises(OptionError, match=re.escape(message)) as refused:
        joined(tmp_path, sustained_row(), log=power_log(tmp_path, **log))
    assert "\n" not in str(refused.value)


def test_a_gap_in_the_time_of_a_row_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = power_log(tmp_path)
    lines = path.read_text().splitlines()
    del lines[320:330]
    path.write_text("\n".join(lines) + "\n")
    keep_run(tmp_path / "results", [sustained_row()])
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--power-log", "meter.csv"]) == 2
    said = capsys.readouterr().err
    assert "meter.csv:321: no value for 11 s from 2026-01-31 12:05:18 UTC" in said
    assert "leave the run out, or measure again" in said
    assert said.count("\n") == 1


def test_a_log_is_of_one_machine(tmp_path: Path) -> None:
    keep_run(tmp_path / "results", [sustained_row(FAST)])
    log = power_log(tmp_path)
    with pytest.raises(OptionError, match=f"give the machine of the log, as --power-log {FAST}="):
        joined(tmp_path, sustained_row(), log=log)
    rows = read_rows([tmp_path / "results"])
    frame, _ = with_wall_power(rows, [f"{SLOW}={log}"])
    assert dict(zip(frame["machine"], frame["wall_power_w"].notna(), strict=True)) == {
        FAST: False,
        SLOW: True,
    }
    with pytest.raises(OptionError, match="no row is from the machine 'mac'; known: "):
        with_wall_power(rows, [f"mac={log}"])
    with pytest.raises(OptionError, match=f"must have one log of {SLOW}, got two"):
        with_wall_power(rows, [f"{SLOW}={log}"] * 2)


def test_a_log_of_several_nodes_is_refused(tmp_path: Path) -> None:
    both = sustained_row(node="a"), sustained_row(node="b", began_s=380.0, took_s=10.0, process=2)
    with pytest.raises(OptionError, match="rows of 2 nodes were measured in its time"):
        joined(tmp_path, *both, log=power_log(tmp_path))
