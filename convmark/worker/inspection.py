"""Answers what an interpreter has: devices, versions, models and runtimes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from convmark.core.model_name import ModelName
from convmark.core.runtimes import RUNTIMES
from convmark.worker import binding, cuda, runtimes
from convmark.worker.builders import builder
from convmark.worker.failure import UnknownModelError
from convmark.worker.protocol import one_line

__all__ = ["inspect", "versions"]

Emit = Callable[..., None]


def inspect(request: dict[str, Any], framework: Any, emit: Emit) -> None:
    """Say what this interpreter has, and which of the models asked for it knows."""
    emit("ready")
    refusals = {}
    for name in request["models"]:
        emit("importing", model=name)
        refusals[name] = _refusal(name, framework)
    emit("imported")
    emit(
        "inspected",
        executable=sys.executable,
        devices=framework.devices(),
        models=refusals,
        sources={name: _source(name) for name, refused in refusals.items() if refused is None},
        runtimes=" ".join(filter(None, map(runtimes.versions, RUNTIMES))),
        memory_trouble=binding.memory_trouble(request.get("bound") or {}),
        **versions(framework),
        **(_explained(framework) if request.get("explain") else {}),
    )


def _explained(framework: Any) -> dict[str, Any]:
    """Say what may keep the framework from a GPU, as far as this interpreter can tell."""
    versions = framework.versions()
    compiled_for = getattr(framework, "architectures", list)
    return {
        "packages": cuda.packages(),
        "architectures": compiled_for(),
        "cuda_trouble": cuda.trouble(versions.get("cuda") or "", versions.get("cudnn") or ""),
    }


def versions(framework: Any) -> dict[str, Any]:
    return {"python": ".".join(map(str, sys.version_info[:3])), **framework.versions()}


def _refusal(name: str, framework: Any) -> str | None:
    try:
        builder(name, framework)
    except UnknownModelError as error:
        return one_line(error)
    return None


def _source(name: str) -> list[str] | None:
    """Return the module of a model of the user's own, and its file, or the file of a model.

    None for the zoo's and for presets, or where it is not known.
    """
    parts = ModelName.of(name)
    if parts.file:
        return ["", os.path.abspath(parts.file)]
    module = sys.modules.get(parts.module) if not parts.is_preset else None
    file = getattr(module, "__file__", None)
    return [parts.module, os.path.abspath(file)] if file else None
