"""The settings that a worker read from its process, as columns: state, precision, threads."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from typing import Any

from convmark.core.case import Case
from convmark.core.text import plain_text
from convmark.machine.cautions import changes_speed
from convmark.session.facts import Facts
from convmark.worker.protocol import masked

__all__ = ["EAGER", "MODEL", "state_columns"]

EAGER = "eager"
"""A call path of which nothing is compiled."""
MODEL = "model:"
"""How the name of a setting begins that the model's own code has set."""
HASHED = "sha256:"
"""How the hash of a value begins, as the worker's too."""


def state_columns(
    case: Case,
    found: Mapping[str, Any] | None,
    code: Mapping[str, Any] | None,
    facts: Facts,
    left: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the columns that say what the process was; none where it was not read.

    Precision and threads are those that ran, and what was asked for stands in `asked`.

    Args:
        found: the worker's event `read_back`.
        code: its event `code`, which tells the variables that the model's code has read.
        left: the event `left_running`, which names the processes that the model left running.

    Raises:
        LookupError: the worker has left something out.
    """
    if found is None:
        return {}
    quota = facts.cpu_quota_cores
    inherited = {**found["inherited"]}
    if quota is not None and quota < facts.machine.cores:
        inherited["cpu_quota"] = f"{quota:g}"
    for name, value in (code or {}).get("environ", {}).items():
        if not changes_speed(name):  # those are in `flags`
            inherited[f"env.{name}"] = value
    environ = {
        f"env.{name}": value for name, value in found["environ"].items() if changes_speed(name)
    }
    if left is not None:
        environ["left_running"] = ",".join(left["names"])
    ran = {"precision": found["precision"], "threads": found["threads"]}
    asked = [f"{name}={getattr(case, name)}" for name in ran if ran[name] != getattr(case, name)]
    return {
        **ran,
        "asked": " ".join(asked) or None,
        "state": _pairs(inherited, {**found["model"], **environ}) or None,
        "call_path": found["call_path"],
        "cores": min(found["cores"] or facts.machine.cores, facts.machine.cores),
    }


def _pairs(inherited: Mapping[str, str], of_the_model: Mapping[str, str]) -> str:
    """Return `NAME=value` pairs in order, the values quoted as a shell wants them.

    A secret is a short hash, for rows are compared by these pairs.
    """
    named = {**inherited, **{f"{MODEL}{name}": value for name, value in of_the_model.items()}}
    return " ".join(
        _pair(plain_text(name), plain_text(value)) for name, value in sorted(named.items())
    )


def _pair(name: str, value: str) -> str:
    pair = f"{name}={shlex.quote(value)}"
    if value.startswith(HASHED) or masked(pair) == pair:
        return pair
    return f"{masked(name)}={HASHED}{hashlib.sha256(pair.encode()).hexdigest()[:8]}"
