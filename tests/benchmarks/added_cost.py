"""What a change of the harness costs: the time of `pytest bench` beside that of an earlier commit.

Run it from a checkout on a quiet machine: `python tests/benchmarks/added_cost.py COMMIT [--pairs N]
[-- OPTIONS OF PYTEST]`. It makes a folder of each commit, runs both in turn, in random order, and
prints the ratio of each pair, their mean and its standard error.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
OPTIONS = ("--models=lenet5,conv_layer", "--processes=3")


def laid_out(commit: str, folder: Path) -> Path:
    """Return a folder with the checkout's files as of a commit."""
    folder.mkdir()
    archive = ["git", "-C", str(CHECKOUT), "archive", commit]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as files:
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=files.stdout, check=True)
    if files.returncode:
        raise SystemExit(f"git knows no commit {commit!r}")
    return folder


def seconds(folder: Path, options: list[str]) -> float:
    """Return the wall seconds of the suites, run by that folder's harness."""
    variables = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", *options]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{folder}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - began


def main() -> None:
    """Run the pairs and print each, then what all of them say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("options", nargs="*", default=[*OPTIONS])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folders = {
            "before": laid_out(given.commit, Path(place) / "before"),
            "now": laid_out("HEAD", Path(place) / "now"),
        }
        ratios = []
        for pair in range(1, given.pairs + 1):
            took = {}
            for name in random.sample(sorted(folders), 2):
                took[name] = seconds(folders[name], given.options)
            ratios.append(took["now"] / took["before"])
            print(
                f"pair {pair}: {took['before']:.1f} s before, {took['now']:.1f} s now, "
                f"ratio {ratios[-1]:.3f}",
                flush=True,
            )
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
    print(f"ratio {statistics.mean(ratios):.3f} +- {error:.3f} ({len(ratios)} pairs)")


if __name__ == "__main__":
    main()
