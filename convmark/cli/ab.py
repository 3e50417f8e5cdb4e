"""`convmark ab`: two environments, commits or settings against each other, with a control."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import convmark
import convmark.interpreter
from convmark.cli.command import exit_status, sayer
from convmark.compare.ab_rows import SessionRow, VerdictRow
from convmark.compare.files import CHANGES_TABLE
from convmark.compare.judgement import INTERRUPTED
from convmark.compare.live import ab_files
from convmark.compare.live.ab import (
    Pair,
    SideSpec,
    SideText,
    check_models,
    checked_sides,
    commits_of,
    inspected,
    paired,
    run_the_same,
    sides,
    start_all,
    unlike_packages,
)
from convmark.compare.live.anchor import MakeInterpreter, interpreter_maker
from convmark.compare.live.blame import blame, blamed_lines, expected_s, then_layers
from convmark.compare.live.case_result import CaseResult, LiveOptions
from convmark.compare.live.live import compare_live
from convmark.compare.live.session import Pairing, Session
from convmark.compare.rule.decision import USUAL, Limits
from convmark.core.backends import DEFAULT_BACKEND
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, DrawingError, OptionError, StoreError
from convmark.core.fitting import tell, unbroken
from convmark.core.interval import signed_percent
from convmark.core.option_values import AUTO, parse_percent, parse_seconds
from convmark.core.options import Options
from convmark.core.suites import NETWORKS, cases, refuse_untimed
from convmark.core.table import Heading
from convmark.core.text import Say, counted, duration_text, painted
from convmark.interpreter.inspection import devices_asked_for, refuse_unknown, unbound_memory
from convmark.machine.hardware import Machine, read_machine
from convmark.machine.lock import alone
from convmark.report.figures.sessions import CaseSessions
from convmark.report.tables import Answer, check_form, print_tables, rows_table
from convmark.report.verdicts import comparison_table
from convmark.results.store import Store
from convmark.session.layers import why_no_layers
from convmark.session.progress import Display
from convmark.session.run import asked_axes
from convmark.worker.protocol import masked

_say = sayer("convmark ab")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppingRule:
    """When a comparison may end."""

    target: float
    """Half-width of the interval, as a log ratio."""
    budget_s: float
    """Most seconds of each case, on the average; what one case leaves another may have."""
    limits: Limits = USUAL
    """What counts as a change."""


def make_of(options: Options) -> MakeInterpreter:
    """Return what makes the interpreters of a comparison.

    Raises:
        OptionError: there are several backends or replicas, or sizes are to be searched for.
    """
    if options.batch_sizes == AUTO:
        raise OptionError("--batch-sizes: auto is for `convmark run`; a comparison needs numbers")
    if options.isolation == "none":
        raise OptionError("--isolation: a comparison needs fresh processes, got none")
    if options.replicas not in (None, (1,)):
        raise OptionError("--replicas: a comparison takes one; convmark run measures several")
    if options.cluster is not None:
        raise OptionError("--cluster: a comparison takes none; convmark run measures over one")
    if len(options.backends) > 1:
        raise OptionError(
            f"--backend: a comparison has one, got {', '.join(options.backends)}; convmark run "
            "measures several"
        )
    return functools.partial(interpreter_maker(options), backend=options.backends[0])


def ab(given: argparse.Namespace, options: Options) -> int:
    """Compare, print the verdicts, keep sessions and verdicts in results/ab; fail if B is slower.

    Raises:
        ConvmarkError: a side, a case or the results folder is not to be had; or, once all cases
            were compared, a side of one could not be run.
    """
    target = parse_percent("--target", given.target)
    wanted = StoppingRule(
        target=math.log1p(target),
        budget_s=parse_seconds("--budget", given.budget),
    )
    form = check_form(given.format)
    make_of(options)  # refuses what no comparison takes, before an environment is made
    a, b = ("A", given.a, given.set_a), ("B", given.b, given.set_b)
    found = compare_sides(a, b, wanted, options, say=sayer("convmark"))
    print_verdicts("ab", found.rows, form)
    if lines := blamed_lines(CHANGES_TABLE.of(found.path)):
        tell("\n".join(["", *lines]), stream=sys.stdout if form == "text" else sys.stderr)
    tell(f"\n{found.kept}", stream=sys.stderr)
    if found.failure:
        raise ConvmarkError(found.failure)
    if not found.interrupted:
        _say(ab_files.next_step(found.rows, layers=options.layers, enough_s=found.enough_s))
    slower = any(row.verdict == "regressed" for row in found.rows)
    return exit_status(not slower, interrupted=found.interrupted)


def print_verdicts(
    command: str, rows: Sequence[VerdictRow], form: str, more: Sequence[Heading] = ()
) -> None:
    """Print the verdicts of comparisons; as text and Markdown nothing where there is none.

    Args:
        more: headings of the printed table after that of the case.
    """
    if form not in ("text", "markdown"):
        machines = list(dict.fromkeys(row.machine for row in rows if row.machine))
        table = rows_table("comparison", "B against A", VerdictRow, rows)
        print_tables(Answer(command=command, machines=machines, tables=[table]), form)
    elif rows:
        text = comparison_table(rows, form, more)
        print(painted(text, sys.stdout, os.environ) if form == "text" else text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What came of a comparison of two sides."""

    rows: Sequence[VerdictRow]
    path: Path
    """The file of the sessions."""
    kept: str
    """Where the sessions are, in words."""
    interrupted: bool
    failure: str
    """Why a case could not be compared; empty where each was."""
    enough_s: float | None
    """The budget of each case that would most likely decide all; None where that is not known."""


def compare_sides(
    a: SideText,
    b: SideText,
    wanted: StoppingRule,
    options: Options,
    *,
    say: Say,
    progress: bool = True,
) -> Compared:
    """Compare two sides and keep sessions and verdicts in results/ab.

    Args:
        a: as of `sides`, and so are `b` and `say`.
        progress: whether it is shown how far the comparison is.

    Raises:
        ConvmarkError: a side, a case or the results folder is not to be had.
    """
    models = options.models or NETWORKS
    checked = checked_sides(a, b, models)
    refuse_untimed(options, "convmark ab compares")
    if not any(one.ref for one in checked):  # a commit has models of its own
        refuse_unknown(models, elsewhere={one.python for one in checked} != {sys.executable})
    Store(options.results).check_writable()
    with alone(wait=options.wait, concurrent=options.allow_concurrent, say=_say):
        both = sides(a, b, models, say=say)
        comparing = SideComparison.opened(options, *both, progress=progress)
        found = comparing.compared(wanted)
    if found.interrupted:
        _say(INTERRUPTED)
    cases = f"{len(found.rows)} of {counted(len(comparing.cases), 'case')}"
    return dataclasses.replace(found, kept=f"{cases}; {found.kept}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SideComparison:
    """Two sides that were found to be there, and where their sessions go."""

    options: Options
    pair: Pair
    cases: Sequence[Case]
    machine: Machine
    path: Path
    commits: Mapping[str, tuple[str, str]]
    """By case those that the sides named when it began: a branch moves."""
    lost: list[str] = field(default_factory=list)
    """Why rows could not be kept."""
    drawn: list[Path] = field(default_factory=list)
    """Figures of the sessions of cases."""
    progress: bool = True
    """Whether it is shown how far the comparison is."""

    @classmethod
    def opened(
        cls, options: Options, a: SideSpec, b: SideSpec, *, progress: bool = True
    ) -> SideComparison:
        """Look at both sides before anything is measured, and take a number.

        Raises:
            ConvmarkError: a side has not what is asked for, or both mean the same by two names.
        """
        make = make_of(options)
        models = options.models or NETWORKS
        pair = Pair(inspected(a, models, make), inspected(b, models, make))
        if line := unbound_memory([pair.a.found, pair.b.found]):
            _say(line)
        here = [device for device in pair.a.found["devices"] if device in pair.b.found["devices"]]
        wanted = cases(options, {options.backends[0]: devices_asked_for(options.devices, here)})
        for case in wanted:
            a.case(case), b.case(case)
        check_models(pair, wanted)
        if len({(a.case(case), b.case(case)) for case in wanted}) < len(wanted):
            raise OptionError(
                "--set-a and --set-b: several cases become the same; give one value to the "
                "option that they set"
            )
        if run_the_same(pair, wanted) and a.label != b.label:  # finds the commits first
            raise OptionError(
                f"{a.label} and {b.label} are identical, so there is nothing to compare; name "
                "another commit, interpreter or setting"
            )
        for line in unlike_packages(pair, wanted):
            _say(line)
        return cls(
            options=options,
            pair=pair,
            cases=wanted,
            machine=read_machine(),
            path=ab_files.create(options.results),
            commits={case.name: commits_of(case, pair) for case in wanted},
            progress=progress,
        )

    @property
    def title(self) -> str:
        """Both sides with their versions."""
        lines = []
        for side, end in (("A", self.pair.a), ("B", self.pair.b)):
            named = [(name.title(), end.version(name)) for name in ("keras", "python")]
            known = [f"{name} {version}" for name, version in named if version]
            versions = ", ".join([*end.frameworks(), *known])
            lines.append(f"{side}: {masked(end.spec.label)} ({versions})")
        return "\n".join(lines)

    @property
    def kept(self) -> str:
        """Where the sessions are."""
        if not self.path.exists():
            return "no session was kept"
        figures = self.path.with_name(f"{self.path.stem}-*.svg")
        drawn = f", drawn in {unbroken(str(figures))}" * bool(self.drawn)
        return f"sessions in {unbroken(str(self.path))}{drawn}"

    def compared(self, wanted: StoppingRule) -> Compared:
        """Say what is compared, and compare all cases."""
        tell(self.title, stream=sys.stderr)
        if run_the_same(self.pair, self.cases):
            _say("A and B are identical: any difference is noise")
        outcomes = self.outcomes(wanted)
        failed = [row for row, found in outcomes if found.failed]
        return Compared(
            rows=[row for row, one in outcomes if _has_row(one)],
            path=self.path,
            kept=self.kept,
            interrupted=any(found.closed == INTERRUPTED for _, found in outcomes),
            failure=f"{failed[0].case}: {failed[0].note}" if failed else "".join(self.lost[:1]),
            enough_s=ab_files.enough_budget_s([one for _, one in outcomes], wanted.budget_s),
        )

    def outcomes(self, wanted: StoppingRule) -> list[tuple[VerdictRow, CaseResult]]:
        """Compare all cases; return each one's verdict, and what it rests on.

        Sessions are kept as they end, and verdicts when they are decided.
        """
        limits, budget_s = wanted.limits, wanted.budget_s * len(self.cases)
        make, asked = make_of(self.options), asked_axes(self.options)
        opened = paired(self.cases, self.pair, make, gpus=self.machine.gpus, asked=asked)
        file = ab_files.kept_if_used(self.path)
        display = Display(sys.stderr if self.progress else None, counted=False)
        with display as shown, file, opened as pairings:
            shown.update("", "starting the interpreters, which is not part of the budget")
            start_all(pairings)
            terms = LiveOptions.of(self.options, budget_s, limits=limits, target=wanted.target)
            kept = [CaseSessions() for _ in self.cases]
            see = functools.partial(self._see, shown, kept)
            rows: dict[int, VerdictRow] = {}
            done = functools.partial(self._keep_verdict, rows)
            terms = dataclasses.replace(terms, began=functools.partial(self._show, shown, terms))
            results = compare_live(pairings, terms, shown.newest, see, done)
            if self.options.layers:
                self._blame(pairings, results, shown)
        outcomes = [(rows[place], found) for place, found in enumerate(results)]
        decided = [_has_row(found) for found in results]
        for (row, _), sessions, is_kept in zip(outcomes, kept, decided, strict=True):
            if is_kept:
                self._draw(sessions, row)
        if not any(decided):
            ab_files.remove_unused(self.path)  # no verdict has its number
        return outcomes

    def _show(self, shown: Display, terms: LiveOptions, place: int, found: Any) -> None:
        words = ab_files.beginning(found, place, terms.seconds_left())
        shown.update("", f"{self.cases[place].name}: {words}")

    def _keep_verdict(self, rows: dict[int, VerdictRow], place: int, found: CaseResult) -> None:
        """Keep what came of a case, once; of one that was interrupted undecided, nothing.

        Ctrl-C may come when a row is on the disk, and before it is known to be there.
        """
        if not (again := place in rows):
            case = self.cases[place]
            a, b = (end.spec.case(case).runtime for end in (self.pair.a, self.pair.b))
            fields = ab_files.verdict_fields(found, ab_files.copies_of_one(a, b))
            rows[place] = VerdictRow(**self._ends(case), **fields)
        if _has_row(found):
            with self._keeping():
                ab_files.keep_verdict(self.path, rows[place], again=again)

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """Where there is no room for rows the comparison goes on, for its verdict is printed."""
        try:
            yield
        except StoreError as error:
            if not self.lost:
                _say(f"{error}; the comparison goes on, and its rows are lost")
            self.lost.append(str(error))

    def _blame(
        self, pairings: Sequence[Pairing], results: Sequence[CaseResult], shown: Display
    ) -> None:
        """Keep which layers moved; a case whose layers cannot be measured is named."""

        def measure(one: Pairing) -> None:
            try:
                rows = blame(one.old, one.new, self.options, say=shown.newest)
            except ConvmarkError as error:  # the verdicts are there already
                _say(ab_files.of_sides(str(error)))
                return
            with self._keeping():
                CHANGES_TABLE.keep(self.path, rows)

        if any(one.closed == INTERRUPTED for one in results):
            return
        cases = [(one.old.case, one.new.case) for one in pairings]
        if able := sum(not any(map(why_no_layers, both)) for both in cases):
            about = duration_text(able * expected_s(self.options))
            shown.line(f"measuring the layers of {counted(able, 'case')}, about {about}")
        if then_layers(results, (functools.partial(measure, one) for one in pairings)):
            _say(f"{INTERRUPTED}; the verdicts and the layers measured so far are kept")

    def _draw(self, sessions: CaseSessions, row: VerdictRow) -> None:
        """Keep a figure of the case's sessions against them; say so where that cannot be done."""
        if not sessions.wall:
            return
        change = "" if row.change is None else f", {signed_percent(row.change)}"
        title = f"{row.case}: {row.verdict}{change}; B: {row.b}; A: {row.a}"
        try:
            drawn = sessions.svg(row.interval, title)
            self.drawn.append(ab_files.keep_figure(self.path, row.case, drawn))
        except (DrawingError, StoreError) as error:
            _say(f"{row.case}: no figure of its sessions: {error}")

    def _see(
        self,
        shown: Display,
        kept: Sequence[CaseSessions],
        place: int,
        found: CaseResult,
        session: Session,
        disturbed: str,
    ) -> None:
        """Keep a session, and show how far its case is."""
        case = self.cases[place]
        row = SessionRow(
            **self._ends(case),
            session=len(found.live) + len(found.left_out),
            together=not found.apart,
            not_judged=disturbed or None,
            **ab_files.session_fields(session),
        )
        with self._keeping():
            ab_files.append(self.path, [row])
        if not disturbed:
            kept[place].add(session.wall, session.control_wall)
            so_far = str(len(found.live))
            if (decision := found.decision) and decision.estimate is not None:
                so_far = f"{decision.sessions}, {decision.text}"
            shown.newest(f"{case.name}: session {so_far}")

    def _ends(self, case: Case) -> dict[str, Any]:
        ends: dict[str, Any] = {}
        sides = zip("ab", (self.pair.a, self.pair.b), self.commits[case.name], strict=True)
        for name, end, commit in sides:
            ends[name] = masked(end.spec.label)
            ends[f"{name}_commit"] = commit or None
            for version in ("python", "tensorflow", "keras"):
                ends[f"{name}_{version}"] = end.version(version)
            ends[f"{name}_framework"] = ", ".join(end.frameworks(but=DEFAULT_BACKEND)) or None
        return {
            **ends,
            "ab": self.path.stem,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "convmark": convmark.__version__,
            "machine": self.machine.name,
            "case": case.name,
            "model": case.model,
            "task": case.task,
            "device": case.device,
            "batch_size": case.batch_size,
        }


def _has_row(found: CaseResult) -> bool:
    return found.closed != INTERRUPTED or found.has_verdict
