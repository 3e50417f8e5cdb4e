"""The sessions of a run's live comparisons, saved so that a later run can reuse them.

    results/<machine>/0007.sessions.csv    one row per session, those taken along first

The columns are the fields of `KeptSession`; log ratios are ln(today / anchor).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from convmark.compare.accepted_code import is_open
from convmark.compare.comparability import Conditions, told_always
from convmark.compare.files import read_verdicts
from convmark.compare.judgement import NOT_ENDED, LiveComparison, LiveSession
from convmark.compare.rule.decision import bar
from convmark.compare.rule.statistics import Summary, summary
from convmark.core.cells import column
from convmark.core.errors import MeasurementError, StoreError
from convmark.core.runtimes import as_hashed
from convmark.core.statistics import grouped
from convmark.results.record import Record
from convmark.results.table_file import TableBeside

MOST_LOOKED_INTO = 30
"""Of the newest runs, for sessions of the same two codes and for the recent level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSession:
    """One session as it is kept."""

    case: str = column("name of the case as it was asked for")
    conditions: str = column("hash of what must be alike for the session to count in another run")
    anchor: str = column("the anchor's code as a note names it")
    old_code: str = column("hash of the anchor's code")
    new_code: str = column("hash of today's code")
    commit: str | None = column("whose code today's was; empty where no commit has it")
    decided: bool = column("whether this run has decided the case")
    run: str | None = column("the earlier run that it was measured in; empty for this one")
    apart: bool = column("whether it was of two processes")
    wall: float = column("ln(today / anchor), wall time", bounds="logarithm")
    cpu: float | None = column("the same by CPU time", bounds="logarithm")
    seconds: float = column("what it took, with the start of its process", "s")
    all_wall: float | None = column(
        "as wall, of the mean of all steps", bounds="logarithm", since=6, default=None
    )
    all_cpu: float | None = column(
        "the same by CPU time", bounds="logarithm", since=6, default=None
    )

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise MeasurementError(f"{self.case}: a session must take time, got {self.seconds} s")


_COLUMNS = [field.name for field in fields(KeptSession)]
TABLE = TableBeside(".sessions.csv", KeptSession, _COLUMNS[:-2], replaced=True)


def conditions_of(row: Record) -> str:
    """Return the hash of what a row's sessions hang on besides the two codes."""
    live = Conditions.of(row).live
    facts = as_hashed(asdict(replace(live, state=told_always(live.state))))
    told = ", ".join(f"{name}={fact!r}" for name, fact in facts.items())
    found = f"(Comparability({told}), {row.measurement_version!r})"
    return hashlib.sha256(found.encode()).hexdigest()[:16]


def keep_sessions(
    run: Path, comparisons: Iterable[tuple[str, LiveComparison]], rows: Mapping[str, Record]
) -> None:
    """Keep the sessions of a run beside its file; those without the hashes of both codes are not.

    A case's take the place of those that an earlier session of the same run has kept of it.

    Args:
        comparisons: by case, that with its anchor before that with another code.
        rows: by case one row of today's, with its code's commit.
    """
    sessions = []
    for name, found in comparisons:
        if found.codes is None or name not in rows:
            continue
        row = rows[name]
        shared: dict[str, Any] = {
            "case": row.asked_case.name,
            "conditions": conditions_of(row),
            "anchor": found.anchor,
            "old_code": found.codes[0],
            "new_code": found.codes[1],
            "commit": row.commit if row.code and not row.dirty else None,
            "decided": found.decision is not None and found.decision.decided,
        }
        for one in found.kept:
            own = {**asdict(one), "run": one.run or None}
            own["all_wall"], own["all_cpu"] = own.pop("all_steps") or (None, None)
            sessions.append(KeptSession(**own, **shared))
    cases = {one.case for one in sessions}
    write(run, [*(one for one in _believed(run) if one.case not in cases), *sessions])


def write(run: Path, sessions: Sequence[KeptSession]) -> None:
    """Make these the sessions of a run; nothing for none."""
    if sessions:
        TABLE.replace(TABLE.path(run), sessions)


def _believed(run: Path) -> list[KeptSession]:
    """Return the sessions of a run; none of a damaged file: they only save measuring anew."""
    try:
        return TABLE.of(run)
    except StoreError:
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLevel:
    """Where the sessions of one run have seen its code beside its anchor's."""

    kind: tuple[str, bool]
    """What is alike in levels that may be compared: conditions, `apart`."""
    old_code: str
    new_code: str
    anchor: str
    """As of `KeptSession`."""
    sessions: Summary
    """Of ln(code / anchor)."""


def live_levels(run: Path) -> dict[str, LiveLevel]:
    """Return the levels of a run's own sessions by case, of those with two or more."""
    # those taken along are of an earlier run
    own = grouped((one.case, one) for one in _believed(run) if one.run is None)
    found = {}
    for case, sessions in own.items():
        first = sessions[0]
        mine = [one for one in sessions if one.old_code == first.old_code]  # first its anchor's
        if len(mine) > 1 and len({one.apart for one in mine}) == 1:
            found[case] = LiveLevel(
                kind=(first.conditions, first.apart),
                old_code=first.old_code,
                new_code=first.new_code,
                anchor=first.anchor,
                sessions=summary([one.wall for one in mine]),
            )
    return found


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """What earlier runs give to a case's comparison."""

    sessions: tuple[LiveSession, ...] = ()
    """Of the same two codes, which were left undecided, or whose change is accepted since."""
    bar: float = 0.0
    """`CaseSessions.bar`: the level that a slowdown counts from."""


def left_undecided(
    runs: Sequence[Path], cases: Collection[str], *, of_accepted: bool = False
) -> set[str]:
    """Return the cases whose last live comparison has ended before they were decided.

    The verdicts tell, for a case that has had no session at all is one of them.

    Args:
        runs: the files of the earlier runs, oldest first.
        cases: by the names of what ran.
        of_accepted: whether the comparison with an accepting commit's code is meant.
    """
    left, found = set(cases), set()
    for run in list(reversed(runs))[:MOST_LOOKED_INTO]:
        if not left:
            break
        with contextlib.suppress(StoreError):  # it only gives an order
            for one in read_verdicts(run):
                ended = any(why in one.note for why in NOT_ENDED)
                was_live = one.verdict not in ("new", "missing", "inconclusive") or ended
                if one.metric == "step_time" and one.case in left and was_live:
                    left.remove(one.case)
                    if one.verdict == "inconclusive" and is_open(one) == of_accepted:
                        found.add(one.case)
    return found


class EarlierSessions:
    """The sessions of earlier runs of a machine."""

    def __init__(
        self,
        runs: Sequence[Path] = (),
        conditions: Mapping[str, str] | None = None,
        is_before: Callable[[str, str], bool] = lambda case, commit: False,
        own: Path | None = None,
        is_accepted: Callable[[str], object] = lambda case: False,
    ) -> None:
        """Describe them by the files of the earlier runs, oldest first; by default there are none.

        Args:
            conditions: by case, what today's sessions hang on.
            is_before: whether a case's code of today has such a commit in its past.
            own: the one of the runs that goes on, whose sessions are no earlier run's.
            is_accepted: whether a case's change is: then what was decided of it is taken along too.
        """
        self._own = own
        self._runs = list(reversed(runs))[:MOST_LOOKED_INTO]
        self._conditions = conditions or {}
        self._is_before = is_before
        self._is_accepted = is_accepted
        self._of_run = functools.cache(_believed)

    def _groups(self, case: str) -> Iterable[tuple[Path, list[KeptSession]]]:
        """Yield each run's comparable sessions of a case, the newest run first."""
        asked = case, self._conditions.get(case)
        for run in self._runs:
            found = [one for one in self._of_run(run) if (one.case, one.conditions) == asked]
            if found:
                yield run, found

    def of(self, case: str, old: str, new: str, *, apart: bool) -> CarriedOver:
        """Return what earlier runs give to the comparison of two codes.

        Args:
            apart: whether today's sessions are of two processes; others are not mixed with them.
        """
        sessions: tuple[LiveSession, ...] | None = None
        levels: dict[str, tuple[float, float]] = {}
        for run, found in self._groups(case):
            mine = [one for one in found if one.old_code == old and one.apart == apart]
            first = mine[0] if mine else None
            if first is None:
                continue
            if first.new_code == new and sessions is None:
                anew = first.decided and not self._is_accepted(case)
                sessions = () if anew else self._taken(run, mine)
            if first.new_code in (new, *levels) or len(mine) < 2 or first.commit is None:
                continue
            if self._is_before(case, first.commit):
                own = summary([one.wall for one in mine])
                levels[first.new_code] = own.estimate, (own.variance / own.count) ** 0.5
        return CarriedOver(sessions or (), bar(list(reversed(levels.values()))))

    def _taken(self, path: Path, sessions: Iterable[KeptSession]) -> tuple[LiveSession, ...]:
        run = "" if path == self._own else path.stem
        return tuple(
            LiveSession(
                wall=one.wall,
                cpu=one.cpu,
                seconds=one.seconds,
                apart=one.apart,
                run=one.run or run,
                all_steps=None
                if one.all_wall is None or one.all_cpu is None
                else (one.all_wall, one.all_cpu),
            )
            for one in sessions
        )
