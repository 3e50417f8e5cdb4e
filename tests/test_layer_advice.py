"""What may help a layer: a sentence only where it is known to help such a layer of such a case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from convmark.core.case import Case
from convmark.session.advice import Roof, advice, of_small_rows
from convmark.session.ceilings import Ceiling

CPU = Case(model="net", task="infer", batch_size=1)
GPU = replace(CPU, device="gpu:0")
CEILING = Ceiling(
    measured="2026-01-02T03:04:05+00:00",
    device="cpu",
    backend="tensorflow",
    precision="float32",
    threads="default",
    version="2.21.0",
    matrix_size=2048,
    peak_flops_per_s=1e9,
    copy_bytes=1 << 28,
    peak_bytes_per_s=1e8,
)
LSTM = {"flops": 10**6, "moved_bytes": 10**4, "operations": 100}
DENSE = {"flops": 2 * 10**6, "moved_bytes": 4 * 10**6, "weight_bytes": 4 * 10**6 - 100}
WIDE = {"flops": 2 * 10**6, "moved_bytes": 4 * 10**6, "weight_bytes": 100}
POINTWISE = {"flops": 10**8, "moved_bytes": 10**4, "settings": {"kernel": [1, 1], "channels": 8}}


def helps(facts: dict[str, Any], case: Case, forward_s: float, share: float = 0.5) -> str:
    roof = Roof.over(facts.get("flops"), facts.get("moved_bytes"), forward_s, CEILING)
    return advice(facts, roof, case, forward_s=forward_s, share=share)


@pytest.mark.parametrize(
    ("facts", "case", "forward_s", "words"),
    [
        (LSTM, CPU, 0.1, "many small operations: --jit on may fuse them"),
        (LSTM, CPU, 0.002, ""),  # near to what its FLOPs need
        (LSTM, replace(CPU, jit="on"), 0.1, ""),
        (LSTM, replace(CPU, backend="jax"), 0.1, ""),  # always compiled
        ({**LSTM, "operations": 1}, CPU, 0.1, ""),
        ({**LSTM, "flops": None}, CPU, 0.1, ""),
        (DENSE, CPU, 0.05, "most of them weights: a larger batch reads them once"),
        (WIDE, CPU, 0.05, "few FLOPs for each byte: a lower precision moves fewer"),
        (WIDE, replace(CPU, precision="mixed_bfloat16"), 0.05, ""),  # there is none
        (WIDE, CPU, 0.5, ""),  # far from the memory's ceiling too
        (POINTWISE, GPU, 0.2, "1x1 convolution in float32: tensor cores need tf32 or mixed"),
        (POINTWISE, replace(GPU, precision="tf32"), 0.2, ""),
        ({**POINTWISE, "computes": "float16"}, GPU, 0.2, ""),  # set by the layer itself
        (POINTWISE, CPU, 0.2, ""),
        ({**POINTWISE, "settings": {"kernel": [3, 3]}}, GPU, 0.2, ""),
        ({"folds_into": "conv"}, CPU, 0.1, "batch normalisation: can be folded into conv"),
        ({"folds_into": "conv"}, replace(CPU, task="train"), 0.1, ""),
    ],
)
def test_a_layer_is_told_what_is_known_to_help_it(
    facts: dict[str, Any], case: Case, forward_s: float, words: str
) -> None:
    found = helps(facts, case, forward_s)
    assert words in found
    assert bool(found) == bool(words)


def test_a_layer_that_takes_hardly_any_of_the_step_is_told_nothing() -> None:
    assert helps(LSTM, CPU, 0.1, share=0.03)
    assert not helps(LSTM, CPU, 0.1, share=0.01)


def test_many_small_layers_are_one_sentence_of_the_rest() -> None:
    small = Roof.over(10**3, 10**2, 1e-4, CEILING), 1e-4, 0.03
    near = Roof.over(10**3, 10**2, 2e-6, CEILING), 2e-6, 0.03
    large = Roof.over(10**8, 10**4, 1.0, CEILING), 1.0, 0.03
    assert of_small_rows([small] * 8, CPU).startswith("8 small layers take far longer than FLOPs")
    for rows in ([small] * 7, [near] * 30, [large] * 30, [(small[0], 1e-4, 0.02)] * 8):
        assert of_small_rows(rows, CPU) == ""
    assert of_small_rows([small] * 8, replace(CPU, jit="on")) == ""
