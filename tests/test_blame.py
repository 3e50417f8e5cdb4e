"""Blame: the layers of two codes matched, and those named that moved."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import pytest
from fake_worker import StandIn

from convmark.compare.live.blame import blame, blamed, blamed_lines
from convmark.compare.live.layer_match import matched
from convmark.compare.live.tree import ForeignCode
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


def test_sessions_of_one_code_that_have_other_layers_are_not_put_together() -> None:
    drawn = [*sessions(2, LAYERS), *sessions(1, {**LAYERS, "conv4": 0.0, "drawn": 0.1})]
    with pytest.raises(MeasurementError, match="no layers of the new code: the sessions have dif"):
        blamed(CASE.name, sessions(3, LAYERS), drawn)


def test_layers_that_moved_both_ways_are_no_part_of_a_change_that_may_be_noise() -> None:
    moved = {**LAYERS, "conv4": 0.138, "conv7": 0.0619}
    rows = blamed(CASE.name, sessions(3, LAYERS), sessions(3, moved, seed=1))
    assert {row.layer for row in rows if row.moved} == {"conv4", "conv7"}
    assert [row.part for row in rows] == [None] * len(rows)
    assert "of the change" not in " ".join(row.words for row in rows)


def at_speeds(found: list[dict[str, Any]], seed: int, process: str) -> list[dict[str, Any]]:
    """Return sessions of a machine that is up to three times slower in some than in others."""
    chance = random.Random(seed)
    for one in found:
        one["step_per_reference"], one["process"] = one["step_s"] / 0.5, process
        slower = chance.uniform(1, 3)
        one["step_s"] *= slower
        one["forward_s"] = [slower * seconds for seconds in one["forward_s"]]
    return found


def test_a_machine_whose_speed_varies_hides_no_layer() -> None:
    slowed = {**LAYERS, "conv4": 0.138}
    old = at_speeds(sessions(4, LAYERS), 0, "one")
    rows = blamed(CASE.name, old, at_speeds(sessions(4, slowed, seed=1), 1, "one"))
    assert [row.layer for row in rows if row.moved] == ["conv4"]
    assert rows[0].change == pytest.approx(0.38, abs=0.03)
    assert rows[0].part == pytest.approx(1, abs=0.1)
    # another framework or setting may slow the reference as well
    rows = blamed(CASE.name, old, at_speeds(sessions(4, slowed, seed=1), 1, "other"))
    assert not any(row.moved for row in rows)


def test_a_layer_many_times_as_slow_is_named_however_noisy_it_is_and_quick_layers_are() -> None:
    chance = random.Random(3)
    found = {}
    for slower in (1.0, 12.0):
        found[slower] = sessions(4, {**LAYERS, "quick": 0.001, "slowed": 0.05})
        for one in found[slower]:
            one["forward_s"][-1] *= slower * chance.lognormvariate(0, 0.5)
            one["forward_s"][-2] *= chance.lognormvariate(0, 2)
            one["step_s"] = sum(one["forward_s"]) + 0.1 * chance.lognormvariate(0, 1)
    rows = blamed(CASE.name, found[1.0], found[12.0])
    assert [row.layer for row in rows if row.moved] == ["slowed"]
    assert rows[0].low_s > 0


def test_what_slows_all_layers_is_not_taken_for_the_machine() -> None:
    old = at_speeds(sessions(4, LAYERS), 0, "one")
    new = sessions(4, {name: 1.3 * seconds for name, seconds in LAYERS.items()}, seed=1)
    rows = blamed(CASE.name, old, at_speeds(new, 1, "one"))
    assert {row.layer for row in rows if row.moved} == set(LAYERS)


def test_equal_codes_have_no_layer_to_blame() -> None:
    named = [
        row
        for seed in range(0, 80, 2)
        for row in blamed(CASE.name, sessions(3, LAYERS, seed), sessions(3, LAYERS, seed + 1))
        if row.moved
    ]
    assert len(named) <= 2


def test_where_no_layer_moved_the_line_says_what_could_have_been_seen() -> None:
    noisy = sessions(3, LAYERS)
    noisy[0]["forward_s"] = [1.5 * seconds for seconds in noisy[0]["forward_s"]]
    rows = blamed(CASE.name, sessions(3, LAYERS), noisy)
    widest_s = max(row.high_s - row.low_s for row in rows) / 2
    (line,) = blamed_lines(rows)
    assert line == (
        f"{CASE.name}: no layer has certainly moved; of the noisiest layer a difference "
        f"below {100 * widest_s / sum(row.old_s or 0 for row in rows):.2g} % of the step "
        "would not be named"
    )
    (line,) = blamed_lines(blamed(CASE.name, 2 * sessions(1, LAYERS), 2 * sessions(1, LAYERS)))
    assert line.endswith("below 1 % of the step would not be named")
    for one in noisy:
        one["forward_s"] = [seconds * (9 if one is noisy[0] else 1) for seconds in one["forward_s"]]
    (line,) = blamed_lines(blamed(CASE.name, sessions(3, LAYERS), noisy))
    assert re.search(r"below \d{3} % of the step", line)


def test_blamed_layers_have_the_load_that_they_were_measured_under() -> None:
    old, new = sessions(3, LAYERS), sessions(3, {**LAYERS, "conv4": 0.138}, seed=1)
    assert len(blamed_lines(blamed(CASE.name, old, new))) == 1
    for one, share in zip([*old, *new], (0.0, 0.4, 0.5, 0.3, 0.4, 0.4), strict=True):
        one["other_cpu_share"] = share
    rows = blamed(CASE.name, old, new)
    assert {row.other_cpu_share for row in rows} == {0.4}
    assert blamed_lines(rows)[1:] == [
        f"{CASE.name}: other programs took 40 % of the CPUs' time meanwhile"
    ]


def test_what_slows_many_layers_alike_is_not_laid_on_some_of_them() -> None:
    words = "which no few layers account for"
    many = {f"conv{place}": 0.01 for place in range(99)}  # 20 % of each is 0.2 % of the step
    slower = {name: 1.2 * seconds for name, seconds in many.items()}
    none, step = blamed_lines(blamed(CASE.name, sessions(4, many), sessions(4, slower, seed=1)))
    assert "no layer has certainly moved" in none
    assert step.startswith(f"{CASE.name}: the step changed by +1")
    assert words in step
    slower = {name: 1.3 * seconds for name, seconds in LAYERS.items()}
    lines = blamed_lines(blamed(CASE.name, sessions(4, LAYERS), sessions(4, slower, seed=1)))
    assert len(lines) == 10
    assert lines[8:9] == [f"{CASE.name}: 1 layer more moved, each by less"]
    assert words in lines[9]
    one = {**LAYERS, "conv4": 0.138}
    assert words not in "".join(
        blamed_lines(blamed(CASE.name, sessions(4, LAYERS), sessions(4, one, seed=1)))
    )


def test_a_layer_of_one_code_alone_is_new_or_gone() -> None:
    more = {"conv0": 0.1, "slow": 0.3, **LAYERS}
    new = blamed(CASE.name, sessions(3, LAYERS), sessions(3, more, seed=1))
    assert new[0].words.startswith("slow: new, +")
    gone = blamed(CASE.name, sessions(3, more), sessions(3, LAYERS, seed=1))
    assert (gone[0].layer, gone[0].new_s, gone[0].change) == ("slow", None, None)


def test_a_layer_that_took_less_than_nothing_is_not_called_gone() -> None:
    fused = {"conv0": 0.1, "relu": -0.01, **{f"more{place}": 0.1 for place in range(9)}}
    (moved,) = [
        row
        for row in blamed(CASE.name, sessions(3, fused), sessions(3, {**fused, "relu": 0.2}, 1))
        if row.moved
    ]
    assert moved.words.startswith("relu: +2")


def test_layers_that_have_other_names_alone_are_matched() -> None:
    renamed = {f"conv2d_{place}": seconds for place, seconds in enumerate(LAYERS.values())}
    rows = blamed(CASE.name, sessions(3, LAYERS), sessions(3, renamed, seed=1))
    assert all(row.old_s and row.new_s for row in rows)


def layer(name: str, shape: int, kernel: int = 3, label: str = "") -> dict[str, Any]:
    settings = {"kernel": [kernel, kernel], "channels": shape}
    label = label or name.rstrip("_0123456789")
    facts = {"name": name, "label": label, "kind": "Conv2D", "shape": [8, 8, shape]}
    return {**facts, "settings": settings, "flops": 1000 * kernel * shape}


def test_a_layer_put_in_moves_the_numbers_of_keras_and_no_match() -> None:
    old = [layer("conv2d", 8), *(layer(f"conv2d_{place}", 8) for place in range(1, 40))]
    new = [
        *old[:1],
        layer("conv2d_1", 8, kernel=1),
        *(layer(f"conv2d_{n}", 8) for n in range(2, 41)),
    ]
    assert matched(old, new) == [(0, 0), (None, 1), *((place, place + 1) for place in range(1, 40))]
    assert matched(new, old) == [(0, 0), (1, None), *((place + 1, place) for place in range(1, 40))]
    assert matched(old, old) == [(place, place) for place in range(40)]


def test_a_layer_keeps_its_name_whatever_becomes_of_its_shape_and_its_place_tells_the_rest() -> (
    None
):
    old = [layer(name, 8, label=name) for name in "abc"]
    assert matched(old, old[1:]) == [(0, None), (1, 0), (2, 1)]
    wider = [old[0], layer("b", 16, label="b"), old[2]]
    assert matched(old, wider) == [(0, 0), (1, 1), (2, 2)]
    other = [old[0], {**layer("b", 16, label="b"), "kind": "SeparableConv2D"}, old[2]]
    assert sorted(matched(old, other), key=str) == [(0, 0), (1, None), (2, 2), (None, 1)]


def test_a_layer_of_another_class_at_its_place_is_one_that_changed() -> None:
    old, new = sessions(3, {**LAYERS, "conv4": 0.03}), sessions(3, LAYERS, seed=1)
    for one in new:
        one["units"] = [
            {**unit, "name": "gelu", "kind": "Gelu"} if unit["name"] == "conv4" else unit
            for unit in one["units"]
        ]
    (moved,) = [row for row in blamed(CASE.name, old, new) if row.moved]
    assert moved.words.startswith("gelu (Gelu, was Conv2D): +2")
    units = [old[0]["units"], new[0]["units"]]
    more = [*units[1][:4], units[0][0] | {"kind": "More"}, *units[1][4:]]  # two in place of one
    assert (4, None) in matched(units[0], more)


def test_a_layer_that_took_next_to_nothing_has_no_ratio() -> None:
    quick = {**LAYERS, "flat": 1e-4}
    (moved,) = [
        row
        for row in blamed(CASE.name, sessions(3, quick), sessions(3, {**quick, "flat": 0.2}, 1))
        if row.moved
    ]
    assert moved.words.startswith("flat: +200 ms, ")


def test_a_layer_at_another_place_is_the_same_where_all_else_is() -> None:
    old = [layer(name, 8, label=name) for name in "abc"]
    swapped = [old[1], old[0], old[2]]
    assert sorted(matched(old, swapped)) == [(0, 1), (1, 0), (2, 2)]
    wider = [old[1], layer("a", 16, label="a"), old[2]]  # which may be another layer
    assert len(matched(old, wider)) == 4
    times_s = dict(zip("abcdefgh", [0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, 0.2], strict=True))
    others = dict(sorted(times_s.items(), key=lambda item: item[0] != "f"))
    found = [sessions(3, times_s), sessions(3, others, seed=1)]
    for one in itertools.chain(*found):
        one["units"] = [{**unit, "settings": unit["name"]} for unit in one["units"]]
    assert not [row.words for row in blamed(CASE.name, *found) if row.moved]


def test_sides_that_were_timed_in_different_ways_are_not_compared() -> None:
    for way, words in (
        ("clocked", "one side's framework times"),
        ("whole_groups", "compiler fuses"),
    ):
        old, new = ([{**one, way: is_so} for one in sessions(2, LAYERS)] for is_so in (True, False))
        with pytest.raises(MeasurementError, match=f"lenet5.*: no layers: .*{words}"):
            blamed(CASE.name, old, new)


def test_what_no_layer_takes_may_be_to_blame() -> None:
    slower = sessions(3, LAYERS, seed=1)
    for one in slower:
        one["step_s"] += 0.2
    rows = blamed(CASE.name, sessions(3, LAYERS), slower)
    assert [row.layer for row in rows if row.moved] == [REST]
    assert "the rest is what no layer takes: dispatch, in training loss" in blamed_lines(rows)[0]


class Side(StandIn):
    """A code whose sessions of layers end well or not; it keeps what was asked of both."""

    def __init__(self, name: str, asked: list[str], status: str, ran: str) -> None:
        self.name, self.asked, self.status, self.ran = name, asked, status, ran or name
        self.case, self.code, self.interpreter = CASE, self, self

    def answer(self, request: Any) -> Answer:
        assert not request["checked"]  # a profiler's shares are compared with nothing here
        self.asked.append(self.name)
        message = "" if self.status == "ok" else "it has no layers"
        events = [{"event": "code", "of": self.ran}, *sessions(1, LAYERS, seed=len(self.asked))]
        return Answer(status=self.status, message=message, events=events, ready_s=0.1)

    def check(self, event: Any) -> None:
        if event["of"] != self.name:
            raise ForeignCode(f"{self.name}: ran the code of {event['of']}")

    def explained(self, message: str) -> str:
        return f"{message} here"


def blame_of(asked: list[str], status: str = "ok", ran: str = "", **more: Any) -> Any:
    sides: Any = [Side("old", asked, "ok", ran), Side("new", asked, status, ran)]
    return blame(*sides, Options(), **more)


def test_sessions_of_both_codes_alternate_and_a_failure_names_its_side() -> None:
    asked: list[str] = []
    assert len(blame_of(asked)) == len(LAYERS) + 1
    assert asked == ["old", "new", "new", "old", "old", "new", "new", "old"]
    words = "lenet5-infer-cpu-b32-float32: no layers of the new code: it has no layers here"
    with pytest.raises(MeasurementError, match=words):
        blame_of([], "error")


def test_a_session_that_ran_other_code_blames_nothing() -> None:
    asked: list[str] = []
    with pytest.raises(ForeignCode, match="old: ran the code of new"):
        blame_of(asked, ran="new")


def test_it_takes_no_session_that_its_budget_does_not_hold() -> None:
    for left_s, pairs in ((55.0, 3), (47.0, 2)):  # a pair takes 16 s
        asked: list[str] = []
        now_s = lambda: 8.0 * len(asked)  # noqa: B023, E731 - called before the loop goes on
        blame_of(asked, clock=now_s, seconds_left=lambda: left_s - now_s())  # noqa: B023
        assert len(asked) == 2 * pairs
    asked = []
    begun: list[float] = []
    with pytest.raises(MeasurementError, match=r"budget spent: 2 sessions of each code take "):
        blame_of(asked, seconds_left=lambda: 20.0, begins=begun.append)
    assert (asked, begun) == ([], [])  # nothing is announced that is not measured
    blame_of(asked, seconds_left=lambda: 30.0, begins=begun.append)
    assert begun == [30.0]
