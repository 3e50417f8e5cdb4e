"""Gates live: what `pytest bench --benchmark-compare` says of the default suite.

Run it from a checkout: `python tests/benchmarks/gate_trials.py [--folder F] [--only PHASE ...]`. It
clones the checkout into the folder, and prints what became of each run. It can be stopped and
started again: a run that is finished is not repeated.

decided     every model's file gets another comment; a plain run before each, for the time
loaded      the same beside two busy processes
found       one model's step slowed by 5 % of work, against the commit before
sharp       by 3 %, with --compare-budget unlimited
creeping    1 % more in each of ten commits that nobody accepts
blamed      one layer of LeNet-5 slowed by 20 % of its training step: is it named, and first
one         one model's file gets another comment, against the commit before: the seconds it adds
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from slowed import LAYERS, VICTIM, Diary, clone, commit, elements_for, git, run

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-gates-live"
RUNS = {"decided": 5, "loaded": 1, "found": 20, "sharp": 10, "creeping": 10, "blamed": 20, "one": 3}
SHORT = ("--processes=1", "--time-budget=0.1")
"""Where only the comparison matters."""
_LINE = re.compile(r"^(\S+) +step_time .*? (regressed|improved|unchanged|inconclusive|new)\b.*$")
_LIVE = re.compile(r"^convmark: (\S+-(?:train|infer)-\S+): .*sessions, ")


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


class Trial:
    """A clone, and what its runs said."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.project = clone(options.folder)
        self.diary = Diary(options.folder / "diary.json")

    def bench(
        self, name: str, results: Path, *arguments: str, suite: str = "bench"
    ) -> dict[str, object]:
        """Run the suites unless it was done; return exit status, seconds and step times' lines."""
        if name not in self.diary.done:
            began = time.monotonic()
            done = run(
                sys.executable, "-m", "pytest", suite, f"--results={results}", "-q",
                f"--models={self.options.models}", "-p", "no:cacheprovider", *arguments,
                folder=self.project, env={**os.environ, "PYTHONPATH": str(self.project)},
            )  # fmt: skip
            if done.returncode not in (0, 1):
                raise SystemExit(
                    f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}"
                )
            lines = done.stdout.splitlines()
            found = {
                "exit": done.returncode,
                "seconds": round(time.monotonic() - began, 1),
                "verdicts": {line.split()[0]: _LINE.sub(r"\2", line) for line in lines
                             if _LINE.match(line)},
                "lines": [re.sub(r" {2,}", "  ", line) for line in lines if _LINE.match(line)],
                "live": [line for line in lines + done.stderr.splitlines() if _LIVE.match(line)],
            }  # fmt: skip
            self.diary.keep(name, found)
        found = self.diary.done[name]
        told = ", ".join(f"{n} {v}" for v, n in Counter(found["verdicts"].values()).most_common())
        print(f"{name}: exit {found['exit']}, {found['seconds']} s; {told}", flush=True)
        return dict(found)

    def renamed(self, name: str, files: str = "*.py") -> None:
        """Commit another comment in the models' files."""
        if name in self.diary.done:
            return
        for path in (self.project / "models").glob(files):
            path.write_text(f"{path.read_text()}# {name}\n")
        git(self.project, "commit", "--quiet", "--all", "--message", name)

    def elements(self, share: float) -> int:
        """Return how much to burn for a share of the victim's training step."""
        name = f"elements of {100 * share:g} %"
        if name not in self.diary.done:
            self.diary.keep(name, elements_for(self.project, share))
        return int(self.diary.done[name])

    # -- the phases --------------------------------------------------------------------------------

    def decided(self, phase: str, runs: int) -> None:
        results = self.options.folder / phase
        for number in range(runs + 1):
            self.renamed(f"{phase} {number} plain")
            plain = self.bench(f"{phase} {number} plain", results)
            if not number:
                continue
            found = self.bench(f"{phase} {number}", results, "--benchmark-compare")
            ratio = float(str(found["seconds"])) / float(str(plain["seconds"]))
            print(f"  {ratio:.2f} times the plain run's seconds", flush=True)
            for line in found["lines"]:  # type: ignore[attr-defined]
                print(
                    f"  {line}" * (" unchanged " not in line),
                    end="\n" * (" unchanged " not in line),
                )

    def loaded(self, phase: str, runs: int) -> None:
        with load(2):
            self.decided(phase, runs)

    def found(self, phase: str, runs: int, share: float = 0.05, *arguments: str) -> None:
        elements = self.elements(share)
        for number in range(1, runs + 1):
            name = f"{phase} {number}"
            if name not in self.diary.done:
                commit(self.project, f"{name} before", 0)
                commit(self.project, name, elements)
            found = self.bench(
                name,
                self.options.folder / phase,
                "--benchmark-compare=git:HEAD~1",
                *SHORT,
                *arguments,
            )
            for line in found["live"]:  # type: ignore[attr-defined]
                print(f"  {line}")

    def sharp(self, phase: str, runs: int) -> None:
        self.found(phase, runs, 0.03, "--compare-budget=unlimited")

    def creeping(self, phase: str, runs: int) -> None:
        tenth = self.elements(0.10)
        for number in range(runs + 1):
            name = f"{phase} {number}"
            if name not in self.diary.done:
                # a layer that burns nothing is left out, and to have one takes time by itself
                commit(self.project, name, round(tenth * (1 + 0.1 * number)))
            compare = ["--benchmark-compare"] if number else []
            found = self.bench(name, self.options.folder / phase, *compare, *SHORT)
            for line in found["live"]:  # type: ignore[attr-defined]
                print(f"  {line}")

    def blamed(self, phase: str, runs: int, share: float = 0.2) -> None:
        from convmark.compare.files import CHANGES_TABLE

        elements, firsts = self.elements(share), 0
        for number in range(1, runs + 1):
            name = f"{phase} {number}"
            layer = random.Random(name).choice(LAYERS)
            if name not in self.diary.done:
                commit(self.project, f"{name} before", 0)
                commit(self.project, name, elements, layer)
            results = self.options.folder / name.replace(" ", "-")
            compare = ("--benchmark-compare=git:HEAD~1", f"--models={VICTIM}", *SHORT)
            self.bench(name, results, *compare, suite="bench/test_training.py")
            paths = results.glob("*/*.layers.csv")
            moved = [row for path in paths for row in CHANGES_TABLE.read(path) if row.moved]
            first = bool(moved) and layer in moved[0].layer.split(" + ")
            firsts += first
            print(f"  {layer} was slowed, named first: {'yes' if first else 'no'}")
            for row in moved:
                print(f"    {row.words}", flush=True)
        print(f"{phase}: the slowed layer was named first in {firsts} of {runs}", flush=True)

    def one(self, phase: str, runs: int) -> None:
        results = self.options.folder / phase
        for number in range(runs):
            self.renamed(f"{phase} {number}", "lenet.py")
            plain = self.bench(f"{phase} {number} plain", results)
            found = self.bench(f"{phase} {number}", results, "--benchmark-compare=git:HEAD~1")
            more = float(str(found["seconds"])) - float(str(plain["seconds"]))
            print(f"  {more:+.1f} s beyond the plain run", flush=True)


def main() -> None:
    """Run the phases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--runs", type=int, help="of each phase")
    parser.add_argument(
        "--models",
        default="lenet5,mini_inception,mini_resnet,mini_resnet_norm,conv_layer,separable_layer",
    )
    options = parser.parse_args()
    trial = Trial(options)
    for phase in options.only:
        runs = RUNS[phase] if options.runs is None else options.runs
        getattr(trial, phase)(phase, runs)


if __name__ == "__main__":
    main()
