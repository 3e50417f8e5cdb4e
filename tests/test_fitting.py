"""Tables that are wider than the terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from typing import Any

import pytest

from convmark.core.fitting import terminal_width, unbroken, wrapped
from convmark.core.table import headings, printed

HEADINGS = headings(
    "machine model task step rate peak parameters note",
    step=("step p50", "seconds"),
    rate=("samples/s", "rate"),
    peak=("host peak", "bytes"),
)
NOTE = "1 of 3 unsteady: the step time changed its level by -60% after step 25 of 100 in run 0003"


def row(model: str, task: str, note: str | None = None) -> dict[str, object]:
    return {
        "machine": "amd-epyc-2cpu-24gib",
        "model": model,
        "task": task,
        "step": 0.00467,
        "rate": 6938.0,
        "peak": 19_400_000,
        "parameters": 61706,
        "note": note,
    }


ROWS = [row("lenet5", "train"), row("lenet5", "infer", NOTE), row("mini_resnet", "train")]


def text(monkeypatch: pytest.MonkeyPatch, width: int | None, rows: list[dict[str, object]]) -> str:
    monkeypatch.setenv("COLUMNS", "" if width is None else str(width))
    return printed(HEADINGS, rows)


def words(printed_text: str) -> set[str]:
    return {word.strip(",:") for word in printed_text.split() if set(word) != {"-"}}


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_lost(
    monkeypatch: pytest.MonkeyPatch, width: int, count: int
) -> None:
    whole = text(monkeypatch, None, ROWS[:count])
    found = text(monkeypatch, width, ROWS[:count])
    assert max(map(len, found.splitlines())) <= width
    assert words(whole) <= words(found)


def test_the_ends_of_an_interval_are_not_two_cells_of_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    columns = headings("case hardware low high run", low="interval from", high="to")
    cases = [f"{model}-of-a-shop-train-cpu-b32-float32" for model in ("one", "two")]
    places = [f"{machine} of the second floor cpu" for machine in ("laptop", "server")]
    shared = {"low": "0.19", "high": "0.29"}
    rows = [{"case": case, "hardware": place, "run": f"{case[0]}{place[0]}", **shared}
            for case in cases for place in places]  # fmt: skip
    assert printed(columns, rows).startswith("in every row: interval from 0.19 to 0.29\n")
    apart = [{**row, "low": f"{row['run']}1", "high": f"{row['run']}2"} for row in rows]
    assert "\n  interval from ol1 to ol2, run ol\n" in printed(columns, apart)


def test_what_all_rows_share_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = text(monkeypatch, 80, ROWS)
    assert found.startswith("in every row: machine amd-epyc-2cpu-24gib, step p50 4.67 ms, ")
    assert found.count("amd-epyc-2cpu-24gib") == 1


def numbered(note: str | None) -> list[dict[str, object]]:
    names = ("step", "rate", "peak", "parameters")
    return [
        {**one, **dict.fromkeys(names, number), "note": one["note"] and note}
        for number, one in enumerate(ROWS, 1)
    ]


def test_each_part_begins_with_what_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found = text(monkeypatch, 50, numbered(None))
    assert [line.split()[:2] for line in found.splitlines() if "mini_resnet" in line] == [
        ["mini_resnet", "train"]
    ] * 2


def test_a_later_part_leaves_out_rows_without_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    last = text(monkeypatch, 40, numbered("unsteady")).split("\n\n")[-1]
    assert [line.split() for line in last.splitlines()[::2]] == [
        ["model", "task", "note"],
        ["lenet5", "infer", "unsteady"],
    ]


def test_a_long_text_stands_below_with_the_name_of_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = text(monkeypatch, 80, ROWS).splitlines()
    place = lines.index("lenet5  infer")
    assert lines[place + 1].startswith("  note: 1 of 3 unsteady: the step time")
    assert lines[place + 2].startswith("    ")


def test_rows_whose_names_leave_no_room_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "company.department.networks:residual(width=64,depth={})-train-cpu-b32-float32"
    rows = [{**row("x", "train"), "machine": long.format(depth), "step": depth} for depth in (5, 9)]
    found = text(monkeypatch, 80, rows).splitlines()
    assert [line for line in found if "residual" in line] == [long.format(5), long.format(9)]
    assert found[found.index(long.format(9)) + 1] == "  step p50: 9.00 s"


def test_a_single_row_becomes_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = text(monkeypatch, 60, ROWS[:1]).splitlines()
    assert lines[:2] == ["machine     amd-epyc-2cpu-24gib", "model       lenet5"]


def test_a_table_that_fits_is_as_it_is_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert text(monkeypatch, 300, ROWS) == text(monkeypatch, None, ROWS)


def test_prose_that_fits_stays_and_what_is_pasted_is_not_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    lines = "two  spaces stay\n  and so does this line\n" + "but a line of many words is " * 2
    found = wrapped(lines, before="name: ")
    assert found == (
        "two  spaces stay\n  and so does this line\n"
        "but a line of many words is\n  but a line of many words is"
    )
    assert wrapped(found, before="name: ") == found
    command = f"next: convmark report {'results ' * 5}"
    assert wrapped(unbroken(command)) == command
    monkeypatch.delenv("COLUMNS")
    assert wrapped(unbroken(command), width=None) == command


@pytest.mark.parametrize("text", ["49.1 ms", "+12.1 %", "3 min", "1.50 GiB", "10 s"])
def test_a_number_and_its_unit_stay_in_one_line(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in range(20, 40):
        assert text in wrapped(f"from some words that come before {text} to others", width=width)
        monkeypatch.setenv("COLUMNS", str(width))
        cells = [{"case": name, "note": f"{name} and words before {text} to others"}
                 for name in ("a", "b")]  # fmt: skip
        for rows in (cells, cells[:1]):
            assert text in printed(headings("case note"), rows)


def test_a_terminal_of_no_width_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    reader, writer = pty.openpty()  # its size is 0 x 0
    with os.fdopen(reader), os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr("sys.__stdout__", terminal)
        assert terminal_width() is None
        monkeypatch.setattr("os.get_terminal_size", lambda number: os.terminal_size((90, 24)))
        assert terminal_width() == 90


def test_what_goes_into_a_pipe_is_as_wide_as_the_terminal_that_another_stream_leads_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    names = ("__stdout__", "__stderr__", "__stdin__")
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    with os.fdopen(reader), os.fdopen(writer, "w") as terminal:
        for leads in (None, *names):
            for name in names:
                monkeypatch.setattr(sys, name, terminal if name == leads else io.StringIO())
            assert terminal_width() == (90 if leads else None)
        assert terminal_width(io.StringIO()) == 90


@pytest.mark.parametrize("width", range(1, 40))
def test_the_narrowest_terminal_has_a_table(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    assert "mini_resnet" in text(monkeypatch, width, ROWS)


@pytest.mark.parametrize("asked", ["0", "-1", "wide", "", "9" * 7, "\u0664"])
def test_a_width_that_is_none_counts_as_unknown(
    monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setenv("COLUMNS", asked)
    assert terminal_width() is None
    assert wrapped(NOTE) == NOTE


def test_every_part_has_the_columns_that_tell_its_rows_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = [f"{model}-train-cpu-b32-float32" for model in ("lenet5", "mini_resnet_norm")]
    names = [(case, version) for case in cases for version in ("2.20.0", "2.21.0")]
    figures = {"step": 0.00467, "rate": 6938.0, "peak": 19_400_000, "parameters": 61706}
    rows = [{"machine": case, "model": version, **figures} for case, version in names]
    rows[0] |= {"step": 0.1, "rate": 3.0, "peak": 3.0, "parameters": 3}  # all rows share nothing
    parts = text(monkeypatch, 80, rows).split("\n\n")
    assert len(parts) > 1
    assert all("2.20.0" in part and "2.21.0" in part for part in parts)


@pytest.mark.parametrize("width", ["60", "80"])
def test_what_stands_before_a_paragraph_is_not_repeated_where_its_first_word_has_no_room(
    monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    label, word = "  interpreter of the environment  ", f"/{'x' * 60}/bin/python"
    found = wrapped(f"{word} is not here", before=label, indent=" " * len(label))
    assert found == f"{word}\n{' ' * len(label)}is not here"


def test_rows_that_only_long_names_tell_apart_are_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = headings(
        "model task batch_size hardware step rate note",
        step=("step p50", "seconds"),
        rate=("samples/s", "rate"),
    )
    machines = [
        f"xeon-e5-2680-with-{gib}-gib-of-memory-in-the-basement-of-the-house cpu"
        for gib in (32, 64)
    ]
    rows = [
        {"model": "lenet5", "task": "train", "batch_size": 32, "hardware": machine,
         "step": 0.0047 * place, "rate": 6938.0 / place, "note": NOTE}
        for place, machine in enumerate(machines, 1)
    ]  # fmt: skip
    rows += [{**rows[0], "batch_size": 8}]
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(columns, rows).splitlines()
    assert max(map(len, lines)) <= 80
    place = lines.index(f"batch 32  {machines[1]}")
    assert lines[place + 1] == "  step p50 9.40 ms, samples/s 3469"
    monkeypatch.setenv("COLUMNS", "30")
    assert (
        "  step p50 9.40 ms," in printed(columns, rows).splitlines()
    )  # no number without its unit


@pytest.mark.parametrize(
    ("names", "values", "shown"),
    [
        ("model part step rate peak", {"part": (0.1, 0.5)}, ("10.0 %", "50.0 %")),
        ("model step target rate peak", {"target": (0.97, 0.99)}, ("0.97", "0.99")),
        ("model step rate peak run", {"run": ("0001", "0002")}, ("0001", "0002")),
    ],
)
def test_what_alone_tells_rows_apart_is_in_every_part(
    monkeypatch: pytest.MonkeyPatch, names: str, values: dict[str, tuple[Any, Any]],
    shown: tuple[str, str],
) -> None:  # fmt: skip
    columns = headings(
        names,
        step=("step p50", "seconds"),
        rate=("samples/s", "rate"),
        peak=("parameters", "count"),
        part=("part", "share"),
        target=("target", "number"),
    )
    ((key, pair),) = values.items()
    rows: list[dict[str, Any]] = [
        {"model": model, key: one, "step": 0.0047 * place, "rate": 7e3 / place, "peak": place}
        for model in ("lenet5", "vgg16")
        for place, one in enumerate(pair, 1)
    ]
    monkeypatch.setenv("COLUMNS", "30")
    parts = printed(columns, rows).split("\n\n")
    assert all(one in part for one in shown for part in parts)


def test_a_name_that_is_wider_than_the_terminal_is_wrapped_above_its_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "xeon-2 cpu, train, batch 32, mixed_bfloat16, 2 replicas, optimizer=adam, input 32x32x3"
    rows = [{"case": name, "note": NOTE}, {"case": f"{name}, jit", "note": NOTE}]
    rows[1]["note"] = f"another: {NOTE}"
    monkeypatch.setenv("COLUMNS", "80")
    lines = printed(headings("case note"), rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert name in " ".join(line.strip() for line in lines)
