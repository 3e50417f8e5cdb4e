"""Finds the builder of a model by name: of the zoo, the user's code, a file, a preset."""

from __future__ import annotations

import dataclasses
import functools
import glob
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import PathFinder
from types import FunctionType
from typing import Any

from convmark.core.errors import CaseError
from convmark.core.model_name import ModelName
from convmark.worker.failure import CaseFailure, UnknownModelError, advice_on
from convmark.worker.model_files import check_file, failed_to_load, is_trusted
from convmark.worker.protocol import one_line


@dataclass(frozen=True)
class Builder:
    """Called without arguments, it gives the model."""

    build: Callable[[], Any]
    input_spec: Callable[..., Any] | None = None
    """The user's own function of what the model takes."""
    target_spec: Callable[..., Any] | None = None
    """The user's own function of what the model's own training compares with."""

    def __call__(self) -> Any:
        return self.build()

    def watched(self, by: Callable[[Callable[[], Any]], Callable[[], Any]]) -> Builder:
        """Return the builder with a witness of the models that it gives."""
        return dataclasses.replace(self, build=by(self.build))

    def varied(self, variant: str | None, backend: Any) -> Builder:
        """Return the builder of the models with one thing changed, of `variants`; None for none."""
        if variant is None:
            return self
        from convmark.worker.variants import VARIANTS

        build = functools.partial(VARIANTS[variant], self, backend)
        return dataclasses.replace(self, build=build)


def builder(name: str, backend: Any, task: str = "train") -> Builder:
    """Return the builder of a model; what building raises is the caller's matter.

    Args:
        task: what it is built for; of a file, inference needs no optimizer and no losses.

    Raises:
        UnknownModelError: the name leads to nothing; the message is one line and says what to do.
    """
    import convmark_zoo  # that of the code that is active

    try:
        parts = ModelName.of(name)
    except CaseError as error:
        raise UnknownModelError(str(error)) from None
    if parts.is_zoo:
        try:
            return Builder(convmark_zoo.builder(name))
        except LookupError as error:
            raise UnknownModelError(str(error.args[0])) from None
    if parts.file:
        check_file(parts.file)
        if parts.module:
            _module(name, parts.module)
        return Builder(functools.partial(_loaded, parts.place, backend, compiled=task != "infer"))
    if parts.is_preset:
        return Builder(_preset(name, parts.attribute))
    return _own(name, parts, backend)


def _loaded(path: str, backend: Any, *, compiled: bool) -> Any:
    """Return the model of a file as it was saved: its layers, weights, precision and `compile`."""
    try:
        return backend.load_model(path, trusted=is_trusted(), compiled=compiled)
    except (CaseFailure, MemoryError):
        raise
    except Exception as error:
        if backend.is_out_of_memory(error):
            raise
        raise CaseFailure(
            f"{path}: {failed_to_load(path, error, backend.keras_version)}"
        ) from error


def _own(name: str, parts: ModelName, backend: Any) -> Builder:
    """Return the builder that a user's module holds; the attribute may be dotted."""
    target = _module(name, parts.module)
    for depth, attribute in enumerate(parts.attribute.split(".")):
        if not hasattr(target, attribute):
            holder = ".".join([parts.module, *parts.attribute.split(".")[:depth]])
            other = "" if depth else _taken_instead(parts.module)
            raise UnknownModelError(f"{name}: {holder} has no attribute {attribute}{other}")
        target = getattr(target, attribute)
    if not callable(target):
        raise UnknownModelError(
            f"{name}: {parts.attribute} must be a keras.Model or return one when it is "
            f"called, got {type(target).__name__}"
        )
    if backend.is_model(target) or backend.other_keras(target):
        if parts.called:
            raise UnknownModelError(
                f"{name}: {parts.attribute} is a model and takes no arguments; leave them out"
            )
        return Builder(lambda: target)
    _check_arguments(name, parts, target)
    build = functools.partial(target, *parts.arguments, **parts.keywords)
    spec, targets = (getattr(target, f"{one}_spec", None) for one in ("input", "target"))
    spec = None if isinstance(spec, property) else spec  # a layer's own
    return Builder(build, input_spec=spec, target_spec=targets)


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _check_arguments(name: str, parts: ModelName, target: Any) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of native code
        return
    takes = signature.parameters.values()
    needed = [one.name for one in takes if one.default is one.empty and one.kind in _NAMED]
    if needed[:1] == ["self"] and isinstance(target, FunctionType):
        raise UnknownModelError(
            f"{name}: {parts.attribute} is a method of an instance; make it a staticmethod, or "
            "name a function or a class that returns the model"
        )
    if not any(one.kind is one.VAR_KEYWORD for one in takes):
        for keyword in parts.keywords:
            if keyword not in signature.parameters:
                raise UnknownModelError(
                    f"{name}: {parts.attribute} has no argument {keyword}, only {signature}"
                )
    by_decorator = isinstance(target, FunctionType) and hasattr(target, "__wrapped__")
    bind = signature.bind_partial if by_decorator else signature.bind  # it may give it the others
    try:
        bind(*parts.arguments, **parts.keywords)
    except TypeError as error:
        example = ",".join(f"{one}=2" for one in needed or ["width"])
        raise UnknownModelError(
            f"{name}: {error}; give literal arguments, as in "
            f"{parts.module}:{parts.attribute}({example}), of those in {signature}, or write a "
            "builder that calls it with others"
        ) from None


def _module(name: str, module: str) -> Any:
    """Return a user's module, imported; whatever its import raises becomes one line."""
    try:
        return importlib.import_module(module)
    except SystemExit as error:
        raise UnknownModelError(
            f"{name}: {module} ends the program when it is imported (exit status "
            f'{error.code}); move its main program below if __name__ == "__main__"'
        ) from error
    except Exception as error:  # a user's module may raise anything
        cause = one_line(f"{type(error).__name__}: {error}")
        if advice := advice_on(error):
            cause += advice
        elif isinstance(error, ModuleNotFoundError):
            cause += "; it must be in the working folder or be installed"
        raise UnknownModelError(f"{name}: cannot import {module}: {cause}") from error


def _taken_instead(module: str) -> str:
    """Return what to do where a module was imported before that is not the working folder's."""
    first = module.partition(".")[0]
    own = PathFinder.find_spec(first, [os.getcwd()])
    taken = getattr(sys.modules.get(first), "__spec__", None)
    if own is None or taken is None or own.origin in (None, taken.origin):
        return ""
    return f"; it is not the {first} of the working folder, which needs another name"


def _preset(name: str, preset: str) -> Callable[[], Any]:
    """Return the builder of a preset's backbone, of random weights, from its config on the disk."""
    hub = _module(name, "keras_hub")
    known = hub.models.Backbone.presets
    if preset not in known:
        raise UnknownModelError(
            f"{name}: keras-hub has no preset {preset}; its classes are builders, as in "
            "keras_hub.models:ResNetBackbone(...)"
        )
    handle = known[preset]["kaggle_handle"].removeprefix("kaggle://")
    cache = os.environ.get("KAGGLEHUB_CACHE") or os.path.expanduser("~/.cache/kagglehub")
    folder = os.path.join(cache, "models", *handle.split("/"))
    found = sorted(
        glob.glob(os.path.join(glob.escape(folder), "**", "config.json"), recursive=True)
    )
    if not found:
        raise UnknownModelError(
            f"{name}: its config is not on this disk, and nothing is downloaded here; fetch it "
            f"once: python -c 'import keras_hub; keras_hub.models.Backbone.from_preset("
            f'"{preset}", load_weights=False)\''
        )
    from_preset = hub.models.Backbone.from_preset
    return functools.partial(from_preset, os.path.dirname(found[-1]), load_weights=False)
