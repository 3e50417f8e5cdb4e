"""False alarms, live: identical code beside a copy of itself, decided by fresh sessions.

Run it from a checkout: `python tests/benchmarks/same_code.py --decisions 3000 --folder F`. The zoo
is laid out twice, the copies differing in a comment; each round decides some cheap cases as a gate
does, with sessions of its own. Each decision is one line of `decisions.csv` in the folder; started
again, the script goes on where it was stopped. Printed are the decisions by verdict, with the 95 %
bounds of Clopper and Pearson for a false alarm.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import convmark_zoo
from scipy.stats import beta

from convmark.compare.live.case_result import LiveOptions
from convmark.compare.live.live import compare_live
from convmark.compare.live.session import LiveSide, Pairing
from convmark.core.case import Case
from convmark.interpreter import Interpreter

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-same-code"
DEFAULT_CASES = (
    "conv_layer:infer:32,separable_layer:infer:32,conv_layer:train:32,separable_layer:train:32,"
    "lenet5:infer:1,lenet5:infer:32,lenet5:train:32,mini_resnet:infer:1"
)
COLUMNS = ("round", "case", "verdict", "sessions", "change", "seconds")


class Copy:
    """One copy of the zoo, as a comparison takes it."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder / f"copy{number}"
        self._name = str(number)
        if not self._folder.exists():
            shutil.copytree(Path(convmark_zoo.__file__).parent, self._folder / "models")
            for module in self._folder.glob("models/*.py"):
                module.write_text(f"{module.read_text()}# copy {number}\n")

    def settings(self, environ: Mapping[str, str]) -> dict[str, Any]:
        roots = [self._folder]
        return {"folder": self._folder, "import_roots": roots, "zoo": self._folder / "models"}

    def check(self, event: Mapping[str, Any]) -> None:
        """Hold the files of the zoo to being this copy's."""
        paths = [file["path"] for file in event["files"] if "/models/" in file["path"]]
        if not paths or not all(path.startswith(str(self._folder)) for path in paths):
            raise SystemExit(f"{self._folder}: ran other files: {paths}")

    def explained(self, message: str) -> str:
        return message

    def hash_of(self, event: Mapping[str, Any]) -> str:
        return self._name


def main() -> None:
    """Take the decisions that are not there yet, and print what they were."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--decisions", type=int, default=3000)
    parser.add_argument("--cases", default=DEFAULT_CASES, help="MODEL:TASK:BATCH")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of a round")
    parser.add_argument("--seconds", type=float, default=1.2, help="of a session's turns, at most")
    parser.add_argument("--threads", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    diary = options.folder / "decisions.csv"
    if not diary.exists():
        diary.write_text(",".join(COLUMNS) + "\n")
    cases = []
    for text in options.cases.split(","):
        model, task, batch = text.split(":")
        cases.append(
            Case(
                model=model,
                task=task,
                batch_size=int(batch),
                threads=options.threads,
                device=options.device,
                backend=options.backend,
            )
        )
    while len(rows := _rows(diary)) < options.decisions:
        number = 1 + max((int(row["round"]) for row in rows), default=0)
        _take_round(number, cases, options, diary)
    print(told(_rows(diary)))


def _rows(diary: Path) -> list[dict[str, str]]:
    with diary.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _take_round(number: int, cases: list[Case], options: argparse.Namespace, diary: Path) -> None:
    old, new = (Copy(options.folder, which) for which in (1, 2))
    with Interpreter(backend=options.backend) as interpreter:
        pairings = []
        for case in cases:
            one, other = (
                LiveSide(case=case, interpreter=interpreter, code=code) for code in (old, new)
            )
            pairings.append(
                Pairing(case=case, old=one, new=other, shared=interpreter, may_be_same=True)
            )
        ends_s = time.monotonic() + options.budget
        terms = LiveOptions(
            seed=number,
            seconds_left=lambda: ends_s - time.monotonic(),
            clock=time.monotonic,
            results=options.folder / "results",
            session_s=options.seconds,
        )
        found = compare_live(pairings, terms, lambda line: None)
    with diary.open("a", newline="") as lines:
        for case, one in zip(cases, found, strict=True):
            if one.decision is None or one.closed:
                raise SystemExit(f"{case.name}: {one.closed}")
            seconds = sum(session.seconds for session in one.live)
            decision = one.decision
            row = (number, case.name, decision.verdict, decision.sessions, decision.estimate)
            csv.writer(lines).writerow((*row, round(seconds, 2)))


def told(rows: list[dict[str, str]]) -> str:
    """Return what the decisions were."""
    count = len(rows)
    verdicts = Counter(row["verdict"] for row in rows)
    alarms = verdicts["regressed"]
    low = beta.ppf(0.025, alarms, count - alarms + 1) if alarms else 0.0
    high = beta.ppf(0.975, alarms + 1, count - alarms) if count else 1.0
    sessions = sum(int(row["sessions"]) for row in rows) / max(1, count)
    seconds = sum(float(row["seconds"]) for row in rows) / max(1, count)
    shares = ", ".join(f"{name} {number}" for name, number in verdicts.most_common())
    changes = [float(row["change"]) for row in rows if row["change"]]
    spread = math.sqrt(sum(change**2 for change in changes) / max(1, len(changes)))
    return (
        f"{count} decisions: {shares}; {sessions:.1f} sessions and {seconds:.1f} s each; root mean "
        f"square of the change {100 * spread:.2f} %; false alarms {alarms}, "
        f"[{1000 * low:.2f}, {1000 * high:.2f}] in 1,000"
    )


if __name__ == "__main__":
    main()
