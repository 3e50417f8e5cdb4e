"""The search for batch sizes with a real worker, in a process whose memory is limited."""

from __future__ import annotations

import importlib.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from workers import BUILDERS, environ

from convmark.results.reading import read_run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or importlib.util.find_spec("tensorflow") is None,
    reason="a worker needs TensorFlow, the limit Linux",
)

LIMIT_BYTES = 8 << 30
"""Of addresses, of which TensorFlow takes some 4 GiB and the model 512 MiB a sample."""
FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Each thread takes addresses of its own, which on a large machine would be all of them."""
AT_ONCE = {"TF_ENABLE_ONEDNN_OPTS": "0"}
"""oneDNN's allocator waits ten seconds for memory before it says that there is none."""


def test_the_largest_size_that_fits_is_found_and_those_beyond_it_are_rows_of_their_own(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "convmark", "run", "--models=builders:roomy", "--tasks=infer",
         "--batch-sizes=auto", "--time-budget=0.1", "--devices=cpu", f"--results={tmp_path}",
         "--processes=1", "--threads=1"],
        cwd=BUILDERS,
        env=environ(tmp_path, **FEW_THREADS, **AT_ONCE),
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES)),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (path,) = tmp_path.glob("*/0001.csv")
    rows = read_run(path)
    fits = [row.batch_size for row in rows if row.measured]
    full = [row.batch_size for row in rows if row.status == "out_of_memory"]
    assert sorted(fits + full) == sorted({row.batch_size for row in rows})
    largest = max(fits)
    assert largest < min(full) <= largest + max(1, largest // 8)
    assert min(full) <= LIMIT_BYTES / (512 << 20)
    line = next(line for line in ended.stdout.splitlines() if "-bauto-" in line)
    assert line.split()[-1] == str(largest)
    assert all(f"-b{size}-float32" in ended.stdout for size in full)
    assert "Traceback" not in ended.stdout + ended.stderr
