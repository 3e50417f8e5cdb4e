"""A column that is declared, and named nowhere else, reaches the tables of a report."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEFORE = "    def __post_init__(self) -> None:\n        if self.status not in STATUSES"
NEW = """\
    fan_speed_rpm: int | None = _state("rpm", "speed of the fan, median")
    cache_bytes: int | None = _environment("bytes", "last-level cache")
    hint: str | None = _time("", "what the worker noticed")
    kept: float | None = _learning("", "share of the weights kept", kind="share")

"""
REPORT = """
import sys
from pathlib import Path
from report_rows import keep_run, measured
from convmark.report.build import build
from convmark.report.tables.text import terminal_text
new = {"fan_speed_rpm": 1234, "cache_bytes": 2**25, "hint": "two sockets"}
learnt = {"task": "accuracy", "accuracy": 0.9, "loss": 0.1, "fraction": 1.0, "epochs": 5,
          "kept": 0.25, "seed": 0}
rows = [measured("xeon-2", 1, "lenet5", number, **new) for number in (1, 2, 3)]
keep_run(Path(sys.argv[1]), [*rows, measured("xeon-2", 1, "lenet5", 4, **learnt)])
print(terminal_text(build([Path(sys.argv[1])]).tables))
"""


def test_a_column_that_is_declared_reaches_the_report_by_itself(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "convmark", tmp_path / "convmark")
    record = tmp_path / "convmark" / "results" / "record.py"
    source = record.read_text()
    assert source.count(BEFORE) == 1
    record.write_text(source.replace(BEFORE, NEW + BEFORE))
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", REPORT, str(tmp_path / "results")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (architectures,) = [line for line in done.stdout.splitlines() if "fan speed rpm" in line]
    assert "hint" in architectures
    for shown in ("1,234", "two sockets", "32.0 MiB", "25.0 %"):
        assert shown in done.stdout, shown
