"""The run of one pytest session: from the selected cases to their results.

Everything that touches workers and the store is here; what touches pytest and pytest-benchmark is
in `convmark.plugin` and `bridge`. What measures is imported when it is needed: every pytest session
of a project loads this module.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from convmark.core.case import Case
from convmark.core.errors import OptionError, StoreError
from convmark.core.options import Options
from convmark.core.suites import runtimes_without_cases
from convmark.core.text import Say
from convmark.plugin.replay import Measured

if TYPE_CHECKING:
    from convmark.compare.files import LayerChange
    from convmark.compare.judgement import Judgement, LiveComparison
    from convmark.compare.live.anchor import Origin
    from convmark.interpreter import Interpreter
    from convmark.machine.cautions import Preflight
    from convmark.machine.hardware import Machine
    from convmark.results.code.manifest import Code
    from convmark.results.record import Record
    from convmark.results.store import Store
    from convmark.session.forecast import Forecast
    from convmark.session.layers import LayerRow
    from convmark.session.resume import InterruptedRun
    from convmark.session.session import Session

_RECENT = 5
"""Runs that are looked into for the code of a case."""


class PytestRun:
    """Measures the cases of a pytest session once, and keeps what came of each."""

    def __init__(
        self, options: Options, folder: Path, resume: str | None, environ: Mapping[str, str]
    ) -> None:
        """Describe the run; nothing is started yet.

        Args:
            folder: the root of the session; its commit is the rows'.
            resume: the run that is to go on, as `open_interrupted` takes it; None for a new one.
            environ: the variables that pytest was started with.
        """
        self.options = options
        self.cases: list[Case] = []
        """All that were selected, those without a device too."""
        self.python = sys.executable
        """The interpreter that is measured."""
        self.meant: Callable[[str], str] = lambda case: ""
        """Says by what a change of a case is meant; empty where it is not."""
        self.baseline = ""
        """What the session is compared with, in words."""
        self.left_out = 0
        """Cases of the baseline that the session was not asked for."""
        self.folder = folder
        self.environ = environ
        self._resume = resume
        self._lock = contextlib.ExitStack()
        self._preflight: Preflight
        self._earlier: InterruptedRun | None = None
        self._session: Session | None = None
        self._origins: dict[Case, Origin | None] = {}
        self._judgements: list[Judgement] = []
        self._changes: list[LayerChange] = []
        self._layers: list[list[LayerRow]] = []

    @functools.cached_property
    def machine(self) -> Machine:
        """This machine, read once."""
        from convmark.machine.hardware import read_machine

        return read_machine()

    @property
    def store(self) -> Store:
        from convmark.results.store import Store

        return Store(self.options.results)

    def likely_devices(self) -> list[str]:
        """The devices to collect, known without the framework: the driver's word for `all`."""
        from convmark.session.forecast import likely_devices

        return likely_devices(self.options, self.machine, os.environ)

    def forecast(self, cases: Sequence[Case]) -> Forecast:
        """Return what would be measured and how long it would take."""
        from convmark.session.forecast import forecast

        return forecast(list(dict.fromkeys(cases)), self.options, self.machine, os.environ)

    @property
    def resumed(self) -> Path | None:
        """The file of the run that goes on; None where a new one begins."""
        return self._earlier.run_file.path if self._earlier else None

    def claim(self, cases: Iterable[Case], say: Say) -> None:
        """Take the machine's lock for these cases, and check the machine's state.

        Raises:
            BusyError: another benchmark run is going on.
            OptionError: a model is known not to be there.
        """
        from convmark.session.session import claimed

        names = dict.fromkeys(case.model for case in cases)
        self._preflight = self._lock.enter_context(claimed(self.options, say, names))

    def reopen(self, say: Say) -> None:
        """Open the run that is to go on, where one is."""
        if self._resume is None or self._earlier is not None:
            return
        from convmark.session.resume import open_interrupted

        with _warnings_said(say):
            self._earlier = open_interrupted(self.store, self.machine.name, self._resume)

    def prepare(self, cases: Sequence[Case], say: Say, *, only_shown: bool) -> None:
        """Start the interpreters and check all that can be refused before anything is measured.

        Args:
            say: is told what the user should know while the cases are measured.
            only_shown: whether nothing is started where a run that goes on has all its rows.
        """
        from convmark.interpreter.inspection import devices_asked_for
        from convmark.session.session import Session

        self.store.check_writable()
        self.cases = list(dict.fromkeys(cases))
        self.python = self._python()
        backends = list(dict.fromkeys(case.backend for case in self.cases))
        self._session = session = Session(
            self.options,
            self.machine,
            say,
            python=self.python,
            backends=backends,
            folder=self.folder,
        )
        if self._earlier is not None:
            session.refuse_other(self._earlier)
            here = only_shown and self.python == sys.executable
            if here and session.take_whole(self._earlier, self.cases):
                return
        session.inspect(dict.fromkeys(case.model for case in self.cases))
        for its_own in session.found.values():
            devices_asked_for(self.options.devices, its_own["devices"])
        for rule in runtimes_without_cases(self.options, self.cases):
            say(f"left out: {rule}")
        session.take([case for case in self.cases if self.absent(case) is None])

    def _python(self) -> str:
        """Return the interpreter asked for, made now where it is an environment's."""
        asked = [*self.options.pythons, *self.options.environments]
        if not asked:
            return sys.executable
        from convmark.interpreter.environments import interpreters

        if len(asked) > 1:
            raise OptionError(
                f"--python, --env: pytest measures one interpreter, got {', '.join(asked)}; "
                "convmark run takes several, and convmark ab compares two"
            )
        (path,) = interpreters(self.options.pythons, self.options.environments)
        return path

    def interpreter(self, backend: str) -> Interpreter | None:
        """Return what has measured a backend's cases, where each request has a fresh process."""
        if self._session is None or self.options.isolation == "none":
            return None
        return self._session.interpreters.of(backend)

    def absent(self, case: Case) -> str | None:
        """Why the case's device, found by the driver, cannot be measured; None when it can."""
        assert self._session is not None
        found = self._session.found  # nothing where all rows are there
        devices = found[case.backend]["devices"] if found else ()
        if not found or case.device in devices:
            return None
        return (
            f"{case.device}: the driver shows it, {case.backend} does not ({', '.join(devices)}); "
            "`convmark doctor` shows the reason"
        )

    def measure(self, stream: TextIO | None) -> None:
        """Measure every case that has its device, and keep each row as it comes.

        Raises:
            ConvmarkError: no worker can be started, or a row not be written.
            KeyboardInterrupt: the user has interrupted; the rows so far are kept.
        """
        session = self._session
        if session is None or not session.cases:
            return
        with _warnings_said(session.say):
            session.open(self._earlier)
            session.measure(stream, self._preflight.lines(self.machine))

    def measure_layers(self) -> None:
        """Measure the layers of the measured cases, for the report, where they are asked for.

        Raises:
            ConvmarkError: no worker can be started, or a row not be written.
            KeyboardInterrupt: the user has interrupted; the layers so far are kept.
        """
        if self._session is None or not (self.options.layers and self.records):
            return
        from convmark.report.tables.layers import keep_bars

        for rows in self._session.layers_of_run():
            self._layers.append(rows)
            try:
                keep_bars(self._session.layers_path.parent, rows)
            except StoreError as error:
                self._session.say(f"{rows[0].case}: its layers are not drawn: {error}")

    def measured(self, case: Case) -> Measured:
        """Return the case's records, or, where measuring is disabled, run it once untimed."""
        case = self.stands_for(case)
        records = [row for row in self.records if row.asked_case == case]
        records += [row for row in self._search_failures(case) if row not in records]
        if not records:
            return Measured(case=case, smoke_error=self._smoke(case))
        names = {case.name, *(row.case.name for row in records)}
        return Measured(
            case=case,
            records=records,
            step_times_s=self.step_times_s(case),
            path=self.path,
            judgements=[found for found in self._judgements if found.case in names],
        )

    def stands_for(self, case: Case) -> Case:
        """Return the case whose figures a test reports: at its best size, where that is sought."""
        for choice in self._session.choices if self._session else ():
            if case == choice.case and choice.found.best is not None:
                return replace(case, batch_size=choice.found.best)
        return case

    def _search_failures(self, case: Case) -> list[Record]:
        """Return the rows because of which a search for the case's size has not ended well."""
        for choice in self._session.choices if self._session else ():
            if case == self.stands_for(choice.case):
                return [
                    row
                    for row in self.records
                    if not row.measured
                    and choice.is_of(row.asked_case)
                    and row.batch_size in choice.failed_sizes
                ]
        return []

    def step_times_s(self, case: Case) -> list[float]:
        """Return the steps of all the case's processes, in order, seconds."""
        case = self.stands_for(case)
        results = self._session.results if self._session else ()
        return [seconds for one in results if one.case == case for seconds in one.replayed_s]

    def _smoke(self, case: Case) -> str:
        from convmark.session.run import request_of

        if self._session is None:
            return "nothing was measured"
        request = request_of(case, self._session.options, smoke=True)
        answer = self._session.interpreters.answer(request)
        return "" if answer.status == "ok" else f"{answer.status}: {answer.message}"

    def close(self) -> None:
        """End all worker processes, close the run's file and let the machine go."""
        if self._session is not None:
            self._session.close()
        if self._earlier is not None:
            self._earlier.run_file.close()
        self._lock.close()

    @property
    def path(self) -> Path | None:
        """The run's file; None where nothing is measured."""
        run_file = self._session.run_file if self._session else None
        return run_file.path if run_file else None

    @property
    def records(self) -> list[Record]:
        """The rows of this run so far."""
        return self._session.records if self._session else []

    def origin(self, case: Case) -> Origin | None:
        """Return where a case's model comes from, as the worker says; git is asked once."""
        from convmark.compare.live.anchor import origin_of

        if case not in self._origins:
            found = self._session.found.values() if self._session else ()
            sources: dict[str, Any] = {}
            for one in found:
                sources |= one.get("sources") or {}
            self._origins[case] = origin_of(case, sources)
        return self._origins[case]

    @property
    def codes(self) -> dict[str, Code]:
        """What is kept of the codes that this run's processes ran, by their hash."""
        from convmark.results.code.manifest import read_codes

        return read_codes(self.path) if self.path else {}

    def known_codes(self) -> dict[str, Code]:
        """Return by its name what each case has run last, of the machine's newest runs."""
        from convmark.results.code.manifest import read_codes
        from convmark.results.reading import read_run

        found: dict[str, Code] = {}
        for path in self.store.runs(self.machine.name)[-_RECENT:]:
            with contextlib.suppress(StoreError):
                codes = read_codes(path)
                rows = [row for row in read_run(path) if row.measured and row.code in codes]
                found |= {row.asked_case.name: codes[row.code or ""] for row in rows}
        return found

    @property
    def earlier_runs(self) -> list[Path]:
        """The files of this machine's earlier runs, oldest first."""
        own = self.path.stem if self.path else ""
        runs = self.store.runs(self.machine.name)
        return [path for path in runs if own and int(path.stem) < int(own)]

    def keep_sessions(self, comparisons: Sequence[tuple[str, LiveComparison]]) -> None:
        """Keep the sessions of the live comparisons, for a later run to take along."""
        from convmark.compare.sessions_file import keep_sessions

        if self.path is not None:
            rows = {row.case.name: row for row in self.records if row.measured}
            keep_sessions(self.path, comparisons, rows)

    def keep_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Keep the verdicts on this run, on the disk and for the tests that report them."""
        from convmark.compare.files import keep_verdicts

        self._judgements = list(judgements)
        if self.path is not None:
            keep_verdicts(self.path, judgements)

    def keep_changes(self, changes: Sequence[LayerChange]) -> None:
        """Keep what became of the layers of a case, on the disk and for the report."""
        from convmark.compare.files import CHANGES_TABLE

        self._changes += changes
        if self.path is not None:
            CHANGES_TABLE.replace(CHANGES_TABLE.path(self.path), self._changes)

    def versions(self) -> list[Mapping[str, Any]]:
        """Return the frameworks' versions by their names, of each backend or each row."""
        found = self._session.found.values() if self._session else ()
        return list(found) or [asdict(row) for row in self.records]

    @property
    def failing(self) -> list[str]:
        """The cases that a verdict fails."""
        return list(dict.fromkeys(one.case for one in self._judgements if one.fails))

    def next_step(self, *, failed: bool, quiet: bool) -> str:
        """Return what the session amounts to, and the next command; empty without a row.

        Args:
            failed: whether a test has failed.
            quiet: whether it is short, and empty where there is nothing to warn of.
        """
        from convmark.report.advice import gate_step, next_step

        if self._judgements:
            told: dict[str, Any] = {"left_out": self.left_out, "baseline": self.baseline}
            return gate_step(self._judgements, self.options, failed=failed, quiet=quiet, **told)
        session = self._session
        searched = session is not None and bool(session.choices) and session.whole
        if not self.records:
            return ""
        return next_step(self.records, self.options, searched=searched, quiet=quiet)

    def report(self) -> list[tuple[str, str]]:
        """Return the titles and texts to show at the end of the session."""
        session = self._session
        if session is None or session.run_file is None:
            return []
        from convmark.core.fitting import wrapped
        from convmark.core.table import plain
        from convmark.report.summary import summary_text
        from convmark.report.tables.layers import TOP, layers_table
        from convmark.session.auto_batch import choices_table

        records = self.records
        tables = [choices_table(session.choices, records)] if session.choices else []
        if records:
            tables.append(summary_text(records))
        tables += [plain(layers_table(rows, TOP)) for rows in self._layers]
        parts = [("convmark", "\n\n".join([*tables, wrapped(session.kept, indent="  ")]))]
        if self._judgements:
            from convmark.compare.live.blame import blamed_lines
            from convmark.report.verdicts import could_see, verdicts_report, worked_out

            layers = "\n".join(map(wrapped, blamed_lines(self._changes)))
            least = wrapped(could_see(self._judgements))
            against = f"compared with {self.baseline}" if self.baseline else ""
            known = wrapped(worked_out(self._judgements))
            verdicts = wrapped(against), verdicts_report(self._judgements), known, layers, least
            parts.append(("convmark verdicts", "\n\n".join(filter(None, verdicts))))
        return parts


@contextlib.contextmanager
def _warnings_said(say: Say) -> Iterator[None]:
    """Say what the store warns of: pytest captures all else that is written by now."""
    from convmark.results.reading import StoreWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", StoreWarning)
        show = warnings.showwarning

        def say_or_show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
            if issubclass(category, StoreWarning):
                say(str(message))
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = say_or_show
        yield
