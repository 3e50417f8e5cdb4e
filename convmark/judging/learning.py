"""Accuracy beside speed: what is faster or smaller and learns less is no improvement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from convmark.judging.judgement import Judgement

__all__ = ["ACCURACY", "without_hollow_improvements"]

ACCURACY = "accuracy"


def without_hollow_improvements(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements, an improvement of a model that learns less taken back.

    It becomes inconclusive, with the reason, and the accuracy's own row says what was taken back.
    A model is known by its name, device, precision, compilation and threads.
    """
    worse = {
        _model(found): found
        for found in judgements
        if found.metric == ACCURACY and found.verdict == "regressed"
    }
    hollow: dict[tuple[str, ...], list[Judgement]] = {}
    for found in judgements:
        if found.verdict == "improved" and found.metric != ACCURACY and _model(found) in worse:
            hollow.setdefault(_model(found), []).append(found)
    return [_retold(found, worse, hollow) for found in judgements]


def _retold(
    found: Judgement,
    worse: dict[tuple[str, ...], Judgement],
    hollow: dict[tuple[str, ...], list[Judgement]],
) -> Judgement:
    taken_back = hollow.get(_model(found), [])
    if found in taken_back:
        less = worse[_model(found)]
        note = (
            f"no improvement, for it learns less: accuracy {less.baseline:.4f} -> {less.value:.4f}"
        )
        return replace(found, verdict="inconclusive", note=_joined(note, found.note))
    if taken_back and found.metric == ACCURACY:
        names = ", ".join(dict.fromkeys(one.metric for one in taken_back))
        return replace(found, note=_joined(found.note, f"so better in {names} is no improvement"))
    return found


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _model(found: Judgement) -> tuple[str, ...]:
    return found.model, found.device, found.precision, found.jit, found.threads
