"""The files of an A/B comparison: one row per session, written at once, and one per verdict.

    results/ab/0007.csv        one comparison, one row per session of a case
    results/ab/0007-<case>.svg its sessions drawn
    results/ab/verdicts.csv    one row per comparison and case

The rules of a run's file hold: UTF-8, newline-ended, RFC 4180; an empty cell is absent.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from convmark.compare.ab_rows import SessionRow, VerdictRow, ab_table, read_verdicts
from convmark.compare.files import CHANGES_TABLE
from convmark.compare.judgement import BUDGET_SPENT, NOT_BY_TIME
from convmark.compare.live.case_result import CaseResult
from convmark.compare.live.session import NEW, OLD, Session
from convmark.core.files import as_store_error, write_whole
from convmark.core.interval import share_of
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.core.statistics import trimmed_mean
from convmark.core.text import counted, duration_text, share_text
from convmark.results.store import AB_FOLDER, Store


def session_fields(session: Session) -> dict[str, Any]:
    """Return the fields of a session's row that hold its ratios."""
    ratios = {
        "log_ratio": session.wall,
        "log_ratio_cpu": session.cpu,
        "control_log_ratio": session.control_wall,
        "control_log_ratio_cpu": session.control_cpu,
    }
    known = {name: ratio for name, ratio in ratios.items() if ratio}
    errors = {f"{name}_se": ratio.error for name, ratio in known.items()}
    return {**{name: ratio.value for name, ratio in known.items()}, **errors}


def copies_of_one(a: str, b: str) -> str:
    """Say which of two runtimes copies its batch within a step; empty where both are alike."""
    if a == b or DEFAULT_RUNTIME not in (a, b):
        return ""
    other = b if a == DEFAULT_RUNTIME else a
    remedy = "" if other == "savedmodel" else "; savedmodel is the same graph with these copies"
    return (
        f"a step of {other} takes its batch from host memory and returns its outputs there, a step "
        f"of {DEFAULT_RUNTIME} does not{remedy}"
    )


def verdict_fields(found: CaseResult, more: str = "") -> dict[str, Any]:
    """Return the fields of a verdict's row that tell what came of the sessions."""
    (verdict, note), decision = found.verdict("try a larger --budget"), found.decision
    a, b = (found.sizes.get(side, {}).get("parameters") for side in (OLD, NEW))
    notes = [of_sides(note), more]
    if left := found.left_out:
        why = f": {left[-1]}" * (left[-1] not in note)
        notes.append(of_sides(f"{counted(len(left), 'session')} left out{why}"))
    notes += [found.unlike, *([] if found.same else [found.lack, of_sides(found.unknown)])]
    if None not in (a, b) and a != b:
        notes.append(f"parameters differ: {a} and {b}")
    fields = {
        "verdict": verdict,
        "sessions": len(found.live),
        "void": found.void,
        "control_change": share_of(trimmed_mean(found.control).value) if found.control else None,
        "a_parameters": a,
        "b_parameters": b,
    }
    if decision is not None and decision.estimate is not None:
        if verdict == "inconclusive" and not found.void:
            notes.append(f"detects changes above {share_text(share_of(decision.smallest_visible))}")
        cpu = [one.cpu for one in found.live if one.cpu is not None]
        fields |= {
            "decided_by": "wall",
            "change": share_of(decision.estimate),
            **decision.interval.shares().cells,
            "smallest_visible": share_of(decision.smallest_visible),
            "wall_change": share_of(decision.estimate),
            "cpu_change": share_of(trimmed_mean(cpu).value) if cpu else None,
        }
    return {**fields, "note": "; ".join(filter(None, notes)) or None}


def of_sides(note: str) -> str:
    """Return a note with the sides by the names that the user knows them by."""
    names = {"the old code": "A", "the control code": "A", "the new code": "B"}
    return functools.reduce(lambda text, name: text.replace(*name), names.items(), note)


def beginning(found: Sequence[CaseResult], place: int, left_s: float) -> str:
    """Return which session of a case begins, what is known of the case, and how much is left.

    Args:
        left_s: the most seconds that the comparison of all cases still takes.
    """
    one, open_ = found[place], sum(other.candidate().open for other in found)
    session = f"session {len(one.live) + len(one.left_out) + 1}"
    known = ", ".join(filter(None, [session, one.decision.text if one.decision else ""]))
    decided = f"{len(found) - open_} of {counted(len(found), 'case')} decided"
    return f"{known}; {decided}, at most {duration_text(max(0.0, left_s))} left"


def enough_budget_s(results: Sequence[CaseResult], budget_s: float) -> float | None:
    """Return the budget of each case, on the average, that would most likely decide all cases.

    Returns:
        None where all are decided, or time would most likely not decide one.
    """
    open_ = [one for one in results if one.some_steps or not (one.void or one.has_verdict)]
    needs_s = [one.needs_s for one in open_ if one.needs_s]  # 0 of one that sessions have decided
    if not open_ or len(needs_s) < len(open_):
        return None
    return 10.0 * math.ceil((budget_s + sum(needs_s) / len(results)) / 10)


def next_step(rows: Sequence[VerdictRow], *, layers: bool, enough_s: float | None = None) -> str:
    """Return what the verdicts amount to, and what to do next.

    Args:
        layers: whether the layers of slower cases were measured.
        enough_s: the budget that would decide what is not decided, where it is known.
    """
    void = sum(row.void for row in rows)
    undecided = [row.note or "" for row in rows if row.verdict == "inconclusive" and not row.void]
    slower = sum(row.verdict == "regressed" for row in rows)
    of = f"of {counted(len(rows), 'case')}"
    found = []
    if void:
        found.append(f"{void} {of} void: close other programs and compare again")
    if undecided:
        ended = [note for note in undecided if BUDGET_SPENT in note]
        remedy = "close other programs and compare again" if ended else "the notes say why"
        if any(NOT_BY_TIME not in note for note in ended):
            remedy = "give a larger --budget, or close other programs"
        if enough_s is not None:
            remedy = f"--budget {enough_s:g} would most likely decide"
        found.append(f"{len(undecided)} {of} may have changed: {remedy}")
    if slower:
        remedy = "" if layers else ": give --layers to see which layers"
        found.append(f"{slower} {of} slower in B{remedy}")
    return f"next: {'; '.join(found)}" if found else "B is slower in no case"


def create(results: Path) -> Path:
    """Return the next comparison's file, made empty, so that no other takes its number."""

    def made(path: Path) -> Path:
        path.touch(exist_ok=False)
        CHANGES_TABLE.path(path).unlink(
            missing_ok=True
        )  # of one whose sessions were removed by hand
        return path

    return Store(results).create(AB_FOLDER, made)


@contextlib.contextmanager
def kept_if_used(path: Path) -> Iterator[None]:
    """Remove a comparison's file where an error ends the block before a session was kept."""
    try:
        yield
    except BaseException:
        remove_unused(path)
        raise


def remove_unused(path: Path) -> None:
    """Remove a comparison's file that has no session."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == 0:
            path.unlink()


def append(path: Path, rows: Sequence[SessionRow] | Sequence[VerdictRow]) -> None:
    """Append rows of one kind; they are on the disk when it returns."""
    for row in rows:
        table = ab_table(type(row))
        if row.a_framework or row.b_framework:
            table.lift(path)
        table.append(path, [row])


def keep_verdict(sessions: Path, row: VerdictRow, *, again: bool) -> None:
    """Append a verdict beside a comparison's sessions."""
    path = verdicts_path(sessions)
    known = read_verdicts(path) if again else []
    key = operator.attrgetter("ab", "started", "case")
    if key(row) not in map(key, known):
        append(path, [row])


def keep_figure(sessions: Path, case: str, svg: str) -> Path:
    """Keep a case's figure beside the sessions' file, and return where."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", case)[:100]
    path = sessions.with_name(f"{sessions.stem}-{name}.svg")
    with as_store_error(path, "written"):
        write_whole(path, svg.encode())
    return path


def verdicts_path(sessions: Path) -> Path:
    """Return where the verdicts are kept, beside a comparison's sessions."""
    return sessions.parent / "verdicts.csv"
