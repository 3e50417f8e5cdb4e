"""What two runs must share for pytest-benchmark to compare them silently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from convmark.core.backends import BACKENDS

__all__ = ["FRAMEWORKS", "comparability"]

FRAMEWORKS = (*BACKENDS, "keras")


def comparability(
    machine: str | None, versions: Iterable[Mapping[str, Any]], threads: str | None
) -> dict[str, Any]:
    """Return the facts that two runs must share for pytest-benchmark to compare them silently.

    Args:
        versions: the frameworks' by their names, of each backend or each row.
    """
    known = {name: version for found in versions for name, version in found.items() if version}
    named = {name: known[name] for name in FRAMEWORKS if name in known}
    return {"machine": machine, **named, "threads": threads}
