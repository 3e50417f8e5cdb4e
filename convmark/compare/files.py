"""The files of verdicts, accepted runs, noise and blamed layers in a machine's results folder.

    results/<machine>/0007.verdicts.csv  every judgement of the last session that judged run 0007
    results/<machine>/verdicts.csv       of all runs, as earlier versions appended it: read only
    results/<machine>/accepted.csv       one row per `convmark accept`, or for each case it names
    results/<machine>/noise.csv          one row per case of each `convmark noise`
    results/<machine>/0007.layers.csv    one row per layer of the cases whose change was blamed

The columns are the fields of `Judgement`, `Acceptance`, `NoiseRow` and `LayerChange`. Text that a
spreadsheet would take for a formula has an apostrophe before it, as in a run's file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path

from convmark.compare.judgement import PRECISION, SIZES, VERDICTS, Judgement
from convmark.core.cells import column, from_cell, to_cell
from convmark.core.errors import OptionError, StoreError
from convmark.core.option_values import check_patterns
from convmark.core.text import load_text, plain_text
from convmark.results.reading import read_run
from convmark.results.store import Store
from convmark.results.table_file import TableBeside, TableFile

VERDICTS_FILE, ACCEPTED, NOISE = "verdicts.csv", "accepted.csv", "noise.csv"


# -- the verdicts ----------------------------------------------------------------------------------


def _lifted(cells: Mapping[str, str]) -> Mapping[str, str]:
    """Return a row of the version that also let history convict: today it convicts nobody."""
    if cells.get("unconfirmed") != "true":
        return cells
    note = "; ".join(filter(None, [f"{cells['verdict']} by its history alone", cells["note"]]))
    return {**cells, "verdict": "inconclusive", "note": to_cell(note), "fails": "false"}


_NOW = list(Judgement.__dataclass_fields__)
_BEFORE = [name for name in _NOW if name not in ("against", "accepted")]
_PLACE = _NOW.index("verdict") + 1
_FIRST = [*_BEFORE[:_PLACE], "unconfirmed", *_BEFORE[_PLACE:]]
_OF_ALL_RUNS = TableFile(Judgement, _BEFORE, _FIRST, lifted=_lifted)
VERDICT_TABLE = TableFile(Judgement, _BEFORE, _FIRST, lifted=_lifted, replaced=True)
_RUN, _CASE, _METRIC, _VERDICT = map(_NOW.index, ("run", "case", "metric", "verdict"))


def verdicts_path(run: Path) -> Path:
    """Return where the verdicts on a run's file are kept."""
    return run.with_suffix(".verdicts.csv")


def verdicts_paths(run: Path) -> tuple[Path, Path]:
    """Return where they may be: the second is asked where the first does not know the run."""
    return verdicts_path(run), run.with_name(VERDICTS_FILE)


def _table(path: Path) -> TableFile[Judgement]:
    return _OF_ALL_RUNS if path.name == VERDICTS_FILE else VERDICT_TABLE


def keep_verdicts(run: Path, judgements: Iterable[Judgement]) -> None:
    """Keep what was judged of a run in place of what was judged of it before."""
    VERDICT_TABLE.replace(verdicts_path(run), judgements)


def read_verdicts(run: Path) -> list[Judgement]:
    """Return what was said last of each metric of a run, as its own session has judged it."""
    return verdicts_with_file(run)[0]


def verdicts_with_file(run: Path) -> tuple[list[Judgement], Path]:
    """Return the same, and the file that has it; without verdicts the one that would."""
    for path in verdicts_paths(run):
        rows = _table(path).read(path)
        if last := {(one.case, one.metric): one for one in rows if one.run == run.stem}:
            return list(last.values()), path
    return [], verdicts_path(run)


def with_live(judgements: Iterable[Judgement], run: Path, baseline: Path) -> list[Judgement]:
    """Return the judgements of a run, with what its own session has said against the baseline.

    A precision that the session has read back is in no row.

    Args:
        baseline: the run's file; one of another machine's folder was never run live.
    """
    beside = baseline.resolve().parent == run.resolve().parent
    live = {
        (one.run, one.case, one.metric): one
        for one in (read_verdicts(run) if beside else ())
        if one.baseline_runs == (baseline.stem,)
        and (one.change is not None or one.metric in (SIZES, PRECISION) or one.fails)
    }
    found = {(one.run, one.case, one.metric): one for one in judgements}
    told = {key: one for key, one in live.items() if key in found or one.metric == PRECISION}
    return list({**found, **told}.values())


def read_step_time_verdicts(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield case, run and verdict of each step time in a file, in the order of their judging."""
    for line, cells in _table(path).read_cells(path):
        if cells[_VERDICT] not in VERDICTS:
            raise StoreError(
                f"{path}:{line}: verdict must be one of {', '.join(VERDICTS)}, "
                f"got {cells[_VERDICT][:40]!r}"
            )
        if cells[_METRIC] == "step_time":
            try:
                case = from_cell(VERDICT_TABLE.columns[_CASE], cells[_CASE])
            except ValueError as error:
                raise StoreError(f"{path}:{line}: column 'case' {error}") from None
            yield case, cells[_RUN], cells[_VERDICT]


VerdictKey = tuple[Path, str]
"""A run's file, and a case."""


def step_time_verdicts(runs: Iterable[Path]) -> dict[VerdictKey, str]:
    """Return the last verdict on each step time of these runs, by their resolved paths."""
    words_of = functools.cache(lambda path: list(read_step_time_verdicts(path)))
    found: dict[VerdictKey, str] = {}
    for path in dict.fromkeys(run.resolve() for run in runs):
        for place in verdicts_paths(path):
            words = {(path, case): said for case, run, said in words_of(place) if run == path.stem}
            if words:
                found |= words
                break
    return found


# -- the accepted runs: what later runs are judged against -----------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One accepted run, or one case of it."""

    run: str = column("number of the run")
    accepted: str = column("when it was accepted", "UTC, ISO 8601")
    commit: str | None = column("the run's own")
    reason: str = column("the text of --reason")
    case: str | None = column(
        "the only case that it is accepted for; empty for all that it has", default=None
    )


ACCEPTED_TABLE = TableFile(Acceptance, ("run", "accepted", "commit", "reason"))


def read_accepted(store: Store, machine: str) -> list[Acceptance]:
    """Return the machine's accepted runs in the order of their acceptance."""
    return ACCEPTED_TABLE.read(store.folder / machine / ACCEPTED)


def accepted_of(run: Path, commits: Iterable[str | None]) -> list[Acceptance]:
    """Return what somebody has accepted of a run, not of another one that had its number before.

    Args:
        run: its file.
        commits: those that its rows name, by which it is known.
    """
    known = set(commits)
    every = ACCEPTED_TABLE.read(run.resolve().with_name(ACCEPTED))
    return [one for one in every if one.run == run.stem and one.commit in known]


def accept(
    store: Store,
    machine: str,
    run: str,
    reason: str,
    patterns: Sequence[str] = (),
    *,
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
) -> list[Acceptance]:
    """Make a run what later runs of its cases are judged against.

    Args:
        run: its number, commit or file.
        patterns: of the cases that it is accepted for; none for all. The others keep their anchor.

    Raises:
        OptionError: there is no reason, or no case matches a pattern.
        StoreError: there is no such run of the machine, it holds no figures, or the file cannot
            be written.
    """
    reason = plain_text(reason)
    if not reason:
        raise OptionError("--reason: must give the reason in a few words, got nothing")
    path = store.find(run, machine)
    if path.resolve().parent != (store.folder / machine).resolve():
        raise StoreError(f"{path}: must be a run in {store.folder / machine} to be accepted")
    measured = [record for record in read_run(path) if record.measured]
    if not measured:
        raise StoreError(f"{path}: must have a measured row to be accepted, but it has none")
    names = dict.fromkeys(record.case.name for record in measured)
    check_patterns("--case", patterns, names)
    cases = [name for name in names if any(fnmatchcase(name, one) for one in patterns)]
    accepted = Acceptance(
        run=path.stem,
        accepted=now().isoformat(timespec="seconds"),
        commit=measured[0].commit,
        reason=reason,
    )
    found = [replace(accepted, case=case) for case in cases] or [accepted]
    ACCEPTED_TABLE.append(store.folder / machine / ACCEPTED, found)
    return found


# -- what change this machine lets be seen, as `convmark noise` has found it -----------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseRow:
    """An A/A of one case; changes are shares, 0.05 is 5 % slower."""

    measured: str = column("when it ended", "UTC, ISO 8601")
    convmark: str = column("version")
    case: str = column("name of the case, its threads among it")
    cases: int = column("cases of the suite, which share time and error rate", bounds="above 0")
    sessions: int = column("sessions of two copies of one code", bounds="at least 0")
    session_s: float | None = column(
        "median of a session, with start and builds", "s", bounds="at least 0"
    )
    scatter: float | None = column(
        "root mean square of the sessions' log ratios", bounds="at least 0"
    )
    mean: float | None = column("mean of the sessions' log ratios; the truth is 0")
    budget_s: float = column(
        "time for all cases that the next two columns are for", "s", bounds="at least 0"
    )
    found_from: float | None = column(
        "smallest slowdown that is found in 95 of 100: 0.05 is 5 %", bounds="at least 0"
    )
    rules_out: float | None = column(
        "change that unchanged rules out in 95 of 100", bounds="at least 0"
    )
    seconds_for_3_percent: float | None = column(
        "until 3 % is called slower, 8 of 10 times", "s", bounds="at least 0"
    )
    seconds_for_5_percent: float | None = column("the same of 5 %", "s", bounds="at least 0")
    seconds_for_10_percent: float | None = column("the same of 10 %", "s", bounds="at least 0")
    note: str | None = column("why sessions are few, or took two processes; what disturbed")


NOISE_TABLE = TableFile(NoiseRow)


def read_noise(path: Path) -> dict[str, NoiseRow]:
    """Return the newest row of each case by its name; none where there is no file."""
    return {row.case: row for row in NOISE_TABLE.read(path)}


# -- which layers a change of the step time is of, beside a run or a comparison --------------------


MOST_TIMES = 20.0
"""Of a layer's old time: what grew by more took next to none, so that the ratio is noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChange:
    """One layer of both codes, or of one."""

    case: str = column("name of the case")
    layer: str = column("name of the layer in the new code")
    old_s: float | None = column(
        "geometric mean over the sessions; empty where the layer is new", "s"
    )
    new_s: float | None = column("the same of the new code; empty where the layer is gone", "s")
    difference_s: float = column("new less old", "s")
    low_s: float = column("lower end of the difference's 95 % interval", "s")
    high_s: float = column("upper end", "s")
    part: float | None = column("of the change of the step time")
    moved: bool = column("whether the layer is blamed")
    other_cpu_share: float | None = column(
        "median share of the CPUs' time that other programs took in the sessions",
        bounds="share",
        default=None,
        since=6,
    )

    @property
    def change(self) -> float | None:
        """The difference over the old time; None of a layer that is new or gone."""
        if self.old_s is None or self.new_s is None or self.old_s <= 0:
            return None
        return self.difference_s / self.old_s

    @property
    def words(self) -> str:
        """The layer and what it did, such as `conv2: +38 % [+31, +45], 92 % of the change`."""
        part = "" if self.part is None else f", {load_text(self.part)} of the change"
        if self.change is None or not self.old_s or self.change > MOST_TIMES:
            what = "new, " if self.old_s is None else "gone, " if self.new_s is None else ""
            return f"{self.layer}: {what}{1e3 * self.difference_s:+.3g} ms{part}"
        low, high = (100 * end / self.old_s for end in (self.low_s, self.high_s))
        return f"{self.layer}: {100 * self.change:+.0f} % [{low:+.0f}, {high:+.0f}]{part}"


_EARLIER_CHANGES = [one for one in LayerChange.__dataclass_fields__ if one != "other_cpu_share"]
CHANGES_TABLE = TableBeside(".layers.csv", LayerChange, _EARLIER_CHANGES)
"""Beside a run, or beside the sessions of `convmark ab`."""
