"""Parts of a Keras model that every backend looks at, and what is known of objects by identity."""

from __future__ import annotations

import contextlib
import inspect
import re
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.worker.failure import CaseFailure
from convmark.worker.flops import packed_elements
from convmark.worker.inputs import flat

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

    def get(self, key: Any) -> Value | None:
        """Return what is known of an object; None where nothing is."""
        kept = self._kept.get(id(key))
        return kept[1] if kept is not None and kept[0]() is key else None

    def values(self) -> Iterator[Value]:
        """The values of the objects that are still there."""
        return (value for seen, value in self._kept.values() if seen() is not None)


def present(outputs: Any) -> Any:
    """Return outputs without those that are None, which `fit` compares with nothing."""
    if isinstance(outputs, Mapping):
        return {key: present(part) for key, part in outputs.items() if part is not None}
    if isinstance(outputs, (list, tuple)) and any(part is None for part in outputs):
        return [present(part) for part in outputs if part is not None]
    return outputs


def arguments_beside(model: Any) -> list[str]:
    """Return what a model's `call` cannot do without besides the inputs and `training`."""
    more = list(inspect.signature(model.call).parameters.values())[1:]
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in more if one.default is one.empty and one.kind not in variable]
    return [name for name in needed if name != "training"]


@dataclass(frozen=True)
class Output:
    """What is known of an output before it is there."""

    shape: tuple[Any, ...]
    """With the batch axis, None."""


def ends_in_softmax(model: Any) -> bool:
    """Whether the last layer turns its scores into probabilities itself."""
    return last_activation(model) == "softmax"


def last_activation(model: Any) -> str:
    """Return the name of the last layer's activation; empty where it has none."""
    layers = getattr(model, "layers", None)
    if not layers:
        return ""
    last = layers[-1]
    if isinstance(last, keras.Model):
        return last_activation(last)
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last, "activation", None), "__name__", "")


NO_RESULT = "a model's call() must return tensors, but it returned none; return what it computes"


def root_mean_square(arrays: Iterable[Any]) -> float:
    """Return the root mean square over arrays of equal weight; not finite where any value is.

    Arrays without values, such as the boxes of a detector that found none, have no weight.
    """
    values = [np.abs(one) if np.iscomplexobj(one) else one for one in map(np.asarray, arrays)]
    if not values:
        raise CaseFailure(NO_RESULT)
    squares = [np.mean(np.square(one.astype(np.float64))) for one in values if one.size]
    return float(np.sqrt(np.mean(squares))) if squares else 0.0


def elements(weight: Any) -> int:
    return int(np.prod(tuple(weight.shape), dtype=np.int64))


def sizes(model: Any) -> dict[str, int]:
    """Parameters (elements) and model size (bytes, all weights as they are stored)."""
    packed = sum(map(packed_elements, model._flatten_layers()))
    return {
        "parameters": sum(map(elements, model.weights)) + packed,
        "trainable_parameters": sum(map(elements, model.trainable_weights)),
        "model_bytes": sum(elements(one) * item_bytes(one.dtype) for one in model.weights),
    }


def all_built(model: Any) -> bool:
    """Whether each layer has been called or built: not one that only training calls."""
    layers = (one for one in model._flatten_layers() if not isinstance(one, keras.metrics.Metric))
    return all(one.built for one in layers)


def calling_each(model: Any) -> Any:
    """Return a functional model of Keras 3 as a layer: on symbols it would call no layer anew."""
    if KERAS_VERSION < (3, 0) or not getattr(model, "outputs", None):
        return model

    class Calls(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def call(self, given: Any, training: bool = False) -> Any:
            return model(given, training=training)

    return Calls()


def spread(model: Any) -> tuple[str, int]:
    """Return by what a model's own code has spread it, and over how many replicas or devices.

    By nothing and 1 where its weights are plain ones. The strategy is one of TensorFlow's; of JAX
    a weight tells the devices that it lies on.
    """
    values = [value for one in model.weights if not callable(value := getattr(one, "value", one))]
    holders = [model, *values, *model.weights]
    kept = [getattr(one, "_distribute_strategy", None) for one in holders]
    for strategy in (one for one in kept if one is not None):
        if not type(strategy).__name__.startswith("_Default"):
            return type(strategy).__name__, int(strategy.num_replicas_in_sync)
    places = [getattr(getattr(one, "sharding", None), "device_set", ()) for one in values]
    count = max(map(len, places), default=0)
    return ("its sharding", count) if count > 1 else ("", 1)


def untracked(model: Any, used: Iterable[Any]) -> int:
    """Return the elements of the weights that a forward pass uses and the model does not list.

    Such as those of layers in a Lambda, or of a variable that no `add_weight` has made: nobody
    counts them, and nothing trains them. What a recurrent layer hands on is no weight.

    Args:
        used: the framework's own variables.
    """
    recurrent = [one for one in model._flatten_layers() if isinstance(one, keras.layers.RNN)]
    states = flat([getattr(one, "states", None) for one in recurrent])
    listed = [getattr(one, "_value", one) for one in (*model.variables, *model.weights, *states)]
    copies = (getattr(one, "values", ()) for one in listed)  # of several replicas
    copies = (one for held in copies if isinstance(held, tuple) for one in held)
    known = {number for one in (*listed, *copies) for number in _identities(one)}
    hidden = (one for one in used if known.isdisjoint(_identities(one)))
    return sum(elements(one) for one in hidden if "float" in str(one.dtype))


def _identities(variable: Any) -> Iterator[int]:
    """Yield what tells a variable of TensorFlow: what wraps another has the same handle.

    Such as Keras 2's of mixed precision, and those of packages that quantise weights.
    """
    yield id(variable)
    # outside of a strategy's replica there is none
    with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError, ValueError):
        yield id(variable.handle)


LEAST_LOOSE, LEAST_NUMBERS = 0.01, 100
"""Of the parameters, and at least: means of channels or of a normalisation are fewer."""


def loose(model: Any, arrays: Iterable[Any]) -> list[Any]:
    """Return arrays that a model's code holds outside of variables, where they are many numbers."""
    found = [one for one in arrays if "float" in str(one.dtype)]
    least = max(LEAST_NUMBERS, LEAST_LOOSE * sum(map(elements, model.weights)))
    return found if sum(map(elements, found)) >= least else []


def item_bytes(dtype: Any) -> int:
    """Return the bytes of one element: 4 of float32, 2 of bfloat16, 1 of bool."""
    bits = re.search(r"\d+", getattr(dtype, "name", str(dtype)))
    return int(bits.group()) // 8 if bits else 1


def returned(candidate: Any) -> str:
    """Return in words what a builder has returned that is no model, and what to return instead."""
    kind = type(candidate)
    words = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if isinstance(candidate, keras.layers.Layer):
        return f"the layer {words}; return keras.Sequential([keras.Input(shape), layer])"
    if isinstance(candidate, (list, tuple)):
        parts = {f"its part [{place}]": part for place, part in enumerate(candidate)}
    elif isinstance(candidate, Mapping):
        parts = {f"its part [{key!r}]": part for key, part in candidate.items()}
    else:
        parts = {f"its {name}": part for name, part in getattr(candidate, "__dict__", {}).items()}
    models = [name for name, part in parts.items() if isinstance(part, keras.Model)]
    return f"{words}; return {' or '.join(models[:2])}" if models else words


def of_other_keras(candidate: Any, version: str) -> str | None:
    """Return why a model of another Keras than this version's cannot be measured; None of others'.

    Args:
        candidate: no model of this Keras.
    """
    kinds = type(candidate).__mro__
    homes = {one.__module__.partition(".")[0] for one in kinds if one.__name__ == "Model"}
    if not homes & {"keras", "tf_keras"}:
        return None
    other, how = ("Keras 3", "without") if "keras" in homes else ("tf-keras (Keras 2)", "with")
    return (
        f"the model is one of {other}, this is Keras {version}; measure {how} "
        "TF_USE_LEGACY_KERAS=1 in the environment"
    )
