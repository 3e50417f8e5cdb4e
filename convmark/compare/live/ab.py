"""A/B: all cases on two sides, with an A/A control, by the driver of the live comparison.

Sides of the same software run as duets in one process; others, in lock-step, in one each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convmark.compare.live.anchor import Origin, origin_of
from convmark.compare.live.live import Pairing
from convmark.compare.live.processes import Contender
from convmark.compare.live.sides import Make, SideSpec
from convmark.compare.live.tree import Tree
from convmark.core.case import Case
from convmark.core.errors import OptionError
from convmark.interpreter import Interpreter
from convmark.interpreter.inspection import inspect
from convmark.machine.gpu.devices import Gpu
from convmark.machine.gpu.visible import card_of

__all__ = ["End", "Pair", "inspected", "paired", "run_the_same"]


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

    @property
    def share_software(self) -> bool:
        """Whether one process can be of both sides, by its interpreter and its environment."""
        a, b = self.a.spec, self.b.spec
        same = os.path.abspath(a.python) == os.path.abspath(b.python)
        return same and a.whole_environ == b.whole_environ


def inspected(spec: SideSpec, models: Sequence[str], make: Make) -> End:
    """Return what a side has; its models are looked for as they are on the disk.

    Raises:
        OptionError: a model is unknown to it.
        WorkerError: it cannot be started, or has no framework.
    """
    with dataclasses.replace(spec, ref="").interpreter(make, None) as interpreter:
        return End(spec, inspect(interpreter, models))


def run_the_same(pair: Pair, cases: Sequence[Case]) -> bool:
    """Return whether both sides mean the same interpreter, commit and settings in every case."""
    a, b = pair.a.spec, pair.b.spec
    if not pair.share_software or bool(a.ref) != bool(b.ref):
        return False
    origins = {case.model: _origin(case, pair) for case in cases}
    return all(
        a.case(case) == b.case(case)
        and a.commit(origins[case.model]) == b.commit(origins[case.model])
        for case in cases
    )


@contextlib.contextmanager
def paired(
    cases: Sequence[Case], pair: Pair, make: Make, *, gpus: Sequence[Gpu], asked: Sequence[str]
) -> Iterator[list[Pairing]]:
    """Give each case with its two codes and the control; all that was opened is gone after it.

    Args:
        gpus: those of this machine, whose state tells which sessions count.
        asked: axes that the user has named for both sides.

    Raises:
        ConvmarkError: a side is not to be had.
    """
    itself = run_the_same(pair, cases)
    with contextlib.ExitStack() as stack:
        shared = stack.enter_context(pair.a.spec.interpreter(make, None))
        opened: dict[Origin | None, list[tuple[SideSpec, Tree | None, Interpreter]]] = {}
        pairings = []
        for case in cases:
            origin = _origin(case, pair)
            if origin not in opened:
                opened[origin] = _opened(pair, origin, make, stack)
            old, new, control = (
                Contender(
                    case=spec.case(case),
                    interpreter=interpreter,
                    code=tree,
                    card=card_of(case.device, gpus, spec.whole_environ),
                    asked=tuple(dict.fromkeys([*asked, *spec.settings])),
                )
                for spec, tree, interpreter in opened[origin]
            )
            pairings.append(
                Pairing(
                    case=old.case,
                    old=old,
                    new=new,
                    control=control,
                    shared=shared if pair.share_software else None,
                    may_be_same=itself or old.case != new.case,
                )
            )
        yield pairings


def _opened(
    pair: Pair, origin: Origin | None, make: Make, stack: contextlib.ExitStack
) -> list[tuple[SideSpec, Tree | None, Interpreter]]:
    """Return A, B and A once more, each with its code and an interpreter, not started yet."""
    a, b = pair.a.spec, pair.b.spec
    of_a, of_b = stack.enter_context(a.tree(origin)), stack.enter_context(b.tree(origin))
    sides = ((a, of_a), (b, of_b), (a, of_a))
    return [(spec, tree, stack.enter_context(spec.interpreter(make, tree))) for spec, tree in sides]


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
