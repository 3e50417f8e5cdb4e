"""Stand-ins for `convmark.interpreter.Interpreter`: canned answers, no process, no framework."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

from convmark.interpreter import Answer

KNOWN = ("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm", "conv_layer")
STEP_S = {"lenet5": 0.010, "conv_layer": 0.002}


class StandIn:
    """Has all that the package uses of an interpreter, and starts nothing: a base for stand-ins."""

    python = "python"
    isolation = "fork"
    started_s = 0.0

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to end."""

    def start(self) -> float:
        """Nothing to start."""
        return 0.0

    def answer(self, request: Any, on_event: Any = lambda event: None) -> Answer:
        raise NotImplementedError

    def live(self, request: Any) -> contextlib.AbstractContextManager[Any]:
        raise NotImplementedError


class FakeInterpreter(StandIn):
    """Answers like a worker; a model named `broken` fails, one named `slow` takes twice as long."""

    factor = 1.0
    """Slows every step, as a slower framework would."""
    layer_factor = 1.0
    """Slows one layer, `conv`."""
    interrupt_after: int | None = None
    """Raises KeyboardInterrupt, as Ctrl-C does, instead of the answer after this many."""
    made = 0

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        type(self).made += 1
        self.answered = 0

    def answer(
        self,
        request: Mapping[str, Any],
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> Answer:
        if request["kind"] == "inspect":
            return _answer([{"event": "inspected", **_inspected(request["models"])}])
        if request["kind"] == "digits":
            return _digits(request["mnist"])
        if self.answered == self.interrupt_after:
            raise KeyboardInterrupt
        self.answered += 1
        case = request["case"]
        if case["model"] == "broken":
            return Answer(status="error", message="RuntimeError: no weights", ready_s=0.01)
        if request["kind"] == "describe":
            return _answer(_described())
        if request["kind"] == "layers":
            return _answer(_layers(self.layer_factor, self.answered))
        if request["smoke"]:
            return _answer([{"event": "finished"}])
        make = {"accuracy": _learned, "waterfall": _waterfall}.get(request["kind"], _measured)
        seed = request["seed"] if request["kind"] == "accuracy" else self.answered
        events = make(case, self.factor, seed)
        for event in events:
            on_event(event)
        return _answer(events)


def _answer(events: list[dict[str, Any]]) -> Answer:
    return Answer(status="ok", message="", events=events, ready_s=0.01)


def _inspected(models: list[str]) -> dict[str, Any]:
    refusals = {
        name: None if name in (*KNOWN, "separable_layer", "broken") else f"{name}: no such model"
        for name in models
    }
    return {
        "python": "3.12.1",
        "executable": "python",
        "devices": ["cpu"],
        "models": refusals,
        "tensorflow": "2.99.0",
        "keras": "3.99.0",
        "numpy": "2.0.0",
        "cuda": None,
        "cudnn": None,
    }


def _described() -> list[dict[str, Any]]:
    environment = {key: value for key, value in _inspected([]).items() if key != "models"}
    layer = {"name": "dense", "kind": "Dense", "output_shape": [10], "parameters": 100}
    work = {"flops": 200, "weight_bytes": 400, "inputs": []}
    return [
        {"event": "environment", **environment},
        {"event": "built", "input_shape": [28, 28, 1], "parameters": 100},
        {"event": "described", "layers": [{**layer, **work}]},
    ]


def _layers(factor: float, seed: int) -> list[dict[str, Any]]:
    noise = random.Random(seed)
    times_s = {"conv": 0.004 * factor, "relu": 0.001, "dense": 0.003}
    units = [
        {"name": name, "kind": name.title(), "shape": [32, 8], "note": "", "span": span}
        for name, span in zip(times_s, (0, 0, 1), strict=True)
    ]
    forward_s = [seconds * noise.uniform(0.99, 1.01) for seconds in times_s.values()]
    event = {"event": "layers", "step_s": sum(forward_s) + 0.002, "forward_s": forward_s}
    _, environment, *_ = _measured({"model": "lenet5"}, 1.0, 0)
    return [environment, {**event, "units": units}, STATE, {"event": "finished"}]


def _measured(case: Mapping[str, Any], factor: float, seed: int) -> list[dict[str, Any]]:
    noise = random.Random(seed)
    step_s = STEP_S.get(case["model"], 0.02) * factor
    steps = [step_s * noise.uniform(0.99, 1.01) for _ in range(100)]
    reference = [0.01 * noise.uniform(0.99, 1.01) for _ in range(50)]
    environment = {key: value for key, value in _inspected([]).items() if key != "models"}
    return [
        {"event": "ready"},
        {"event": "environment", **environment},
        {
            "event": "built",
            "input_shape": [28, 28, 1],
            "parameters": 61706,
            "trainable_parameters": 61706,
            "model_bytes": 246824,
        },
        {
            "event": "first_step",
            "seconds": 0.5,
            "trace_s": 0.3,
            "execution_s": 0.2,
            "call_path": "tf.function",
        },
        {"event": "proof", "step": 1, "value": 2.3},
        {"event": "proof", "step": 10, "value": 2.2},
        {"event": "warm_up", "steps": 10, "steady": True},
        {"event": "steps", "times_s": steps},
        {"event": "windows", "steps": 10, "times_s": [10 * step_s] * 5},
        {"event": "peaks", "baseline_bytes": 1, "host_bytes": 2**20, "device_bytes": None},
        {"event": "input_bound", "steps": 10, "times_s": [20 * step_s] * 3},
        {"event": "work", "flops_per_sample": 833040},
        {
            "event": "rounds",
            "reference": "large",
            "reference_version": 1,
            "case_wall_s": steps[:50],
            "case_cpu_s": steps[:50],
            "reference_wall_s": reference,
            "reference_cpu_s": reference,
        },
        {
            "event": "state",
            "load_average_1min": 0.5,
            "other_cpu_share": 0.02,
            "involuntary_context_switches": 3,
        },
        {"event": "finished"},
    ]


def _digits(path: str | None) -> Answer:
    """Knows one file, and Keras's own copy; any other has no labels."""
    if path is None or path.endswith("digits.npz"):
        found = path or "keras/mnist.npz"
        events = [{"event": "digits", "path": found, "dataset": "mnist-1"}, {"event": "finished"}]
        return _answer(events)
    message = f"{path}: y_train: expected labels, found only x_train"
    return Answer(status="error", message=message, ready_s=None)


STATE = {
    "event": "state",
    "load_average_1min": 0.5,
    "other_cpu_share": 0.02,
    "involuntary_context_switches": 3,
}


def _begun(call_path: str) -> list[dict[str, Any]]:
    first, environment, built, *_ = _measured({"model": call_path}, 1.0, 0)
    return [first, environment, built]


def _learned(case: Mapping[str, Any], factor: float, seed: int) -> list[dict[str, Any]]:
    accuracies = [0.90, 0.95, 0.97, 0.975, 0.98 + 0.001 * seed]
    epochs = [
        {
            "event": "epoch",
            "phase": f"epoch {number}/5 ended, validation accuracy {accuracy:.4f}",
            "epoch": number,
            "steps": 196,
            "samples": 50_000,
            "epoch_time_s": 8.0 * factor,
            "validation_time_s": 1.0,
            "loss": 1.0 / number,
            "accuracy": accuracy,
            "validation_loss": 1.0 / number,
            "validation_accuracy": accuracy,
        }
        for number, accuracy in enumerate(accuracies, 1)
    ]
    return [
        *_begun("fit"),
        {"event": "data", "dataset": "mnist-1", "training_samples": 50_000},
        *epochs,
        {"event": "tested", "loss": 0.06, "accuracy": accuracies[-1]},
        STATE,
        {"event": "finished"},
    ]


def _waterfall(case: Mapping[str, Any], factor: float, seed: int) -> list[dict[str, Any]]:
    step_s = {
        "compiled_train": 0.010,
        "fed_train": 0.011,
        "train_on_batch": 0.014,
        "fit": 0.012,
        "compiled_infer": 0.002,
        "predict_on_batch": 0.003,
        "predict": 0.0025,
    }
    taken = {way: [seconds * factor] * 3 for way, seconds in step_s.items()}
    call_s = {way: [0.2] * 3 for way in step_s}
    event = {
        "event": "waterfall",
        "rounds": 3,
        "steps": {"fit": 20},
        "step_s": taken,
        "call_s": call_s,
    }
    return [*_begun("fit"), event, STATE, {"event": "finished"}]
