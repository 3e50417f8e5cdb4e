"""Train what the table in docs/results/accuracy.md lacks, one process after another, and print it.

    python tests/benchmarks/lecture_accuracy.py --mnist PATH

Each model is trained with seeds 0, 1, 2; where a seed diverges, which is a row too and stays so,
the next seeds follow until three have ended well, or ten are spent. A process is a run of its own,
so it may be interrupted at any time and taken up again: what has a row is not trained again. On two
cores all of it takes about an hour and a half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from convmark.cli import main as convmark
from convmark.core.suites import NETWORKS
from convmark.results.reading import read_run
from convmark.results.record import MEASURED, Record
from convmark.results.store import run_files

LEAST_SEEDS, MOST_SEEDS = 3, 10
INTERRUPTED = 130
SETTLED = (*MEASURED, "error")
"""Statuses of processes that would end so again: operations are deterministic."""


def main() -> int:
    options = _options()
    trained = 0
    while (missing := next(_missing(options), None)) and trained != options.most:
        model, seed = missing
        print(f"{model}, seed {seed}", flush=True)
        if status := _train(options, model, seed):
            print(f"convmark run ended with status {status}", flush=True)
            no_row = missing == next(_missing(options), None)
            if no_row or status == INTERRUPTED:
                return status
        trained += 1
    return convmark(["report", str(options.results), "--style", "accuracy", "--format", "markdown"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--mnist", metavar="PATH", help="file of the digits, as of convmark run")
    parser.add_argument("--models", default=",".join(NETWORKS), metavar="NAMES")
    parser.add_argument("--most", type=int, metavar="N", help="end after so many processes")
    parser.add_argument("--fraction", default="1", metavar="SHARE", help="as of convmark run")
    return parser.parse_args()


def _missing(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield models and seeds that are to be trained still, each model's first seed first."""
    rows = [row for row in _rows(options.results) if row.fraction == float(options.fraction)]
    models = options.models.split(",")
    for seed in range(MOST_SEEDS):
        for model in models:
            own = {row.seed: row for row in rows if row.model == model and row.status in SETTLED}
            ended_well = sum(row.measured for row in own.values())
            if seed not in own and ended_well < LEAST_SEEDS:
                yield model, seed


def _rows(results: Path) -> list[Record]:
    if not results.is_dir() or not any(results.glob("*/*.csv")):
        return []
    rows = [row for path in run_files([results]) for row in read_run(path)]
    return [row for row in rows if row.task == "accuracy"]


def _train(options: argparse.Namespace, model: str, seed: int) -> int:
    mnist = [f"--mnist={options.mnist}"] if options.mnist else []
    return convmark(
        [
            *("run", "--tasks=accuracy", f"--models={model}", f"--seeds={seed}", "--devices=cpu"),
            *(f"--results={options.results}", f"--fraction={options.fraction}"),
            *("--time-limit=100000", *mnist),
        ]
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
