"""Whether a training step runs its layers as they are timed: the same ones, each once, training.

The pieces are those of `model(inputs, training=True)`. A `train_step` of the model's own may call
its layers as in inference, some of them twice or not at all: their times would be of another mode.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from convmark.worker.blocks import may_open
from convmark.worker.cuts import Cut
from convmark.worker.failure import CaseFailure
from convmark.worker.traced import LayerCall, recorded_calls

_Calls = Counter[tuple[int, bool]]
"""How often each layer is called, by its identity, and whether it trains then."""


def check_compiled(name: str, backend: Any) -> None:
    """Hold the step that was made last to being compiled where its pieces are."""
    path = backend.call_path
    all_eager = backend.settings().get("run_functions_eagerly") == "True"
    if "eager" in path and not (backend.plainly_eager or all_eager):
        raise CaseFailure(
            f"{name}: its step runs eagerly ({path}), but its layers would be timed "
            "compiled; leave run_eagerly=True and jit_compile=False out of its compile()"
        )


@contextlib.contextmanager
def held_to_the_layers(name: str, model: Any, found: Cut) -> Iterator[None]:
    """Make a step inside and run it for the first time; it must train the layers that were cut.

    Python's own random numbers, or a state that no graph knows, may have chosen others. What is cut
    of inference is held to the model's results instead.

    Raises:
        CaseFailure: it trains other layers.
    """
    if not found.training or _own_step(model):
        yield
        return
    with recorded_calls(found.keras) as recorded:
        yield
    own = {id(one): str(one.name) for one in model._flatten_layers(include_self=False)}
    infers = {
        id(one) for one in recorded if one.layer is model and one.kwargs.get("training") is False
    }
    roots = [one for one in recorded if one.outer is None and id(one) not in infers]
    wanted = own.keys() & _opened(unit.call for unit in found.units)
    got = own.keys() & _opened(roots)
    if others := sorted(own[one] for one in wanted ^ got) if roots else ():
        raise CaseFailure(
            f"{name}: calls other layers each time it is traced ({', '.join(others[:5])}), so the "
            "layers of its step are unknown; do not let its call() choose layers by random numbers "
            "or state of Python, or measure them with --tasks infer"
        )


def _opened(calls: Iterable[LayerCall]) -> set[int]:
    """Return the identities of the layers inside models and blocks.

    Not of those whose `call` the framework compiles and keeps, whose layers show but once.
    """
    found: set[int] = set()
    for call in calls:
        kept = any(hasattr(call.layer.call, name) for name in ("get_concrete_function", "lower"))
        found |= _opened(call.inner) if may_open(call) and not kept else {id(call.layer)}
    return found


@contextlib.contextmanager
def held_to_the_pieces(
    name: str,
    model: Any,
    found: Cut,
    as_written: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[None]:
    """Run a step of the model inside, not its first; its layer calls must be those of the pieces.

    Args:
        name: of the model, for the message.
        as_written: in which the step runs as its code is written, each call as often as it happens.

    Raises:
        CaseFailure: the step is the model's own and calls its layers otherwise.
    """
    if not _own_step(model):
        yield
        return
    with as_written(), recorded_calls(found.keras) as recorded:
        yield
    layer_class = found.keras.layers.Layer
    wanted = list(_leaves((unit.call for unit in found.units), layer_class))
    got = list(_leaves((one for one in recorded if one.outer is None), layer_class))
    layers = {id(one.layer): one.layer for one in wanted}  # what others take is in the rest
    got = [one for one in got if id(one.layer) in layers]
    ours, its = _counted(wanted), _counted(got)
    for layer, training in (ours - its) + (its - ours):
        times = ours[layer, training], its[layer, training]
        mode = "in training" if training else "outside of training"
        raise CaseFailure(
            f"{name}: its own training step calls {layers[layer].name} {times[1]} times "
            f"{mode}, but model(inputs, training=True), which is timed, calls it "
            f"{times[0]} times; measure its layers with --tasks infer"
        )


def _own_step(model: Any) -> bool:
    """Whether a part of the training step is the model's own code."""
    from convmark.worker.backends.own_methods import STEPS, overrides  # it needs Keras

    return bool(overrides(model, *STEPS, "compute_loss"))


def _counted(calls: Iterable[LayerCall]) -> _Calls:
    return Counter((id(one.layer), bool(one.training)) for one in calls)


def _leaves(calls: Iterable[LayerCall], layer_class: type) -> Iterator[LayerCall]:
    """Yield the layers' calls that hold no other layer's; operations are none."""
    for call in calls:
        inner = [one for one in call.inner if isinstance(one.layer, layer_class)]
        if inner:
            yield from _leaves(inner, layer_class)
        elif isinstance(call.layer, layer_class):
            yield call
