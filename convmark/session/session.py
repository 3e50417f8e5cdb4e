"""One run on this machine, with one interpreter per backend, from start to last row.

`convmark run`, pytest, a node of a fleet and the check of a device measure through a `Session`.
Each has its own cases, prints for itself, and does as it likes with the rows.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from convmark.core.case import Case
from convmark.core.cluster import check_devices
from convmark.core.errors import ConvmarkError, OptionError, StoreError
from convmark.core.fitting import unbroken
from convmark.core.option_values import AUTO
from convmark.core.options import Options
from convmark.core.processes import Terminated
from convmark.core.suites import NETWORKS, cases
from convmark.core.text import Say, counted
from convmark.interpreter import check_zoo, zoo_folder
from convmark.interpreter.inspection import (
    Interpreters,
    devices_asked_for,
    refuse_unknown,
    unbound_memory,
)
from convmark.machine.cautions import Preflight
from convmark.machine.gpu.cards import CardsWatch, cards_of, choosing, watching
from convmark.machine.hardware import Machine
from convmark.machine.lock import alone
from convmark.machine.power import idle_power
from convmark.machine.state import bound, limiting_quota, own_cpu_quota, thread_cautions
from convmark.results.code.of_run import CodeReader
from convmark.results.commit import Commit, read_commit
from convmark.results.record import Record
from convmark.results.run_file import RunFile
from convmark.results.store import Store
from convmark.session.auto_batch import Choice, chosen_cases, find_sizes
from convmark.session.ceilings import Ceiling, Key, ceilings_path, conditions, exceeded, gather
from convmark.session.expected import (
    LARGE,
    SMALL,
    after_s,
    as_large_as,
    expected_s,
    is_guess,
    load_slowdown,
    sizes_of,
)
from convmark.session.facts import Facts, Job, facts_of, of_the_run, plan
from convmark.session.forecast import check_layers, likely_devices, recent
from convmark.session.layers import (
    LAYERS_TABLE,
    LayerRow,
    layers_of,
    layers_path,
    measure_layers,
    why_no_layers,
)
from convmark.session.learning import with_digits
from convmark.session.progress import RunProgress
from convmark.session.result import Result
from convmark.session.resume import InterruptedRun, expected, missing, plan_hash
from convmark.session.run import execute, kept


@contextlib.contextmanager
def claimed(options: Options, say: Say, models: Iterable[str] | None = None) -> Iterator[Preflight]:
    """Hold the machine's lock until the block ends; yield the checks of the machine's state.

    Raises:
        BusyError: another benchmark run is active, and the options do not wait.
        OptionError: a model is known not to be there: nobody waits to be told that.
    """
    asked = models if models is not None else options.models or ()
    refuse_unknown(asked, elsewhere=options.is_elsewhere)
    # the members of a cluster may share a machine, and are one run
    concurrent = options.allow_concurrent or bool(options.cluster and options.cluster.addresses)
    with alone(wait=options.wait, concurrent=concurrent, say=say):
        yield Preflight()


class Session(contextlib.AbstractContextManager["Session"]):
    """Measures cases and keeps their rows; a context manager that ends every process."""

    def __init__(
        self,
        options: Options,
        machine: Machine,
        say: Say,
        *,
        python: str = sys.executable,
        backends: Sequence[str] = (),
        folder: Path | None = None,
    ) -> None:
        """Describe the run; nothing is started yet.

        Args:
            backends: those of the options by default.
            folder: the rows have its commit; the working folder by default.
        """
        self.options = options
        self.machine = machine
        self.say = say
        self.folder = folder or Path.cwd()
        self.interpreters = Interpreters(
            backends or options.backends,
            python,
            isolation=options.isolation,
            time_limit_s=options.time_limit_s,
            cpus=options.bound_to,
        )
        self.found: dict[str, dict[str, Any]] = {}
        """What each backend's interpreter has."""
        self.plan_cases: list[Case] = []
        """All cases of the plan, which the seed puts in order."""
        self.cases: list[Case] = []
        """Those of them that are measured here."""
        self.results: list[Result] = []
        """Of a run that goes on the earlier ones too."""
        self.choices: list[Choice] = []
        """What came of each search for a batch size."""
        self.run_file: RunFile | None = None
        self.facts: Facts
        self.interrupted = False
        self.lacks_layers = False
        """Whether the layers of a case could not be measured, or not kept."""
        self.layers_kept = 0
        """Cases whose layers are on the disk."""
        self.layers_unkept: set[str] = set()
        """Names of the cases whose layers could not be kept."""
        self.layers_shown: list[list[LayerRow]] = []
        """The layers of the run's cases that are printed, case by case."""
        self._earlier: InterruptedRun | None = None

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all worker processes, and the run's file; harmless when done twice."""
        self.interpreters.close()
        if self.run_file is not None:
            self.run_file.close()

    def inspect(self, models: Iterable[str]) -> None:
        """Start the interpreters and find out what they have, which takes seconds."""
        if sys.__stderr__ is not None and sys.__stderr__.isatty():  # where somebody waits
            python = self.interpreters.python
            where = "" if python == sys.executable else f" in {python}"
            self.say(f"starting {self.interpreters.labels}{where}")
        self.found = self.interpreters.inspect(models)
        if line := unbound_memory(self.found.values()):
            self.say(line)

    def default_cases(self) -> list[Case]:
        """Return the cases of the default suites, on the devices that were asked for."""
        self.inspect(self.options.models or NETWORKS)
        devices = {
            backend: devices_asked_for(self.options.devices, its_own["devices"])
            for backend, its_own in self.found.items()
        }
        return cases(self.options, devices, self.say)

    def take(self, asked: Sequence[Case]) -> None:
        """Choose these cases to be measured, after checking all that can be refused of them.

        Raises:
            OptionError: a replica has no GPU, the digits are not there, layers are asked for and
                no case has any, or the zoo is not that of the checkout.
        """
        check_zoo(case.model for case in asked)
        check_layers(asked, self.options)
        check_devices(asked, {name: its_own["devices"] for name, its_own in self.found.items()})
        bound_to = bound(self.options.bound_to)
        cpus = len(bound_to["cpus"]) if bound_to else self.machine.cores
        for line in thread_cautions({case.threads for case in asked}, cpus, own_cpu_quota()):
            self.say(line)
        self.options = with_digits(self.options, asked, self.interpreters.answer, os.environ)
        self.plan_cases = self.cases = list(asked)

    def refuse_other(self, earlier: InterruptedRun) -> None:
        """Refuse a run that cannot go on with these options, here, as far as that is known now."""
        facts = self.shared_facts(earlier.run_file.run)
        earlier.check_asked(lambda case: of_the_run(case, self.options, facts))

    def take_whole(self, earlier: InterruptedRun, asked: Sequence[Case] = ()) -> bool:
        """Choose the cases of a run of which nothing is left; return whether it is one.

        No interpreter is started for it: the devices are those that the driver shows, unless the
        run had others, and what would be refused of a case has been when it began.

        Args:
            asked: the cases; those of the default suites where there are none.
        """
        if self.options.batch_sizes == AUTO or self.options.layers or earlier.again:
            return False
        devices = likely_devices(self.options, self.machine, os.environ)
        with contextlib.suppress(OptionError):
            self.plan_cases = list(
                asked or cases(self.options, dict.fromkeys(self.options.backends, devices))
            )
        self.cases = list(self.plan_cases)
        planned = plan_hash(self.plan_cases, self.options)
        is_its = all(record.plan == planned for record in earlier.records)
        if self.cases and is_its and not missing(self.jobs(), earlier.records):
            return True
        self.plan_cases = self.cases = []
        return False

    def open(self, earlier: InterruptedRun | None = None) -> RunFile:
        """Open the run's file: a new one, or that of the run that goes on."""
        self._earlier = earlier
        store = Store(self.options.results)
        self.run_file = earlier.run_file if earlier else store.create_run(self.machine.name)
        hashed = plan_hash(self.plan_cases, self.options)
        self.facts = self.shared_facts(self.run_file.run, plan=hashed)
        return self.run_file

    def shared_facts(
        self, run: str, *, plan: str | None = None, commit: Commit | None = None
    ) -> Facts:
        """Return what all rows of a run share, without ceilings.

        Args:
            commit: that of the folder by default.
        """
        results = self.options.results.absolute()
        commit = commit or read_commit(self.folder, besides=[results])
        codes = CodeReader.at(self.folder, zoo_folder(), commit.sha, results)
        return facts_of(run, self.machine, commit, os.environ, plan=plan, codes=codes)

    def ceilings(
        self, path: Path, cases: Sequence[Case] | None = None, *, again: bool = False
    ) -> dict[Key, Ceiling]:
        """Return the ceilings of the cases' devices; those missing in the file are measured.

        Args:
            cases: those of the session by default.
            again: measures those of the file once more too.
        """
        which, ask = self.options.ceilings, self.interpreters.answer
        quota = limiting_quota(self.machine.cores)
        cases = self.cases if cases is None else cases
        watch, say = self.watch, self.say
        return gather(
            *(cases, ask, path),
            which=which,
            say=say,
            quota=quota,
            under=conditions(self.machine, os.environ),
            watch=watch,
            again=again,
        )

    def watch(self, case: Case) -> contextlib.AbstractContextManager[CardsWatch]:
        """Return what looks at the cards of a case."""
        cards = cards_of(case.devices_here, self.machine.gpus, choosing(os.environ))
        return watching(cards, fresh=self.options.isolation != "none")

    def jobs(self) -> list[Job]:
        """Return the processes of the cases, each at its place in the whole plan."""
        options, mine = self.options, set(self.cases)
        jobs = plan(self.plan_cases, options.processes, options.seed, seeds=options.seeds)
        return [job for job in jobs if job.case in mine]

    def measure(self, stream: TextIO | None, notes: Sequence[str] = ()) -> None:
        """Measure every case in its processes, interleaved, and keep each row as it comes.

        Args:
            stream: shows the progress, where there is one.
            notes: what makes figures unreliable, said once nothing is left to be refused.

        Raises:
            ConvmarkError: the run cannot go on, no worker be started, or a row not be written.
            KeyboardInterrupt: the user has interrupted; the rows so far are kept.
        """
        jobs = None if self.options.batch_sizes == AUTO else self.jobs()
        if self._earlier is not None:
            columns = expected(self.options, self.facts, self.found)
            self.results += self._earlier.go_on(self.cases, columns, jobs)
            self.say(self._earlier.described(jobs))
            if jobs is not None and not missing(jobs, self.records) and not self.options.layers:
                return
        for note in notes:
            self.say(note)
        path = ceilings_path(self.options.results, self.machine.name)
        cards = [card for case in self.cases for card in self.facts.cards(case)]
        idle = idle_power(self.facts.rapl, cards)
        if idle.line:
            self.say(idle.line)
        self.facts = replace(self.facts, idle=idle, ceilings=self.ceilings(path))
        if jobs is None:
            self.choices = find_sizes(
                self.cases,
                self.execute,
                self.options,
                self.results,
                say=self.say,
                progress=lambda: self._progress(stream),
            )
        else:
            with self._progress(stream) as shown:
                self.execute(missing(jobs, self.records), shown)
        try:
            if cases := exceeded(self.records, path, conditions(self.machine, os.environ)):
                self.ceilings(path, cases, again=True)
        except Terminated:
            raise
        except (ConvmarkError, KeyboardInterrupt) as error:  # all that was asked for is measured
            why = str(error) or "interrupted"
            self.say(f"ceilings that rows exceed are not measured once more: {why}")

    def _progress(self, stream: TextIO | None) -> RunProgress:
        budget_s = self.options.time_budget_s
        known, sizes = recent(self.options.results / self.machine.name, budget_s)
        slowdown = load_slowdown(self.machine.cores)
        spawned = self.options.isolation == "spawn"

        def guess_s(case: Case, model: str) -> float:
            # of its processes one goes on afterwards
            in_each_s = after_s(case, self.options, slowdown) / self.options.processes
            ends = as_large_as(model, case, known, sizes)
            return in_each_s + expected_s(
                *(case, budget_s, known, ends), slowdown=slowdown, spawned=spawned
            )

        return RunProgress(
            stream,
            lambda case: guess_s(case, SMALL),
            most_s=lambda case: guess_s(case, LARGE),
            learn=lambda record: sizes.update(sizes_of([record])),
            is_guess=lambda case: is_guess(case, known, sizes),
            is_known=lambda case: case.name in known,
        )

    def execute(self, jobs: Sequence[Job], observer: RunProgress) -> None:
        """Measure jobs in their order; an interrupt ends the workers and closes the file."""
        assert self.run_file is not None
        ask, keep = self.interpreters, self.results.append
        try:
            execute(jobs, ask, self.options, self.facts, self.run_file, observer, keep=keep)
        except KeyboardInterrupt:
            self.interrupted = True
            self.close()
            raise

    def layers(self, cases: Iterable[Case], depth: int | None = None) -> Iterator[list[LayerRow]]:
        """Measure the layers of cases and keep them; give the rows of each, none if that fails."""
        for case in cases:
            ask, options = self.interpreters.answer, self.options
            try:
                rows = measure_layers(case, ask, options, self.facts, depth=depth, say=self.say)
            except KeyboardInterrupt:
                self.interrupted = True
                raise
            try:
                LAYERS_TABLE.lift(self.layers_path)
                LAYERS_TABLE.append(self.layers_path, rows)
                self.layers_kept += bool(rows)
            except StoreError as error:  # what was measured is still to be printed
                self.say(f"{case.name}: its layers are not saved: {error}")
                self.lacks_layers = True
                self.layers_unkept.add(case.name)
            yield rows

    def layers_of_run(self) -> Iterator[list[LayerRow]]:
        """Measure the layers of the run's measured cases; give those that ran what its rows ran."""
        measured = {record.asked_case for record in self.records if record.measured}
        cases = chosen_cases(self.choices) if self.choices else self.cases
        reasons = {case: why_no_layers(case) for case in cases if case in measured}
        for case, why in reasons.items():
            if why:
                self.say(f"{case.name}: no layers: {why}")
        for rows in self.layers(case for case, why in reasons.items() if not why):
            if rows and layers_of(self.records, [rows]):
                yield rows
                continue
            self.lacks_layers = True
            if rows:
                self.say(
                    f"{rows[0].case}: its layers ran other code, software or settings than its "
                    "rows, so they are not shown with the run; measure again"
                )

    @property
    def layers_path(self) -> Path:
        """The file of the machine's layers."""
        return layers_path(self.options.results / self.machine.name)

    @property
    def records(self) -> list[Record]:
        """The rows of the run so far."""
        return [result.record for result in self.results]

    @property
    def whole(self) -> bool:
        """Whether every process went well; where sizes are searched for, those of each choice."""
        if not self.choices:
            return all(record.measured for record in self.records)
        failed = {record.case for record in self.records if not record.measured}
        chosen = set(chosen_cases(self.choices))
        return all(choice.whole for choice in self.choices) and not failed & chosen

    @property
    def kept(self) -> str:
        """Where the rows are, in words."""
        parts = [kept(self.run_file)] if self.run_file else []
        if self.interrupted and (self.options.layers or self.layers_kept):
            cases = f"layers of {self.layers_kept} of {counted(len(self.cases), 'case')}"
            there = f" in {unbroken(str(self.layers_path))}" * bool(self.layers_kept)
            parts.append(f"{cases} kept{there}")
        text = "; ".join(parts) or "no row was measured"
        return f"interrupted; {text}" if self.interrupted else text
