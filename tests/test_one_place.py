"""What is added in its one place reaches the rest by itself: a column, a task, a backend."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ADDED = {
    "results/row_facts.py": (
        "    gpu: str | None",
        """\
    cache_bytes: int | None = _environment("last-level cache", unit="bytes", title="")
""",
    ),
    "results/schema.py": (
        "    waterfall_rounds: int",
        """\
    fan_speed_rpm: int | None = _state("speed of the fan, median", unit="rpm", title="")
    hint: str | None = _time("what the worker noticed", title="")
    kept: float | None = _learning("share of the weights kept", title="", kind="share")
    second_import_s: float | None = _column(
        "import once more", group="start", unit="s", title="", table="start"
    )

""",
    ),
    "core/tasks.py": (
        """        Task(
            name="waterfall",""",
        """        Task(
            name="start",
            title="Starting again",
            headline="second_import_s",
            about="import everything once more",
            batch_sizes=(1,),
            worker="start",
        ),
""",
    ),
    "core/backends.py": (
        """        Backend(
            name="jax",""",
        """        Backend(
            name="mlx",
            label="MLX",
            class_name="Mlx",
            distributions=("mlx",),
            packages=("mlx",),
            gpu_install="pip install mlx",
        ),
""",
    ),
}
"""By file: what is put before which text."""

REPORT = """
import sys
from dataclasses import replace
from pathlib import Path
from report_rows import keep_run, measured
from convmark.core.case import Case
from convmark.core.options import OPTIONS
from convmark.core.suites import SUITES
from convmark.report.build import build
from convmark.report.summary import summary_text
from convmark.report.tables import terminal_text
from convmark.session.expected import expected_s
from convmark.session.facts import software

new = {"fan_speed_rpm": 1234, "cache_bytes": 2**25, "hint": "two sockets"}
learnt = {"task": "accuracy", "accuracy": 0.9, "loss": 0.1, "fraction": 1.0, "epochs": 5,
          "kept": 0.25, "seed": 0}
mlx = {"backend": "mlx", **software({"mlx": "0.31", "numpy": "2.1"})}
start = {"task": "start", "second_import_s": 0.125}
rows = [*(measured("xeon-2", 1, "lenet5", number, **new) for number in (1, 2, 3)),
        measured("xeon-2", 1, "lenet5", 4, **learnt), measured("xeon-2", 1, "lenet5", 5, **start),
        measured("xeon-2", 1, "lenet5", 6, **mlx)]
keep_run(Path(sys.argv[1]), rows)
print(terminal_text(build([Path(sys.argv[1])]).tables))
print(summary_text(rows[4:5]))
print([option.help for option in OPTIONS if option.name in ("backend", "tasks")])
print([suite.tasks for suite in SUITES])
case = Case(model="lenet5", task="train", backend="mlx")
print("foreseen", expected_s(case, 0.6, {}) > 0)
"""


def test_what_is_added_in_its_one_place_reaches_reports_and_options(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "convmark", tmp_path / "convmark")
    for name, (before, added) in ADDED.items():
        path = tmp_path / "convmark" / name
        source = path.read_text()
        assert source.count(before) == 1, name
        path.write_text(source.replace(before, added + before))
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", REPORT, str(tmp_path / "results")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    (architectures,) = [line for line in printed.splitlines() if "fan speed rpm" in line]
    assert "hint" in architectures
    for shown in ("1,234", "two sockets", "32.0 MiB", "25.0 %"):
        assert shown in printed, shown
    assert "Starting again\n=======" in printed
    assert printed.count("second import") == 2  # in the report and at the run's end
    assert printed.count("125 ms") == 2
    assert "MLX 0.31" in printed
    assert "tensorflow, mlx, jax, torch" in printed
    assert "accuracy (train on MNIST), start (import everything once more), waterfall" in printed
    assert "('start',)" in printed
    assert "foreseen True" in printed
