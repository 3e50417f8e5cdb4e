"""One pytest session's measuring: from the selected cases to their results.

Everything that touches workers and the store is here; what touches pytest and pytest-benchmark is
in `convmark.plugin` and `bridge`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.plugin.likeness import comparability
from convmark.plugin.replay import Measured
from convmark.plugin.sections import sections

if TYPE_CHECKING:
    from convmark.compare.judgement import Confirmation, Judgement
    from convmark.interpreter import Interpreter
    from convmark.interpreter.by_backend import Interpreters
    from convmark.machine.cautions import Beforehand
    from convmark.machine.environment import Machine
    from convmark.results.code.manifest import Code
    from convmark.results.record import Record
    from convmark.results.store import RunFile, Store
    from convmark.session.auto_batch import Choice
    from convmark.session.facts import Facts
    from convmark.session.plan import Job
    from convmark.session.result import Result
    from convmark.session.resume import Interrupted
    from convmark.session.run import Observer

__all__ = ["Campaign"]


class Campaign:
    """Measures the cases of a session once, and keeps what came of each."""

    def __init__(self, options: Options, folder: Path, resume: str | None = None) -> None:
        """Describe the session's measuring; nothing is started yet.

        Args:
            folder: the root of the session; its commit is the rows'.
            resume: the run that is to go on, as `open_interrupted` takes it; None for a new one.
        """
        self.options = options
        self._folder = folder
        self._resume = resume
        self._earlier: Interrupted | None = None
        self._claims = contextlib.ExitStack()
        self._machine: Machine | None = None
        self._interpreters: Interpreters | None = None
        self.python = sys.executable
        """The interpreter that is measured."""
        self.cases: list[Case] = []
        self._frameworks: dict[str, dict[str, Any]] = {}
        self._run_file: RunFile | None = None
        self._results: list[Result] = []
        self._facts: Facts
        self._before: Beforehand
        self._interrupted = False
        self._judgements: list[Judgement] = []
        self.meant: Callable[[str], str] = lambda case: ""
        """Says by what a change of a case is meant; empty where it is not."""
        self._choices: list[Choice] = []
        """What came of the search for each case's batch size, where sizes are searched for."""

    @property
    def machine(self) -> Machine:
        if self._machine is None:
            from convmark.machine.environment import read_machine

            self._machine = read_machine()
        return self._machine

    @property
    def store(self) -> Store:
        from convmark.results.store import Store

        return Store(self.options.results)

    def likely_devices(self) -> list[str]:
        """The devices to collect, known without the framework: the driver's word for `all`."""
        from convmark.machine.gpu.visible import visible_cards

        devices: list[str] = []
        for device in self.options.devices:
            if device != "all":
                devices.append(device)
                continue
            seen = visible_cards(self.machine.gpus, os.environ)
            devices += ["cpu", *(f"gpu:{place}" for place in range(len(seen)))]
        return list(dict.fromkeys(devices))

    @property
    def resumed(self) -> Path | None:
        """The file of the run that goes on; None where a new one begins."""
        return self._earlier.run_file.path if self._earlier else None

    def claim(self, say: Callable[[str], None]) -> None:
        """Have the machine to this session, and say what disturbs it otherwise.

        Raises:
            BusyError: another benchmark run is there.
        """
        from convmark.machine.cautions import Beforehand
        from convmark.machine.lock import alone

        options = self.options
        self._claims.enter_context(
            alone(wait=options.wait, concurrent=options.allow_concurrent, say=say)
        )
        self._before = Beforehand()

    def reopen(self, say: Callable[[str], None]) -> None:
        """Take hold of the run that is to go on, where one is.

        Args:
            say: is told what of the file is left out.

        Raises:
            StoreError: there is none, or its file cannot go on.
        """
        if self._resume is None:
            return
        from convmark.session.resume import open_interrupted

        with _warnings_said(say):
            self._earlier = open_interrupted(self.store, self.machine.name, self._resume)

    def prepare(self, cases: Sequence[Case]) -> None:
        """Start the interpreters and check all that can be refused before anything is measured.

        Raises:
            ConvmarkError: a model, a device or the results folder is not to be had.
        """
        from convmark.core.cluster import check_devices
        from convmark.interpreter.by_backend import Interpreters
        from convmark.interpreter.inspection import devices_asked_for
        from convmark.session.learning import with_digits

        self.store.check_writable()
        self.cases = list(dict.fromkeys(cases))
        self.python = self._python()
        self._interpreters = Interpreters(
            list(dict.fromkeys(case.backend for case in self.cases)),
            self.python,
            isolation=self.options.isolation,
            time_limit_s=self.options.time_limit_s,
        )
        self._frameworks = self._interpreters.inspect(
            dict.fromkeys(case.model for case in self.cases)
        )
        for framework in self._frameworks.values():
            devices_asked_for(self.options.devices, framework["devices"])
        found = {name: framework["devices"] for name, framework in self._frameworks.items()}
        check_devices([case for case in self.cases if self.absent(case) is None], found)
        self.options = with_digits(self.options, self.cases, self._interpreters.answer, os.environ)

    def _python(self) -> str:
        """Return the interpreter asked for, made now where it is an environment's."""
        if not self.options.pythons and not self.options.environments:
            return sys.executable
        from convmark.interpreter.environments.interpreter import interpreters

        asked = [*self.options.pythons, *self.options.environments]
        if len(asked) > 1:
            raise OptionError(
                f"--python, --env: pytest measures one interpreter, got {', '.join(asked)}; "
                "convmark run takes several, and convmark ab compares two"
            )
        (path,) = interpreters(self.options.pythons, self.options.environments)
        return path

    def interpreter(self, backend: str) -> Interpreter | None:
        """Return what has measured a backend's cases, where each request has a fresh process."""
        if self._interpreters is None or self.options.isolation == "none":
            return None
        return self._interpreters.of(backend)

    def absent(self, case: Case) -> str | None:
        """Why the case's device, found by the driver, cannot be measured; None when it can."""
        devices = self._frameworks[case.backend]["devices"]
        if case.device in devices:
            return None
        return (
            f"{case.device}: the driver shows it, {case.backend} does not ({', '.join(devices)}); "
            "`convmark doctor` says why"
        )

    def measure(self, stream: TextIO | None, say: Callable[[str], None]) -> None:
        """Measure every case in its processes, interleaved, and keep each row as it comes.

        Args:
            say: is told of a ceiling of a device that is measured first.

        Raises:
            ConvmarkError: no worker can be started, or a row not be written.
            KeyboardInterrupt: the user has had enough; the rows so far are kept.
        """
        from convmark.interpreter import zoo_folder
        from convmark.results.code.of_run import CodeReader
        from convmark.results.commit import read_commit
        from convmark.session.ceilings import ceilings_path, gather
        from convmark.session.facts import facts_of
        from convmark.session.plan import plan
        from convmark.session.resume import expected, plan_hash

        options, machine = self.options, self.machine
        cases = [case for case in self.cases if self.absent(case) is None]
        if not cases or self._interpreters is None:
            return
        searched = options.batch_sizes == AUTO
        drawn = plan(cases, options.processes, options.seed, seeds=options.seeds)
        jobs = None if searched else drawn
        commit = read_commit(self._folder, besides=[options.results.absolute()])
        earlier, hashed = self._earlier, plan_hash(cases, options)
        run = earlier.run_file.run if earlier else ""
        codes = CodeReader.at(self._folder, zoo_folder(), commit.sha)
        self._facts = facts_of(run, machine, commit, os.environ, plan=hashed, codes=codes)
        if earlier is not None:
            columns = expected(options, self._facts, self._frameworks)
            with _warnings_said(say):
                self._results += earlier.go_on(cases, columns, jobs)
            self._run_file = earlier.run_file
            say(earlier.described(jobs))
        for line in self._before.lines(machine):
            say(line)
        path = ceilings_path(options.results, machine.name)
        ceilings = gather(cases, self._interpreters.answer, path, which=options.ceilings, say=say)
        self._run_file = self._run_file or self.store.create_run(machine.name)
        self._facts = replace(self._facts, run=self._run_file.run, ceilings=ceilings)
        if jobs is None:
            self._search(cases, stream, say)
        else:
            self._execute(jobs, stream)

    def _search(
        self, cases: Sequence[Case], stream: TextIO | None, say: Callable[[str], None]
    ) -> None:
        """Find each case's batch sizes."""
        from convmark.session.auto_batch import find_sizes

        self._choices = find_sizes(
            cases,
            self._execute_beside,
            self.options,
            self._results,
            say=say,
            progress=lambda: self._shown(stream),
        )

    def _execute(self, jobs: Sequence[Job], stream: TextIO | None) -> None:
        from convmark.session.resume import missing

        with self._shown(stream) as shown:
            self._execute_beside(missing(jobs, self.records), shown)

    def _shown(self, stream: TextIO | None) -> Any:
        from convmark.session import progress

        guess_s = 2 * self.options.time_budget_s + 2
        return progress.on(stream, guess_s) if stream is not None else progress.Silence()

    def _execute_beside(self, jobs: Sequence[Job], observer: Observer) -> None:
        """Measure the jobs, each row kept as it comes, and told to the observer."""
        from convmark.session.run import execute

        if self._interpreters is None or self._run_file is None:
            return
        try:
            execute(
                jobs,
                self._interpreters,
                self.options,
                self._facts,
                self._run_file,
                observer,
                keep=self._results.append,
            )
        except KeyboardInterrupt:
            self._interrupted = True
            self.close()
            raise

    def measured(self, case: Case) -> Measured:
        """Return the case's records, or, where measuring is disabled, run it once untimed."""
        case = self.stands_for(case)
        records = [row for row in self.records if row.asked_case == case]
        records += [row for row in self._search_failures(case) if row not in records]
        if records:
            names = {case.name, *(row.case.name for row in records)}
            return Measured(
                case=case,
                records=records,
                step_times_s=self.step_times_s(case),
                path=self._run_file.path if self._run_file else None,
                judgements=[found for found in self._judgements if found.case in names],
            )
        return Measured(case=case, smoke_error=self._smoke(case))

    def stands_for(self, case: Case) -> Case:
        """Return the case whose figures a test reports: at its best size, where that is sought."""
        for choice in self._choices:
            if case == choice.case and choice.found.best is not None:
                return replace(case, batch_size=choice.found.best)
        return case

    def _search_failures(self, case: Case) -> list[Record]:
        """Return the rows because of which a search for the case's size has not ended well."""
        failed = [row for row in self.records if not row.measured]
        for choice in self._choices:
            if case == self.stands_for(choice.case):
                sizes = choice.failed_sizes
                return [
                    row
                    for row in failed
                    if choice.is_of(row.asked_case) and row.batch_size in sizes
                ]
        return []

    def step_times_s(self, case: Case) -> list[float]:
        """Return the steps of all the case's processes, in order, seconds."""
        case = self.stands_for(case)
        return [
            seconds
            for result in self._results
            if result.case == case
            for seconds in result.replayed_s
        ]

    def _smoke(self, case: Case) -> str:
        from convmark.session.run import request_of

        if self._interpreters is None:
            return "nothing was measured"
        request = request_of(case, self.options, smoke=True)
        answer = self._interpreters.answer(request)
        return "" if answer.status == "ok" else f"{answer.status}: {answer.message}"

    def close(self) -> None:
        """End all worker processes, and the run's file."""
        if self._interpreters is not None:
            self._interpreters.close()
        if self._earlier is not None:
            self._earlier.run_file.close()
        if self._run_file is not None:
            self._run_file.close()
        self._claims.close()

    @property
    def records(self) -> list[Record]:
        """The rows of this run so far."""
        return [result.record for result in self._results]

    @property
    def sources(self) -> dict[str, Any]:
        """Where the users' own models come from, as the worker says."""
        return {
            model: source
            for framework in self._frameworks.values()
            for model, source in (framework.get("sources") or {}).items()
        }

    @property
    def codes(self) -> dict[str, Code]:
        """What is kept of the codes that this run's processes ran, by their hash."""
        from convmark.results.code.manifest import read_codes

        return read_codes(self._run_file.path) if self._run_file else {}

    @property
    def earlier_runs(self) -> list[Path]:
        """The files of this machine's earlier runs, oldest first."""
        own = self._run_file.path.stem if self._run_file else ""
        runs = self.store.runs(self.machine.name)
        return [path for path in runs if own and int(path.stem) < int(own)]

    def keep_sessions(self, confirmations: Mapping[str, Confirmation]) -> None:
        """Keep the sessions of the live comparisons, for a later run to take along."""
        from convmark.compare.sessions_file import keep_sessions

        if self._run_file is not None:
            rows = {row.case.name: row for row in self.records if row.measured}
            keep_sessions(self._run_file.path, confirmations, rows)

    def keep_judgements(self, judgements: Sequence[Judgement]) -> None:
        """Keep the verdicts on this run, on the disk and for the tests that report them."""
        from convmark.compare.verdicts_file import keep_verdicts

        self._judgements = list(judgements)
        if self._run_file is not None:
            keep_verdicts(self._run_file.path, judgements)

    def machine_info(self) -> dict[str, Any]:
        """What decides whether two runs' figures can be compared."""
        return comparability(self.machine.name, self._frameworks.values(), self.options.threads)

    def report(self) -> list[tuple[str, str]]:
        """Return the titles and texts to show at the end of the session."""
        if self._run_file is None:
            return []
        return sections(
            self._run_file,
            self.records,
            self._judgements,
            self._choices,
            interrupted=self._interrupted,
        )


@contextlib.contextmanager
def _warnings_said(say: Callable[[str], None]) -> Iterator[None]:
    """Say what the store warns of: pytest captures all else that is written by now."""
    from convmark.results.store import StoreWarning

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", StoreWarning)
        yield
    for warning in found:
        say(str(warning.message))
