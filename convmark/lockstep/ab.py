"""A/B: every case on two sides in lock-step, beside an A/A control, each session told."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.case import Case
from convmark.errors import ConvmarkError, OptionError, WorkerError
from convmark.gpu.devices import Gpu
from convmark.gpu.visible import card_of
from convmark.inspection import inspect
from convmark.judging.confirm import error_rate_per_case
from convmark.launch import Interpreter
from convmark.lockstep.anchor import Origin, origin_of
from convmark.lockstep.engine import Comparison, Plan, Progress, Side, compare
from convmark.lockstep.sides import Make, SideSpec
from convmark.lockstep.tree import Tree

__all__ = [
    "TARGET",
    "End",
    "Outcome",
    "Pair",
    "Terms",
    "compare_cases",
    "inspected",
    "run_the_same",
]

TARGET = math.log(1.02)
"""Half-width of the interval, as a log ratio, at which a comparison may end."""


@dataclass(frozen=True, slots=True)
class End:
    """One side as it was found: what its interpreter has."""

    spec: SideSpec
    found: Mapping[str, Any]

    @property
    def sources(self) -> Mapping[str, Any]:
        """Where the users' own models come from."""
        return self.found.get("sources") or {}

    def version(self, name: str) -> str | None:
        """Return a version such as TensorFlow's; None where it is not there."""
        value = self.found.get(name)
        return str(value) if value else None


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sides."""

    a: End
    b: End


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a comparison is run."""

    seed: int
    warm_up_s: float
    target: float = TARGET
    control: bool = True
    clock: Callable[[], float]
    """Seconds, to tell how long a session takes."""
    seconds_left: Callable[[], float] = lambda: math.inf
    gpus: Sequence[Gpu] = ()
    """Those of this machine, whose state tells which sessions count."""
    asked: Sequence[str] = ()
    """Axes that the user has named for both sides."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case."""

    case: Case
    origin: Origin | None
    comparison: Comparison


Watch = Callable[[Case, Progress], None]

Running = tuple[Interpreter, Tree | None]
"""An interpreter, and whose code alone it may run."""


def inspected(spec: SideSpec, models: Sequence[str], make: Make) -> End:
    """Return what a side has; its models are looked for as they are on the disk.

    Raises:
        OptionError: a model is unknown to it.
        WorkerError: it cannot be started, or has no framework.
    """
    with spec_as_it_is(spec).opened(None, make, 1) as ((interpreter,), _):
        return End(spec, inspect(interpreter, models))


def run_the_same(pair: Pair, cases: Sequence[Case]) -> bool:
    """Return whether both sides mean the same interpreter, commit and settings in every case."""
    a, b = pair.a.spec, pair.b.spec
    if os.path.abspath(a.python) != os.path.abspath(b.python) or bool(a.ref) != bool(b.ref):
        return False
    if {**os.environ, **a.environ} != {**os.environ, **b.environ}:
        return False
    origins = {case.model: _origin(case, pair) for case in cases}
    return all(
        a.case(case) == b.case(case)
        and a.commit(origins[case.model]) == b.commit(origins[case.model])
        for case in cases
    )


def spec_as_it_is(spec: SideSpec) -> SideSpec:
    """Return the side with the models' files as they are."""
    return SideSpec(
        text=spec.text, python=spec.python, settings=spec.settings, environ=spec.environ
    )


def compare_cases(
    cases: Sequence[Case],
    pair: Pair,
    make: Make,
    terms: Terms,
    watch: Watch = lambda case, progress: None,
) -> Iterator[Outcome]:
    """Compare case after case; the error rate is shared by all of them.

    Yields:
        what came of each, as it ends.

    Raises:
        ConvmarkError: a side cannot be opened.
    """
    origins = {case.name: _origin(case, pair) for case in cases}
    places = sorted(cases, key=lambda case: str(origins[case.name]))
    plan = Plan(
        seed=terms.seed,
        warm_up_s=terms.warm_up_s,
        error_rate=error_rate_per_case(len(cases)),
        seconds_left=terms.seconds_left,
        target=terms.target,
    )
    for _, group in itertools.groupby(places, key=lambda case: str(origins[case.name])):
        members = list(group)
        origin = origins[members[0].name]
        with _opened(pair, origin, make, terms.control) as (old, new, control):
            for case in members:
                comparison = compare(
                    _side(old, pair.a.spec, case, terms),
                    _side(new, pair.b.spec, case, terms),
                    plan,
                    control=_side(control, pair.a.spec, case, terms) if control else None,
                    watch=_told(watch, case),
                    clock=terms.clock,
                )
                yield Outcome(case, origin, comparison)


def _side(running: Running, spec: SideSpec, case: Case, terms: Terms) -> Side:
    """Return the side of a case; its environment may show it another card than the other side's."""
    card = card_of(case.device, terms.gpus, {**os.environ, **spec.environ})
    asked = tuple(dict.fromkeys([*terms.asked, *spec.settings]))
    return Side(running[0], spec.case(case), card, running[1], asked)


def _told(watch: Watch, case: Case) -> Callable[[Progress], None]:
    return lambda progress: watch(case, progress)


def _origin(case: Case, pair: Pair) -> Origin | None:
    """Return where the case's model lies; None where no side asks for another commit of it."""
    if not (pair.a.spec.ref or pair.b.spec.ref):
        return None
    sources = {**pair.b.sources, **pair.a.sources}
    origin = origin_of(case, sources)
    if origin is None:
        _, file = sources.get(case.model) or (None, "")
        comes = f" ({file}); install it from its repository: pip install -e" if file else ""
        raise OptionError(
            f"{case.model}: git:REF needs the model in a git repository, it is in none{comes}"
        )
    return origin


@contextlib.contextmanager
def _opened(
    pair: Pair, origin: Origin | None, make: Make, control: bool
) -> Iterator[tuple[Running, Running, Running | None]]:
    with contextlib.ExitStack() as stack:
        of_a, tree_a = stack.enter_context(pair.a.spec.opened(origin, make, 1 + control))
        (new,), tree_b = stack.enter_context(pair.b.spec.opened(origin, make, 1))
        for name, interpreter in (("A", of_a[0]), ("B", new), ("A", of_a[-1])):
            try:
                interpreter.start()
            except WorkerError as error:
                raise ConvmarkError(f"{name}: {error}") from None
        twin = (of_a[1], tree_a) if control else None
        yield (of_a[0], tree_a), (new, tree_b), twin
