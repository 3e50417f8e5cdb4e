"""Verdicts live: runs of unchanged code, of one slower model, and of a slowdown that creeps.

Run it from a checkout: `python tests/benchmarks/live_verdicts.py [--folder F] [--only PHASE ...]`.
It clones the checkout into the folder, gives every run a commit of its own (so that nothing is
`same commit`), and prints what `pytest bench --benchmark-compare` said of each. It can be stopped
and started again: a run that is finished is not repeated.

quiet, loaded      six runs of unchanged code over six cases: no regression
slower             one model's training step slowed by 10 % of CPU time: found, no other is blamed
creeping           2 % more in each of six runs that nobody accepts: found once past 5 %
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from slowed import VICTIM, Diary, clone, commit, elements_for, run

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-live"
PHASES = ("quiet", "loaded", "slower", "creeping")
RUNS = 6
CASES = "lenet5,mini_inception,mini_resnet,mini_resnet_norm,conv_layer,separable_layer"


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Keep so many processes busy beside the block."""
    busy = [multiprocessing.Process(target=_spin, daemon=True) for _ in range(processes)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def _spin() -> None:
    while True:
        sum(range(10_000))


def bench(
    project: Path, results: Path, models: str, threads: str, processes: int
) -> dict[str, object]:
    """Run the training suite against its history; return its step times' verdicts."""
    began = time.monotonic()
    done = run(
        sys.executable, "-m", "pytest", "bench/test_training.py", f"--models={models}",
        f"--threads={threads}", f"--processes={processes}", "--time-budget=1",
        f"--results={results}", "--benchmark-compare", "-q",
        "-p", "no:cacheprovider", folder=project,
        env={**os.environ, "PYTHONPATH": str(project)},
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    table = [line for line in done.stdout.splitlines() if line.startswith(tuple(CASES.split(",")))]
    worth = (" step_time ", " regressed ", " changed ")
    told = [line for line in table if any(word in line for word in worth)]
    verdicts = {" ".join(line.split()[:2]): line for line in told}
    lines = [re.sub(r" {2,}", "  ", line) for line in verdicts.values()]
    return {
        "exit": done.returncode,
        "seconds": round(time.monotonic() - began),
        "verdicts": lines,
        "confirmed": [line for line in done.stdout.splitlines() if " sessions, " in line],
    }


def once(diary: Diary, name: str, project: Path, results: Path, models: str, note: str) -> None:
    """Do one run unless it is done, and print what came of it."""
    processes = 4 if models == VICTIM else 2  # one case alone is soon measured
    if name not in diary.done:
        diary.keep(name, bench(project, results, models, diary.done["threads"], processes))
    found = diary.done[name]
    print(f"\n{name}: {note}; exit {found['exit']}, {found['seconds']} s")
    for line in [*found["confirmed"], *found["verdicts"]]:
        print(f"  {line}")
    sys.stdout.flush()


def unchanged(
    diary: Diary, project: Path, folder: Path, phase: str, options: argparse.Namespace
) -> None:
    results = folder / phase
    with load(2 if phase == "loaded" else 0):
        for number in range(options.runs + 1):
            name = f"{phase} {number}"
            if name not in diary.done:
                commit(project, f"{name}, unchanged", 0)
            once(diary, name, project, results, options.models, "unchanged code")


def changed(
    diary: Diary, project: Path, folder: Path, phase: str, options: argparse.Namespace
) -> None:
    """One slower run after the quiet ones, or a series that grows from a first run of its own."""
    if "elements of 10 %" not in diary.done:
        diary.keep("elements of 10 %", elements_for(project, 0.10, diary.done["threads"]))
    tenth = diary.done["elements of 10 %"]
    if phase == "slower":
        if "slower" not in diary.done:
            commit(project, "slower by 10 %", tenth)
        once(diary, "slower", project, folder / "quiet", options.models, f"{VICTIM} slower by 10 %")
        return
    for number in range(options.runs + 1):
        name = f"creeping {number}"
        if name not in diary.done:
            commit(project, name, round(tenth * 0.2 * number))
        note = f"{VICTIM} slower by {2 * number} %"
        once(diary, name, project, folder / phase, VICTIM, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--threads", default="1", help="of the measured processes (default: 1)")
    parser.add_argument("--runs", type=int, default=RUNS, help="after the first one of a phase")
    parser.add_argument("--models", default=CASES, help="of the runs, the victim among them")
    options = parser.parse_args()
    project = clone(options.folder)
    diary = Diary(options.folder / "diary.json")
    if diary.done.setdefault("threads", options.threads) != options.threads:
        raise SystemExit(f"{options.folder}: was begun with --threads {diary.done['threads']}")
    for phase in options.only:
        (unchanged if phase in ("quiet", "loaded") else changed)(
            diary, project, options.folder, phase, options
        )


if __name__ == "__main__":
    main()
