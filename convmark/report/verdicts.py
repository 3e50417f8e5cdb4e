"""The verdicts of a run as text, Markdown or annotations of a GitHub workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from convmark.compare.earlier import is_of_commit
from convmark.compare.files import accepted_of, read_verdicts, with_live
from convmark.compare.history import History, named_history
from convmark.compare.intended import (
    IntendedChanges,
    case_names,
    pass_accepted,
    pass_intended,
    trailer_range_of,
)
from convmark.compare.judgement import (
    HEADLINES,
    MACHINE,
    SAME_CODE,
    SAME_COMMIT,
    SAME_GRAPH,
    Judgement,
    decided,
    is_interrupted,
    margin_lines,
    shared_lines,
)
from convmark.compare.verdict import conclude, review
from convmark.core.errors import OptionError
from convmark.core.git import Git
from convmark.core.interval import NOT_KNOWN, by_change, interval_text
from convmark.core.statistics import grouped
from convmark.core.table import Heading, Table, grid, headings, printed, table_of
from convmark.core.text import (
    bytes_text,
    counted,
    listed,
    markdown_cell,
    natural_order,
    rate_text,
    seconds_text,
    shown,
)
from convmark.results.reading import read_head, read_run
from convmark.results.store import Store, newest_run

SHOWN = 12
"""Characters of a commit that are shown."""

_PRINTED: Mapping[str, Callable[[float | None], str]] = MappingProxyType(
    {"s": seconds_text, "bytes": bytes_text, "samples/s": rate_text}
)


def verdicts_report(
    judgements: Sequence[Judgement], form: str = "text", *, between: str = ""
) -> str:
    """Return the judgements in one of `FORMATS`.

    As `github` it is what fails and what is inconclusive; the tables have what is worth reading,
    every step time among it, and say how many rows they leave out.

    Args:
        between: the baseline and the run, for the headline that Markdown has.
    """
    text = FORMATS[form](judgements)
    if form != "markdown" or not between:
        return text
    return f"**{headline(judgements)}: {markdown_cell(between)}**\n\n{text}"


def headline(judgements: Sequence[Judgement]) -> str:
    """Return how many cases fail, by whatever number of metrics, of how many, and what is open."""
    of_cases = [one for one in judgements if one.model != MACHINE]
    cases = len({one.case for one in of_cases})
    failing = {one.case for one in judgements if one.fails}
    count, plural, more = len(failing), "" if cases == 1 else "s", ""
    for verdict, words in (("inconclusive", "not decided"), ("missing", "missing"), ("new", "new")):
        found = {one.case for one in of_cases if one.verdict == verdict if one.metric in HEADLINES}
        more += f", {len(found - failing)} {words}" * bool(found - failing)
        more += " (interrupted)" * (verdict == "inconclusive" and is_interrupted(of_cases))
    return f"{count or 'none'} of {cases} case{plural} fail{'s' * (count <= 1)}{more}"


def run_words(run: str, commit: str | None, dirty: bool | None, started: str = "") -> str:
    """Return a run and its commit in words, and the day where its start is given."""
    code = f"{commit[:SHOWN]}{' with edits' * bool(dirty)}" if commit else "no commit"
    return f"run {run} ({code}{f', {started[:10]}' * bool(started)})"


def against_anchors(judgements: Sequence[Judgement], history: History) -> list[Judgement]:
    """Return the judgements, those that do not say against what with the run of their anchor."""
    anchors = {name: case.anchor for name, case in history.cases.items() if case.anchor}
    words = {name: run_words(one.run, one.commit, one.dirty) for name, one in anchors.items()}
    return [replace(one, against=one.against or words.get(one.case, "")) for one in judgements]


def could_see(judgements: Sequence[Judgement]) -> str:
    """Say which change of a step time could have been detected; empty where none was compared."""
    compared = [
        one
        for one in judgements
        if one.metric == "step_time"
        and one.verdict not in ("new", "missing")
        and not one.note.startswith((SAME_CODE, SAME_GRAPH, SAME_COMMIT))
    ]
    seen = {one.case: one.smallest_visible for one in compared if one.smallest_visible is not None}
    blind = [one.case for one in compared if one.case not in seen]
    parts = []
    if seen:
        worst = max(seen, key=seen.__getitem__)
        middle = f"{100 * median(seen.values()):.1f} % (median case), " * (len(seen) > 1)
        which = "worst case: " * (len(seen) > 1)
        parts.append(
            f"could have detected changes above {middle}{100 * seen[worst]:.1f} % "
            f"({which}{shown(worst)})"
        )
    if blind:
        named = listed(list(map(shown, blind)), 1)
        parts.append(f"a change of any size may have been missed in {named}: the notes say why")
    return "; ".join(parts)


def worked_out(judgements: Sequence[Judgement]) -> str:
    """Say how the baseline of a live comparison is known; empty where there was none."""
    timed = (one for one in judgements if one.metric == "step_time" and one.model != MACHINE)
    if all(None in (one.smallest_visible, one.baseline) for one in timed):
        return ""
    return (
        "where a note counts sessions, the change was measured, and the baseline is worked out: "
        "now / (1 + change)"
    )


FOLLOWERS = ("throughput", "latency_p50")
"""They follow the step time, whose row says the rest."""


NOTHING_MORE = "other metrics, which are unchanged or follow the step time"
"""What rows are that no table shows."""


def worth_reading(judgement: Judgement) -> bool:
    """Return whether a table shows the judgement: step times, accuracies, and all that changed."""
    if judgement.metric in FOLLOWERS:
        return judgement.verdict in ("regressed", "improved")
    return judgement.verdict != "unchanged" or judgement.metric in HEADLINES


def _table(judgements: Sequence[Judgement], style: str) -> str:
    read = [judgement for judgement in judgements if worth_reading(judgement)]
    order = {case: place for place, case in enumerate(dict.fromkeys(one.case for one in read))}
    read.sort(key=lambda one: (order[one.case], not one.fails))  # what decides comes first
    left = len(judgements) - len(read)
    rest = f"{counted(left, 'more row')}: {NOTHING_MORE}" if left else ""
    if not read:
        return rest or "no verdicts"
    columns = headings(
        "case metric baseline now change verdict runs note",
        baseline=("baseline", "figure"),
        now=("now", "figure"),
        change=("change", "figure"),
    )
    clean = partial(markdown_cell, code=True) if style == "pipe" else shown
    text = printed(columns, map(_row, read), style, clean=clean)
    return f"{text}\n\n{rest}" if rest else text


def _row(judgement: Judgement) -> dict[str, Any]:
    return {
        "case": judgement.case,
        "metric": judgement.metric,
        "baseline": value_text(judgement, judgement.baseline),
        "now": value_text(judgement, judgement.value),
        "change": change_text(judgement),
        "verdict": verdict_words(judgement),
        "runs": len(judgement.baseline_runs) or None,
        "note": judgement.note,
    }


def value_text(judgement: Judgement, value: float | None) -> str:
    """Return a value of the judgement's metric in its unit, scaled; empty where there is none."""
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
    """Return the verdict, and whether the run fails by it."""
    return f"{judgement.verdict} (failed)" if judgement.fails else judgement.verdict


def _github(judgements: Sequence[Judgement]) -> str:
    """Workflow commands; GitHub shows them as annotations of the run.

    Source:
        GitHub's documentation, "Workflow commands for GitHub Actions"; its escapes are those of
        actions/toolkit, packages/core/src/command.ts.
    """
    failing = grouped((one.case, one) for one in judgements if one.fails)
    lines = [_error(case, found) for case, found in failing.items()]
    main = [one for one in judgements if one.metric in HEADLINES and not one.fails]
    for verdict in ("inconclusive", "missing", *["new"] * (decided(judgements) == "nothing")):
        if doubtful := [one for one in main if one.verdict == verdict]:
            title = f"{counted(len(doubtful), 'case')} {verdict}"
            found = _escaped("\n".join(f"{one.case}: {_message(one)}" for one in doubtful))
            lines.append(f"::warning title={title}::{found}")
    for title, told in ("shared by both codes", shared_lines), ("margin", margin_lines):
        lines += [f"::warning title={title}::{_escaped(line)}" for line in told(judgements)]
    return "\n".join(lines)


def _error(case: str, judgements: Sequence[Judgement]) -> str:
    """Return the annotation of a case that fails, by one metric or several."""
    words = ", ".join(f"{one.metric} {one.verdict}" for one in judgements)
    several = len(judgements) > 1
    told = [f"{one.metric}: " * several + _message(one) for one in judgements]
    title = _escaped(f"{case}: {words}").replace(":", "%3A").replace(",", "%2C")
    return f"::error title={title}::{_escaped(chr(10).join(told))}"


def _message(judgement: Judgement) -> str:
    values = [value_text(judgement, judgement.baseline), value_text(judgement, judgement.value)]
    moved = " -> ".join(value for value in values if value)
    parts = [moved, change_text(judgement), judgement.note]
    return "; ".join(part for part in parts if part) or judgement.verdict


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


GITHUB = "github"

FORMATS: Mapping[str, Callable[[Sequence[Judgement]], str]] = MappingProxyType(
    {
        "text": lambda judgements: _table(judgements, "simple"),
        "markdown": lambda judgements: _table(judgements, "pipe"),
        GITHUB: _github,
    }
)


_IF_MEANT = (
    "if it is meant: --allow-change, a trailer `Benchmark-Accept:` of a commit or `convmark accept`"
)


def failure_line(judgement: Judgement) -> str:
    """Return which metric, by how much, against which runs, and how that is known."""
    words = [f"{judgement.case}: {judgement.metric} {judgement.verdict}"]
    if judgement.change is not None:
        known = judgement.interval.known
        words.append(by_change(judgement.change, judgement.interval if known else NOT_KNOWN))
    if judgement.baseline is not None and judgement.value is not None:
        printed = _PRINTED.get(judgement.unit, "{:,.6g}".format)
        words.append(f"from {printed(judgement.baseline)} to {printed(judgement.value)}")
    if judgement.baseline_runs:
        words.append(f"against run {', '.join(judgement.baseline_runs)}")
    meant = _IF_MEANT if judgement.verdict == "changed" else ""
    return shown("; ".join(filter(None, [" ".join(words), judgement.note, meant])))


def comparison_table(rows: Sequence[Any], form: str = "text", more: Sequence[Heading] = ()) -> str:
    """Return the verdicts of a comparison as text or Markdown.

    Args:
        rows: of `convmark.compare.ab_rows.VerdictRow`.
        form: text or markdown.
        more: headings after that of the case.
    """
    table = compared(rows, more)
    if form == "markdown":
        return grid(table, "pipe", partial(markdown_cell, code=True))
    return grid(table, "simple", shown)


def compared(rows: Sequence[Any], more: Sequence[Heading] = ()) -> Table:
    """Return the verdicts of a comparison, a line for each case; as `comparison_table`."""
    columns = [
        *headings("case"),
        *more,
        *headings(
            "change interval verdict control_change sessions note",
            change=("B against A", "change"),
            control_change=("control", "change"),
            sessions=("n", "count"),
        ),
    ]
    records = [
        {
            **{one.key: getattr(row, one.key) for one in columns if one.key != "interval"},
            "interval": row.interval.text,
        }
        for row in rows
    ]
    return table_of("comparison", "B against A", "", columns, records, keep=["case"])


# -- of the newest run against a commit: live ones, or else from history ---------------------------


def verdicts_against(
    places: Sequence[Path],
    name: str,
    folder: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Table:
    """Return the verdicts of the newest run in the places against a baseline.

    Verdicts that the run itself made live beside the commit come first; without them its rows are
    judged against the newest other run of the commit, or against the run that is named. What the
    run's own session has compared live with that run holds there, as in `convmark compare`.

    Args:
        name: a branch or other ref of git, a commit, a run's number or its file.
        folder: where git is asked what a ref means, and which changes commits mean.
        say: is told which trailers of commits cannot be read.

    Raises:
        OptionError: neither a live verdict nor a run of the baseline is there.
        StoreError: a file does not fit, or there is no such run.
    """
    newest = newest_run(places)
    if newest is None:
        raise OptionError(f"--against: no run in {places[0]} has a row to compare")
    store, machine = Store(newest.parent.parent), newest.parent.name
    answer = Git.at(folder).answer("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    commit = (answer or "").strip()
    told = f"{name} ({commit[:SHOWN]})" if commit and not commit.startswith(name) else name
    beside = _live(newest, commit)
    if beside:
        beside = pass_accepted(beside, newest, [head.commit] if (head := read_head(newest)) else [])
        return judged(beside, f"{told}, live", between=f"{told} -> {_words(newest)}")
    of_it = store.of_commit(commit or name, machine, but=newest)
    of_it = [path for path in of_it if not commit or _ran_commit(path)]
    if commit and not of_it:
        raise OptionError(
            f"--against {name}: run {newest.stem} has no live verdict against {commit[:SHOWN]}, "
            f"which no run measured: `pytest bench --benchmark-compare=git:{name}` compares live"
        )
    baseline = of_it[-1] if commit else store.find(name, machine, but=newest)
    is_newest = len(of_it) > 1 and baseline.stem == of_it[-1].stem
    of_several = f", the newest of {counted(len(of_it), 'run')}" * is_newest
    records = read_run(newest)
    history = named_history(baseline, records)
    trailers = trailer_range_of(history, newest, records, folder)
    meant = IntendedChanges(
        case_names(records), (), trailers, say, accepted_of(newest, {row.commit for row in records})
    )
    found = conclude(review(records, history), report_missing=True)
    found = against_anchors(with_live(found, newest, baseline), history)
    judgements = pass_intended(found, meant, store.runs_before(newest))
    live = any(one.metric == "step_time" and one.change is not None for one in judgements)
    how = "live, or else from history" if live else "from history, without a live comparison"
    against = f"run {baseline.stem}{of_several} of {told}, {how}"
    before = told if commit else _words(baseline)
    return judged(judgements, against, between=f"{before} -> {_words(newest)}")


def _words(path: Path) -> str:
    head = read_head(path)
    return run_words(path.stem, head.commit if head else None, head.dirty if head else None)


def _live(run: Path, commit: str) -> list[Judgement]:
    """Return the run's own judgements where one was made, or tried, beside the commit."""
    if not commit:
        return []
    found, told = read_verdicts(run), commit[:SHOWN]
    beside = any(f"against {told}" in one.note or one.against == told for one in found)
    return found if beside else []


def _ran_commit(path: Path) -> bool:
    """Whether what a run measured is its commit's."""
    head = read_head(path)
    return head is not None and is_of_commit(head)


_RANK = ("regressed", "changed", "inconclusive", "missing", "improved", "new", "unchanged")


def judged(judgements: Sequence[Judgement], against: str, *, between: str) -> Table:
    """Return the verdicts that are worth reading, and say how many are not shown.

    Args:
        against: what the run was judged against, in words.
        between: the baseline and the run with their commits, for the title.
    """
    shown = [judgement for judgement in judgements if worth_reading(judgement)]
    shown.sort(key=lambda one: (not one.fails, _RANK.index(one.verdict), natural_order(one.case)))
    records = [
        {
            "case": one.case,
            "metric": one.metric,
            "verdict": verdict_words(one),
            "change": one.change,
            **one.interval.cells,
            "smallest_visible": one.smallest_visible,
            "note": one.note,
        }
        for one in shown
    ]
    run = judgements[0].run if judgements else "none"
    left = len(judgements) - len(shown)
    return table_of(
        "verdicts",
        f"Verdicts: {headline(judgements)}, {between}",
        f"Run {run} against {against}. A change is a share of the baseline, above 0 is more; its "
        "interval is at an error rate of 1 % over all cases."
        f"{f' {left} more: {NOTHING_MORE}.' * bool(left)}",
        headings(
            "case metric verdict change low high smallest_visible note",
            smallest_visible=("smallest visible", "share"),
        ),
        records,
        empty="There are no verdicts.",
    )
