"""The verdicts of the newest run against a commit: live ones, or else from history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from convmark.compare.files import read_verdicts, with_live
from convmark.compare.history import named_history
from convmark.compare.intended import (
    IntendedChanges,
    case_names,
    pass_intended,
    trailer_range_of,
)
from convmark.compare.judgement import Judgement
from convmark.compare.verdict import conclude, review
from convmark.core.errors import OptionError
from convmark.core.git import Git
from convmark.core.table import Table, heading, table_of
from convmark.report.verdicts import headline, run_words, verdict_words, worth_reading
from convmark.results.store import Store, newest_run, read_head, read_run

__all__ = ["judged", "verdicts_against"]

SHOWN = 12
"""Characters of a commit that a note quotes."""


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
        return judged(beside, f"{told}, live", between=f"{told} -> {_words(newest)}")
    if commit:
        baseline = _run_of(store, machine, commit, newest)
    else:
        baseline = store.find(name, machine, but=newest)
    if baseline is None:
        raise OptionError(
            f"--against {name}: run {newest.stem} has no live verdict against {commit[:SHOWN]}, "
            f"which no run measured: `pytest bench --benchmark-compare=git:{name}` compares live"
        )
    records = read_run(newest)
    history = named_history(baseline, records)
    trailers = trailer_range_of(history, newest, records, folder)
    meant = IntendedChanges(case_names(records), (), trailers, say)
    found = conclude(review(records, history), report_missing=True)
    judgements = pass_intended(with_live(found, newest, baseline), meant)
    live = any(one.metric == "step_time" and one.change is not None for one in judgements)
    how = "live, or else from history" if live else "from history, without a live comparison"
    against = f"run {baseline.stem} of {told}, {how}"
    before = told if commit else _words(baseline)
    return judged(judgements, against, between=f"{before} -> {_words(newest)}")


def _words(path: Path) -> str:
    """Return a run's number and commit."""
    head = read_head(path)
    return run_words(path.stem, head.commit if head else None, head.dirty if head else None)


def _live(run: Path, commit: str) -> list[Judgement]:
    """Return the run's own judgements where one was made by running the commit beside it."""
    found = read_verdicts(run)
    beside = f"against {commit[:SHOWN]}"
    return found if commit and any(beside in one.note for one in found) else []


def _run_of(store: Store, machine: str, commit: str, but: Path) -> Path | None:
    """Return the newest other run of the commit."""
    for path in reversed(store.runs(machine)):
        head = read_head(path) if path.resolve() != but else None
        if head is not None and head.commit == commit:
            return path
    return None


_RANK = ("regressed", "changed", "inconclusive", "missing", "improved", "new", "unchanged")


def judged(judgements: Sequence[Judgement], against: str, *, between: str) -> Table:
    """Return the verdicts that are worth reading, and say how many are not shown.

    Args:
        against: what the run was judged against, in words.
        between: the baseline and the run with their commits, for the title.
    """
    shown = [judgement for judgement in judgements if worth_reading(judgement)]
    shown.sort(key=lambda one: (not one.fails, _RANK.index(one.verdict), one.case))
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
        f"interval is at an error rate of 1 % over all cases. {left} more with nothing to add.",
        [
            heading("case", "case"),
            heading("metric", "metric"),
            heading("verdict", "verdict"),
            heading("change", "change", "change"),
            heading("low", "interval from", "change"),
            heading("high", "to", "change"),
            heading("smallest_visible", "smallest visible", "share"),
            heading("note", "note"),
        ],
        records,
        empty="There are no verdicts.",
    )
