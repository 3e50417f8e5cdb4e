"""Files that are written whole or not at all, and never in place of what was measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from report_rows import SLOW, results_of_two_machines

from convmark.cli import main
from convmark.core.errors import OptionError
from convmark.core.files import new_part, write_output, write_whole
from convmark.results.code.manifest import write_codes
from convmark.results.names import check_output
from convmark.results.run_file import RunFile


def test_a_full_disk_leaves_the_old_file_whole_and_no_part_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    page = tmp_path / "page.html"
    page.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(page, b"new")
    assert page.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_what_a_link_leads_to_is_replaced_with_its_mode_and_the_link_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    page.chmod(0o640)
    link = tmp_path / "link.html"
    link.symlink_to(page)
    write_output(link, b"new")
    assert link.is_symlink()
    assert page.read_text() == "new"
    assert page.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    write_output(Path(f"/dev/fd/{writer}"), b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    os.close(writer)


def test_a_kept_file_takes_the_place_of_a_link_and_of_a_pipe(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("theirs")
    link, pipe = tmp_path / "0001.code.json", tmp_path / "0002.code.json"
    link.symlink_to(theirs)
    os.mkfifo(pipe)
    for kept in (link, pipe):
        write_codes(kept.with_name(f"{kept.name[:4]}.csv"), {})
        assert kept.is_file()
        assert not kept.is_symlink()
    assert theirs.read_text() == "theirs"


def test_what_a_killed_writer_left_is_removed_and_what_one_writes_is_not(tmp_path: Path) -> None:
    run = tmp_path / "0001.csv"
    left = [tmp_path / f".0001.csv.{'0a' * 4}{ending}" for ending in ("", ".part")]
    others = [tmp_path / f".0002.csv.{'0a' * 4}.part", tmp_path / ".0001.csv.mine"]
    for path in (*left, *others):
        path.touch()
    part, descriptor = new_part(run)
    RunFile.create(run).close()
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in (*others, part))
    os.close(descriptor)


@pytest.mark.parametrize("linked", [False, True])
def test_a_report_takes_the_place_of_no_run(
    linked: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run = results_of_two_machines(tmp_path) / SLOW / "0001.csv"
    before = run.read_bytes()
    output = tmp_path / "output.csv"
    output.symlink_to(run)
    name = output.name if linked else f"results/{SLOW}/0001.csv"
    assert main(["report", "results", "-o", name]) == 2
    assert "--output: must not be among a machine's runs" in capsys.readouterr().err
    assert run.read_bytes() == before
    assert main(["report", "results", "-o", f"results/{SLOW}/page.html"]) == 0


def test_an_output_takes_the_place_of_nothing_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    machine = results_of_two_machines(tmp_path) / SLOW
    (machine / "models").mkdir()
    copy = tmp_path / "copy.csv"
    copy.write_bytes((machine / "0001.csv").read_bytes())
    (tmp_path / "net.py").write_text("code")
    (tmp_path / "same").symlink_to(machine)
    among = "--output: must not be among a machine's runs"
    refused = {
        str(machine / "accepted.csv"): among,
        str(machine / "0001.steps.npz"): among,
        str(machine / "models" / "net.txt"): among,
        f"results/../same/{SLOW}.csv": among,
        "results/2026.csv": "--output: must not be named as a run beside results",
        "net.py": "--output: must not replace a file of another kind, but net.py exists",
        "copy.csv": "--output: must not replace a run's file, got copy.csv",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name, message in refused.items():
        assert main(["report", "results", "--format", "csv", "-o", name]) == 2, name
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"convmark report: {message}")
    assert main(["report", "results", "--figures", "same"]) == 2
    assert "--figures: must not be a machine's folder, got same" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "summary").touch()
    for name in ("summary", "table.csv", "table.csv"):  # an empty file, a new one, and a later one
        assert main(["report", "results", "--format", "csv", "-o", name]) == 0


def test_a_file_that_is_read_is_no_output_by_whatever_link(tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("a,1")
    os.link(prices, tmp_path / "hard.csv")
    (tmp_path / "soft.csv").symlink_to(prices)
    for name in ("prices.csv", "hard.csv", "soft.csv"):
        with pytest.raises(OptionError, match="--badge: must not be a file that is read"):
            check_output("--badge", tmp_path / name, [".csv"], inputs=[prices])
    check_output("--badge", tmp_path / "other.csv", [".csv"], inputs=[prices])


def test_what_is_merged_and_where_to_lie_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    results_of_two_machines(tmp_path)
    (tmp_path / "link").symlink_to("results")
    for place, into in (
        ("results", "results"),
        ("results", "link"),
        ("results", "results/joined"),
        ("results", "link/joined"),
        (f"results/{SLOW}", "results"),
        (f"link/{SLOW}/0001.csv", "results"),
    ):
        assert main(["merge", place, "--results", into]) == 2, (place, into)
        assert "--results: must not be one of the folders to join" in capsys.readouterr().err
    assert main(["merge", "results", "--results", "results2"]) == 0
