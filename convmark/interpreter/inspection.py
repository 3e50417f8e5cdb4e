"""Inspects an interpreter: frameworks, devices, and the selected models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from convmark.core.errors import OptionError, WorkerError
from convmark.interpreter import Interpreter

__all__ = ["devices_asked_for", "inspect"]


def inspect(
    interpreter: Interpreter, models: Iterable[str], *, explain: bool = False
) -> dict[str, Any]:
    """Return what the interpreter has, once it is known to have all the models.

    Args:
        explain: whether it also looks for what keeps the framework from a GPU; that takes longer.

    Raises:
        OptionError: a model is unknown to it.
        WorkerError: it cannot say; the import of a model has ended its process, or something else.
    """
    request = {"kind": "inspect", "models": list(models)}
    answer = interpreter.answer({**request, "explain": True} if explain else request)
    found = answer.event("inspected")
    if answer.status != "ok" or found is None:
        importing = None if answer.event("imported") else answer.event("importing")
        subject = f"--models: {importing['model']}" if importing else interpreter.python
        what = "imported" if importing else "inspected"
        raise WorkerError(f"{subject}: cannot be {what}: {answer.message}")
    for refusal in found["models"].values():
        if refusal is not None:
            raise OptionError(f"--models: {refusal}")
    return found


def devices_asked_for(
    asked: Sequence[str], found: Sequence[str], *, flag: str = "--devices"
) -> list[str]:
    """Return the devices to measure: `all` becomes what is there.

    Args:
        flag: the option by which they were asked for.

    Raises:
        OptionError: a device that was named is not there.
    """
    devices: list[str] = []
    for device in asked:
        if device == "all":
            devices.extend(found)
        elif device in found:
            devices.append(device)
        else:
            raise OptionError(
                f"{flag}: {device} does not exist, only {', '.join(found)}; "
                "`convmark doctor` shows the reason"
            )
    return list(dict.fromkeys(devices))
