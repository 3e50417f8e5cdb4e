"""Names that users give to machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_rows import FAST, SLOW, keep_run, suite

from convmark.cli import main
from convmark.core.errors import StoreError
from convmark.report.rows import read_rows
from convmark.results.names import NAME_FILE, keep_name, read_name


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for machine in (SLOW, FAST):
        keep_run(tmp_path / "results", suite(machine, 1, ["lenet5"]))
    return tmp_path / "results"


def test_a_name_is_kept_and_every_table_and_the_page_show_it(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--name", f"{SLOW}=my laptop", "--reference", SLOW]) == 0
    printed = capsys.readouterr().out
    assert read_name(results / SLOW) == "my laptop"
    assert f"{FAST} cpu is 4." in printed
    assert " times my laptop cpu (" in printed
    assert f"{SLOW} cpu" not in printed
    assert main(["report", "-o", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "my laptop cpu" in page
    assert f"{SLOW} cpu" not in page
    capsys.readouterr()
    assert main(["compare", "--across", "machine"]) == 0
    assert "my laptop" in capsys.readouterr().out
    assert main(["compare", "--machine", "my laptop"]) == 0
    capsys.readouterr()
    assert main(["report", "--name", "my laptop=desk"]) == 0
    assert capsys.readouterr() == ("", f"convmark: {SLOW} is named desk\n")
    assert read_name(results / SLOW) == "desk"


def test_runs_are_listed_and_shown_under_the_name(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_name(results / SLOW, "my laptop")
    assert main(["list"]) == 0
    assert SLOW not in (text := capsys.readouterr().out)
    assert "my laptop" in text
    assert FAST in text
    assert main(["show", "latest", "--machine", "my laptop"]) == 0
    assert " on my laptop, " in capsys.readouterr().out
    assert main(["show", "latest"]) == 2
    assert f"choose one by --machine: {FAST}, my laptop" in capsys.readouterr().err
    assert main(["show", "latest", "--machine", "my lapdog"]) == 2
    assert "did you mean my laptop" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("laptop", "must be MACHINE=NAME with a name of one line that is no path, got 'laptop'"),
        (f"{SLOW}=", "must be MACHINE=NAME"),
        (f"{SLOW}=../up", "must be MACHINE=NAME"),
        (f"{SLOW}=a\x1b[31mb", "must be MACHINE=NAME with a name of one line that is no path"),
        (f"{SLOW}=a\nb", "must be MACHINE=NAME"),
        (f"{SLOW}={'x' * 101}", "must be MACHINE=NAME"),
        (f"{SLOW}={FAST}", f"'{FAST}' is the name of {FAST}; choose another"),
        ("mac=desk", f"no row is from the machine 'mac'; known: {FAST}, {SLOW}"),
    ],
)
def test_what_is_no_name_of_a_machine_is_refused(
    results: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert main(["report", "--name", text]) == 2
    error = capsys.readouterr().err
    assert error.startswith("convmark report: --name: ")
    assert message in error
    assert error.count("\n") == 1
    assert "\x1b" not in error
    assert not list(results.glob(f"*/{NAME_FILE}"))


def test_one_name_for_two_machines_is_refused_and_can_be_mended(results: Path) -> None:
    keep_name(results / SLOW, "desk")
    keep_name(results / FAST, "desk")
    with pytest.raises(StoreError, match="'desk' must name one machine, it names"):
        read_rows([results])
    assert main(["report", "--name", f"{SLOW}=laptop", "--format", "csv"]) == 0
    assert read_rows([results]).names == {SLOW: "laptop", FAST: "desk"}


def test_two_names_for_one_machine_are_refused(results: Path, tmp_path: Path) -> None:
    keep_name(results / SLOW, "desk")
    path = keep_run(tmp_path / "others", suite(SLOW, 2, ["lenet5"]))
    assert read_rows([results, tmp_path / "others"]).names == {SLOW: "desk"}
    keep_name(path.parent, "laptop")
    with pytest.raises(StoreError, match=f"the machine {SLOW} must have one name, it is"):
        read_rows([results, tmp_path / "others"])


@pytest.mark.parametrize("content", [b"", b"a\nb\n", b"\xff", b"a\x1b[0m\n", b"../../etc\n"])
def test_a_file_that_holds_no_name_is_refused_by_its_path(
    results: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (results / SLOW / NAME_FILE).write_bytes(content)
    assert main(["report"]) == 2
    error = capsys.readouterr().err
    assert f"{SLOW}/{NAME_FILE}" in error
    assert error.count("\n") == 1
    assert "\x1b" not in error


def test_merged_results_have_the_name(results: Path) -> None:
    keep_name(results / SLOW, "desk")
    assert main(["merge", "results", "--results", "joined"]) == 0
    assert read_name(Path("joined") / SLOW) == "desk"
