"""Kill commands at random moments: what of the results is lost, and what is left lying about.

Run it from a checkout: `python tests/benchmarks/kills.py [--folder F] [--kills N] [--seconds S]
[--only COMMAND ...]`. Each kill is SIGKILL, sent to the command's first process at a moment of a
seeded sequence within the time that the whole command takes. Afterwards must hold, or the script
says which kill broke it and ends with status 1:

- every row that the command had reported is in its file, every run file reads, nothing of a file
  that the command only reads has changed, and an output is either as it was or whole;
- 5 s after the command's next start none of the killed one's processes lives;
- once that next one has ended, the temporary folder is empty, git knows of no worktree but the
  repository's own, no lock is held and no part of a file lies among the results.

Stand-in workers measure, but for the commands of `real`. It can be stopped and started again: a
kill that is done is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import psutil

CHECKOUT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(Path(__file__).parent), str(CHECKOUT / "tests")]

from faults import fast_python, run_files  # noqa: E402
from slowed import Diary, git  # noqa: E402

from convmark.results.reading import StoreWarning, read_run  # noqa: E402

DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "convmark-kills"
GONE_S = 5.0
MARK = "CONVMARK_KILLS"
"""Names the kill in the environment of the killed command and of all that it has started."""

CASES = ("--models=lenet5,conv_layer", "--tasks=train", "--batch-sizes=1")
SUITE = """
import pytest
from convmark.core.suites import Suite

SUITE = Suite(models=("lenet5", "conv_layer"), tasks=("train",), batch_sizes=(1,))


@pytest.mark.convmark(SUITE)
def test_speed(measured, benchmark):
    measured.replay(benchmark)
"""


@dataclass(frozen=True)
class Command:
    """A command line, what it writes, and how it may end when nobody kills it."""

    line: tuple[str, ...]
    measures: bool = False
    """Whether it makes a run file; else no file among the results may change, but for `adds`."""
    output: str = ""
    """A file; one in a folder says that the command makes the folder, which may not be there."""
    whole: Callable[[bytes], bool] = bool
    adds: str = ""
    statuses: tuple[int, ...] = (0,)
    real: bool = False


def _page(content: bytes) -> bool:
    return content.rstrip().endswith(b"</html>")


CASE = "lenet5-train-cpu-b1-float32"
COMMANDS = {
    "run": Command(
        (
            "convmark", "run", "--python={fast}", *CASES, "--processes=3", "--time-budget=0.1",
        ),
        measures=True,
    ),
    "bench": Command(
        ("pytest", "--python={fast}", "--processes=3", "-p", "no:cacheprovider", "-q"),
        measures=True,
    ),
    "report": Command(("convmark", "report", "results", "-o", "page.html"), output="page.html",
                      whole=_page),
    "markdown": Command(("convmark", "report", "results", "-o", "page.md"), output="page.md"),
    "merge": Command(("convmark", "merge", "more", "--results", "results"), adds="*/*"),
    "export": Command(
        ("convmark", "export", "results", "--to", "openmetrics", "-o", "metrics.txt"),
        output="metrics.txt", whole=lambda content: content.endswith(b"# EOF\n"),
    ),
    "publish": Command(
        ("convmark", "publish", "results", "more", "-o", "site"), output="site/index.html",
        whole=_page,
    ),
    "history": Command(("convmark", "history", CASE)),
    "compare": Command(("convmark", "compare")),
    "accept": Command(("convmark", "accept", "1", "--reason", "as planned"), adds="*/accepted.csv"),
    "gate": Command(
        (
            "pytest", "-p", "no:cacheprovider", "-q", "--benchmark-compare=git:HEAD~1",
            "--models=conv_layer", "--processes=1", "--time-budget=0.1", "--compare-budget=10",
        ),
        measures=True, adds="*/*.verdicts.csv", statuses=(0, 1), real=True,
    ),
    "ab": Command(
        (
            "convmark", "ab", "git:HEAD~1", "git:HEAD", "--models=conv_layer", "--tasks=train",
            "--batch-sizes=32", "--budget=8", "--results=results",
        ),
        adds="ab/*", statuses=(0, 1, 3), real=True,
    ),
}  # fmt: skip


class Place:
    """The folders of one command: a repository with results, and room for temporary files."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder, self.command = folder, command
        self.project, self.temporary = folder / "project", folder / "tmp"
        self.runtime = folder / "runtime"

    def fill(self) -> None:
        """Make the folders as new: the history must not grow without end."""
        kept = self.folder / "kept"
        if kept.exists():
            shutil.rmtree(self.project)
        else:
            self._make()
            self.project.rename(kept)
        shutil.copytree(kept, self.project, symlinks=True)

    def _make(self) -> None:
        """Make a repository with two commits of the zoo, three runs, and three more beside them."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.project.mkdir(parents=True)
        self.runtime.mkdir(mode=0o755)
        self.temporary.mkdir()
        (self.folder / "fast").mkdir()
        (self.project / "test_speed.py").write_text(SUITE)
        (self.project / "pyproject.toml").write_text(
            "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
        )
        (self.project / ".gitignore").write_text("results\nmore\n*.html\n*.md\n*.txt\n")
        shutil.copytree(
            CHECKOUT / "models", self.project / "models",
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        git(self.project, "init", "--quiet", "--initial-branch=main")
        for number in range(2):
            path = self.project / "models" / "layers.py"
            path.write_text(f"{path.read_text()}# {number}\n")
            git(self.project, "add", "--all")
            git(self.project, "commit", "--quiet", "--message", str(number))
        for number in range(6):
            results = "results" if number < 3 else "more"
            options = [f"--results={results}", "--seed", str(number)]
            self.to_its_end(f"made {number}", [*COMMANDS["run"].line, *options])

    def start(self, mark: str, line: tuple[str, ...] | list[str]) -> subprocess.Popen[bytes]:
        fast = fast_python(self.folder / "fast")
        made = Path(self.command.output).parent.name
        if made:
            shutil.rmtree(self.project / made, ignore_errors=True)
        environ = {
            **os.environ, MARK: mark, "TMPDIR": str(self.temporary),
            "CONVMARK_RUNTIME": str(self.runtime), "PYTHONPATH": str(CHECKOUT),
            "CONVMARK_TEST_PAUSE_S": "0.005",
        }  # fmt: skip
        with self._output(mark).open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *(one.format(fast=fast) for one in line)],
                cwd=self.project, env=environ, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    def to_its_end(self, mark: str, line: tuple[str, ...] | list[str]) -> float:
        """Let a command end; return its seconds."""
        began = time.monotonic()
        process = self.start(mark, line)
        if process.wait(timeout=300) not in self.command.statuses:
            raise SystemExit(f"{' '.join(line)}: status {process.returncode}: {self.said(mark)}")
        return time.monotonic() - began

    def said(self, mark: str) -> str:
        """Return what a command has printed."""
        return self._output(mark).read_text(errors="replace")

    def _output(self, mark: str) -> Path:
        return self.folder / f"{mark}.log"

    def hashes(self) -> dict[str, str]:
        """Return what each file of the results holds."""
        return {
            str(path.relative_to(self.project)): hashlib.sha256(path.read_bytes()).hexdigest()
            for name in ("results", "more")
            for path in sorted((self.project / name).rglob("*"))
            if path.is_file()
        }


def killed(place: Place, mark: str, after_s: float) -> tuple[str, list[str]]:
    """Kill the command once and start it again; return where it was and what does not hold."""
    command, before = place.command, place.hashes()
    process = place.start(mark, command.line)
    try:
        process.wait(timeout=after_s)
        where = "ended before"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        where = "killed"
    output = place.said(mark)
    wrong = [f"{one} changed" for one in _changed(before, place.hashes(), command)]
    wrong += _lost(place, output) + _torn_output(place)
    again = place.start(f"{mark} again", command.line)
    deadline = time.monotonic() + GONE_S
    while (alive := _alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    wrong += [f"still alive: {one}" for one in alive]
    again.wait(timeout=300)
    told = place.said(f"{mark} again")
    if again.returncode not in command.statuses or "Traceback" in told:
        wrong.append(f"the next one ended with {again.returncode}: {told[-1500:]}")
    return where, wrong + _left(place, mark)


def _changed(before: dict[str, str], after: dict[str, str], command: Command) -> list[str]:
    """Return the files that may not have changed and did; new ones may come where it writes."""
    return [
        name
        for name, digest in before.items()
        if after.get(name) != digest and not fnmatch(name, f"results/{command.adds}")
    ]


def _lost(place: Place, output: str) -> list[str]:
    """Return which reported rows are not there, and which run files do not read."""
    wrong, rows = [], 0
    for path in run_files(place.project / "results"):
        if path.parent.name == "ab":
            continue  # sessions, not rows
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            try:
                rows = len(read_run(path))
            except Exception as error:  # whatever it is, it is what this looks for
                wrong.append(f"{path.name} does not read: {error}")
    reported = re.findall(r"^\[ *(\d+)/\d+\]", output, re.MULTILINE)
    if place.command.measures and reported and rows < max(map(int, reported)):
        wrong.append(f"{reported[-1]} rows were reported, {rows} are there")
    return wrong


def _torn_output(place: Place) -> list[str]:
    if not place.command.output:
        return []
    path = place.project / place.command.output
    if not path.exists():
        torn = path.parent != place.project and path.parent.exists()
        return [f"{path.parent.name} is a part"] * torn
    return [] if place.command.whole(path.read_bytes()) else [f"{path.name} is torn"]


def _alive(mark: str) -> list[str]:
    """Return the processes of a kill that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _left(place: Place, mark: str) -> list[str]:
    """Return what lies about after the next command has ended."""
    wrong = [f"left in the temporary folder: {one.name}" for one in place.temporary.iterdir()]
    trees = git(place.project, "worktree", "list", "--porcelain").count("worktree ")
    wrong += [f"{trees - 1} worktrees are left"] * (trees != 1)
    wrong += [
        f"a part of a file is left: {path.name}"
        for path in (place.project).rglob("*")
        if path.name.endswith((".part", ".tmp", ".lock")) or re.match(r"\.\d+\.csv\.", path.name)
    ]
    return wrong + [f"still alive: {one}" for one in _alive(f"{mark} again")]


def main() -> int:
    """Kill; return 1 if something was lost or left."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--kills", type=int, default=100, help="of each command")
    parser.add_argument("--seconds", type=float, help="begin no kill after so many")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.until = time.monotonic() + (options.seconds or math.inf)
    diary = Diary(options.folder / "diary.json")
    for name in options.only:
        _kill_often(name, options, diary)
    return _summary(options.only, diary)


def _kill_often(name: str, options: argparse.Namespace, diary: Diary) -> None:
    place = Place(options.folder / name, COMMANDS[name])
    moments = random.Random(name)
    takes_s = 0.0
    for number in range(options.kills):
        share, mark = moments.random(), f"{name} {number}"
        if mark in diary.done:
            continue
        if time.monotonic() > options.until:
            return
        if not takes_s or number % 20 == 0:
            place.fill()
            takes_s = place.to_its_end("whole", place.command.line)
        where, wrong = killed(place, mark, share * takes_s)
        diary.keep(mark, {"where": where, "share": round(share, 3), "wrong": wrong})
        for one in wrong:
            print(f"{mark}, at {share * takes_s:.2f} of {takes_s:.2f} s: {one}", flush=True)
        if wrong:
            takes_s = 0.0


def _summary(names: list[str], diary: Diary) -> int:
    broken = 0
    for name in names:
        kills = [one for mark, one in diary.done.items() if mark.rsplit(" ", 1)[0] == name]
        wrong = sum(bool(one["wrong"]) for one in kills)
        where = ", ".join(f"{n} {what}" for what, n in Counter(k["where"] for k in kills).items())
        print(f"{name:10s} {len(kills)} kills ({where}); something lost or left: {wrong}")
        broken += wrong
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
