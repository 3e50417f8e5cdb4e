"""What the layers of each framework need besides pieces: its profiler's events, gradients' ways."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from forks import Forks, printed

from convmark.core.case import Case
from convmark.core.options import Options
from convmark.interpreter import Interpreter
from convmark.session.layers import layer_request
from convmark.worker.layer_passes import busy, fused, on_device, profiled

GROUPS = [(0, 2), (2, 3), (3, 12)]


def test_what_runs_at_the_same_time_counts_once_in_a_group() -> None:
    events = [
        ("convmark_unit_0/conv:Conv2D", 0, 4),
        ("convmark_unit_1/relu:Relu", 3, 5),
        ("gradient/convmark_unit_11/add", 10, 11),
        ("convmark_unit_0/inner", 1, 2),
        ("convmark_unit_3/x", 20, 22),
        ("convmark_unit_99/x", 0, 50),
        ("another", 0, 50),
    ]
    assert busy(events, GROUPS, 1) == [5, 0, 3]
    assert busy([], GROUPS, 3) == []


def test_a_pass_that_other_programs_disturb_moves_no_groups_time() -> None:
    events = [
        (f"convmark_unit_{unit}/op", 100 * number + 10 * unit, 100 * number + 10 * unit + lasted)
        for number in range(3)
        for unit, lasted in ((0, 5), (2, 9 if number != 1 else 60))
    ]
    assert busy(events, GROUPS, 3) == [5, 9, 0]
    assert busy(events, GROUPS, 4) == [15, 78, 0]  # not equally many in each


def test_the_events_of_a_device_are_what_counts_and_launches_are_none_of_a_gpu() -> None:
    launched, kernel = ("convmark_unit_0/launch", 0, 9), ("convmark_unit_0/kernel", 0, 1)
    for gpu in (False, True):
        assert on_device([(False, launched), (True, kernel)], gpu=gpu) == [kernel]
    only = [(False, launched), (True, ("memcpy", 0, 1))]
    assert on_device(only, gpu=False) == [launched]
    assert on_device(only, gpu=True) is None


def looked(events: Any, *, device: str = "cpu", jit: str = "off", **more: Any) -> Any:
    """Return what the check gives of a profiler with such events, or one that raises."""

    def traced(backend: Any, whole: Any, values: Any, turns: Any) -> Any:
        list(turns)
        if isinstance(events, Exception):
            raise events
        return events

    case = Case(model="net", task="infer", batch_size=1, device=device, jit=jit)
    passes: Any = SimpleNamespace(whole=lambda within: (None, []))
    module = SimpleNamespace(traced=traced)
    backend = SimpleNamespace(of_layers=lambda: module, always_compiles=False)
    return profiled(case, passes, GROUPS, 0.1, backend, **more)


LAUNCHES = [(False, (f"convmark_unit_{unit}/launch", unit, unit + 1)) for unit in (0, 2, 3)]


def test_a_profiler_that_fails_or_sees_no_layer_ends_no_measurement() -> None:
    found = looked(ImportError("no module named xplane_pb2"))
    assert found == (GROUPS, {"unprofiled": "ImportError: no module named xplane_pb2"})
    assert looked([(False, ("fusion", 0, 1))])[1] == {}
    without = {"unprofiled": "its trace has no events of the GPU"}
    assert looked(LAUNCHES, device="gpu:0") == (GROUPS, without)
    unnamed = {"unprofiled": "its trace has events of the GPU, but none with a layer's name"}
    kernel = (True, ("fusion.7", 0, 1))
    assert looked([*LAUNCHES, kernel], device="gpu:0") == (GROUPS, unnamed)


def test_a_step_that_is_compiled_is_held_to_no_trace_of_operations_that_are_not() -> None:
    assert looked(LAUNCHES)[1] == {"profiled": [1, 1, 1]}
    assert looked(LAUNCHES, jit="on") == (GROUPS, {})


def test_passes_under_a_profiler_are_a_sign_of_life_each() -> None:
    beats: list[int] = []
    looked(LAUNCHES, beat=lambda: beats.append(1))
    assert len(beats) == 10


def test_groups_that_are_fused_are_one() -> None:
    conv, both = ("convmark_unit_1/conv", 0, 1), ("convmark_unit_2/a convmark_unit_5/b", 1, 2)
    assert fused([conv, ("convmark_unit_4/add", 1, 9)], GROUPS) == [(0, 2), (2, 12)]
    assert fused([conv, both], GROUPS) == [(0, 2), (2, 12)]
    assert fused([conv], GROUPS) == [(0, 12)]
    assert fused([both], GROUPS) == [(0, 12)]
    assert fused([conv, both], [(0, 2), (2, 3), (3, 12), (12, 14)]) == [(0, 2), (2, 14)]
    each = [(f"convmark_unit_{unit}/x", 0, 1) for unit in (0, 2, 3)]
    assert fused(each, GROUPS) == GROUPS


@pytest.mark.parametrize("task", ["infer", "train"])
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])  # JAX's does not, compiled for tests
def test_a_profiler_has_events_of_every_group_that_multiplies(
    backend: str, task: str, interpreter_of: Callable[[str], Interpreter]
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    case = Case(model="lenet5", task=task, batch_size=32, backend=backend)
    request = layer_request(case, Options(time_budget_s=0.01), None, 0)
    answer = interpreter_of(backend).answer(request)
    assert answer.status == "ok", answer.message
    event = answer.event("layers") or {}
    assert "unprofiled" not in event, event["unprofiled"]
    multiply = {unit["group"] for unit in event["units"] if unit["flops"]}
    assert len(multiply) == 5
    assert all(event["profiled"][group] > 0 for group in multiply)
    assert len(event["profiled"]) == 1 + max(unit["group"] for unit in event["units"])


SCOPES = """
import json
import numpy as np
from convmark.worker import backends
from convmark.worker.backends.step import SCOPE, Piece, scope
from convmark.worker.layer_passes import on_device

backend = backends.load(NAME)
backend.configure(device="cpu", threads="default", precision="float32", seed=0)
dense, module = backend.keras.layers.Dense(300), backend.of_layers()
dense.build((200, 300))

def function(values):
    with module.named(scope(3)):
        made = backend.keras.ops.tanh(dense(values[0]))
    with module.named(scope(12)):
        return [dense(made)]

values = [backend.tensor(np.ones((200, 300), np.float32))]
traced = module.traced(backend, Piece(function, [dense], [0], [1]), values, range(3))
events = on_device(traced, gpu=False)
print(json.dumps(sorted({SCOPE.search(text)[1] for text, begin, end in events if end > begin})))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_each_frameworks_profiler_has_events_of_every_scope(
    backend: str, forks_of: Callable[[str], Forks]
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    assert printed(forks_of(backend).run(f"NAME = {backend!r}\n{SCOPES}")) == ["12", "3"]


def test_a_fusion_has_the_scopes_of_all_that_it_calls() -> None:
    from_jax = pytest.importorskip("convmark.worker.backends.jax_layers")
    text = """
%fused_computation (a: f32[2]) -> f32[2] {
  %a = f32[2] parameter(0)
  %tanh.1 = f32[2] tanh(%a), metadata={op_name="jit(f)/convmark_unit_1/tanh" stack_frame_id=4}
  ROOT %add.0 = f32[2] add(%tanh.1, %a), metadata={op_name="jit(f)/convmark_unit_2/add"}
}

ENTRY %main.3 (b: f32[2]) -> f32[2] {
  %b = f32[2] parameter(0), metadata={op_name="values[0]"}
  %dot.4 = f32[2] dot(%b), metadata={op_name="jit(f)/convmark_unit_0/dot_general"}
  ROOT %fusion.9 = f32[2] fusion(%dot.4), kind=kLoop, calls=%fused_computation
}
"""
    names = from_jax.instructions(text)
    assert names["dot.4"].endswith("convmark_unit_0/dot_general")
    assert names["fusion.9"] == "jit(f)/convmark_unit_1/tanh jit(f)/convmark_unit_2/add"
    assert "b" not in names

    def event(name: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, stats=[], start_ns=0, duration_ns=1)

    line = SimpleNamespace(events=[event("dot.4"), event("MemcpyD2H"), event("fusion.9")])
    planes = [SimpleNamespace(name=name, lines=[line]) for name in ("/device:GPU:0", "/host:CPU")]
    found = from_jax.of_units([SimpleNamespace(planes=planes)], text)
    assert [(is_device, event[0]) for is_device, event in found] == [
        *((True, name) for name in (names["dot.4"], "MemcpyD2H", names["fusion.9"])),
        *((False, name) for name in (names["dot.4"], names["fusion.9"])),
    ]


def test_an_instruction_of_jax_lasts_until_its_work_is_done() -> None:
    """Its event is its launch; its end is told after the next of that thread has begun."""
    from_jax = pytest.importorskip("convmark.worker.backends.jax_layers")
    text = """
%parallel_tanh (p: f32[2]) -> f32[2] {
  %p = f32[2] parameter(0)
  ROOT %tanh.2 = f32[2]{0} tanh(%p), metadata={op_name="jit(f)/convmark_unit_1/tanh"}
}

ENTRY %main.3 (b: f32[2]) -> (f32[1,2], f32[2]) {
  %b = f32[2]{0} parameter(0), metadata={op_name="values[0]"}
  %dot.1 = f32[2]{0} dot(%b), metadata={op_name="jit(f)/convmark_unit_0/dot_general"}
  %call.1 = f32[2]{0} call(%dot.1), to_apply=%parallel_tanh
  %bitcast.5 = f32[1,2]{1,0} bitcast(%call.1)
  %negate.6 = f32[2]{0} negate(%b)
  %add.7 = f32[1,2]{1,0} add(%bitcast.5, %negate.6), metadata={op_name="convmark_unit_2/add"}
  ROOT %tuple.8 = (f32[1,2]{1,0}, f32[2]{0}) tuple(%add.7, %b)
}
"""
    taken_by = from_jax.takers(text)
    assert taken_by["dot.1"] == ["call.1"]
    assert taken_by["b"] == ["dot.1", "negate.6", "tuple.8"]
    assert taken_by["tanh.2"] == taken_by["call.1"] == ["bitcast.5"]
    launches = [("dot.1", 0, 1), ("negate.6", 2, 4), ("call.1", 10, 12), ("tanh.2", 10, 11)]
    launches += [("add.7", 25, 27)]
    ends = {"dot.1": 13, "negate.6": 5, "call.1": 28, "tanh.2": 29, "add.7": 40}
    both = [
        (name, begin + 100 * one, end + 100 * one)
        for one in (1, 0)
        for name, begin, end in launches
    ]
    told = {name: [at + 100, at] for name, at in ends.items()}
    lasted = {
        name: (begin, end) for name, begin, end in from_jax.until_done(both, told, taken_by)[:5]
    }
    until = {"dot.1": 10, "negate.6": 5, "call.1": 25, "tanh.2": 25, "add.7": 40}
    assert lasted == {name: (begin, until[name]) for name, begin, _ in launches}
    assert from_jax.until_done([("add.7", 0, 2)], {}, taken_by) == [("add.7", 0, 2)]


class LookedUp(dict[str, list[str]]):
    """Refuses to be asked again and again."""

    looks = 0

    def __getitem__(self, key: str) -> list[str]:
        self.looks += 1
        assert self.looks < 1000
        return super().__getitem__(key)


def test_each_instruction_that_is_no_work_is_passed_once_however_many_ways_lead_through_it() -> (
    None
):
    """As those of a residual network, whose number doubles with each block."""
    from_jax = pytest.importorskip("convmark.worker.backends.jax_layers", reason="needs JAX")
    taken_by = LookedUp({"first": ["0"], "last": []})
    for block in range(50):
        skip, add = f"{block}.skip", str(block + 1) if block < 49 else "last"
        taken_by |= {str(block): [skip, f"{block}.through"], skip: [add], f"{block}.through": [add]}
    launches = [("first", 0, 1), ("last", 9, 10)]
    assert from_jax.until_done(launches, {"first": [12]}, taken_by)[0] == ("first", 0, 9)


GRADIENTS = """
import importlib, json
import numpy as np
from convmark.worker import backends
from convmark.worker.backends.step import Piece

backend = backends.load(NAME)
backend.configure(device="cpu", threads="default", precision="float32", seed=0)
stop = {
    "tensorflow": lambda: importlib.import_module("tensorflow").stop_gradient,
    "jax": lambda: importlib.import_module("jax").lax.stop_gradient,
    "torch": lambda: lambda value: value.detach(),
}[NAME]()
dense = backend.keras.layers.Dense(3)
dense.build((2, 3))

def function(values):
    first, second = values
    whole = backend.keras.ops.cast(first, "int32")
    return [dense(first) + stop(second), first * second, stop(dense(second)), whole]

values = [backend.tensor(np.ones((2, 3), np.float32)) for _ in range(2)]
piece = Piece(function, [dense], [0, 1], [2, 3, 4, 5])
print(json.dumps(backend.of_layers().reached(backend, piece, values)))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_each_framework_tells_where_gradients_come(
    backend: str, forks_of: Callable[[str], Forks]
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    found = printed(forks_of(backend).run(f"NAME = {backend!r}\n{GRADIENTS}"))
    assert found == [[True, False, True], [True, True, False], [False] * 3, [False] * 3]
