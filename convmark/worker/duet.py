"""The duet: two codes of one case in one process, whose steps alternate.

A third contender may be the control: the old code once more, built and timed like the others. Each
has its own modules, working folder, zoo and Keras settings. The models are built in random order,
from the same seed and on the same batch. What one code sets for the whole process would be the
other's too: such codes cannot share a process, and the harness takes a process for each. Any
trouble of one code is reported with its name and ends the duet, not the worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from convmark.core.case import PRECISIONS, Case
from convmark.core.errors import CaseError
from convmark.core.runtimes import DEFAULT_RUNTIME
from convmark.worker import measurement, module_tables, timing
from convmark.worker.builders import builder
from convmark.worker.code_watch import CodeWatch, Read
from convmark.worker.failure import CaseFailure, message_of
from convmark.worker.framework_functions import framework_content, own_framework, patched
from convmark.worker.host import idle_cpus
from convmark.worker.module_tables import Code, ModuleTable, Tables
from convmark.worker.other_samples import hold_other_samples
from convmark.worker.precisions import checked_precision, worked_precision
from convmark.worker.process_state import called_by
from convmark.worker.proof import Proof
from convmark.worker.turns import (
    BUSY_CPUS,
    LEAST_S,
    MIN_ROUNDS,
    Turns,
    another_build,
    settled_step_times,
    take_rounds,
    timed_turn,
    turn_steps,
)

OLD = "old"
"""The contender whose FLOPs are counted: those of today's model are in its rows."""
CONTROL = "control"
"""The old code once more."""
HELD_SETTINGS = ("jit", "precision")
"""Settings of a case that two codes in one process can differ in; TF32 is of the whole process."""

Emit = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the harness asks of one duet."""

    seed: int
    """Of the weights and the batch."""
    order: int
    """Of the order of the codes."""
    seconds: float
    """Of timed turns, of all builds together."""
    warm_up_s: float
    """Seconds of steps, of both codes together, that may go by until the step times are steady."""
    builds: int
    """How often both models are built at most where a step is short: where its memory lies tells
    then, and the process is built again until it is seen that this is not so."""
    enough_error: float
    """Standard error of the mean log ratio of two builds at which the turns end."""
    with_work: bool
    """Whether the old code's FLOPs are counted, and replaced functions of the framework looked
    for."""

    @staticmethod
    def of(request: Mapping[str, Any]) -> Plan:
        """Return the plan of a request; what it leaves out has a default."""
        return Plan(
            seed=request["seed"],
            order=request.get("order", request["seed"]),
            seconds=request["seconds"],
            warm_up_s=request.get("warm_up_s", 0.3),
            builds=request.get("builds", 1),
            enough_error=request.get("enough_error", 0.0),
            with_work=request.get("with_work", False),
        )


class CannotShare(Exception):
    """The two codes cannot share a process; the text is the reason."""


class CannotRun(Exception):
    """One code cannot be run at all."""

    def __init__(self, side: str, error: BaseException) -> None:
        super().__init__(message_of(error))
        self.side = side
        self.error = error


def play(case: Case, request: Mapping[str, Any], backend: Any, emit: Emit) -> None:
    """Build both codes and let them take turns; report each build's turns, or why there are none.

    Args:
        request: with `sides`: for old and new, and perhaps for the control, the fields of `Code`,
            the `settings` of the case that are its own, and what is `left_out` as no code.
    """
    plan = Plan.of(request)
    environ = dict(os.environ)
    if case.runtime != DEFAULT_RUNTIME:  # two pools of threads would disturb each other
        emit("cannot_share", reason=f"the runtime {case.runtime} needs a process of its own")
        return
    try:
        with Tables(Code.of(*side) for side in request["sides"].items()) as tables:
            duet = _Duet(case, request, plan, backend, emit, tables)
            duet.play()
    except CannotShare as reason:
        emit("cannot_share", reason=str(reason))
    except CannotRun as trouble:
        status = "out_of_memory" if _is_out_of_memory(trouble.error, backend) else "error"
        emit("cannot_run", side=trouble.side, reason=str(trouble), status=status)
    finally:
        _restore(environ)


def _is_out_of_memory(error: BaseException, backend: Any) -> bool:
    return isinstance(error, MemoryError) or bool(backend.is_out_of_memory(error))


def _restore(environ: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    for name, value in environ.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


class _Side:
    """One of the two codes, its model and its step."""

    def __init__(
        self, case: Case, table: ModuleTable, backend: Any, *, precision_asked: bool
    ) -> None:
        self.name = table.code.name
        self.case = case
        self.precision_asked = precision_asked
        self.table = table
        self.context = backend.context()
        self.builder: Callable[[], Any] = _not_built
        self.step: Callable[[], Any] = _not_built
        self.model: Any = None
        self.hold_other_samples: Callable[[], None] = _not_built
        self.watch: CodeWatch | None = None
        self.settled = False
        self._backend = backend

    @contextlib.contextmanager
    def active(self, *, all_of_it: bool = True) -> Iterator[None]:
        """Have the process be this code's."""
        with self.table.active(all_of_it=all_of_it), self.context.active():
            self._listen(listens=True)
            try:
                yield
            finally:
                self._listen(listens=False)

    def _listen(self, *, listens: bool) -> None:
        """Have the files that are opened from here on be this code's, or the other's."""
        if self.watch is not None:
            self.watch.listens = listens

    def turn(self, steps: int, dropped: int) -> timing.Turn:
        """Take a turn; until it has settled, the code may import more of its modules."""
        with self.active(all_of_it=not self.settled):
            turn = timed_turn(self.step, self._backend, steps, dropped)
            try:
                self.proof.trained.see_turn(self.model, dropped, turn.wall_s)
            except CaseFailure as error:
                raise CannotRun(self.name, error) from error
            return turn

    def make_step(self, seed: int, backend: Any, emit: Emit, *, with_work: bool = False) -> Any:
        """Build the model, take the first step, and return the model.

        Args:
            with_work: whether the precision is read from the step's operations too, and the step
                is told by a hash of its graph.
        """
        self.settled = False
        backend.seed(seed)
        self.context.forget_names()
        model = measurement.build(self.case, self.builder, seed, backend, emit)
        self.step, _ = measurement.make_step(self.case, model, seed, backend)
        if with_work:
            emit("graph", digest=backend.step_digest(self.step))
        self.hold_other_samples = functools.partial(
            hold_other_samples, self.case, model, self.step, seed, backend
        )
        token = measurement.take_first_step(self.step, dict, backend, emit)
        emit("counted", **backend.sizes(model))  # the first call may have made weights
        self.proof = Proof(self.case, backend, emit)
        self.proof.report(1, token)
        self.proof.trained.begin(model)
        self.model = model
        kinds = Counter(backend.layer_precisions(model))
        precision = checked_precision(self.case, kinds, asked=self.precision_asked)
        compiled = False
        if with_work:
            seen = backend.training_work(self.step, self.case.batch_size)
            known = seen.flops is not None
            precision = worked_precision(
                *(self.case, kinds, seen.dtypes, seen.by_dtype),
                is_all=known,
                asked=self.precision_asked,
            )
            compiled = seen.compiled
        path = called_by(self.case, backend, compiled=compiled)
        emit("read_back", precision=precision, call_path=path)
        return model


def _not_built() -> Any:
    raise RuntimeError("the model is not built yet")


class _Duet:
    def __init__(
        self,
        case: Case,
        request: Mapping[str, Any],
        plan: Plan,
        backend: Any,
        emit: Emit,
        tables: Tables,
    ) -> None:
        self._case = case
        self._request = request
        self._plan = plan
        self._backend = backend
        self._emit = emit
        self._tables = tables
        self._order = random.Random(plan.order)
        self._read = Read()
        """By packages that the codes share: what one reads or imports once is code of them all."""
        self._sides = {}
        for name, fields in request["sides"].items():
            own = _own_case(case, fields.get("settings") or {})
            asked = own.precision in PRECISIONS[1:] or "precision" in fields.get("asked", ())
            self._sides[name] = _Side(own, tables[name], backend, precision_asked=asked)
        self._framework = framework_content() if plan.with_work else {}
        self._pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)

    def play(self) -> None:
        self._import_all()
        found = [self._turns(0)]
        while another_build(found, self._plan.builds):
            for name in self._shuffled():
                emit = functools.partial(self._emit, side=name)
                with self._naming(name, first=False), self._sides[name].active():
                    self._sides[name].make_step(self._plan.seed, self._backend, emit)
                self._check_process(name, self._settings)
            found.append(self._turns(len(found)))
        self._check_last_steps()

    def _shuffled(self) -> list[str]:
        return self._order.sample(sorted(self._sides), len(self._sides))

    # -- the two codes -----------------------------------------------------------------------------

    def _import_all(self) -> None:
        before = dict(os.environ)
        settings = module_tables.process_wide(self._backend)
        environs: dict[str, module_tables.Environ] = {}
        for name in self._shuffled():
            _restore(before)
            with self._naming(name, first=not environs):
                self._import(self._sides[name])
            environs[name] = dict(os.environ)
            self._check_process(name, settings)
        if names := module_tables.differing(*environs.values()):
            raise CannotShare(f"the two codes set environment variables differently: {names}")
        self._check_framework()
        self._settings = settings
        self._environ = dict(os.environ)

    def _import(self, side: _Side) -> None:
        """Import and build a code for the first time, and report what it is."""
        emit = functools.partial(self._emit, side=side.name)
        with side.active():
            if side.case.precision != self._case.precision:
                side.context.set_policy(side.case.precision)
            self._backend.seed(self._plan.seed)
            side.table.load_zoo()
            watch = side.watch = CodeWatch(
                *(side.case.model, side.table.code.places, self._left_out(side.name)),
                read=self._read,
            )
            try:
                side.builder = builder(side.case.model, self._backend, side.case.task)
                with_work = self._plan.with_work and side.name != CONTROL
                model = side.make_step(self._plan.seed, self._backend, emit, with_work=with_work)
                watch.report(functools.partial(self._note_code, side.name, emit))
            finally:
                watch.close()
                self._read.files = {
                    one for one in self._read.files if not self._tables.is_of_a_side(one)
                }
            if self._plan.with_work and side.name == OLD:
                self._backend.settle(model)  # counting calls the model
                emit("work", flops_per_sample=self._backend.work(model, side.case.batch_size).flops)

    def _left_out(self, name: str) -> list[str]:
        return list(self._request["sides"][name].get("left_out") or ())

    def _note_code(self, name: str, emit: Emit, event: str, **fields: Any) -> None:
        """Report the code of a side; files of the other side are refused."""
        emit(event, **fields)
        file = self._tables.foreign_file(name, [found["path"] for found in fields["files"]])
        if file is not None:
            raise CannotShare(f"the {name} code takes {file} from the other side's files")

    @contextlib.contextmanager
    def _naming(self, name: str, *, first: bool) -> Iterator[None]:
        """Report trouble by the side's name; a second model that does not fit parts the two."""
        try:
            yield
        except CannotShare:
            raise
        except (Exception, SystemExit) as error:
            if not first and _is_out_of_memory(error, self._backend):
                raise CannotShare("the models do not fit into memory together") from error
            self._check_framework()  # the other code may have broken it
            raise CannotRun(name, error) from error

    def _check_process(self, name: str, settings: module_tables.Settings) -> None:
        now = module_tables.process_wide(self._backend)
        reason = module_tables.what_was_set(name, settings, now, self._sides[name].context.held)
        if reason:
            raise CannotShare(reason)

    def _check_framework(self) -> None:
        """Look once for replaced functions: it takes two tenths of a second."""
        if not self._plan.with_work:
            return
        tables = self._tables
        reason = own_framework(tables.owner) or patched(tables.owner, self._framework)
        if reason:
            raise CannotShare(reason)

    # -- the turns ---------------------------------------------------------------------------------

    def _turns(self, build: int) -> Turns:
        """Take the turns of one build; of a long step there is no other build.

        Where builds differ, more of them tell more than longer turns of each.
        """
        plan = self._plan
        try:
            timing.quiet_collector()
            times_s = settled_step_times(self._sides, plan.warm_up_s, self._order, self._beat)
            for side in self._sides.values():
                side.settled = True
            steps = turn_steps(times_s)
            builds = min(2, plan.builds) if steps[0] > 1 else 1
            turns = take_rounds(
                self._sides,
                steps,
                plan.seconds / builds if build < 2 else LEAST_S,
                self._order,
                self._beat,
                least=-(-MIN_ROUNDS // builds),
                enough_error=plan.enough_error * math.sqrt(builds),
            )
        except CannotRun:
            raise
        except Exception as error:
            reason = f"a step failed in the shared process: {message_of(error)}"
            raise CannotShare(reason) from error
        self._emit("turns", build=build, **turns.fields())
        return turns

    def _beat(self) -> None:
        self._pulse.beat("turns")

    def _check_last_steps(self) -> None:
        """Hold the last step to a finite result, and the process to what it was at first.

        What a code has at work between its steps would slow the other's as much.
        """
        if self._plan.with_work and idle_cpus() >= BUSY_CPUS:
            raise CannotShare("a code computes between its steps, in threads of its own")
        for name, side in self._sides.items():
            with self._naming(name, first=False), side.active():
                token = side.step()
                self._backend.synchronise(token)
                side.proof.trained.see_turn(side.model, 1, last=True)
                side.proof.finish(token, side.model)
                side.proof.trained.finish(side.model, side.step)
                if self._plan.with_work:
                    side.hold_other_samples()
                if side.watch is not None and (told := side.watch.told_late()):
                    self._emit("late", side=name, **told)
        now = module_tables.process_wide(self._backend)
        held = next(iter(self._sides.values())).context.held
        reason = module_tables.what_was_set("running", self._settings, now, held)
        if reason is None and (names := module_tables.differing(self._environ, dict(os.environ))):
            reason = f"one code sets environment variables while it runs: {names}"
        if reason:
            raise CannotShare(reason)


def _own_case(case: Case, settings: Mapping[str, str]) -> Case:
    """Return the case as one side runs it."""
    for name, value in settings.items():
        if name not in HELD_SETTINGS or "tf32" in (value, case.precision):
            raise CannotShare(f"{name}={value} is a setting of the process")
    try:
        return dataclasses.replace(case, **settings)  # type: ignore[arg-type]  # texts, checked
    except CaseError as error:
        raise CannotShare(str(error)) from None
