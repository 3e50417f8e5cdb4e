"""`convmark list` and `convmark show`, and the formats of every table."""

from __future__ import annotations

import csv
import importlib.util
import io
import sys
from pathlib import Path

import pytest
from fake_worker import FakeInterpreter
from json_tables import rows_of, tables_of

from convmark.cli import main
from convmark.cli.parsers import parsers


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with one run of two cases, measured by a stand-in."""
    monkeypatch.setattr("convmark.interpreter.Interpreter", FakeInterpreter)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.chdir(tmp_path)
    assert run() == 0
    return tmp_path


def run(*more: str) -> int:
    return main(["run", "--models", "lenet5", "--batch-sizes", "32", "--processes", "2", *more])


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_every_run_is_listed_and_a_damaged_one_with_the_reason(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = folder.glob("results/*/0001.csv")
    path.with_name("0002.csv").write_text("no,run\n")
    first, second = rows_of(printed(capsys, "list", "--format", "json"), "list")
    assert (first["run"], first["cases"], first["processes"]) == ("0001", 2, 4)
    assert first["machine"] == path.parent.name
    assert "TensorFlow 2.99.0" in first["versions"]
    assert (first["failed"], first["note"]) == (0, None)
    assert second["run"] == "0002"
    assert second["note"].startswith("1: ")


def test_a_run_is_shown_again_by_number_path_or_latest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = folder.glob("results/*/0001.csv")
    capsys.readouterr()
    assert run() == 0
    table, *_ = capsys.readouterr().out.partition("\n\nsamples/s")
    shown = {
        printed(capsys, "show", name) for name in ("2", "latest", str(path.with_name("0002.csv")))
    }
    (text,) = shown
    assert table in text
    assert text.startswith("run 0002 (no commit) on ")
    assert main(["show", "3"]) == 2


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("compare", []),
        ("compare", ["--across", "tensorflow"]),
        ("doctor", []),
        ("env list", []),
        ("history", ["lenet5-train-cpu-b32-float32"]),
        ("list", []),
        ("report", []),
        ("run", ["--models", "lenet5", "--processes", "2"]),
        ("run", ["--models", "lenet5", "--dry-run"]),
        ("show", ["1"]),
    ],
)
def test_each_command_has_each_format_and_its_json_fits_the_schema(
    command: str, more: list[str], folder: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def output(form: str) -> bytes:
        capsysbinary.readouterr()
        assert main([*command.split(), *more, "--format", form]) == 0
        return capsysbinary.readouterr().out

    tables = tables_of(output("json").decode(), command)
    assert command == "env list" or any(tables.values())
    assert output("csv").count(b"\n") > (command != "env list")
    assert output("markdown").count(b"|") > 3 or not any(tables.values())
    if importlib.util.find_spec("pyarrow"):
        assert output("parquet").startswith(b"PAR1")


def test_only_what_prints_no_table_has_no_format() -> None:
    _, commands = parsers()
    without = [
        name
        for name, parser in commands.items()
        if "--format" not in parser.format_help() and name not in ("env", "fleet")
    ]
    assert without == ["comment", "accept", "merge", "export", "publish"]


def test_a_dash_is_standard_output_or_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = printed(capsys, "report")
    assert printed(capsys, "report", "-o", "-") == plain
    page = printed(capsys, "report", "-o", "-", "--format", "html")
    assert page.startswith("<!doctype html>")
    assert printed(capsys, "export", "--to", "bmf", "-o", "-") == printed(
        capsys, "export", "--to", "bmf"
    )
    for words in (
        ["comment", "--badge", "-"],
        ["export", "--to", "otava", "-o", "-"],
        ["list", "--results", "-"],
        ["report", "--figures", "-"],
    ):
        capsys.readouterr()
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"convmark {words[0]}: --")
    assert not Path("-").exists()


def test_csv_has_a_line_for_a_row_or_of_several_tables_for_a_cell(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = csv.DictReader(io.StringIO(printed(capsys, "list", "--format", "csv")))
    assert (row["run"], row["cases"], row["failed"]) == ("0001", "2", "0")
    cells = list(csv.DictReader(io.StringIO(printed(capsys, "show", "1", "--format", "csv"))))
    times = [one for one in cells if one["column"] == "step_time_p50_s"]
    assert [(one["table"], one["row"], one["unit"]) for one in times] == [
        ("summary", "1", "s"),
        ("summary", "2", "s"),
    ]


@pytest.mark.parametrize("command", [["list"], ["show", "1"]], ids=lambda words: words[0])
def test_parquet_has_what_csv_has(
    command: list[str], folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pandas as pd

    def output(form: str) -> io.BytesIO:
        capfdbinary.readouterr()
        assert main([*command, "--format", form]) == 0
        return io.BytesIO(capfdbinary.readouterr().out)

    parquet, plain = pd.read_parquet(output("parquet")), pd.read_csv(output("csv"))
    assert list(parquet.columns) == list(plain.columns)
    assert len(parquet) == len(plain)


def test_parquet_without_its_package_and_an_unknown_format_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = (("parquet", "pip install pyarrow"), ("jsn", "must be one of text, json"))
    for command in (["list"], ["run", "--models", "lenet5"]):
        for form, words in refused:
            capsys.readouterr()
            assert main([*command, "--format", form]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert words in line
    assert len(list(folder.glob("results/*/????.csv"))) == 1  # nothing was measured for it


def test_parquet_for_a_terminal_is_refused_before_anything_is_measured(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("--format", "parquet") == 2
    assert "is not for a terminal" in capsys.readouterr().err
    assert len(list(folder.glob("results/*/????.csv"))) == 1
