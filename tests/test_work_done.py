"""What a step leaves to others, or computes in another dtype than its layers say, is in its row."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from workers import measured

from convmark.core.case import Case
from convmark.interpreter import Answer, Interpreter
from convmark.worker import host
from convmark.worker.failure import CaseFailure
from convmark.worker.host import busy_at_rest, elsewhere_from_now
from convmark.worker.precisions import computed_precision, may_be_set, worked_precision

CASE = Case(model="net", task="infer", batch_size=1)
NET = "worknets"

Ask = Callable[..., Answer]


@pytest.fixture
def ask(interpreter_of: Callable[[str], Interpreter]) -> Ask:
    """Measures a builder of worknets in a fresh process."""

    def ask(name: str, backend: str = "torch", *, case: Any = None, **request: Any) -> Answer:
        asked = measured(f"{NET}:{name}", batch_size=4, backend=backend, **(case or {}))
        return interpreter_of(backend).answer({**asked, **request})

    return ask


def read_back(answer: Answer) -> dict[str, Any]:
    assert (answer.status, answer.message) == ("ok", "")
    return answer.event("read_back") or {}


def test_work_of_another_process_leaves_memory_empty_and_is_in_the_state(ask: Ask) -> None:
    answer = ask("torch_in_a_child")
    found = read_back(answer)["model"]
    assert (found["works_elsewhere"], found["child_processes"]) == ("True", "1")
    peaks = answer.event("peaks") or {}
    assert peaks["elsewhere"]
    assert peaks["host_bytes"] is None


def test_work_that_goes_on_after_the_last_step_is_refused(ask: Ask) -> None:
    answer = ask("torch_afterwards")
    assert answer.status == "error"
    assert "a step must do its work before it returns, but after the last one" in answer.message


def test_a_process_rests_where_a_slice_takes_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(slice_s: float) -> float:
        times = itertools.count(0.0, slice_s)
        return busy_at_rest(lambda: next(times), lambda seconds: None)

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert taken(0.001) == 0.0
    assert taken(0.025) == pytest.approx(0.5)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # threads that wait keep their CPUs busy
    assert taken(0.025) == 0.0


def test_a_kernel_that_tells_of_no_children_leaves_a_process_measurable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(path: str, *_: Any, **__: Any) -> Any:
        raise FileNotFoundError(path)

    monkeypatch.setattr(host, "open", missing, raising=False)
    assert host.children() == set()


def test_a_process_that_starts_none_works_by_itself() -> None:
    elsewhere = elsewhere_from_now()
    sum(range(1_000_000))
    assert not elsewhere()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no thread")
def test_threads_that_are_bound_or_give_way_alone_are_in_the_state(ask: Ask) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU has nothing to bind to")
    found = read_back(ask("torch_bound_pool"))["model"]
    assert found["affinity_of_threads"] == str(min(os.sched_getaffinity(0)))
    assert found["nice_of_threads"] == "7"
    assert "affinity" not in found


def test_whether_each_sample_counts_is_asked_where_the_request_says_so(ask: Ask) -> None:
    assert "a step must use each of the 4 samples" in ask("torch_half").message
    assert ask("torch_half", each_sample=False).status == "ok"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_most_products_in_a_wider_dtype_are_in_the_precision(ask: Ask, backend: str) -> None:
    mixed = {"precision": "mixed_bfloat16"}
    refused = ask("widened", backend, case=mixed)
    assert "but its operations multiply in bfloat16, float32" in refused.message
    assert read_back(ask("narrowed_head", backend, case=mixed))["precision"] == "mixed_bfloat16"


def test_what_an_algorithm_rounds_to_is_the_precision(ask: Ask) -> None:
    assert read_back(ask("jax_algorithm", "jax"))["precision"] == "mixed_bfloat16"


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_variable_of_a_library_that_changes_no_product_leaves_the_precision(
    ask: Ask, backend: str
) -> None:
    found = read_back(ask("with_variable", backend, asked=["precision"]))
    assert (found["precision"], found["environ"]) == ("float32", {"ONEDNN_VERBOSE": "0"})


@pytest.mark.parametrize(
    ("kinds", "flops", "found"),
    [
        ({"mixed_bfloat16": 3}, {"bfloat16": 2, "float32": 3}, "float32+mixed_bfloat16"),
        ({"mixed_bfloat16": 3}, {"bfloat16": 3, "float32": 2}, "mixed_bfloat16"),
        ({"mixed_bfloat16": 3}, {}, "mixed_bfloat16"),
        ({"mixed_bfloat16": 2, "float32": 1}, {"float32": 9, "bfloat16": 1},
         "float32+mixed_bfloat16"),
        ({"float32": 1}, {"float32": 1, "float64": 2}, "float32+float64_from_float32"),
    ],
)  # fmt: skip
def test_flops_tell_what_the_number_of_layers_does_not(
    kinds: dict[str, int], flops: dict[str, int], found: str
) -> None:
    case = Case(model="net", task="infer", batch_size=1, precision=max(kinds, key=len))
    multiplied = flops or ["bfloat16", "float32"]
    given = (case, Counter(kinds), multiplied, flops)
    assert worked_precision(*given, is_all=bool(flops), asked=False) == found
    if found != case.precision:
        with pytest.raises(CaseFailure, match="its operations multiply in"):
            worked_precision(*given, is_all=bool(flops), asked=True)


def rounded(array: Any, bits: int) -> Any:
    """Return the values with so many bits after the first one."""
    fraction, exponent = np.frexp(array)
    return np.ldexp(np.round(np.ldexp(fraction, bits + 1)), exponent - bits - 1)


def multiplying(product: int, convolution: int) -> Any:
    """A backend whose products round their operands to so many bits."""
    return SimpleNamespace(
        products=lambda left, right: [
            (rounded(left, bits) @ rounded(right, bits)).astype("float32")
            for bits in (product, convolution)
        ]
    )


@pytest.mark.parametrize(
    ("bits", "found"),
    [
        ((23, 23), "float32"),
        ((7, 7), "mixed_bfloat16"),
        ((10, 10), "mixed_float16"),
        ((7, 23), "float32+mixed_bfloat16"),
    ],
)
def test_the_bits_of_a_product_tell_what_a_setting_has_made_of_float32(
    bits: tuple[int, int], found: str
) -> None:
    backend = multiplying(*bits)
    assert computed_precision(CASE, "float32", backend, asked=False) == found
    assert computed_precision(CASE, "mixed_bfloat16", backend, asked=False) == "mixed_bfloat16"
    if found != "float32":
        with pytest.raises(CaseFailure, match="setting of the process has products of float32 com"):
            computed_precision(CASE, "float32", backend, asked=True)


def test_variables_of_libraries_that_multiply_have_products_looked_at() -> None:
    assert may_be_set(["HOME", "ONEDNN_DEFAULT_FPMATH_MODE"])
    assert may_be_set(["TF_SET_ONEDNN_FPMATH_MODE"])
    assert not may_be_set(["HOME", "TF_CPP_MIN_LOG_LEVEL", "TF2_BEHAVIOR", "OMP_NUM_THREADS"])
