"""The overhead waterfall: its arithmetic, its columns, and a real worker's."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable

import pytest
from rows import row

from convmark.core.case import Case
from convmark.core.options import read
from convmark.interpreter import Answer, Interpreter
from convmark.session.learning import WAYS, waterfall_columns
from convmark.session.progress import outcome
from convmark.session.run import request_of
from convmark.worker.timing import Pulse
from convmark.worker.waterfall import Times, Way, calls, turns, window

STATE = {
    "event": "state",
    "load_average_1min": 0.5,
    "other_cpu_share": 0.02,
    "involuntary_context_switches": 3,
}


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def going_on(self, seconds: float) -> Callable[[], None]:
        def go_on() -> None:
            self.now_s += seconds

        return go_on


def test_a_window_is_divided_among_its_steps_and_counts_its_synchronisation() -> None:
    clock = Clock()
    step, synchronise = clock.going_on(0.5), clock.going_on(1.0)
    found = window(step, lambda token: synchronise(), 4, clock)
    assert found == Times(0.75)


def test_a_call_is_parted_from_its_steps_by_a_call_of_one_step() -> None:
    clock = Clock()

    def fit(steps: int) -> None:
        clock.now_s += 2.0 + 0.25 * steps

    assert calls(fit, 9, clock) == Times(0.25, 2.0)
    assert calls(fit, 2, clock) == Times(0.25, 2.0)


def silent() -> Pulse:
    return Pulse(lambda phase: None, lambda: 0.0)


@pytest.mark.parametrize(
    ("way_s", "budget_s", "rounds"),
    [
        (0.125, 0.5, 5),  # five rounds of 0.25 s are beyond the budget
        (0.125, 2.5, 10),  # more where they are not
        (2.5, 1.0, 3),  # three where ten budgets are spent by two
        (1.0, 1.0, 5),  # 10 s are there after five
    ],
)
def test_rounds_are_five_or_what_the_budget_holds_and_three_for_slow_models(
    way_s: float, budget_s: float, rounds: int
) -> None:
    clock = Clock()
    counts: list[int] = []

    def way(steps: int) -> Times:
        counts.append(steps)
        clock.now_s += way_s
        return Times(way_s / steps)

    ways = {"one": Way(way, 8), "other": Way(way, 20)}
    taken = turns(ways, budget_s, random.Random(0), silent(), clock)
    assert {name: len(times) for name, times in taken.items()} == {"one": rounds, "other": rounds}
    assert counts[:4] == [2, 2, 8, 10]
    assert sorted(counts[4:]) == [8] * rounds + [20] * rounds


def test_ways_take_turns_in_an_order_that_changes() -> None:
    order: list[str] = []

    def named(name: str) -> Callable[[int], Times]:
        def way(steps: int) -> Times:
            order.append(name)
            clock.now_s += 0.01
            return Times(0.01)

        return way

    clock = Clock()
    ways = {name: Way(named(name), 2) for name in "abc"}
    turns(ways, 0.05, random.Random(1), silent(), clock)
    rounds = [tuple(order[place : place + 3]) for place in range(6, len(order), 3)]
    assert len(rounds) == 5
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1


def told() -> Answer:
    step_s = {way: [0.3 + place, 0.1 + place, 0.2 + place] for place, way in enumerate(WAYS)}
    call_s = {way: [0.01, 0.03, 0.02] for way in WAYS}
    event = {
        "event": "waterfall",
        "rounds": 3,
        "steps": {"fit": 9},
        "step_s": step_s,
        "call_s": call_s,
    }
    return Answer(status="ok", message="", ready_s=0.1, events=[event, STATE])


def test_a_row_has_the_median_round_of_each_way() -> None:
    found = waterfall_columns(told().events)
    assert [found[column] for column in WAYS.values()] == pytest.approx(
        [0.2 + place for place in range(len(WAYS))]
    )
    assert (found["fit_call_s"], found["predict_call_s"]) == (0.02, 0.02)
    assert (found["waterfall_rounds"], found["waterfall_steps"]) == (3, 9)


@pytest.mark.parametrize("step_s", [-1e-5, 0.0])
def test_a_call_that_varies_by_more_than_its_steps_leaves_a_cell_empty_and_the_row(
    step_s: float,
) -> None:
    answer = told()
    answer.events[0]["step_s"]["fit"] = [step_s]
    record = row(task="waterfall", **waterfall_columns(answer.events))
    assert (record.status, record.fit_step_s, record.predict_step_s) == ("ok", None, 6.2)
    assert outcome(record) == "no time of a step"


def test_a_way_that_is_missing_is_found_out() -> None:
    answer = told()
    del answer.events[0]["step_s"]["fit"]
    with pytest.raises(LookupError):
        waterfall_columns(answer.events)


needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
)


@needs_tensorflow
def test_a_real_worker_times_every_way_of_a_classifier_and_of_a_model_without_classes(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    options = read({"time_budget": "0.1"})
    for model in ("lenet5", "separable_layer"):
        case = Case(model=model, task="waterfall", batch_size=8)
        answer = interpreter_of("tensorflow").answer(request_of(case, options))
        assert (answer.status, answer.message) == ("ok", "")
        found = waterfall_columns(answer.events)
        for column in (WAYS[way] for way in WAYS if way not in ("fit", "predict")):
            assert 0 < found[column] < 1, (model, column)
        # a call sets up a data pipeline, which no step does again
        assert found["fit_call_s"] + found["fit_step_s"] > found["compiled_train_step_s"]
        assert found["predict_call_s"] > found["compiled_infer_step_s"]
        assert found["waterfall_rounds"] >= 3


@needs_tensorflow
def test_calls_of_keras_take_the_steps_they_are_asked_for_or_are_refused(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    said = {}
    for model in ("limited", "stopping", "shorter", "stingy"):
        case = Case(model=f"settingnets:{model}", task="waterfall", batch_size=8)
        asked = {"kind": "waterfall", "case": case.as_fields(), "seed": 0, "time_budget_s": 0.05}
        said[model] = interpreter_of("tensorflow").answer(asked)
    assert (said["limited"].status, said["limited"].message) == ("ok", "")
    for model in ("stopping", "shorter"):
        assert f"{model}: steps of fit: asked for 2, got 1" in said[model].message
    assert "stingy: samples of predict: " in said["stingy"].message
