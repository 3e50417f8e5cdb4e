"""Blame: the layers of two codes matched, and those named that moved."""

from __future__ import annotations

import random
from typing import Any

import pytest

from convmark.compare.live.blame import blame, blamed
from convmark.core.case import Case
from convmark.core.errors import MeasurementError
from convmark.core.options import Options
from convmark.interpreter import Answer
from convmark.session.layers import REST

CASE = Case(model="lenet5", task="infer", batch_size=32)
LAYERS = {f"conv{place}": 0.1 for place in range(9)}


def sessions(count: int, times_s: dict[str, float], seed: int = 0) -> list[dict[str, Any]]:
    """Return events of layers whose times vary by 1 %, with a rest of a tenth of a second."""
    chance, found = random.Random(seed), []
    units = [{"name": name, "kind": "Conv2D", "shape": [32, 8]} for name in times_s]
    for _ in range(count):
        forward_s = [seconds * (1 + chance.gauss(0, 0.01)) for seconds in times_s.values()]
        step_s = sum(forward_s) + 0.1
        found.append({"event": "layers", "step_s": step_s, "forward_s": forward_s, "units": units})
    return found


def test_the_layer_that_moved_is_named_with_its_interval_and_its_part_of_the_change() -> None:
    rows = blamed(CASE.name, sessions(3, LAYERS), sessions(3, {**LAYERS, "conv4": 0.138}, seed=1))
    assert [row.layer for row in rows if row.moved] == ["conv4"]
    assert rows[0].change == pytest.approx(0.38, abs=0.03)
    assert rows[0].low_s < 0.038 < rows[0].high_s
    assert rows[0].part == pytest.approx(1, abs=0.1)
    assert rows[0].words.startswith("conv4: +")
    assert rows[0].words.endswith(" % of the change")


def test_equal_codes_have_no_layer_to_blame() -> None:
    named = [
        row
        for seed in range(0, 80, 2)
        for row in blamed(CASE.name, sessions(3, LAYERS, seed), sessions(3, LAYERS, seed + 1))
        if row.moved
    ]
    assert len(named) <= 2


def test_a_layer_of_one_code_alone_is_new_or_gone() -> None:
    more = {"conv0": 0.1, "slow": 0.3, **LAYERS}
    new = blamed(CASE.name, sessions(3, LAYERS), sessions(3, more, seed=1))
    assert new[0].words.startswith("slow: new, +")
    gone = blamed(CASE.name, sessions(3, more), sessions(3, LAYERS, seed=1))
    assert (gone[0].layer, gone[0].new_s, gone[0].change) == ("slow", None, None)


def test_layers_that_have_other_names_alone_are_matched() -> None:
    renamed = {f"conv2d_{place}": seconds for place, seconds in enumerate(LAYERS.values())}
    rows = blamed(CASE.name, sessions(3, LAYERS), sessions(3, renamed, seed=1))
    assert all(row.old_s and row.new_s for row in rows)


def test_what_no_layer_takes_may_be_to_blame() -> None:
    slower = sessions(3, LAYERS, seed=1)
    for one in slower:
        one["step_s"] += 0.2
    assert [row.layer for row in blamed(CASE.name, sessions(3, LAYERS), slower) if row.moved] == [
        REST
    ]


def test_sessions_of_both_codes_alternate_and_a_failure_names_its_side() -> None:
    asked: list[str] = []

    def side(name: str, status: str = "ok") -> tuple[Case, Any]:
        def ask(request: Any) -> Answer:
            asked.append(name)
            message = "" if status == "ok" else "it has no layers"
            (event,) = sessions(1, LAYERS, seed=len(asked))
            return Answer(status=status, message=message, events=[event], ready_s=0.1)

        return CASE, ask

    said: list[str] = []
    blame(side("old"), side("new"), Options(), sessions=2, say=said.append)
    assert asked == ["old", "new", "new", "old"]
    words = "lenet5-infer-cpu-b32-float32: no layers of the new code: it has no layers"
    with pytest.raises(MeasurementError, match=words):
        blame(side("old"), side("new", "error"), Options(), sessions=2, say=said.append)
    with pytest.raises(MeasurementError, match="two sessions of each code or more, got 1"):
        blame(side("old"), side("new"), Options(), sessions=1, say=said.append)
