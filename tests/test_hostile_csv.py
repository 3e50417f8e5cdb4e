"""Broken and hostile results files: read whole, or refused by file and line, fast and in little."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import random
import re
import resource
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forks, printed
from histories import A_COMMIT, MACHINE, keep, process, run_of
from mutations import mutated
from test_verdicts_file import judgement

from convmark.cli import main
from convmark.compare.digest import digest_of
from convmark.compare.files import (
    Acceptance,
    accept,
    keep_verdicts,
    read_accepted,
    read_verdicts,
    verdicts_path,
)
from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.results import reading
from convmark.results.columnar import _typed
from convmark.results.reading import HEADER, StoreWarning, read_head, read_run
from convmark.results.record import COLUMNS, Record, to_cells
from convmark.results.schema import OLDEST_SCHEMA, SCHEMA_VERSION
from convmark.results.store import Store, read_step_times
from convmark.results.table_file import TableFile
from convmark.session.ceilings import read_ceilings

MOST_S, MOST_BYTES = 1.0, 256 * 2**20
"""Seconds are of CPU time where a reading waits for nobody: others may use the machine."""
GIB = 2**30


def whole_file(path: Path) -> bytes:
    """Return a run's file with texts of all sorts, quotes and apostrophes among them."""
    texts = {"cpu": 'Xeon, "Gold" 漢字', "flags": "=A=1", "os": "'+Linux", "commit": A_COMMIT}
    rows = [
        *(process(run="0001", process=n, order=n, **texts) for n in (1, 2)),
        process(run="0001", order=3, status="error", error="no weights, at step 3", commit=None),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(to_cells(row) for row in rows)
    return path.read_bytes()


def outcome(read: Callable[[], Any]) -> tuple[Any, str]:
    """Return what was read and no message, or None and why it is refused."""
    try:
        return read(), ""
    except StoreError as refused:
        return None, str(refused)


def is_one_line(message: str) -> bool:
    return len(message.splitlines()) == 1 and message.isprintable()


def check_run(path: Path, data: bytes) -> bool:
    """Hold a file to the promise; return whether it was read."""
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        began = time.process_time()
        records, message = outcome(lambda: read_run(path))
        seconds = time.process_time() - began
    assert seconds < MOST_S
    typed = _typed(data, path)
    if records is None:
        assert is_one_line(message), message
        assert re.match(rf"{re.escape(str(path))}:[0-9]+: ", message)
        assert typed is None, "what the store refuses, a report must not take"
        check_refusal_elsewhere(path)
        return False
    # each line that is whole is a row, none is lost or made of two
    assert len(records) == data.count(b"\n") - 1
    torn = [str(warning.message) for warning in warned]
    line = data.count(b"\n") + 1
    expected = [] if data.endswith(b"\n") else [f"{path}:{line}: a torn last line was left out"]
    assert torn == expected
    assert read_head(path) == (records[0] if records else None)
    assert sum(case.processes for case in digest_of(path).cases) == sum(
        row.measured and row.step_time_p50_s is not None for row in records
    )
    if typed is not None:
        assert typed["batch_size"].tolist() == [row.batch_size for row in records]
        assert typed["model"].tolist() == [row.model for row in records]
    again = io.StringIO()
    csv.writer(again, lineterminator="\n").writerows([HEADER, *map(to_cells, records)])
    path.write_text(again.getvalue(), encoding="utf-8")
    assert read_run(path) == records
    return True


def check_refusal_elsewhere(path: Path) -> None:
    """The quick readers may take a file whose fault is not in what they look at, or refuse it."""
    for message in (outcome(lambda: read_head(path))[1], outcome(lambda: digest_of(path))[1]):
        assert not message or (is_one_line(message) and message.startswith(str(path)))


def hold_to_the_promise(path: Path, count: int, seed: int) -> int:
    whole = whole_file(path)
    rng = random.Random(seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    read = 0
    for number in range(count):
        data = mutated(whole, rng)
        try:
            read += check_run(path, data)
        except Exception as error:
            kept = path.with_name("failed.csv")
            kept.write_bytes(data)
            raise AssertionError(f"mutation {number} of seed {seed}, in {kept}: {error}") from error
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MOST_BYTES
    return read


def test_a_thousand_mutations_are_read_whole_or_refused_by_file_and_line(tmp_path: Path) -> None:
    read = hold_to_the_promise(tmp_path / "0001.csv", 1_000, seed=20)
    assert 30 < read < 900  # the mutations are neither all fatal nor all harmless


@pytest.mark.long
def test_a_hundred_thousand_mutations_are_read_whole_or_refused(tmp_path: Path) -> None:
    hold_to_the_promise(tmp_path / "0001.csv", 100_000, seed=21)


def tables(folder: Path) -> list[tuple[Path, Callable[[], Any]]]:
    """Make one of each table that stands beside the runs; return where it is and its reader."""
    store = Store(folder / "results")
    keep(store, run_of("0001", 0.0))
    run = store.folder / MACHINE / "0001.csv"
    keep_verdicts(run, [judgement(run="0001", case=f"case{n}") for n in (1, 2, 3)])
    for _ in range(3):
        accept(store, MACHINE, "1", "-3 %, as planned")
    ceilings = store.folder / MACHINE / "ceilings.csv"
    row = "2026-01-02T03:04:05+00:00,cpu,tensorflow,float32,1,2.21.0,2048,1e11,536870912,1.5e10\n"
    ceilings.write_text(
        "measured,device,backend,precision,threads,version,matrix_size,peak_flops_per_s,copy_bytes,"
        f"peak_bytes_per_s\n{row}{row.replace(',1,', ',2,')}"
    )
    return [
        (verdicts_path(run), lambda: read_verdicts(run)),
        (store.folder / MACHINE / "accepted.csv", lambda: read_accepted(store, MACHINE)),
        (ceilings, lambda: list(read_ceilings(ceilings))),
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_tables_beside_the_runs_are_read_whole_or_refused_too(
    place: int, tmp_path: Path
) -> None:
    path, read = tables(tmp_path)[place]
    whole = path.read_bytes()
    assert len(read()) == whole.count(b"\n") - 1
    rng, taken = random.Random(place), 0
    for _ in range(1_000):
        data = mutated(whole, rng)
        path.write_bytes(data)
        began = time.process_time()
        found, message = outcome(read)
        assert time.process_time() - began < MOST_S
        if found is None:
            assert is_one_line(message)
            assert re.match(rf"{re.escape(str(path))}:[0-9]+: ", message), message
            continue
        taken += 1
        rows = max(0, data.count(b"\n") - 1)
        assert len(found) == rows or (place != 1 and len(found) <= rows)  # the newest of a key
    assert 20 < taken < 900


# What must hold whatever the seed


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as refused:
        read_run(path)
    return str(refused.value).removeprefix(str(path))


def test_two_quotes_do_not_make_one_row_of_two(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    lines = whole_file(path).decode().splitlines()
    # opened in a text cell of the second row, closed in the same cell of the third
    at = HEADER.index("machine")
    first, second = lines[1].split(f",{MACHINE},"), lines[2].split(f",{MACHINE},")
    assert at
    joined = f'{first[0]},"{MACHINE},{first[1]}\n{second[0]},{MACHINE}",{second[1]}'
    path.write_text("\n".join([lines[0], joined, lines[3]]) + "\n")
    assert ": must be CSV: " in refusal(path)
    assert refusal(path).startswith(":2: ")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    whole = whole_file(path)
    records = read_run(path)
    path.write_bytes(b"\xef\xbb\xbf" + whole)
    assert read_run(path) == records
    assert read_head(path) == records[0]
    path.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))
    assert read_run(path) == records


def test_lines_that_end_as_on_an_old_macintosh_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    path.write_bytes(whole_file(path).replace(b"\n", b"\r"))
    assert refusal(path) == ":1: lines must end with a line feed, they end with CR only"


def test_a_later_schema_is_refused_kindly_though_its_columns_are_unknown(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    header, *rows = whole_file(path).decode().splitlines()
    path.write_text(f"{header},tomorrow\n" + "".join(f"99{row[1:]},x\n" for row in rows))
    assert refusal(path) == (
        f":2: must be of schema 2 to {SCHEMA_VERSION}, got '99'; a later convmark wrote it: "
        "upgrade convmark to read it"
    )
    path.write_text(f"{header},tomorrow\n" + "".join(f"{row},x\n" for row in rows))
    assert refusal(path) == (
        f":1: must have the columns of schema {SCHEMA_VERSION}: column 'tomorrow' is unknown"
    )


def test_an_earlier_schema_is_read_and_what_it_lacks_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0001.csv"
    rows = list(csv.reader(io.StringIO(whole_file(path).decode())))
    expected = read_run(path)
    # as if there were a next schema, which brought these columns in
    new, following = ("flags", "accuracy"), SCHEMA_VERSION + 1
    columns = [
        dataclasses.replace(column, since=following) if column.name in new else column
        for column in COLUMNS
    ]
    monkeypatch.setattr(reading, "SCHEMA_VERSION", following)
    monkeypatch.setattr(reading, "LAYOUTS", reading.layouts(columns, following))
    kept = [place for place, name in enumerate(HEADER) if name not in new]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([row[i] for i in kept] for row in rows)
    found = read_run(path)
    assert found == [dataclasses.replace(row, schema=following, flags=None) for row in expected]
    today = [[str(following), *row[1:]] for row in rows[1:]]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([rows[0], *today])
    assert read_run(path) == [dataclasses.replace(row, schema=following) for row in expected]
    path.write_text(path.read_text().replace(f"\n{following},", "\n1,", 1))
    assert refusal(path) == (
        f":2: must be of schema {following}, whose columns the file has, got '1'"
    )


def test_every_column_that_came_later_may_be_absent() -> None:
    assert all(not column.required for column in COLUMNS if column.since > OLDEST_SCHEMA)


def test_a_row_of_no_case_is_refused_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    path.write_bytes(whole_file(path).replace(b",train,", b",trian,", 1))
    assert refusal(path).startswith(":2: lenet5: task must be one of train, infer, ")


# Endless


def sparse(path: Path, beginning: bytes = b"") -> Path:
    """Make a file of 1 GiB that takes no room: a beginning, and zeros without a line's end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(beginning)
        file.truncate(GIB)
    return path


def endless(path: Path, beginning: bytes = b"") -> Path:
    """Make a file of 1 GiB of text in one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(beginning)
        block = b"1,0002,x" * (1 << 17)
        for _ in range(GIB // len(block)):
            file.write(block)
    return path


COSTED = """
import json, resource, sys
from convmark.cli import main
status = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print()
print(json.dumps([status, used.ru_utime + used.ru_stime, used.ru_maxrss]))
"""


@pytest.fixture(scope="module")
def commands() -> Iterator[Forks]:
    """Runs command lines in forks of a process that has imported them."""
    imports = "convmark.cli,convmark.report.build,pandas"
    one_thread = {"OPENBLAS_NUM_THREADS": "1"}  # so that the forks are safe
    with contextlib.closing(Forks({**os.environ, **one_thread}, "imports", imports)) as found:
        yield found


def cost(commands: Forks, arguments: list[str], folder: Path) -> tuple[int, float, int, str]:
    """Run the command line; return its status, CPU seconds, peak of memory and standard error."""
    cache = {"CONVMARK_CACHE": str(folder / "cache")}
    done = commands.run(COSTED, *arguments, cwd=folder, environ=cache)
    status, seconds, peak_kib = printed(done)
    return status, seconds, peak_kib * 1024, done.stderr


LENET = "lenet5-train-cpu-b32-float32"
ENDLESS = [
    (["compare", "{run}"], "run", 2, "0002.csv:2: a line must be at most 4 MiB"),
    (["compare"], "earlier", 0, "0002.csv:2: a line must be at most 4 MiB"),
    (["history", LENET], "run", 0, "0002.csv:2: a line must be"),
    (["history", LENET], "0001.verdicts.csv", 2, "0001.verdicts.csv:2: a line must"),
    (["compare"], "accepted.csv", 2, "accepted.csv:2: a line must be at most 4 MiB"),
    (["accept", "{run}", "--reason", "x"], "run", 2, "0002.csv:2: a line must be"),
    (["compare", "--across", "tensorflow"], "run", 0, "0002.csv:2: a line must be"),
    (["report", "--format", "csv"], "run", 2, "0002.csv:2: a line must be at most 4 MiB"),
    (["report", "--format", "csv"], "models/lenet5.json", 2, "lenet5.json:1: must be at most 32"),
]


@pytest.mark.parametrize("make", [sparse, pytest.param(endless, marks=pytest.mark.long)])
def test_a_line_of_a_gibibyte_is_refused_at_once_and_in_little_memory(
    make: Callable[..., Path], commands: Forks, tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    folder = store.folder / MACHINE
    first = keep(store, run_of("0001", 0.0))
    keep_verdicts(first, [judgement(run="0001")])
    accept(store, MACHINE, "1", "because")
    tables = ("0001.verdicts.csv", "accepted.csv")
    headers = {name: (folder / name).read_bytes() for name in tables}
    _, usual_s, usual_bytes, _ = cost(commands, ["report", "--format", "csv"], tmp_path)
    for arguments, where, status, message in ENDLESS if make is sparse else ENDLESS[:4]:
        beginning = first.read_bytes().partition(b"\n")[0] + b"\n"
        name = "0002.csv" if where in ("run", "earlier") else where
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        if name in headers:
            beginning = headers[name].partition(b"\n")[0] + b"\n"
        made = make(path, b"" if name.endswith(".json") else beginning)
        if where == "earlier":
            keep(store, run_of("0003", 0.0, model="vgg16"))
        words = [word.format(run=f"results/{MACHINE}/0002.csv") for word in arguments]
        found, seconds, peak_bytes, said = cost(commands, words, tmp_path)
        assert (found, "Traceback" in said) == (status, False), (words, said)
        assert message in said
        assert seconds < usual_s + 3 * MOST_S, words  # on a busy machine; a start is most of it
        assert peak_bytes < max(MOST_BYTES, usual_bytes + MOST_BYTES // 2), words
        made.unlink()
        (folder / "0003.csv").unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)


def test_reading_alone_of_a_gibibyte_in_one_line_takes_no_second(tmp_path: Path) -> None:
    header = (",".join(HEADER) + "\n").encode()
    for number, beginning in enumerate((b"", header)):
        message = rf"csv:{number + 1}: a line must be at most 4 MiB"
        path = sparse(tmp_path / f"000{number}.csv", beginning)
        for reader in (read_run, read_head, digest_of):
            began = time.process_time()
            with pytest.raises(StoreError, match=message):
                reader(path)
            assert time.process_time() - began < MOST_S


def test_a_torn_table_of_a_gibibyte_is_cut_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "accepted.csv"
    row = Acceptance(run="0001", accepted="2026", commit=None, reason="x")
    table = TableFile(Acceptance)
    table.append(path, [row])
    whole = path.read_bytes()
    taken_s = []
    for _ in range(3):  # a busy machine takes longer to hand out a gibibyte of zeros
        os.truncate(path, len(whole))
        os.truncate(path, GIB)
        began = time.process_time()
        table.append(path, [dataclasses.replace(row, run="0008")])
        taken_s.append(time.process_time() - began)
    assert min(taken_s) < MOST_S
    assert path.read_bytes()[: len(whole)] == whole
    assert [found.run for found in table.read(path)] == ["0001", "0008"]


# Not CSV


def test_step_times_that_claim_to_be_endless_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    steps = tmp_path / "0001.steps.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    members = {
        "a header that lies": head.getvalue() + b"\0" * 800,
        "zeros without end": head.getvalue() + b"\0" * (1 << 28),
        "not a number": np.lib.format.magic(1, 0),
        "infinite": _saved(np.array([1.0, np.inf])),
        "of words": _saved(np.array(["a", "b"])),
        "a table": _saved(np.ones((2, 2))),
    }
    for data in members.values():
        with zipfile.ZipFile(steps, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("00001.npy", data)
        began = time.process_time()
        assert read_step_times(path, [1]) is None
        assert time.process_time() - began < MOST_S


def _saved(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array, allow_pickle=False)
    return data.getvalue()


LAYER = (
    '{"schema": 1, "model": "x", "tensorflow": "2", "keras": "3", "input_shape": [28], "layers": '
    '[{"name": "a", "kind": "b", "output_shape": [%s], "parameters": %s, "flops": 1, '
    '"weight_bytes": 1, "inputs": []}]}'
)

DESCRIPTIONS = [
    LAYER % ("9" * 400, "1"),
    LAYER % ("9" * 5000, "1"),
    LAYER % ("1", "9" * 400),
    LAYER % ("-1", "1"),
    LAYER % (", ".join(["2"] * 10_000), "1"),
    "[" * 100_000,
    '{"schema": 1}',
    "null",
    "7",
    '{"schema": 1, "model": "x", "tensorflow": "2", "keras": "3", "input_shape": [1e999], '
    '"layers": []}',
    '{"schema": 1, "model": "x", "tensorflow": "2", "keras": "3", "input_shape": [28], "layers": '
    '[{"name": "a", "kind": "b", "output_shape": [1], "parameters": Infinity, "flops": 1, '
    '"weight_bytes": 1, "inputs": []}]}',
    '{"schema": 1, "model": "x", "tensorflow": "2", "keras": "3", "input_shape": [28], "layers": '
    '[{"name": "a", "kind": "b", "output_shape": [1], "parameters": 1, "flops": 1, '
    '"weight_bytes": 1, "inputs": [7]}]}',
    '{"schema": 1, "model": "x", "tensorflow": "2", "keras": "3", "input_shape": ["<b>"], '
    '"layers": []}',
]


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_a_description_that_does_not_fit_is_one_line(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = keep(Store(Path("results")), run_of("0001", 0.0, 0.1))
    (path.parent / "models").mkdir()
    (path.parent / "models" / "x.json").write_text(text)
    assert main(["report", "--format", "csv"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"convmark report: .*results/xeon-2/models/x\.json:1: must ", line)


# Numbers that fit their columns, and are absurd


EXTREMES = (0, -1, 5e-324, 1e-30, 1e30, 1e301, 10**29, 14.9, -14.9)


def extreme_run(run: str, fields: dict[str, Any]) -> list[Record]:
    rates = enumerate((3200.0, 3201.0), 1)  # no two processes have the same figures
    return [
        process(
            **{"run": run, "process": n, "order": n, "throughput_samples_per_s": rate, **fields}
        )
        for n, rate in rates
    ]


def with_extreme(value: float, name: str) -> list[Record] | None:
    """Return a run with an extreme number in one column; None where the column refuses it."""
    column = next(column for column in COLUMNS if column.name == name)
    if column.type is int and value != int(min(max(value, -1e300), 1e300)):
        return None
    number = column.type(value) if abs(value) < 1e300 or column.type is float else 10**29
    try:
        return extreme_run("0002", {name: number})
    except StoreError:
        return None


NUMERIC = [column.name for column in COLUMNS if column.type in (int, float)]


def compared(store: Store, rows: list[Record]) -> set[int]:
    """Return how comparisons end whose run, or one of whose runs, has the rows; none may fail."""
    columns = ("order", "process", "model")
    for run in ("0001", "0003"):
        keep(store, [process(run=run, **{c: getattr(row, c) for c in columns}) for row in rows])
    keep(store, rows)
    return {main(words) for words in (["compare", "2"], ["compare", "3"], ["compare", "2", "3"])}


def test_no_number_that_a_file_may_hold_ends_a_command_with_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each number is in a case of its own; in a run of its own where all cases share it."""
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    shared = {name for name, _ in reading.shared_columns(process())}
    tried = 0
    for value in EXTREMES:
        together: list[Record] = []
        for name in sorted(set(NUMERIC) - {"schema", "process", "order"}):
            rows = with_extreme(value, name)
            if rows is None:
                continue
            tried += 1
            if name in shared:
                assert compared(store, rows) <= {0, 1, 2}, (name, value)
                continue
            for row in rows:
                order = len(together) + 1
                together.append(dataclasses.replace(row, model=name, order=order))
        assert compared(store, together) <= {0, 1}, value  # refused, none would be tried
    assert tried > 300
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("value", EXTREMES)
def test_no_number_that_a_file_may_hold_ends_a_report_with_a_traceback(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    fields: dict[str, Any] = {}
    for name in sorted(set(NUMERIC) - {"schema", "process", "order", "throughput_samples_per_s"}):
        rows = with_extreme(value, name)
        with contextlib.suppress(StoreError):  # what would contradict the others is left out
            known = {} if rows is None else {name: getattr(rows[0], name)}
            extreme_run("0002", fields | known)
            fields |= known
    keep(store, run_of("0001", 0.0, 0.01))
    keep(store, extreme_run("0002", fields))
    keep(store, extreme_run("0003", fields))
    case = read_run(store.folder / MACHINE / "0002.csv")[0].case.name
    for arguments in (
        ["report", "--format", "markdown"],
        ["report", "-o", "page.html"],
        ["history", case],
        ["compare"],
        ["compare", "--across", "tensorflow"],
    ):
        assert main(arguments) in (0, 1), arguments


DIGITS = "9" * 5000
AXES = {"device": f"gpu:{DIGITS}", "threads": DIGITS, "cluster": f"hosts{DIGITS}", "jit": DIGITS}
"""Texts of a case; each is tried alone, for a row with it may be of no case."""
OTHERS = [
    column.name
    for column in COLUMNS
    if column.type is str and column.name not in (*Case.__dataclass_fields__, "status")
]


@pytest.mark.filterwarnings("ignore::convmark.results.reading.StoreWarning")
@pytest.mark.parametrize(
    "cells", [*({name: text} for name, text in AXES.items()), dict.fromkeys(OTHERS, DIGITS),
              dict.fromkeys(OTHERS, f"2.{DIGITS}")],
    ids=[*AXES, "others", "versions"],
)  # fmt: skip
def test_thousands_of_digits_in_a_text_end_no_command_with_a_traceback(
    cells: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    for run in ("0001", "0002", "0003"):
        path = keep(store, run_of(run, 0.0, 0.01))
    rows = list(csv.reader(path.read_text().splitlines()))
    for row in rows[1:]:
        row[HEADER.index("replicas")] = "2" if "cluster" in cells else "1"
        for name, text in cells.items():
            row[HEADER.index(name)] = text
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for arguments in (
        ["report", "--format", "csv"],
        ["compare"],
        ["compare", "1", "3"],
        ["compare", "--across", "tensorflow"],
        ["history", "lenet5-train-cpu-b32-float32"],
        ["accept", "3", "--reason", "x"],
        ["merge", "results", "--results", "joined"],
    ):
        assert main(arguments) in (0, 1, 2), arguments
        assert "Traceback" not in capsys.readouterr().err


def test_a_file_of_another_kind_is_one_line_from_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("results"))
    for name, data in {
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "zip": b"PK\x03\x04" + b"\0" * 300 + b"\n",
        "page": b"<!doctype html>\n<p>Sign in\n",
        "json": json.dumps({"a": 1}).encode() + b"\n",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n",
        "conflict": b"<<<<<<< HEAD\n" + ",".join(HEADER).encode() + b"\n=======\n",
    }.items():
        path = keep(store, run_of("0001", 0.0))
        path.write_bytes(data)
        for command in ("compare", "report", "accept"):
            more = ["1", "--reason", "x"] if command == "accept" else []
            assert main([command, *more]) == 2, name
            (line,) = capsys.readouterr().err.splitlines()
            assert re.match(rf"convmark {command}: results/xeon-2/0001\.csv:[0-9]+: must ", line)


def test_a_warning_of_a_torn_line_is_one_line_whatever_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "0001.csv"
    path.write_bytes(whole_file(path)[:-4])
    with pytest.warns(StoreWarning) as warned:
        read_run(path)
    assert is_one_line(str(warned[0].message))
