"""Layers of two codes matched in the order of execution: an alignment by what they are.

Two layers of one class may be the same. What speaks for it are their name, their output shape, and
their settings and FLOPs; of all ways to match them in order, the one with the most evidence counts
(Needleman and Wunsch, 1970). A name that Keras numbered counts without its number: a layer that is
put in moves the numbers of all after it, and each would be taken for its neighbour. A layer that
runs at another place, and is alike in all of these, is still the same; and one of another class is
what stands between the same layers, and gives the same shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

_LABEL, _SHAPE, _SETTINGS, _NAME = 6.0, 3.0, 2.0, 1e-3
"""Of evidence; the number decides only between layers that are alike in all else."""
_LEAST = 3.0
"""Settings alone make no layer the same."""

Units = Sequence[Mapping[str, Any]]
_Pair = tuple[int | None, int | None]


def matched(old: Units, new: Units) -> list[_Pair]:
    """Return the places of the layers of both codes; None where one has no such layer.

    In the order of both, but for layers that have another place in it.
    """
    gained = _evidence(old, new)
    best = np.zeros((len(old) + 1, len(new) + 1))
    for one, row in enumerate(gained):
        without = best[one]
        # a maximum over all to the left is what skipping layers of the new code comes to
        found = np.maximum(without[1:], without[:-1] + row)
        best[one + 1, 1:] = np.maximum.accumulate(found)
    return list(_replaced(_elsewhere(_followed(best, gained), gained), old, new))


def _elsewhere(pairs: Sequence[_Pair], gained: Any) -> Iterator[_Pair]:
    """Yield the pairs; layers that have no other one are matched where all evidence is for it."""
    gone = [one for one, other in pairs if other is None and one is not None]
    found: dict[int, int] = {}
    for fresh in [other for one, other in pairs if one is None and other is not None]:
        alike = {old: gained[old, fresh] for old in gone}
        if alike and max(alike.values()) >= _LABEL + _SHAPE + _SETTINGS:
            found[fresh] = max(alike, key=lambda old: alike[old])
            gone.remove(found[fresh])
    for one, other in pairs:
        if one is None and other is not None:
            yield found.get(other), other
        elif other is not None or one in gone:
            yield one, other


def _replaced(pairs: Iterable[_Pair], old: Units, new: Units) -> Iterator[_Pair]:
    """Yield the pairs; as many layers without another one as there are at one place are matched."""
    for is_gap, together in itertools.groupby(pairs, key=lambda pair: None in pair):
        run = list(together)
        gone = [one for one, _ in run if one is not None]
        fresh = [other for _, other in run if other is not None]
        shapes = [old[one]["shape"] for one in gone], [new[other]["shape"] for other in fresh]
        if is_gap and shapes[0] == shapes[1]:
            yield from zip(gone, fresh, strict=True)
        else:
            yield from run


def _followed(best: Any, gained: Any) -> list[_Pair]:
    """Return the way through the alignment that has the most evidence, from its end."""
    one, other = gained.shape
    pairs: list[_Pair] = []
    while one or other:
        if one and best[one, other] == best[one - 1, other]:
            one -= 1
            pairs.append((one, None))
        elif other and best[one, other] == best[one, other - 1]:
            other -= 1
            pairs.append((None, other))
        else:
            one, other = one - 1, other - 1
            pairs.append((one, other))
    return pairs[::-1]


def _evidence(old: Units, new: Units) -> Any:
    """Return the evidence that two layers are the same, of each pair; 0 for too little."""

    def same(fact: Any) -> Any:
        codes: dict[str, int] = {}
        ours, theirs = (
            np.array([codes.setdefault(str(fact(unit)), len(codes)) for unit in side], int)
            for side in (old, new)
        )
        return ours[:, None] == theirs[None, :]

    found = _LABEL * same(lambda unit: unit.get("label", unit["name"]))
    found = found + _SHAPE * same(lambda unit: unit["shape"])
    found += _SETTINGS * same(lambda unit: (unit.get("settings"), unit.get("flops")))
    found = np.where(same(lambda unit: unit["kind"]) & (found >= _LEAST), found, 0.0)
    return found + np.where(found, _NAME * same(lambda unit: unit["name"]), 0.0)
