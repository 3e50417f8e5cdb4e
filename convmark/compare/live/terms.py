"""The terms of a live comparison: how its sessions are run, and what they may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convmark.compare.live.case_result import CaseResult
from convmark.compare.rule.decision import USUAL, Limits
from convmark.compare.sessions_file import EarlierSessions
from convmark.core.case import Case
from convmark.core.option_values import Shapes
from convmark.core.options import Options

_MOST_WITH_LAYERS = 3
"""Cases whose layers have time kept for them: verdicts come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How the sessions are run, and what they may take."""

    seed: int
    """That of the rows too."""
    seconds_left: Callable[[], float]
    clock: Callable[[], float]
    """Seconds, to learn how long a session takes."""
    results: Path
    """A folder that is no code."""
    session_s: float = 1.0
    """Seconds of timed turns of two codes in a session, at most; a control adds half as many."""
    input_shape: Shapes | None = None
    limits: Limits = USUAL
    """What counts as a change."""
    target: float = math.inf
    """Half-width of the interval, as a log ratio, down to which it goes on after a verdict."""
    earlier: EarlierSessions = field(default_factory=EarlierSessions)
    """What earlier runs give."""
    left_over: Collection[str] = ()
    """The cases, by name, that the last run has left undecided: they come first."""
    decided_before: int = 0
    """As of `decide`."""
    evenly: bool = False
    """Whether all cases get sessions evenly until the time is spent, as in an A/A."""
    began: Callable[[int, Sequence[CaseResult]], None] = lambda place, found: None
    """Called before each session with the place of its case and what was found of every case."""

    layers_s: float = 0.0
    """Seconds of the budget that are kept for the layers of a regressed case, of three at most."""
    layers_of: Callable[[Case], bool] = lambda case: True
    """Whether the layers of a case are measured once it is found slower."""

    @classmethod
    def of(cls, options: Options, budget_s: float, **own: Any) -> LiveOptions:
        """Return them as a user's options have them; the budget begins now.

        Args:
            own: what the options do not tell.
        """
        deadline_s = time.monotonic() + budget_s
        return cls(
            seed=options.seed,
            seconds_left=lambda: deadline_s - time.monotonic(),
            clock=time.monotonic,
            results=options.results.absolute(),
            input_shape=options.input_shape,
            **own,
        )

    def left_beside_layers(self, slower: int) -> float:
        """Return the seconds that are left for sessions where so many cases have regressed."""
        return self.seconds_left() - min(slower, _MOST_WITH_LAYERS) * self.layers_s
