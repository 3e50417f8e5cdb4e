"""The whole way with the real framework: commands as a user types them, on the smallest cases."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from forks import COMMAND, Forks, warm_interpreters
from snapshots import check

from convmark.results.reading import read_run
from convmark.results.record import COLUMNS, Record

CHECKOUT = Path(__file__).resolve().parent.parent
UNCACHED = ("-p", "no:cacheprovider")
SMALL = ("--models=separable_layer", "--batch-sizes=32", "--processes=1", "--time-budget=0.1")


def test_pytest_bench_measures_the_real_layers_and_leaves_rows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *("pytest", "bench", *SMALL, f"--results={tmp_path}", *UNCACHED)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)
    (path,) = tmp_path.glob("*/*.csv")
    rows = read_run(path)
    assert {row.task for row in rows} == {"train", "infer"}
    for row in rows:
        assert row.measured
        assert row.parameters == 17
        assert row.input_shape == "28x28x1"
        assert row.flops_per_sample == 22984
        assert row.isolation == ("fork" if sys.platform == "linux" else "spawn")
        assert (row.step_time_p50_s or 0) > 0
        assert (row.throughput_samples_per_s or 0) > 0
        assert row.paired_log_ratio is not None
        if row.task == "train":
            check("columns_of_a_row", filled(row))


def filled(row: Record) -> str:
    """Return the columns that a row fills, with those values that are the same everywhere."""
    same = ("schema", "model", "task", "input_shape", "parameters", "flops_per_sample", "call_path")
    may_be = (
        "gpu",
        "cud",
        "commit",
        "dirty",
        "flags",
        "state",
        "p95",
        "p99",
        "unsteady",
        "efficiency",
    )
    names = [
        column.name
        for column in COLUMNS
        if getattr(row, column.name) is not None and not any(part in column.name for part in may_be)
    ]
    return "".join(f"{one} {getattr(row, one) if one in same else '#'}\n" for one in names)


def test_doctor_knows_the_real_framework(
    harness: Forks, forks_of: Callable[[str], Forks], tmp_path: Path
) -> None:
    with warm_interpreters(forks_of("tensorflow")):
        done = harness.run(COMMAND, "doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tensorflow" in done.stdout.lower()
    assert done.stderr == ""
