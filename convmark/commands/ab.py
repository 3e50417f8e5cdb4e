"""`convmark ab`: two environments, commits or settings against each other, in lock-step."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import convmark
import convmark.launch
from convmark.alone import alone
from convmark.case import Case
from convmark.environment import Machine, read_machine
from convmark.errors import ConvmarkError, OptionError
from convmark.inspection import devices_asked_for
from convmark.judging.confirm import LOOKS, Clock, Session, t_quantile
from convmark.lockstep import ab_files
from convmark.lockstep.ab import End, Outcome, Pair, Terms, compare_cases, inspected, run_the_same
from convmark.lockstep.ab_files import SessionRow, VerdictRow
from convmark.lockstep.engine import CONTROL, COULD_NOT_RUN, Progress
from convmark.lockstep.shown import Shown
from convmark.lockstep.sides import Make, SideSpec
from convmark.option_values import AUTO
from convmark.options import Options
from convmark.report.sessions import comparison_table, interval_text
from convmark.run import asked_axes
from convmark.store import Store
from convmark.suites import NETWORKS, cases, refuse_untimed

__all__ = ["FORMS", "Comparing", "ab", "make_of"]

FORMS = ("table", "markdown", "json")


def make_of(options: Options) -> Make:
    """Return what makes the interpreters of a comparison.

    Raises:
        OptionError: there are several backends or replicas, or sizes are to be searched for.
    """
    if options.batch_sizes == AUTO:
        raise OptionError("--batch-sizes: auto is of `convmark run`; a comparison needs numbers")
    if options.replicas not in (None, (1,)) or options.cluster is not None:
        raise OptionError(
            "[tool.convmark]: a comparison takes one replica and no cluster; convmark run measures "
            "several"
        )
    if len(options.backends) > 1:
        raise OptionError(
            f"--backend: a comparison has one, got {', '.join(options.backends)}; convmark run "
            "measures several"
        )
    return functools.partial(
        _interpreter,
        backend=options.backends[0],
        isolation="fork" if options.isolation == "fork" else "spawn",
        time_limit_s=options.time_limit_s,
    )


def _interpreter(python: str, **settings: Any) -> convmark.launch.Interpreter:
    return convmark.launch.Interpreter(python, **settings)


def ab(
    options: Options, a: SideSpec, b: SideSpec, *, target: float, form: str
) -> tuple[bool, bool]:
    """Compare, print the verdicts, keep sessions and verdicts in results/ab.

    Args:
        target: half-width of the interval, as a share, at which a case may end.

    Returns:
        whether a case of B is slower, and whether the user has interrupted.

    Raises:
        ConvmarkError: a side, a case or the results folder is not to be had; or, once all cases
            were compared, a side of one could not be run.
    """
    if form not in FORMS:
        raise OptionError(f"--format: must be one of {', '.join(FORMS)}, got {form!r}")
    refuse_untimed(options, "convmark ab compares")
    Store(options.results).check_writable()
    interrupted = False
    found: list[VerdictRow] = []
    with alone(wait=options.wait, concurrent=options.allow_concurrent, say=_say):
        comparing = Comparing.opened(options, a, b)
        print(comparing.title, file=sys.stderr)
        if run_the_same(comparing.pair, comparing.cases):
            _say("A and B are the same: what they differ by is noise")
        try:
            for row in comparing.rows(comparing.cases, math.log1p(target)):
                found.append(row)
        except KeyboardInterrupt:
            interrupted = True
            _say("interrupted")
    if found:
        print(comparison_table(found, form))
    print(f"\n{len(found)} of {len(comparing.cases)} cases; {comparing.kept}", file=sys.stderr)
    failed = [row for row in found if not row.sessions and COULD_NOT_RUN in (row.note or "")]
    if failed:
        raise ConvmarkError(f"{failed[0].case}: {failed[0].note}")
    return any(row.verdict == "regressed" for row in found), interrupted


def _say(line: str) -> None:
    print(f"convmark ab: {line}", file=sys.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparing:
    """Two sides that were found to be there, and where their sessions go."""

    options: Options
    pair: Pair
    cases: Sequence[Case]
    machine: Machine
    path: Path

    @classmethod
    def opened(cls, options: Options, a: SideSpec, b: SideSpec) -> Comparing:
        """Look at both sides before anything is measured, and take a number.

        Raises:
            ConvmarkError: a side has not what is asked for, or both mean the same by two names.
        """
        make = make_of(options)
        models = options.models or NETWORKS
        pair = Pair(inspected(a, models, make), inspected(b, models, make))
        here = [device for device in pair.a.found["devices"] if device in pair.b.found["devices"]]
        wanted = cases(options, {options.backends[0]: devices_asked_for(options.devices, here)})
        for case in wanted:
            a.case(case), b.case(case)
        if a.label != b.label and run_the_same(pair, wanted):
            raise OptionError(
                f"{a.label} and {b.label} are the same: there is nothing to compare; name another "
                "commit, interpreter or setting"
            )
        return cls(
            options=options,
            pair=pair,
            cases=wanted,
            machine=read_machine(),
            path=ab_files.create(options.results),
        )

    @property
    def title(self) -> str:
        """Both sides with their versions."""
        return "\n".join(
            f"{name}: {end.spec.label} ({_versions(end)})"
            for name, end in (("A", self.pair.a), ("B", self.pair.b))
        )

    @property
    def kept(self) -> str:
        """Where the sessions are."""
        return f"sessions in {self.path}"

    def rows(self, wanted: Sequence[Case], target: float) -> Iterator[VerdictRow]:
        """Yield each case's verdict as it ends; sessions are kept as they end.

        Args:
            target: half-width of the interval, as a log ratio.
        """
        terms = Terms(
            seed=self.options.seed,
            warm_up_s=self.options.time_budget_s,
            target=target,
            clock=time.monotonic,
            gpus=self.machine.gpus,
            asked=asked_axes(self.options),
        )
        with Shown(sys.stderr) as shown:
            watch = functools.partial(self._watch, shown)
            make = make_of(self.options)
            for outcome in compare_cases(wanted, self.pair, make, terms, watch):
                row = VerdictRow(**self._ends(outcome.case, outcome), **_verdict(outcome))
                ab_files.append(ab_files.verdicts_path(self.path), [row])
                self._draw(outcome, row)
                yield row

    def _draw(self, outcome: Outcome, row: VerdictRow) -> None:
        """Keep a figure of the case's sessions beside them."""
        from convmark.report.figures import sessions_figure

        found = outcome.comparison
        by_cpu = row.decided_by == "cpu"
        sessions = found.cpu if by_cpu else found.wall
        control = found.control_cpu if by_cpu else found.control_wall
        if not sessions:
            return
        interval = (row.low, row.high) if row.low is not None and row.high is not None else None
        drawn = sessions_figure(
            [_change(session) for session in sessions],
            interval=interval,
            control=[_change(session) for session in control],
            title=f"{outcome.case.name}: {row.b} against {row.a}",
        )
        ab_files.keep_figure(self.path, outcome.case.name, drawn)

    def _watch(self, shown: Shown, case: Case, progress: Progress) -> None:
        row = SessionRow(
            **self._ends(case),
            session=progress.sessions + progress.left_out,
            not_judged=progress.not_judged or None,
            **_log_ratios(progress.latest),
        )
        ab_files.append(self.path, [row])
        shown.line(f"{case.name}: {_so_far(progress)}")

    def _ends(self, case: Case, outcome: Outcome | None = None) -> dict[str, Any]:
        ends: dict[str, Any] = {}
        for name, end in (("a", self.pair.a), ("b", self.pair.b)):
            ends[name] = end.spec.label
            ends[f"{name}_commit"] = end.spec.ref or None
            for version in ("python", "tensorflow", "keras"):
                ends[f"{name}_{version}"] = end.version(version)
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


def _log_ratios(latest: Mapping[tuple[str, Clock], Session]) -> dict[str, Any]:
    """Return the fields of a session's row that hold its ratios."""
    values: dict[str, Any] = {}
    for (side, clock), session in latest.items():
        name = f"{'control_' * (side == CONTROL)}log_ratio{'_cpu' * (clock == 'cpu')}"
        values |= {name: session.log_ratio, f"{name}_se": session.error}
    return values


def _versions(end: End) -> str:
    named = (("TensorFlow", "tensorflow"), ("Keras", "keras"), ("Python", "python"))
    return ", ".join(f"{word} {end.version(name)}" for word, name in named if end.version(name))


def _so_far(progress: Progress) -> str:
    if progress.not_judged:
        return f"a session is left out: {progress.not_judged}"
    text = f"session {progress.sessions} of {LOOKS[0]} to {LOOKS[-1]}"
    if progress.so_far is not None:
        decision = progress.so_far.decision
        text += f", {interval_text(decision.estimate, decision.low, decision.high)}"
    return text


def _change(session: Session) -> tuple[float, float, float]:
    """Return a session's change and the ends of its 95 % interval, as shares."""
    half = t_quantile(0.975, math.inf) * session.error
    ratio = session.log_ratio
    return math.expm1(ratio), math.expm1(ratio - half), math.expm1(ratio + half)


def _verdict(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of a verdict's row that tell what came of the sessions."""
    found = outcome.comparison
    a, b = found.sizes.get("old", {}), found.sizes.get("new", {})
    sizes = {"a_parameters": a.get("parameters"), "b_parameters": b.get("parameters")}
    notes = [text for text in (found.reason, found.left_out_text) if text]
    if a and b and sizes["a_parameters"] != sizes["b_parameters"]:
        notes.append(f"parameters differ: {sizes['a_parameters']} and {sizes['b_parameters']}")
    control = [session.log_ratio for session in found.control_wall]
    common = {
        "sessions": len(found.wall),
        "void": found.void,
        "control_change": math.expm1(sum(control) / len(control)) if control else None,
        **sizes,
    }
    if found.clocks is None:
        note = "; ".join(notes) or "too few sessions"
        return {**common, "verdict": "inconclusive", "note": note}
    decision = found.clocks.decision
    if decision.verdict == "inconclusive" and not found.void:
        notes.append(f"sees changes from {100 * math.expm1(decision.smallest_visible):.1f} %")
    return {
        **common,
        "verdict": decision.verdict or "inconclusive",
        "decided_by": found.clocks.decided_by,
        "change": math.expm1(decision.estimate),
        "low": math.expm1(decision.low),
        "high": math.expm1(decision.high),
        "smallest_visible": math.expm1(min(decision.smallest_visible, 50)),
        "wall_change": math.expm1(found.clocks.wall.estimate),
        "cpu_change": math.expm1(found.clocks.cpu.estimate),
        "note": "; ".join(notes) or None,
    }
