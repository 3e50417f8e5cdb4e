"""The comment on a pull request: the verdicts of a gate in at most 60 lines of Markdown.

Texts from a results file stand in code spans, in which GitHub makes no link, mention or markup.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from convmark.compare.accepted_code import open_line, remedy
from convmark.compare.intended import doubt_of, trailer_line
from convmark.compare.judgement import (
    HEADLINES,
    MACHINE,
    PRECISION,
    SAME_CODE,
    SAME_COMMIT,
    SIZES,
    Judgement,
    decided,
    is_interrupted,
    margin_lines,
    shared_lines,
)
from convmark.core.statistics import grouped
from convmark.core.text import counted, listed, shown
from convmark.report.verdicts import FOLLOWERS, change_text, value_text

MOST_ROWS = 16
"""Of each of the two tables, so that the comment has at most 60 lines."""
MOST_LETTERS = 180
"""Of a text from a results file."""
MOST_NAMES = 5

STATES = {
    "failed to run": "failed to run",
    "regressed": "regressed",
    "changed": "changed in size or precision",
    "accepted": "changed as accepted",
    "improved": "improved",
    "inconclusive": "inconclusive",
    "missing": "missing",
    "new": "new",
    "unchanged": "unchanged",
    "same code": "not compared (same code)",
}
"""What became of a case, and how the sentence says it; a case is the first that is true of it."""
MOVED = ("failed to run", "regressed", "changed", "accepted", "improved")

_HEX = re.compile(r"[0-9a-f]{7,40}")
_BARS = re.compile(r"\\*[|]")
"""A back slash before a bar would take away the one that keeps it in its cell."""


@dataclass(frozen=True)
class Gate:
    """What a gate has found, and how it has ended."""

    judgements: Sequence[Judgement] = ()
    """Of the run that the gate made; none where it ended before it had verdicts."""
    head: str = ""
    """The run and its commit, in words, or the commit alone."""
    passed: bool = True
    """Whether its exit status was 0."""

    @cached_property
    def cases(self) -> dict[str, list[Judgement]]:
        """The judgements of each case by its name."""
        return grouped((one.case, one) for one in self.judgements if one.model != MACHINE)

    @cached_property
    def states(self) -> dict[str, str]:
        """What became of each case, one of `STATES`."""
        return {case: _state(found) for case, found in self.cases.items()}

    @property
    def moved(self) -> list[str]:
        """The cases that changed or failed, the worst first."""
        found = [case for case, state in self.states.items() if state in MOVED]
        return sorted(found, key=lambda case: (MOVED.index(self.states[case]), case))

    @property
    def compared_nothing(self) -> bool:
        """Whether no case has a decision, though the code of some may have changed.

        That a change of sizes is accepted, or that a case takes less memory, decides nothing of a
        step time that is inconclusive.
        """
        if {"regressed", "changed"} & set(self.states.values()):
            return False
        return decided(self.judgements) in ("none", "nothing")

    @property
    def undecided(self) -> list[Judgement]:
        """What tells of the cases that are not decided; nothing where a case fails."""
        if any(one.fails for one in self.judgements):
            return []
        here = (one for found in self.cases.values() for one in found)
        return [one for one in here if one.metric in HEADLINES and one.verdict == "inconclusive"]

    @property
    def interrupted(self) -> bool:
        """Whether it was ended before all was decided, and nothing fails: that is no pass."""
        return is_interrupted(self.judgements) and not any(one.fails for one in self.judgements)

    @property
    def measured_live(self) -> bool:
        """Whether a case that is inconclusive was compared with its base all the same."""
        open_ = [one for one in self.judgements if one.verdict == "inconclusive"]
        return any(one.metric in HEADLINES and one.change is not None for one in open_)

    @property
    def has_news(self) -> bool:
        """Whether a pull request without a comment gets one."""
        found = self.judgements
        told = [*shared_lines(found), *margin_lines(found), open_line(found)]
        is_pass = self.passed and not (self.interrupted or self.undecided or self.compared_nothing)
        return bool(self.moved or any(told)) or not is_pass


def _state(found: Sequence[Judgement]) -> str:
    failing = {one.verdict for one in found if one.fails}
    if failing - {"regressed", "changed"}:
        return "failed to run"
    if failing:
        return "regressed" if "regressed" in failing else "changed"
    if any(_is_accepted(one) for one in found):
        return "accepted"
    if any(one.verdict == "improved" and one.metric not in FOLLOWERS for one in found):
        return "improved"
    main = main_of(found)
    if main.verdict == "unchanged" and main.note.startswith((SAME_CODE, SAME_COMMIT)):
        return "same code"
    return main.verdict


def _is_accepted(one: Judgement) -> bool:
    """Whether what would fail does not; files of earlier versions say why in the note alone."""
    convicting = one.verdict == "regressed" and one.metric not in FOLLOWERS
    model = one.verdict == "changed" and one.metric in (SIZES, PRECISION)
    return not one.fails and (convicting or model)


def main_of(found: Sequence[Judgement]) -> Judgement:
    """Return the judgement that tells of a case."""
    return next((one for one in found if one.metric in HEADLINES), found[0])


def comment_text(gate: Gate) -> str:
    """Return the comment: one sentence, what moved, the rest folded, what was not compared."""
    parts = [_sentence(gate), *_moved_table(gate), *_rest(gate)]
    same = [case for case, state in gate.states.items() if state == "same code"]
    if same:
        names = listed(list(map(_code, same)), MOST_NAMES)
        parts.append(f"Not compared, because the code is the same: {names}.")
    parts += [
        f"Not compared: {_code(line)}." for line in shared_lines(gate.judgements)[:MOST_NAMES]
    ]
    parts += [f"{_code(line)}." for line in margin_lines(gate.judgements)]
    if gate.moved:
        parts.append("A change is a share of the base, above 0 is more; its interval is behind it.")
    return "\n\n".join(parts)


def _sentence(gate: Gate) -> str:
    """Say how the gate has ended, what became of how many cases, and between which commits."""
    states = set(gate.states.values())
    ended = "passed" if gate.passed else "failed"
    if gate.interrupted:
        ended = "interrupted"
    elif gate.passed and gate.compared_nothing:
        ended = "without a verdict"
    elif gate.passed and gate.undecided:
        ended = "decided in part"
    words = [f"**Benchmark gate {ended}:"]
    if not gate.cases:
        words.append("there is no verdict; the log of the job shows the reason.**")
    else:
        if gate.interrupted:
            words.append("this is no pass;")
        elif not gate.passed and not any(one.fails for one in gate.judgements):
            words.append("the log of the job shows the reason, and no verdict fails;")
        if gate.compared_nothing:
            words.append(f"nothing was {'decided' if gate.measured_live else 'compared'};")
        elif ended == "decided in part":
            other = "other " * ("accepted" in states)
            told = f"{len(gate.undecided)} of {counted(len(gate.cases), 'case')} not decided"
            words.append(f"no {other}regression found, {told};")
        elif "unchanged" in states and states <= {"unchanged", "same code", "missing", "new"}:
            words.append("no change was found;")
        words.append(f"of {counted(len(gate.cases), 'case')} {counts_text(gate)}.**")
    bases = list(dict.fromkeys(one.against for one in gate.judgements if one.against))
    base = listed(list(map(_commit, bases)), MOST_NAMES)
    compared = any(one.verdict != "new" for one in gate.judgements)
    base = base or ("not recorded" if compared else "none")
    told = f"{' '.join(words)} Base: {base}. Head: {_commit(gate.head) or 'unknown'}."
    told += f" Undecided cases: {remedy(gate.undecided)}." * bool(gate.undecided)
    return f"{told} **{line}.**" if (line := open_line(gate.judgements)) else told


def counts_text(gate: Gate) -> str:
    """Return how many cases are in which state."""
    states = list(gate.states.values())
    return ", ".join(
        f"{states.count(state)} {words}" for state, words in STATES.items() if state in states
    )


def _commit(text: str) -> str:
    """Return a commit, of which GitHub makes a link, or another text as code."""
    return text if _HEX.fullmatch(text) else _code(text)


def _code(text: str) -> str:
    """Return a text as a code span that holds nothing but it, in a table's cell too."""
    line = shown(" ".join(text.split())).replace("`", "'")
    line = line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]}..."
    inert = _BARS.sub(r"\\|", line)
    return f"`{inert}`" if line.strip() else ""


def _moved_table(gate: Gate) -> Iterator[str]:
    """Yield base, head and change of what moved, and how an intended change passes."""
    rows = [
        [
            *(_code(case), _code(one.metric)),
            *(value_text(one, one.baseline), value_text(one, one.value)),
            change_text(one) or _code(one.note),
            _verdict(one),
        ]
        for case in gate.moved
        for one in sorted(gate.cases[case], key=lambda one: not one.fails)  # what decides first
        if one.metric in HEADLINES or _is_news(one)
    ]
    if rows:
        yield _table(["case", "metric", "base", "head", "change", "verdict"], rows)
    meant = [case for case in gate.moved if gate.states[case] in ("regressed", "changed")]
    if meant:
        line, left = trailer_line(meant)
        more = f", with the names of {left} more" if left else ""
        how = f"end the message of a commit with the line {_code(line)}{more}"
        yield f"If a change is intended, {how}."


def _is_news(one: Judgement) -> bool:
    improved = one.verdict == "improved" and one.metric not in FOLLOWERS
    return one.fails or improved or _is_accepted(one)


def _verdict(one: Judgement) -> str:
    if _is_accepted(one):
        parts = [one.verdict, _code(one.accepted) or "accepted", doubt_of(one)]
        return ", ".join(filter(None, parts))
    return f"{one.verdict}, fails" if one.fails else one.verdict


def _rest(gate: Gate) -> Iterator[str]:
    """Yield the other cases that were compared, and what the machine did, folded."""
    quiet = (*MOVED, "same code")
    others = [
        main_of(gate.cases[case]) for case, state in gate.states.items() if state not in quiet
    ]
    cases = len(others)
    others += [
        one for one in gate.judgements if one.model == MACHINE and one.verdict != "unchanged"
    ]
    if not others:
        return
    rows = [[_code(one.case), change_text(one), one.verdict, _code(one.note)] for one in others]
    summary = counted(cases, "other case") if cases else "The machine"
    table = _table(["case", "change", "verdict", "note"], rows)
    yield f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows[:MOST_ROWS]]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    left = len(rows) - MOST_ROWS
    return f"{text}\n\n{counted(left, 'more row')}." if left > 0 else text


def badge_text(gate: Gate) -> str:
    """Return the JSON of a badge.

    Source:
        shields.io, "Endpoint badge".
    """
    states = list(gate.states.values())
    told = [f"{states.count(state)} {STATES[state]}" for state in MOVED if state in states]
    if gate.interrupted:
        message, color = "interrupted", "lightgrey"
    elif not gate.passed:
        message, color = ", ".join(told) or "failed", "red"
    elif gate.undecided:
        message, color = f"{len(gate.undecided)} of {len(states)} not decided", "yellow"
    elif gate.compared_nothing:
        message, color = "nothing compared" if states else "no verdict", "lightgrey"
    else:
        message, color = ", ".join(told) or "no change", "brightgreen"
    badge: dict[str, Any] = {"schemaVersion": 1, "label": "benchmark", "message": message}
    return json.dumps({**badge, "color": color})
