"""The measured interpreters of a run, one per backend: their devices, frameworks and models."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convmark import interpreter as launch
from convmark.core.backends import BACKENDS
from convmark.core.errors import OptionError, WorkerError
from convmark.core.model_name import ModelName
from convmark.core.option_values import did_you_mean
from convmark.interpreter import Answer, Interpreter

_APPLICATION = re.compile(r"^(?:from \S+ import)? +([A-Z]\w+)(?: as \1)?,?$", re.MULTILINE)
"""A model in applications/__init__.py: after its import, or on a line of its own in brackets."""


@functools.cache
def zoo_names() -> frozenset[str]:
    """Return the names of the zoo, with those of the Keras installed here; importing it is slow.

    Empty where its models are not known.
    """
    from convmark_zoo.registry import LECTURE

    legacy = os.environ.get("TF_USE_LEGACY_KERAS") in ("true", "True", "1")
    spec = importlib.util.find_spec("tf_keras" if legacy else "keras")
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("applications/__init__.py"):
            text = path.read_text(encoding="utf-8")
            found = _APPLICATION.findall(text) if "DO NOT EDIT" in text else ()  # else not of all
            return frozenset([*LECTURE, *map(str.lower, found)] if found else [])
    return frozenset()


def refuse_unknown(models: Iterable[str], *, elsewhere: bool = False) -> None:
    """Refuse names that lead nowhere, as far as that is known with no interpreter started.

    Args:
        elsewhere: whether another interpreter measures, which may have other modules and models.
    """
    for name in models:
        parts = ModelName.of(name)
        if parts.file and not Path(parts.file).exists():
            beside = Path(parts.file).parent
            hint = did_you_mean(parts.file, [one.as_posix() for one in beside.glob("*")])
            told = f"{parts.file}: no such file in the working folder"
            raise OptionError("; ".join(filter(None, [told, hint])))
        if elsewhere:
            continue
        if parts.is_zoo and (known := zoo_names()) and name not in known:
            from convmark_zoo.registry import unknown

            raise OptionError(unknown(name, known))
        if parts.package and not _is_there(parts.package):
            rule = "it must be in the working folder or be installed"
            own = (path for one in launch.import_roots() for path in one.glob("[A-Za-z]*"))
            names = [path.stem for path in own if path.is_dir() or path.suffix == ".py"]
            raise OptionError(
                f"{name}: there is no module {parts.package}; "
                f"{did_you_mean(parts.package, names) or rule}"
            )
        attribute = parts.attribute.partition(".")[0]
        if parts.package and attribute and (text := _lacks(parts.module, attribute)) is not None:
            hint = did_you_mean(attribute, _NAMES.findall(text), before=f"{parts.module}:")
            told = f"{name}: {parts.module} has no attribute {attribute}"
            raise OptionError("; ".join(filter(None, [told, hint])))


_MAKES_NAMES = re.compile(
    r"import \*|\b(?:globals|locals|vars|exec|setattr)\(|__getattr__|__dict__|sys\.modules"
)
"""In the code of a module: it may have attributes whose names do not stand in it."""


_NAMES = re.compile(r"^(?:async )?(?:def |class )?([A-Za-z]\w*)(?=[ \t]*[(:=])", re.MULTILINE)
"""What a module defines at its left margin; other words that stand so are no harm in a hint."""


def _lacks(module: str, attribute: str) -> str | None:
    """Return a module's text, of the user's own folders, in which no word is the attribute.

    None where it may have the attribute. A module inside a package is its attribute once anything
    has imported it.
    """
    place = Path(*module.split("."))
    for root in launch.import_roots():
        if any((root / place / inside).exists() for inside in (attribute, f"{attribute}.py")):
            return None
        for path in (root / place.with_suffix(".py"), root / place / "__init__.py"):
            if path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                there = re.search(rf"\b{re.escape(attribute)}\b", text)
                return None if there or _MAKES_NAMES.search(text) else text
    return None


def sources_here(models: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return module and file of a user's models, of those that lie in the user's own folders."""
    found: dict[str, tuple[str, str]] = {}
    for name in models:
        module = ModelName.of(name).module
        place = Path(*module.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py") if module else ():
            for root in launch.import_roots():
                if (root / path).is_file():
                    found.setdefault(name, (module, str(root / path)))
    return found


def _is_there(package: str) -> bool:
    """Whether a package can be found, and so may be imported."""
    roots = launch.import_roots()
    if any((one / package).is_dir() or (one / f"{package}.py").is_file() for one in roots):
        return True
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return True


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
        subject = importing["model"] if importing else interpreter.python
        what = "imported" if importing else "inspected"
        raise WorkerError(f"{subject}: cannot be {what}: {answer.message}")
    for refusal in found["models"].values():
        if refusal is not None:
            raise OptionError(refusal)
    return found


def devices_asked_for(
    asked: Sequence[str], found: Sequence[str], *, flag: str = "--devices"
) -> list[str]:
    """Return the devices to measure: `all` becomes what is there."""
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


def unbound_memory(found: Iterable[Mapping[str, Any]]) -> str:
    """Say why the memory of the workers is not bound to the node of --numa; empty where it is."""
    reasons = [str(one["memory_trouble"]) for one in found if one.get("memory_trouble")]
    return f"--numa: the CPUs are bound, the memory is not: {reasons[0]}" if reasons else ""


class Interpreters(contextlib.AbstractContextManager["Interpreters"]):
    """Answers requests as one `Interpreter` does; a context manager that ends them all."""

    def __init__(
        self,
        backends: Sequence[str],
        python: str = sys.executable,
        *,
        isolation: str,
        time_limit_s: float,
        cpus: str | None = None,
    ) -> None:
        """Describe the interpreters; nothing is started yet.

        Args:
            cpus: what their processes are bound to, as a case has it.

        Raises:
            OptionError: this process may not bind them to it.
        """
        self.python = python
        self._interpreters = {
            backend: launch.Interpreter(
                python,
                isolation=isolation,
                backend=backend,
                time_limit_s=time_limit_s,
                cpus=cpus,
            )
            for backend in backends
        }

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process of every interpreter; harmless when done twice."""
        for interpreter in self._interpreters.values():
            interpreter.close()

    @property
    def labels(self) -> str:
        """The names of the frameworks, for a message."""
        return ", ".join(BACKENDS[backend].label for backend in self._interpreters)

    def of(self, backend: str) -> launch.Interpreter:
        return self._interpreters[backend]

    def inspect(self, models: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what each backend's interpreter has, by backend.

        Raises:
            OptionError: a model is unknown to one of them.
            WorkerError: one of them cannot say; most often its framework is not installed.
        """
        names = list(models)
        return {
            backend: inspect(interpreter, names)
            for backend, interpreter in self._interpreters.items()
        }

    def answer(
        self, request: Mapping[str, Any], on_event: launch.OnEvent = lambda event: None
    ) -> Answer:
        """Serve the request by the interpreter of its backend."""
        return self._interpreters[request["case"]["backend"]].answer(request, on_event)
