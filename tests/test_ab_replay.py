"""The whole lock-step engine on recorded sessions: real noise at load 6, a real slowdown of 5.6 %.

Nothing is timed: the workers replay what three live processes took, `A1` and `A2` identical, `B`
slowed by a busy loop. Each draw takes the recorded sessions in another order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convmark.case import Case
from convmark.errors import WorkerError
from convmark.judging.confirm import CHANGED
from convmark.lockstep.ab import TARGET
from convmark.lockstep.engine import Comparison, Plan, Side, compare

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "noise"
FILE = DATA / "lockstep_loaded.npz"
DRAWS = 40

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason=f"the recorded noise is not at {DATA}")


class Recorded:
    """An interpreter whose sessions were recorded; it ends where they do."""

    def __init__(self, wall_s: Any, cpu_s: Any) -> None:
        self._sessions = iter(zip(wall_s, cpu_s, strict=True))

    @contextlib.contextmanager
    def live(self, request: Mapping[str, Any]) -> Iterator[Recorded]:
        session = next(self._sessions, None)
        if session is None:
            raise WorkerError("no further session was recorded")
        self._middle_s = float(np.median(session[0]))
        self._rounds = iter(zip(*session, strict=True))
        yield self

    def command(self, steps: int) -> None:
        assert steps == 1, "single steps were recorded"

    def expect(self, name: str) -> dict[str, Any]:
        if name == "sizes":
            return {"parameters": 61_706}
        if name == "warm":
            return {"step_time_s": self._middle_s}
        wall_s, cpu_s = next(self._rounds)
        return {"wall_s": float(wall_s), "cpu_s": float(cpu_s)}


def replay(new: str, old: str, control: str | None, seed: int, threads: str) -> Comparison:
    """Compare in an order of sessions that the seed draws."""
    with np.load(FILE) as arrays:
        order = np.random.default_rng(seed).permutation(len(arrays[f"{old}_train_wall_s"]))

        def side(name: str) -> Side:
            wall, cpu = (
                arrays[f"{name}_train_{clock}_s"][order, :, 0] for clock in ("wall", "cpu")
            )
            case = Case(model="lenet5", task="train", batch_size=256, threads=threads)
            return Side(Recorded(wall, cpu), case)  # type: ignore[arg-type]

        return compare(
            side(old),
            side(new),
            Plan(seed=seed, warm_up_s=1.0, error_rate=0.01, target=TARGET),
            control=side(control) if control else None,
        )


def verdict(found: Comparison) -> str | None:
    assert found.clocks is not None
    return found.clocks.decision.verdict


@pytest.mark.parametrize(("threads", "least"), [("1", 0.95), ("default", 0.75)])
def test_a_real_slowdown_is_found_by_the_default_stopping_rule(threads: str, least: float) -> None:
    """Of one thread CPU time decides, else wall time, which the load moves most."""
    found = [verdict(replay("B", "A1", "A2", seed, threads)) for seed in range(DRAWS)]
    assert found.count("regressed") >= least * DRAWS
    assert "improved" not in found


@pytest.mark.parametrize("threads", ["1", "default"])
def test_identical_code_is_never_called_changed(threads: str) -> None:
    for seed in range(DRAWS):
        for new, old in (("A2", "A1"), ("A1", "A2")):
            assert verdict(replay(new, old, None, seed, threads)) not in CHANGED


@pytest.mark.parametrize("threads", ["1", "default"])
def test_identical_controls_void_no_comparison(threads: str) -> None:
    assert not any(replay("B", "A1", "A2", seed, threads).void for seed in range(DRAWS))


def test_a_control_that_is_slower_voids_the_comparison() -> None:
    found = replay("A2", "A1", "B", 0, "1")
    assert found.void
    assert verdict(found) == "inconclusive"
