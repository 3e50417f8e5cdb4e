"""The verdicts of a run as a table, Markdown, JSON or annotations of a GitHub workflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from statistics import median
from types import MappingProxyType
from typing import Any

from convmark.compare.judgement import MACHINE, SAME_CODE, SAME_COMMIT, Judgement
from convmark.core.table import Heading, Table, grid, heading, printed, table_of
from convmark.core.text import (
    bytes_text,
    interval_text,
    markdown_cell,
    rate_text,
    seconds_text,
    shown,
)

__all__ = [
    "FOLLOWERS",
    "FORMATS",
    "HEADLINES",
    "change_text",
    "compared",
    "comparison_table",
    "could_see",
    "failure_line",
    "headline",
    "run_words",
    "value_text",
    "verdict_words",
    "verdicts_report",
    "worth_reading",
]

SHOWN = 12
"""Characters of a commit that are shown."""

_PRINTED: Mapping[str, Callable[[float | None], str]] = MappingProxyType(
    {"s": seconds_text, "bytes": bytes_text, "samples/s": rate_text}
)


def verdicts_report(
    judgements: Sequence[Judgement], form: str = "table", *, between: str = ""
) -> str:
    """Return the judgements in one of `FORMATS`.

    As `json` it is all of them, as `github` what fails and what is inconclusive; the tables have
    what is worth reading, every step time among it, and say how many rows they leave out.

    Args:
        between: the baseline and the run, for the headline that Markdown has.
    """
    text = FORMATS[form](judgements)
    if form != "markdown" or not between:
        return text
    return f"**{headline(judgements)}: {markdown_cell(between)}**\n\n{text}"


def headline(judgements: Sequence[Judgement]) -> str:
    """Return how many cases fail, by whatever number of metrics, of how many."""
    cases = len({one.case for one in judgements if one.model != MACHINE})
    failed = len({one.case for one in judgements if one.fails})
    plural = "" if cases == 1 else "s"
    return f"{failed or 'none'} of {cases} case{plural} fail{'s' * (failed <= 1)}"


def run_words(run: str, commit: str | None, dirty: bool | None) -> str:
    """Return a run and its commit in words."""
    code = f"{commit[:SHOWN]}{' with edits' * bool(dirty)}" if commit else "no commit"
    return f"run {run} ({code})"


def could_see(judgements: Sequence[Judgement]) -> str:
    """Say which change of a step time could have been detected; empty where none was compared."""
    compared = [
        one
        for one in judgements
        if one.metric == "step_time"
        and one.verdict not in ("new", "missing")
        and not one.note.startswith((SAME_CODE, SAME_COMMIT))
    ]
    seen = {one.case: one.smallest_visible for one in compared if one.smallest_visible is not None}
    blind = [one.case for one in compared if one.case not in seen]
    parts = []
    if seen:
        worst = max(seen, key=seen.__getitem__)
        parts.append(f"changes above {100 * median(seen.values()):.1f} % (median case)")
        parts.append(f"{100 * seen[worst]:.1f} % (worst case: {shown(worst)})")
    if blind:
        more = f" and {len(blind) - 1} more" if len(blind) > 1 else ""
        parts.append(f"no change at all in {shown(blind[0])}{more}")
    return f"could have detected {', '.join(parts)}" if parts else ""


HEADLINES = ("step_time", "accuracy")
"""The metrics that tell of a case; a table shows them whatever their verdict."""
FOLLOWERS = ("throughput", "latency_p50")
"""They follow the step time, whose row says the rest."""


def worth_reading(judgement: Judgement) -> bool:
    """Return whether a table shows the judgement: step times, accuracies, and all that changed."""
    if judgement.metric in FOLLOWERS:
        return judgement.verdict in ("regressed", "improved")
    return judgement.verdict != "unchanged" or judgement.metric in HEADLINES


def _table(judgements: Sequence[Judgement], style: str) -> str:
    read = [judgement for judgement in judgements if worth_reading(judgement)]
    left = len(judgements) - len(read)
    rest = f"{left} more row{'s' if left != 1 else ''} with nothing to add" if left else ""
    if not read:
        return rest or "no verdicts"
    headings = [
        heading("case", "case"),
        heading("metric", "metric"),
        heading("baseline", "baseline", "figure"),
        heading("now", "now", "figure"),
        heading("change", "change", "figure"),
        heading("verdict", "verdict"),
        heading("n", "n", "count"),
        heading("note", "note"),
    ]
    clean = partial(markdown_cell, code=True) if style == "pipe" else shown
    text = printed(headings, map(_row, read), style, clean=clean)
    return f"{text}\n\n{rest}" if rest else text


def _row(judgement: Judgement) -> dict[str, Any]:
    return {
        "case": judgement.case,
        "metric": judgement.metric,
        "baseline": value_text(judgement, judgement.baseline),
        "now": value_text(judgement, judgement.value),
        "change": change_text(judgement),
        "verdict": verdict_words(judgement),
        "n": len(judgement.baseline_runs) or None,
        "note": judgement.note,
    }


def value_text(judgement: Judgement, value: float | None) -> str:
    if value is None:
        return ""
    printed = _PRINTED.get(judgement.unit)
    if printed is None or (judgement.metric == "model_bytes" and judgement.verdict != "unchanged"):
        return f"{value:,.0f}" if value == round(value) else f"{value:.4f}"
    return printed(value)


def change_text(judgement: Judgement) -> str:
    """Return such as `+12.1 % [+9.8, +14.4]`; an end that is not known is left open."""
    if judgement.change is None:
        return ""
    return interval_text(judgement.change, judgement.interval)


def verdict_words(judgement: Judgement) -> str:
    """Return the verdict, with whether something failed that is no regression."""
    failed = judgement.fails and judgement.verdict != "regressed"
    return f"{judgement.verdict} (failed)" if failed else judgement.verdict


def _github(judgements: Sequence[Judgement]) -> str:
    """Workflow commands; GitHub shows them as annotations of the run.

    Source:
        GitHub's documentation, "Workflow commands for GitHub Actions"; its escapes are those of
        actions/toolkit, packages/core/src/command.ts.
    """
    failing: dict[str, list[Judgement]] = {}
    for one in judgements:
        if one.fails:
            failing.setdefault(one.case, []).append(one)
    lines = [_error(case, found) for case, found in failing.items()]
    doubtful = [
        one
        for one in judgements
        if one.verdict == "inconclusive" and not one.fails and one.metric in HEADLINES
    ]
    if doubtful:
        title = f"{len(doubtful)} case{'s' * (len(doubtful) != 1)} inconclusive"
        told = _escaped("\n".join(f"{one.case}: {_message(one)}" for one in doubtful))
        lines.append(f"::warning title={title}::{told}")
    return "\n".join(lines)


def _error(case: str, judgements: Sequence[Judgement]) -> str:
    """Return the annotation of a case that fails, by one metric or several."""
    words = ", ".join(f"{one.metric} {verdict_words(one)}" for one in judgements)
    several = len(judgements) > 1
    told = [f"{one.metric}: " * several + _message(one) for one in judgements]
    return f"::error title={_property(f'{case}: {words}')}::{_escaped(chr(10).join(told))}"


def _message(judgement: Judgement) -> str:
    values = [value_text(judgement, judgement.baseline), value_text(judgement, judgement.value)]
    moved = " -> ".join(value for value in values if value)
    parts = [moved, change_text(judgement), judgement.note]
    return "; ".join(part for part in parts if part) or judgement.verdict


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: Mapping[str, Callable[[Sequence[Judgement]], str]] = MappingProxyType(
    {
        "table": lambda judgements: _table(judgements, "simple"),
        "markdown": lambda judgements: _table(judgements, "pipe"),
        "json": lambda judgements: json.dumps(
            [asdict(judgement) for judgement in judgements], indent=1, allow_nan=False
        ),
        "github": _github,
    }
)


_IF_MEANT = (
    "if it is meant: --allow-change, a trailer `Benchmark-Accept:` of a commit or `convmark accept`"
)


def failure_line(judgement: Judgement) -> str:
    """Return which metric, by how much, against which runs, and how that is known."""
    words = [f"{judgement.case}: {judgement.metric} {judgement.verdict}"]
    if judgement.change is not None:
        words.append(f"by {100 * judgement.change:+.1f} %")
    if judgement.interval.known:
        words.append(judgement.interval.text)
    if judgement.baseline is not None and judgement.value is not None:
        printed = _PRINTED.get(judgement.unit, "{:,.6g}".format)
        words.append(f"from {printed(judgement.baseline)} to {printed(judgement.value)}")
    if judgement.baseline_runs:
        words.append(f"against run {', '.join(judgement.baseline_runs)}")
    meant = _IF_MEANT if judgement.verdict == "changed" else ""
    return shown("; ".join(filter(None, [" ".join(words), judgement.note, meant])))


def comparison_table(rows: Sequence[Any], form: str = "table", more: Sequence[Heading] = ()) -> str:
    """Return the verdicts of a comparison as a table, Markdown or JSON.

    Args:
        rows: of `convmark.compare.live.ab_files.VerdictRow`.
        form: table, markdown or json.
        more: headings after that of the case.
    """
    if form == "json":
        names = (name for name in type(rows[0]).__dataclass_fields__) if rows else ()
        fields = list(names)
        return json.dumps([{name: getattr(row, name) for name in fields} for row in rows], indent=2)
    table = compared(rows, more)
    if form == "markdown":
        return grid(table, "pipe", partial(markdown_cell, code=True))
    return grid(table, "simple", shown)


def compared(rows: Sequence[Any], more: Sequence[Heading] = ()) -> Table:
    """Return the verdicts of a comparison, a line for each case; as `comparison_table`."""
    headings = [
        heading("case", "case"),
        *more,
        heading("change", "B against A", "change"),
        heading("interval", "interval"),
        heading("verdict", "verdict"),
        heading("control_change", "control", "change"),
        heading("sessions", "n", "count"),
        heading("note", "note"),
    ]
    records = [
        {
            **{one.key: getattr(row, one.key) for one in headings if one.key != "interval"},
            "interval": row.interval.text,
        }
        for row in rows
    ]
    return table_of("comparison", "B against A", "", headings, records, keep=["case"])
