"""Stored texts of what convmark prints; not a test itself.

`RENEW_SNAPSHOTS=1 pytest` with the tests that fail writes them again: read the difference in git.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "data" / "snapshots"

VARIES = (
    (r"convmark[ \w]*: (load|governor|battery|power|quota|temperature)\b.*\n(?:  .*\n)*", ""),
    (r"start in \S+/etc", "start in FOLDER/etc"),
    (r"\babout \d+ (h \d+ min|min \d+ s|s|min|h)\b", "about TIME"),
    (r"\bTIME to \d+ (min \d+ s|s|min|h)\b", "TIME to TIME"),
    (r"in \d+\.\d+s", "in TIME"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00)?", "DATE"),
    (r"\b([0-9a-f]{40}|[0-9a-f]{12})\b", "COMMIT"),
    (r"(?<=COMMIT, |commit, )\d{4}-\d\d-\d\d\b", "DAY"),
    (r"(results|joined)/[\w.-]+/(\d{4})", r"\1/MACHINE/\2"),
    (r"\b[\w.-]+-\d+cpu-\d+gib-[0-9a-f]{8}\b", "MACHINE"),
    # what argparse writes differently from one Python to the next
    (r"(-\w) ([A-Z]+), (--[\w-]+) \2", r"\1, \3 \2"),
    (r"\(choose from .*?\)", lambda found: found[0].replace("'", "")),
)
"""What differs from machine to machine or from run to run, and what is stored in its place."""


FOLDED = re.compile(
    r"(?m)^((?:convmark[ \w-]*: (?!benchmarks of)|ERROR: |accepted run |no env).*)\n  (?=\S)"
)
"""A line of prose that goes on below: where it is broken depends on the length of paths."""

OF_PYTEST = re.compile(
    r"(?m)^(platform|cachedir|benchmark|rootdir|plugins|configfile):? .*\n"
    r"|(?s:=+ warnings summary =+.*?-- Docs: \S+\n)"
    r"|, \d+ warnings?\b|={3,}"
)


def plain(text: str, *folders: Path) -> str:
    """Return a text without what varies; `folders` are written FOLDER."""
    for folder in folders:
        text = text.replace(str(folder), "FOLDER")
    text = text.replace(str(ROOT), "REPOSITORY")
    while FOLDED.search(text):
        text = FOLDED.sub(r"\1 ", text)
    for pattern, shown in VARIES:
        text = re.sub(pattern, shown, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def session(result: pytest.RunResult, folder: Path) -> str:
    """Return what a session of pytest printed, without the lines that tell of its installation."""
    text = "\n".join([*result.errlines, *result.outlines])
    text = re.sub(r"(?m)^(\s*)\d+ warnings? in", r"\1no tests ran in", OF_PYTEST.sub("", text))
    return plain(f"{text}\nexit {int(result.ret)}\n\n", folder)


def check(name: str, text: str) -> None:
    """Compare a text with the stored one of this name; or store it, where this is asked for."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("RENEW_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text.splitlines() == stored.splitlines(), f"RENEW_SNAPSHOTS=1 pytest renews {path}"
