"""Proof of work: checks the first steps, some timed steps and the last one.

A step's loss or output is read after its clock has stopped. It must be finite; and a model that
stops working once its first steps are over (a counter, a cache, a schedule) is refused, whose times
would be those of nothing.

Whether training goes on while steps are timed: by the updates counted, and by the weights.

A step that trains changes weights, whether an optimizer does so or the step's own code. Weights
that stand still are no proof of the contrary: a learning rate may have come to 0, a loss to its
least. A step that then takes far less time than while the weights changed has stopped working.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from convmark.core.case import Case
from convmark.core.tasks import TASKS
from convmark.worker.failure import CaseFailure

EARLY_STEPS = 9
"""Steps of the warm-up after each of which the weights are looked at."""
LEAST_IDLE = 6
"""Steps without an update from which on training may have stopped."""
LEAST_WORKED = 3
"""Step times that tell how long a step takes that changes weights."""
QUICKER = 1.5
"""Factor by which a step must be quicker once the weights stand still, its median then over the
quickest of before: the first steps of a process are slow."""
LEAST_STEPS = 30
"""Steps in which a weight must have changed."""
MORE_STEPS = 20
"""Steps between two looks at all weights, where the few that are watched stand still."""

Progress = tuple[int, str] | None
"""Updates that the optimizers have counted, and a hash of some weights; None of one untold."""


@dataclass
class _Looks:
    """What repeated looks at one thing have found; times are wall seconds of single steps."""

    last: Any
    before: int = 0
    """Steps up to the last look that found it changed."""
    idle: int = 0
    """Steps since."""
    changes: int = 0
    rate: float = 0.0
    """Changes a step, at least: of the early steps that found the most."""
    worked_s: list[float] = field(default_factory=list)
    lately_s: list[float] = field(default_factory=list)
    """Of the steps before the last look that found it changed, some of which may have done nothing;
    those before are in `worked_s`."""
    idle_s: list[float] = field(default_factory=list)

    def see(self, now: Any, steps: int, times_s: Sequence[float]) -> None:
        """Take what it is after so many steps more."""
        self.idle += steps
        self.idle_s += times_s
        if now == self.last:
            return
        self.last, self.before, self.idle = now, self.before + self.idle, 0
        self.changes += 1
        self.rate = max(self.rate, (self.changes - 1) / max(self.before, 1))
        self.worked_s += self.lately_s
        self.lately_s, self.idle_s = self.idle_s, []

    def quicker(self) -> float:
        """Return how many times as long a step took at least while it changed; 1 if not known."""
        worked_s = self.worked_s or self.lately_s
        if len(worked_s) < LEAST_WORKED or len(self.idle_s) < LEAST_IDLE:
            return 1.0
        return min(worked_s) / max(median(self.idle_s), 1e-9)


class Trained:
    """Looks at one model's training between its steps, and holds it to going on."""

    def __init__(self, case: Case, backend: Any) -> None:
        self._case = case
        self._backend = backend
        self._trains = TASKS[case.task].trains
        self._begun = 0
        self._updates: _Looks | None = None
        self._weights: _Looks | None = None
        self._turns_s: list[float] = []
        self._uncounted = 0
        self._all: Progress = None
        self._all_at = 0

    def begin(self, model: Any) -> None:
        """Keep which updates were counted up to the first step: a saved model brings its own."""
        if (now := self._progress(model)) is not None:
            self._begun = now[0]
            self._updates, self._weights = _Looks(now), _Looks(now[1])

    def _progress(self, model: Any) -> Progress:
        found: Progress = self._backend.training_progress(model) if self._trains else None
        return found

    def see_early(self, model: Any, number: int, seconds: float) -> None:
        """Look after each of the first steps, by their number from 1: how often weights change."""
        if number <= EARLY_STEPS:
            self.see(model, 1, [seconds])

    def see(self, model: Any, steps: int, times_s: Sequence[float] = ()) -> None:
        """Hold a model to going on with its training, after so many steps since the last look.

        One that collects gradients of several steps updates its weights in some of them: by how
        many updates so many steps had before, more must have come.

        Args:
            times_s: of those that were timed one by one.

        Raises:
            CaseFailure: no optimizer has counted an update since, and no weight has changed; or no
                weight has, and the steps are quicker.
        """
        if self._updates is None or self._weights is None or (now := self._progress(model)) is None:
            return
        self._updates.see(now, steps, times_s)
        self._weights.see(now[1], steps, times_s)
        found, updates = self._updates, now[0] - self._begun
        if found.idle >= LEAST_IDLE and found.idle * (updates - 1) >= 2 * found.before:
            raise CaseFailure(
                f"{self._case.model}: every step must train, but {updates} updates were "
                f"counted in {found.before} early steps and none in {found.idle} later ones; "
                "does the model stop training after some steps?"
            )
        found = self._weights
        seems_idle = self._seems_idle() and self._none_changes(model)
        if seems_idle and not self._backend.rates_are_zero(model):
            raise CaseFailure(
                f"{self._case.model}: every step must train, but weights changed in "
                f"{found.before} early steps and in none of {found.idle} later ones, which "
                f"are {found.quicker():.1f} times as fast; does the model stop training after "
                "some steps?"
            )

    def _seems_idle(self) -> bool:
        """Whether the weights that are watched stand still in steps that are quicker."""
        found = self._weights
        return found is not None and found.idle * found.rate >= 2 and found.quicker() >= QUICKER

    def _none_changes(self, model: Any) -> bool:
        """Whether no weight at all has changed since the last look at all, some steps ago.

        Those that are watched may be of a part that rests, such as a GAN's discriminator.
        """
        watched = self._weights
        assert watched is not None
        now = watched.before + watched.idle
        if self._all is not None and now < self._all_at + MORE_STEPS:
            return False
        before, self._all_at = self._all, now
        self._all = self._backend.training_progress(model, whole=True)
        return before is not None and self._all is not None and before[1] == self._all[1]

    def see_turn(
        self, model: Any, steps: int, times_s: Sequence[float] = (), *, last: bool = False
    ) -> None:
        """Count the steps of a turn; look at the progress once they have doubled, and at last.

        Args:
            steps: those that were not timed.
        """
        self._uncounted += steps + len(times_s)
        self._turns_s += times_s
        looked = self._updates
        if last or looked is None or self._uncounted >= looked.before + looked.idle:
            self.see(model, self._uncounted, self._turns_s)
            self._uncounted, self._turns_s = 0, []

    def finish(self, model: Any, step: Any) -> None:
        """Hold a model to having changed a weight at all; some steps are taken to see, if need be.

        Raises:
            CaseFailure: no weight has changed, and no optimizer has counted an update; or as `see`
                says.
        """
        if self._seems_idle():
            for _ in range(MORE_STEPS):
                self._backend.synchronise(step())
            self.see(model, MORE_STEPS)
        updates, weights = self._updates, self._weights
        if updates is None or weights is None or updates.changes or weights.idle < LEAST_STEPS:
            return
        before = self._backend.training_progress(model, whole=True)
        for _ in range(MORE_STEPS):
            self._backend.synchronise(step())
        if before is not None and before == self._backend.training_progress(model, whole=True):
            raise CaseFailure(
                f"{self._case.model}: a training step must change weights, but no trainable "
                f"weight changed in {weights.idle + MORE_STEPS} steps; update weights of "
                "layers or add_weight in train_step, or measure the task infer"
            )


PROOF_STEP = 10
"""The step whose loss, with the first one's, is kept in the row."""
LOOKS_FROM = 30
"""Of the timed steps, one of the first 30 is looked at, one of the next 30, of the next 60, ..."""
SAME_OUTPUT = 1e-6
"""Relative difference of an output's root mean square within which steps 1 and 10 agree."""
OTHER_OUTPUT = 0.01
"""Relative difference from which a later step of such a model gives another output."""
MOVED = 0.01
"""Relative change of a loss from step 1 to 10 that shows it to depend on the weights."""
CONVERGED = 1e-3
"""Share of the first loss below which a loss that stands still is that of a trained model."""


class Proof:
    """What the steps of one model returned: read, reported and held against each other."""

    def __init__(self, case: Case, backend: Any, emit: Callable[..., None], seed: int = 0) -> None:
        self._case = case
        self._backend = backend
        self._emit = emit
        self._order = random.Random(seed)
        self._trains = TASKS[case.task].trains
        self._first: dict[int, float] = {}
        self._timed: list[float] = []
        self._other_batch: float | None = None
        self.trained = Trained(case, backend)
        self._next_look, self._looks_end = self._order.randint(1, LOOKS_FROM), LOOKS_FROM

    def report(self, number: int, token: Any) -> None:
        """Report the loss or output of a first step.

        Raises:
            CaseFailure: it is not finite, lies on another kind of device than the case's, or was
                to be compiled and is not.
        """
        check_device(self._case, "results of a step", self._backend.outputs_by_device(token))
        value = self._backend.fingerprint(token)
        check_finite(value, self._case, number)
        check_jit(self._case, self._backend)
        self._first[number] = value
        self._emit("proof", step=number, value=value)

    def see_warm_up(self, number: int, token: Any) -> None:
        """Report step 10, which falls into the warm-up; its own first step is the case's second."""
        if number + 1 == PROOF_STEP:
            self.report(PROOF_STEP, token)

    def see_timed(self, number: int, token: Any) -> bool:
        """Look at some of the timed steps, by their number from 1; return whether at this one.

        Raises:
            CaseFailure: the step did not do what the first ones did.
        """
        if number != self._next_look:
            return False
        self._next_look = self._looks_end + self._order.randint(1, self._looks_end)
        self._looks_end *= 2
        self._hold(token, f"timed step {number}")
        return True

    def see_other_batch(self, token: Any) -> None:
        """Keep what a step on other samples returned."""
        self._other_batch = self._backend.fingerprint(token)

    def finish(self, token: Any, model: Any) -> None:
        """Look at the last step of the model.

        Raises:
            CaseFailure: it did not do what the first ones did, or training came to a stand.
        """
        self._hold(token, None)
        if self._trains and self._stands_still() and not self._rests(model):
            one, ten = self._first.values()
            raise CaseFailure(
                f"{self._case.model}: the loss must keep changing during training, but it was "
                f"{one:.6g} at step 1, {ten:.6g} at step {PROOF_STEP} and exactly "
                f"{self._timed[-1]:.6g} at {len(self._timed)} later steps; does the model "
                "stop training after some steps, or are all its activations zero?"
            )

    def _hold(self, token: Any, step: str | None) -> None:
        value = self._backend.fingerprint(token)
        check_finite(value, self._case, step)
        self._timed.append(value)
        if self._trains:
            return
        values = list(self._first.values())
        stopped = value == 0 and 0 not in values
        constant = len(values) > 1 and math.isclose(*values[:2], rel_tol=SAME_OUTPUT)
        if stopped or (constant and not math.isclose(value, values[0], rel_tol=OTHER_OUTPUT)):
            raise CaseFailure(
                f"{self._case.model}: the output for one batch must be the same at every step, but "
                f"its root mean square was {values[0]:.6g} at step 1 and {value:.6g} at "
                f"{step or 'the last step'}; does the model do something else after some steps?"
            )

    def _rests(self, model: Any) -> bool:
        """Whether the model's own schedule has ended: it trains on, at a learning rate of 0."""
        self._backend.settle(model)
        return bool(self._backend.rates_are_zero(model))

    def _stands_still(self) -> bool:
        """Whether the loss moved at first and has since been the very same number."""
        if len(self._first) < 2 or len(self._timed) < 2 or len(set(self._timed)) > 1:
            return False
        one, ten = self._first[1], self._first[PROOF_STEP]
        now = self._timed[-1]
        if math.isclose(one, ten, rel_tol=MOVED):
            return False
        return abs(now) > CONVERGED * abs(one) or now == self._other_batch


def check_device(case: Case, what: str, held: Mapping[str, int]) -> None:
    """Hold tensors to lying on the case's kind of device, at least in part.

    Args:
        held: their bytes by the kind of device.
    """
    wanted = case.device.partition(":")[0]
    others = sorted(kind for kind, number in held.items() if number and kind != wanted)
    if others and not held.get(wanted):
        raise CaseFailure(
            f"{case.model}: the {what} must be on the case's device {case.device}, but "
            f"they are on the {others[0].upper()}; do not choose a device in the model's "
            "code, or measure it there with --devices"
        )


def check_jit(case: Case, backend: Any) -> None:
    """Hold a step that was asked to be compiled to being so, once it has run."""
    if case.jit == "on" and (path := str(backend.call_path)).endswith("eager"):
        raise CaseFailure(
            f"{case.model}: jit on needs a compiled step, but a setting has it run eagerly "
            f"(call_path {path}); leave out one of them"
        )


def check_at_rest(case: Case, busy_s: float) -> None:
    """Hold a process to resting after its steps: what goes on then is in no step's time.

    Args:
        busy_s: the CPU time that it took since, 0 where it rests.
    """
    if busy_s:
        raise CaseFailure(
            f"{case.model}: a step must do its work before it returns, but after the last one the "
            f"process went on for {busy_s:.1f} s of CPU time; wait for its threads and processes "
            "in call()"
        )


def check_finite(value: float, case: Case, step: int | str | None) -> None:
    """Hold the loss or output of a step, or of the last one, to being finite."""
    if not math.isfinite(value):
        what = "loss" if TASKS[case.task].trains else "output"
        number = f"step {step}" if isinstance(step, int) else step
        when = f"at {number}" if step else "after the last step"
        raise CaseFailure(
            f"{case.model}: the {what} must be finite, but it is {value} "
            f"{when}{_advice(case, step)}"
        )


def _advice(case: Case, step: int | str | None) -> str:
    """What may help where a loss is not finite; the first step's is that of the initial weights."""
    if step == 1:
        return "; check the result of input_spec, if there is one, and the initial weights"
    if case.task != "train":
        return ""
    return "; try a smaller --learning-rate, or a smaller one in the model's compile()"
