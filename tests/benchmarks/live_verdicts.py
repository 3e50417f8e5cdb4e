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
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-live"
PHASES = ("quiet", "loaded", "slower", "creeping")
RUNS = 6
VICTIM = "lenet5"
CASES = "lenet5,mini_inception,mini_resnet,mini_resnet_norm,conv_layer,separable_layer"
TRIAL_ELEMENTS = 100_000

BURN = '''

class Burn(keras.layers.Layer):
    """Real work that changes nothing: tanh of some elements of the input, forward and backward."""

    def call(self, images):
        flat = tf.reshape(images, [-1])
        tiled = tf.tile(flat[:784], [BURN_ELEMENTS // 784 + 1])[:BURN_ELEMENTS]
        return images + 1e-30 * tf.reduce_mean(tf.tanh(tf.tanh(tiled)))
'''


def run(*command: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, **settings
    )  # type: ignore[call-overload, no-any-return]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=live", "-c", "user.email=live@example.invalid")
    done = run("git", *identity, *arguments, folder=folder)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def commit(project: Path, note: str, elements: int) -> None:
    """Commit a version of the victim that burns so much, with a note that makes it a new one."""
    path = project / "models" / "lenet.py"
    original = git(project, "show", "origin/HEAD:models/lenet.py")
    text = original
    if elements:
        text = text.replace(
            "def lenet5(", f"BURN_ELEMENTS = {elements}\n{BURN}\n\ndef lenet5(", 1
        ).replace("keras.Input(MNIST_SHAPE),", "keras.Input(MNIST_SHAPE),\n            Burn(),", 1)
        text = text.replace("from .keras_api import keras", FULL_IMPORTS, 1)
    path.write_text(f"{text}\n# {note}\n")
    git(project, "commit", "--quiet", "--all", "--message", note)


FULL_IMPORTS = "import tensorflow as tf\n\nfrom .keras_api import keras"


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


def bench(project: Path, results: Path, models: str) -> dict[str, object]:
    """Run the training suite against its history; return its step times' verdicts."""
    began = time.monotonic()
    done = run(
        sys.executable, "-m", "pytest", "bench/test_training.py", f"--models={models}",
        "--time-budget=1", f"--results={results}", "--benchmark-compare", "-q",
        "-p", "no:cacheprovider", folder=project,
        env={**os.environ, "PYTHONPATH": str(project)},
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    verdicts = {line.split()[0]: line for line in done.stdout.splitlines() if " step_time " in line}
    lines = [re.sub(r" {2,}", "  ", line) for line in verdicts.values()]
    return {
        "exit": done.returncode,
        "seconds": round(time.monotonic() - began),
        "verdicts": lines,
        "confirmed": [line for line in done.stdout.splitlines() if " sessions, " in line],
    }


def elements_for(project: Path, share: float) -> int:
    """Return how much to burn for so large a share of the victim's CPU time, by lock-step."""
    from convmark.case import Case
    from convmark.launch import Interpreter
    from convmark.lockstep.anchor import Origin, beside
    from convmark.lockstep.engine import Plan, Side, compare

    case = Case(model=VICTIM, task="train", batch_size=32)
    origin = Origin(repository=project, folder=Path("models"), is_zoo=True)

    def make(zoo: Path = project / "models") -> Interpreter:
        return Interpreter(zoo=zoo)

    with beside(origin, "origin/HEAD", make) as (old, new):
        plan = Plan(seed=0, warm_up_s=1.0, error_rate=0.01)
        found = compare(Side(old, case), Side(new, case), plan, clock=time.monotonic)
    slower = sum(session.log_ratio for session in found.cpu) / len(found.cpu)
    print(f"  {TRIAL_ELEMENTS} elements cost {100 * slower:.1f} % of CPU time", flush=True)
    return round(TRIAL_ELEMENTS * share / slower)


class Diary:
    """What has been done, kept after every run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done = json.loads(path.read_text()) if path.is_file() else {}

    def keep(self, name: str, value: object) -> None:
        self.done[name] = value
        self._path.write_text(json.dumps(self.done, indent=1))


def once(diary: Diary, name: str, project: Path, results: Path, models: str, note: str) -> None:
    """Do one run unless it is done, and print what came of it."""
    if name not in diary.done:
        diary.keep(name, bench(project, results, models))
    found = diary.done[name]
    print(f"\n{name}: {note}; exit {found['exit']}, {found['seconds']} s")
    for line in [*found["confirmed"], *found["verdicts"]]:
        print(f"  {line}")
    sys.stdout.flush()


def unchanged(diary: Diary, project: Path, folder: Path, phase: str) -> None:
    results = folder / phase
    with load(2 if phase == "loaded" else 0):
        for number in range(RUNS + 1):
            name = f"{phase} {number}"
            if name not in diary.done:
                commit(project, f"{name}, unchanged", 0)
            once(diary, name, project, results, CASES, "unchanged code")


def changed(diary: Diary, project: Path, folder: Path, phase: str) -> None:
    """One slower run after the quiet ones, or a series that grows from a first run of its own."""
    if "elements of 10 %" not in diary.done:
        commit(project, "trial", TRIAL_ELEMENTS)
        diary.keep("elements of 10 %", elements_for(project, 0.10))
    tenth = diary.done["elements of 10 %"]
    if phase == "slower":
        if "slower" not in diary.done:
            commit(project, "slower by 10 %", tenth)
        once(diary, "slower", project, folder / "quiet", CASES, f"{VICTIM} slower by 10 %")
        return
    for number in range(RUNS + 1):
        name = f"creeping {number}"
        if name not in diary.done:
            commit(project, name, round(tenth * 0.2 * number))
        note = f"{VICTIM} slower by {2 * number} %"
        once(diary, name, project, folder / phase, VICTIM, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", nargs="+", choices=PHASES, default=PHASES)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    project = options.folder / "project"
    if not project.is_dir():
        git(options.folder, "clone", "--quiet", str(CHECKOUT), str(project))
    sys.path.insert(0, str(project))
    diary = Diary(options.folder / "diary.json")
    for phase in options.only:
        (unchanged if phase in ("quiet", "loaded") else changed)(
            diary, project, options.folder, phase
        )


if __name__ == "__main__":
    main()
