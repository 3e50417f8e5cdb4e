"""A/B live: comparisons of a thing with itself, and a training step slowed by 5 % of CPU time.

Run it from a checkout: `python tests/benchmarks/ab_trial.py [--folder F] [--threads N]`. It clones
the checkout into the folder, and prints what `convmark ab` said of each. It can be stopped and
started again: what is finished is not repeated.

same      `convmark ab . .` over six models, training and inference, twice: 24 comparisons, no alarm
slower    lenet5's training step slowed by 5 % of CPU time, as a commit beside its parent: found
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from slowed import VICTIM, Diary, clone, commit, elements_for, run

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-ab"
MODELS = "lenet5,mini_inception,mini_resnet,mini_resnet_norm,conv_layer,separable_layer"
GRIDS = {"training": ("train", "32"), "inference": ("infer", "1")}
TIMES = 2
PARTS = ("same", "slower")


def ab(project: Path, folder: Path, *arguments: str) -> dict[str, object]:
    """Run `convmark ab` and return its exit status and verdicts."""
    began = time.monotonic()
    done = run(
        sys.executable, "-m", "convmark", "ab", *arguments,
        "--time-budget=1", f"--results={folder / 'results'}", "--format=json",
        folder=project, env={**os.environ, "PYTHONPATH": str(project)},
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"convmark ab ended with {done.returncode}:\n{done.stderr}")
    return {
        "exit": done.returncode,
        "seconds": round(time.monotonic() - began),
        "rows": json.loads(done.stdout),
    }


def show(name: str, found: dict[str, object]) -> None:
    print(f"\n{name}: exit {found['exit']}, {found['seconds']} s")
    for row in found["rows"]:  # type: ignore[attr-defined] # a list of rows
        if row["change"] is None:
            print(f"  {row['case']:<42} {row['verdict']}: {row['note']}")
            continue
        interval = f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
        print(
            f"  {row['case']:<42} {100 * row['change']:+.1f} % {interval} {row['verdict']}, "
            f"{row['sessions']} sessions, control "
            f"{100 * row['control_change']:+.1f} %, cpu {100 * row['cpu_change']:+.1f} %"
            f"{', VOID' * row['void']}"
        )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--threads", default="1", help="of the measured processes (default: 1)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--target", default="2", help="half-width to reach, per cent (default: 2)")
    parser.add_argument("--times", type=int, default=TIMES, help="comparisons with itself")
    parser.add_argument("--models", default=MODELS, help="compared with themselves")
    options = parser.parse_args()
    project = clone(options.folder)
    diary = Diary(options.folder / "diary.json")
    threads = f"--threads={options.threads}"
    target = f"--target={options.target}"
    for number in range(1, (options.times if "same" in options.only else 0) + 1):
        for grid, (task, batch_size) in GRIDS.items():
            name = f"same, {grid} {number}"
            if name not in diary.done:
                wanted = (
                    f"--models={options.models}",
                    f"--tasks={task}",
                    f"--batch-sizes={batch_size}",
                    target,
                )
                seed = f"--seed={number}"
                diary.keep(name, ab(project, options.folder, ".", ".", *wanted, threads, seed))
            show(name, diary.done[name])
    rows = [row for name, found in diary.done.items() if "same" in name for row in found["rows"]]
    alarms = sum(row["verdict"] in ("regressed", "improved") for row in rows)
    void = sum(row["void"] for row in rows)
    print(f"\n{len(rows)} comparisons of a thing with itself: {alarms} alarms, {void} void")
    if "slower" not in options.only:
        return
    if "elements of 5 %" not in diary.done:
        diary.keep("elements of 5 %", elements_for(project, 0.05))
    if "slower" not in diary.done:
        commit(project, "as it was", 0)
        commit(project, "slower by 5 %", diary.done["elements of 5 %"])
        case = (f"--models={VICTIM}", "--tasks=train", "--batch-sizes=32", threads, target)
        sides = ("git:HEAD~1", "git:HEAD")
        diary.keep("slower", ab(project, options.folder, *sides, *case))
    show("slower by 5 % of CPU time", diary.done["slower"])


if __name__ == "__main__":
    main()
