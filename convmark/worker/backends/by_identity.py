"""What is known of objects that may be gone again before the process ends."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

__all__ = ["ByIdentity"]

Value = TypeVar("Value")


class ByIdentity(Generic[Value]):
    """A dictionary by what an object is, not by what it equals; it keeps no object alive.

    The bare address would not do: a new object may lie where one was that is gone.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Any], Value]] = {}

    def __setitem__(self, key: Any, value: Value) -> None:
        self._kept[id(key)] = weakref.ref(key), value

    def __contains__(self, key: Any) -> bool:
        kept = self._kept.get(id(key))
        return kept is not None and kept[0]() is key

    def __getitem__(self, key: Any) -> Value:
        if key not in self:
            raise KeyError(key)
        return self._kept[id(key)][1]

    def values(self) -> Iterator[Value]:
        """The values of the objects that are still there."""
        return (value for seen, value in self._kept.values() if seen() is not None)
