"""Files that are written whole or not at all, and never in place of what was measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from report_rows import SLOW, results_of_two_machines

from convmark.cli import main
from convmark.core.files import write_whole


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
    write_whole(link, b"new")
    assert link.is_symlink()
    assert page.read_text() == "new"
    assert page.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    write_whole(Path(f"/dev/fd/{writer}"), b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    os.close(writer)


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
    assert "--output: must not lie among a machine's runs" in capsys.readouterr().err
    assert run.read_bytes() == before
    assert main(["report", "results", "-o", f"results/{SLOW}/page.html"]) == 0
