"""One case measured by one process: the order of phases, and what each reports.

build -> first step -> warm up -> steps -> windows -> peaks -> fed windows -> rounds -> proof of
work. The case runs alone until the peaks are read; only then is the reference network made.
Backend, clock and reporting are handed in.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from convmark.core.case import Case
from convmark.core.tasks import TASKS
from convmark.worker import ceiling, host, reference, timing
from convmark.worker.arrivals import at_limit
from convmark.worker.failure import CaseFailure, advised
from convmark.worker.host import HostMemory, forget_peak, idle_cpus, peak_above, threads_of_python_s
from convmark.worker.other_samples import hold_other_samples
from convmark.worker.phases import FED_WINDOWS, fed_windows, first_step, sustain
from convmark.worker.proof import (
    EARLY_STEPS,
    PROOF_STEP,
    Proof,
    check_at_rest,
    check_device,
    check_finite,
)
from convmark.worker.turns import timed_turn
from convmark.worker.work import Work

LEAST_WINDOWS_S = 5.0
"""On a GPU, whose energy counter is renewed only some ten times a second."""
ROUNDS_SHARE = 0.5
"""Of the time budget, which the steps may take whole."""

Emit = Callable[..., None]
Builder = Callable[[], Any]


@dataclass(frozen=True)
class Plan:
    """What the harness asks of one process: the seed, and the seconds of timed steps."""

    seed: int
    time_budget_s: float
    fed: bool = True
    """Whether the throughput of steps fed from host memory is measured too."""
    each_sample: bool = True
    """Whether the step is held to using each sample of its batch."""
    sustain_s: float | None = None
    """Seconds for which the steps go on afterwards."""
    latency_limit_s: float | None = None
    """Of requests, whose highest rate is searched before that."""


def measure(case: Case, builder: Builder, plan: Plan, backend: Any, emit: Emit) -> None:
    """Measure the case once, reporting each phase as an event.

    Raises:
        CaseFailure: the builder returns no model, or its output is not finite.
        Exception: whatever building or running the model raises.
    """
    pulse = timing.Pulse(lambda phase: emit("progress", phase=phase), time.monotonic)
    model, report_peaks = _build_watched(case, builder, plan.seed, backend, emit)
    step, describe = make_step(case, model, plan.seed, backend)
    token = take_first_step(step, describe, backend, emit)
    emit("counted", **(sizes := backend.sizes(model)))
    proof = Proof(case, backend, emit, plan.seed)
    proof.report(1, token)
    proof.trained.begin(model)

    state = host.state_from_now(backend.companions)
    timing.quiet_collector()
    timed = _TimedPhases(case, plan, model, step, backend, pulse, emit, proof)
    elsewhere = host.elsewhere_from_now(backend.companions)
    timed.warm_up()
    times_s = timed.steps()
    timed.windows(times_s)
    report_peaks(elsewhere=elsewhere())
    if case.replicas == 1:
        check_at_rest(case, host.busy_at_rest())
    _count_again(case, model, sizes, backend, emit)
    if plan.fed and step.takes_any:
        timed.fed_windows(times_s)
    count_work(case, model, step, backend, emit)
    proof.finish(timed.rounds(), model)
    proof.trained.finish(model, step)
    hold_other_samples(case, model, step, plan.seed, backend, each=plan.each_sample)
    emit("state", **state())
    if TASKS[case.task].trains:
        backend.settle(model)
        emit("trained", **describe())  # which optimizers have worked shows by now
    if (limit_s := plan.latency_limit_s) is not None:
        samples, step_s = case.batch_size * case.replicas, timing.median(times_s)
        at_limit(step.bound(), backend, samples, step_s, limit_s, plan.seed, emit, pulse)
    if plan.sustain_s is not None:
        taken = sustain(step.bound(), backend, timing.median(times_s), plan.sustain_s, emit, pulse)
        proof.trained.see(model, taken)
    emit("finished")


def _build_watched(
    case: Case, builder: Builder, seed: int, backend: Any, emit: Emit
) -> tuple[Any, Callable[..., None]]:
    """Return the case's model, and what reports the peak memory of its build and of its steps."""
    backend.reset_peak_memory()
    earlier = backend.layers_alive()
    baseline = HostMemory()
    model = build(case, builder, seed, backend, emit)
    built_bytes = peak_above(baseline, HostMemory())
    in_baseline = backend.has_layers_of(model, earlier)  # made when its module was imported
    forget_peak()  # what the builder used and gave back is none of the step's
    backend.reset_peak_memory()

    def report_peaks(*, elsewhere: bool) -> None:
        unknown = in_baseline or elsewhere
        emit(
            "peaks",
            elsewhere=elsewhere,
            baseline_bytes=baseline.anonymous_bytes,
            host_bytes=None if unknown else peak_above(baseline, HostMemory()),
            build_host_bytes=None if in_baseline else built_bytes,
            device_bytes=backend.peak_memory() or None,  # a CPU's says 0 of the smallest models
        )

    return model, report_peaks


def take_first_step(
    step: Any, describe: Callable[[], dict[str, Any]], backend: Any, emit: Emit
) -> Any:
    """Report the seconds of the first step and how the model trains; return what it gave."""
    first, token = first_step(step, backend)
    emit(
        "first_step",
        seconds=first.total_s,
        trace_s=first.trace_s,
        execution_s=first.execution_s,
        call_path=backend.call_path,
        **describe(),
    )
    return token


@dataclass(frozen=True)
class _TimedPhases:
    """The timed phases of one case; each reports its own event, and is held to have trained."""

    case: Case
    plan: Plan
    model: Any
    step: Any
    backend: Any
    pulse: timing.Pulse
    emit: Emit
    proof: Proof

    def warm_up(self) -> None:
        """Run steps until their times are steady."""

        def see(number: int, token: Any, seconds: float) -> None:
            self.proof.see_warm_up(number, token)
            self.proof.trained.see_early(self.model, number, seconds)

        budget_s, trains = self.plan.time_budget_s, TASKS[self.case.task].trains
        least_s = 0.0 if trains else min(timing.LEAST_WARM_UP_S, budget_s / 4)
        step = self.step.bound()
        warm = timing.warm_up(step, self.backend, budget_s, self.pulse, see, least_s=least_s)
        self.emit("warm_up", steps=warm.steps, steady=warm.steady)
        later_s = warm.times_s[EARLY_STEPS:]
        self.proof.trained.see(self.model, len(later_s), later_s)

    def steps(self) -> list[float]:
        single = timing.steps(
            self.step.bound(),
            self.backend,
            self.plan.time_budget_s,
            self.pulse,
            see=self.proof.see_timed,
        )
        self.emit("steps", times_s=_rounded(single.wall_s), cpu_times_s=_rounded(single.cpu_s))
        self.proof.trained.see(self.model, len(single.wall_s), single.wall_s)
        return single.wall_s

    def windows(self, times_s: list[float]) -> None:
        """Time the throughput, in windows as long as these step times ask for."""
        self.emit("phase", phase="windows")  # whoever reads the card's energy counter begins here
        quick_s = sorted(times_s)[len(times_s) // 4]
        least_s = LEAST_WINDOWS_S if self.case.device.startswith("gpu") else 0.0
        step = self.step.bound()
        windows = timing.windows(step, self.backend, quick_s, self.pulse, least_s=least_s)
        self.emit(
            "windows",
            steps=windows.steps,
            times_s=_rounded(windows.times_s),
            run_steps=windows.run_steps,
        )
        self.proof.trained.see(self.model, windows.run_steps)

    def fed_windows(self, times_s: list[float]) -> None:
        """Time the throughput of steps that are fed from host memory."""
        case = self.case
        feed = self.backend.feed(self.model, case.task, case.batch_size, self.plan.seed)
        with contextlib.closing(feed):
            fed = fed_windows(
                self.step,
                feed,
                self.backend,
                timing.median(times_s),
                self.pulse,
                number=FED_WINDOWS if case.device.startswith("gpu") else 1,
                see=self.proof.see_other_batch,
            )
        self.emit("input_bound", steps=fed.steps, times_s=_rounded(fed.times_s))
        self.proof.trained.see(self.model, FED_WINDOWS + fed.run_steps)

    def rounds(self) -> Any:
        """Time the step beside the reference network's; return what the last step gave."""
        self.emit("phase", phase="rounds")
        kind = reference.kind(self.case.task, self.case.batch_size)
        rounds = timing.rounds(
            self.step.bound(),
            self.backend.reference_step(kind),
            self.backend,
            self.plan.time_budget_s * ROUNDS_SHARE,
            random.Random(self.plan.seed),
            self.pulse,
        )
        last = self.step()
        self.backend.synchronise(last)
        version = reference.REFERENCE_VERSION
        self.emit("rounds", reference=kind, reference_version=version, **rounds.lists())
        self.proof.trained.see(self.model, len(rounds.case_wall_s), rounds.case_wall_s)
        return last


def smoke(case: Case, builder: Builder, seed: int, backend: Any, emit: Emit) -> None:
    """Build the case and take its first ten steps, untimed, with the same checks.

    Raises:
        CaseFailure: the builder returns no model, or its output is not finite.
    """
    model = build(case, builder, seed, backend, emit)
    step, describe = make_step(case, model, seed, backend)
    for number in range(1, PROOF_STEP + 1):
        token = step()
        backend.synchronise(token)
        if number == 1:
            describe()
        check_finite(backend.fingerprint(token), case, number)
    emit("finished")


def prove_instruments(
    case: Case, builder: Builder, seed: int, backend: Any, emit: Emit, known_bytes: int
) -> None:
    """Report what a batch of about so many bytes takes of the device, and the step's times.

    Raises:
        CaseFailure: the builder returns no model.
    """
    model = build(case, builder, seed, backend, emit)
    sample_bytes = backend.inputs(model).sample_bytes
    samples = max(1, known_bytes // sample_bytes)
    held = ceiling.held_bytes(lambda: backend.inference_step(model, samples, seed, False), backend)
    emit("allocation", asked_bytes=samples * sample_bytes, held_bytes=held)
    found = ceiling.synchronised(make_step(case, model, seed, backend)[0], backend)
    emit("synchronised", **asdict(found))
    emit("finished")


def take_turns(
    case: Case,
    builder: Builder,
    seed: int,
    backend: Any,
    emit: Emit,
    commands: Iterable[dict[str, Any]],
    *,
    with_sizes: bool,
) -> None:
    """Build the case, then time as many steps as each command says, until one says none.

    Raises:
        CaseFailure: the builder returns no model, or its output is not finite at either end.
    """
    model = build(case, builder, seed, backend, emit)
    step, describe = make_step(case, model, seed, backend)
    seconds, token = timing.timed_step(step, backend)
    describe()
    proof = Proof(case, backend, emit)
    proof.report(1, token)
    if with_sizes:
        flops = count_work(case, model, step, backend, emit)
        emit("sizes", flops_per_sample=flops, **backend.sizes(model))
    proof.trained.begin(model)
    emit("first_step", seconds=seconds)
    timing.quiet_collector()
    bound, idle, waited_s, worked_s = step.bound(), 0.0, 0.0, 0.0
    since_s, by_threads_s = time.monotonic(), threads_of_python_s()
    for command in commands:
        waited_s += time.monotonic() - since_s
        worked_s += max(0.0, threads_of_python_s() - by_threads_s)
        if not command["steps"]:
            idle = idle_cpus()
            break
        turn = timed_turn(bound, backend, command["steps"], command["dropped"])
        emit("turn", **turn.lists(), whole=turn.whole, left=turn.leaves_threads)
        proof.trained.see_turn(model, command["dropped"], turn.wall_s)
        since_s, by_threads_s = time.monotonic(), threads_of_python_s()
    proof.trained.see_turn(model, 0, last=True)
    token = step()
    backend.synchronise(token)
    proof.finish(token, model)
    proof.trained.finish(model, step)
    if with_sizes:
        hold_other_samples(case, model, step, seed, backend)
    by_threads = worked_s / waited_s if waited_s else 0.0
    emit("finished", idle_cpus=round(idle, 3), thread_cpus=round(by_threads, 3))


@advised()
def build(case: Case, builder: Builder, seed: int, backend: Any, emit: Emit) -> Any:
    """Return the case's model, and report its sizes.

    Raises:
        CaseFailure: the builder returns no model, or returns in two processes; nobody knows what
            it takes; or its weights lie on another kind of device than the case's.
    """
    gc.collect()
    process = os.getpid()
    with backend.scope():
        model = builder()
    if os.getpid() != process:  # the copy says so; the two would share cores and the harness's pipe
        raise CaseFailure(
            f"{case.model}: the builder must return once, but it forked the process and "
            "returned in both; end the forked process with os._exit"
        )
    if not backend.is_model(model):
        reason = backend.other_keras(model) or (
            f"the builder must return a keras.Model, it returned {backend.returned(model)}"
        )
        raise CaseFailure(f"{case.model}: {reason}")
    try:
        inputs = backend.take_inputs(model, getattr(builder, "input_spec", None))
        if (spec := getattr(builder, "target_spec", None)) is not None and TASKS[case.task].trains:
            backend.take_targets(model, spec)
    except ValueError as error:
        raise CaseFailure(f"{case.model}: {error}") from None
    backend.make_variables(model, trains=TASKS[case.task].trains)
    check_device(case, "weights", backend.weights_by_device(model))
    emit("built", input_shape=inputs.shapes, **backend.sizes(model))
    return model


def _count_again(case: Case, model: Any, before: dict[str, int], backend: Any, emit: Emit) -> None:
    """Report the sizes anew where training steps have changed them."""
    now = backend.sizes(model)
    if now == before:
        return
    if case.task == "infer":
        raise CaseFailure(
            f"{case.model}: a model must keep its weights during inference, but its "
            f"parameters went from {before['parameters']:,} to {now['parameters']:,} "
            "after the first step; create its layers once, in __init__ or build"
        )
    emit("counted", **now)


def count_work(case: Case, model: Any, step: Any, backend: Any, emit: Emit) -> int | None:
    """Report the FLOPs, only once the peaks are read: counting them traces the model again.

    Returns:
        those of a forward pass of one sample, where they are known.
    """
    backend.settle(model)  # counting calls the model
    forward: Work = backend.work(model, case.batch_size)
    trained = None
    if case.task == "train":
        trained = backend.training_work(step, case.batch_size * case.replicas)
    seen = trained if trained and trained.flops is not None else forward
    emit(
        "work",
        flops_per_sample=forward.flops,
        flops_note=forward.note or (trained and trained.note),
        training_flops_per_sample=trained and trained.flops,
        dtypes=sorted(seen.dtypes),
        by_dtype=dict(seen.by_dtype),
        compiled=forward.compiled or bool(trained and trained.compiled),
        untracked=forward.untracked,
    )
    return forward.flops


def check_infers(case: Case, model: Any, backend: Any) -> None:
    """Hold a model to having a forward pass: one with a `train_step` of its own need not."""
    if not backend.has_call(model):
        raise CaseFailure(
            f"{case.model}: a model without its own call() cannot infer; measure its "
            "training (--tasks train), or write a call()"
        )


def make_step(
    case: Case, model: Any, seed: int, backend: Any
) -> tuple[Any, Callable[[], dict[str, Any]]]:
    """Return the case's step, and what after the first tells the columns of how it trains.

    Raises:
        CaseFailure: the model cannot be trained as it says, or has nothing to train.
    """
    backend.begin_step()
    if not TASKS[case.task].trains:
        check_infers(case, model, backend)
    try:
        if not TASKS[case.task].trains:
            step = backend.inference_step(model, case.batch_size, seed, case.jit == "on")
            return step, lambda: backend.described_inference(model)
        step, describe = backend.chosen_training(
            model, case.batch_size, seed, case.jit == "on", case.recipe
        )
    except CaseFailure as error:
        raise CaseFailure(f"{case.model}: {error}") from None
    return step, describe


def _rounded(times_s: list[float]) -> list[float]:
    """Nanoseconds are the clock's own resolution; more digits would only fill the pipe."""
    return [round(seconds, 9) for seconds in times_s]
