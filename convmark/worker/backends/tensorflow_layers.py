"""The pieces of a TensorFlow model, each as a function, and all of them in one graph with clocks.

A clock stands before each piece, in the graph that the pieces are in: neither a call from Python
nor a wait for the device is in a piece's time. A piece is a function of the graph that is not
inlined, so that it is compiled as it would be alone. TensorFlow's profiler names operations.
"""

from __future__ import annotations

import glob
import importlib
import inspect
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from convmark_zoo.keras_api import KERAS_VERSION

from convmark.worker.backends.step import Chain, Event, Piece
from convmark.worker.backends.tensorflow_training import pairs

_TRACED = {"autograph": KERAS_VERSION < (3, 0)}
_ATTRIBUTES = "experimental_attributes"
_APART = {_ATTRIBUTES: {"_noinline": True}}
"""TensorFlow compiles such a function apart from the graph that calls it."""
named = tf.name_scope
_EACH_OPERATION = 3
"""Level of the tracer; by default there are the costly ones alone."""
_NO_WORK = ("Const", "Identity", "NoOp", "ReadVariableOp", "_Arg", "_Retval")
"""Ends of the names of operations, which a convolution that is fused to another layer leaves."""
_PLACES = ("tensorflow.tsl", "tensorflow.core")
"""Of the classes of a trace, in new and old versions."""


def piece(one: Piece, compiled: bool) -> Any:
    """Return a piece as a graph, which gives a probe and all its results."""

    @tf.function(jit_compile=compiled, **_TRACED)  # type: ignore[untyped-decorator]
    def run(values: Any) -> Any:
        made = one.function(values)
        return _probe(made), made

    return run


def backward_piece(one: Piece, compiled: bool) -> Any:
    """Return the same with its backward pass; called with the tensors and their gradients."""

    @tf.function(jit_compile=compiled, **_TRACED)  # type: ignore[untyped-decorator]
    def run(values: Any, given: Any) -> Any:
        made, gradients = _both_ways(one, values, given)
        return _probe(gradients or made), made, gradients

    return run


def _both_ways(piece: Piece, values: Any, given: Any) -> tuple[list[Any], list[Any]]:
    """Return what a piece gives, and the gradients of its weights and of what it takes.

    The backward pass waits for all that the piece gives, as in a step it waits for the loss: work
    that no gradient needs would run beside it, and be missing from the piece's time.
    """
    with tf.GradientTape() as tape:
        wanted = [
            one
            for one, is_inner in pairs(values, piece.inner)
            if is_inner and one.dtype.is_floating
        ]
        tape.watch(wanted)
        made = piece.function(values)
    wanted += _trained(piece)
    with tf.control_dependencies(made):
        kept = [(one, tf.identity(to)) for one, to in pairs(made, given) if one.dtype.is_floating]
    found = tape.gradient(
        [one for one, _ in kept], wanted, output_gradients=[one for _, one in kept]
    )
    return made, [getattr(one, "values", one) for one in found if one is not None]


def _trained(piece: Piece) -> list[Any]:
    return [one for layer in piece.layers for one in getattr(layer, "trainable_variables", [])]


def _probe(results: Sequence[Any]) -> Any:
    """Return a scalar that is there only when the call has finished."""
    return tf.reshape(results[0], [-1])[0]


def clocked(
    pieces: Sequence[Piece], inputs: Sequence[int], outputs: Sequence[int], compiled: bool
) -> Chain | None:
    """Return the pieces as one graph with a clock before each; None where TensorFlow is too old.

    After each piece stands a function that hands on what the piece gives: its time is that of a
    call. What a piece computes is taken by another one or given back, as gradients are: TensorFlow
    leaves out what nothing takes.
    """
    if _ATTRIBUTES not in inspect.signature(tf.function).parameters:
        return None
    functions = [_apart(one, compiled) for one in pieces]
    passed_on = tf.function(
        lambda values: list(map(tf.identity, values)), jit_compile=compiled, **_TRACED, **_APART
    )

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(values: Any, targets: Any) -> Any:
        known, clocks, others = dict(pairs(inputs, values)), [tf.timestamp()], []
        for one, function, given in zip(pieces, functions, targets, strict=True):
            with tf.control_dependencies(clocks[-1:]):
                made, gradients = function([known[value] for value in one.takes], given)
            with tf.control_dependencies(made):
                clocks.append(tf.timestamp())
            with tf.control_dependencies(clocks[-1:]):
                made = passed_on(made)
            with tf.control_dependencies(made):
                clocks.append(tf.timestamp())
            known.update(pairs(one.gives, made))
            others += gradients
        taken = {value for one in pieces for value in one.takes}
        others += [one for value, one in known.items() if value not in taken]
        return [known[value] for value in outputs], tf.stack(clocks), others

    def timed(values: Any, targets: Any) -> tuple[list[Any], list[float], list[float]]:
        results, _, _ = run(values, targets)  # warms as a step before it would
        _, clocks, _ = run(values, targets)
        lasted_s = np.diff(clocks.numpy()).tolist()
        return results, lasted_s[::2], lasted_s[1::2]

    return timed


def _apart(one: Piece, compiled: bool) -> Any:
    """Return a piece as a function of the graph."""

    @tf.function(jit_compile=compiled, **_TRACED, **_APART)  # type: ignore[untyped-decorator]
    def run(values: Any, given: Any) -> Any:
        if one.inner is None:
            return one.function(values), []
        return _both_ways(one, values, given)

    return run


def traced(
    backend: Any, one: Piece, values: Sequence[Any], passes: Iterable[object]
) -> Iterator[tuple[bool, Event]]:
    """Return the events of the passes, in picoseconds."""
    step, space = piece(one, compiled=False), _space()
    backend.synchronise(step(values))
    backend.synchronise(step(values))
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=_EACH_OPERATION)
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        with tf.profiler.experimental.Profile(folder, options=options):
            for _ in passes:
                backend.synchronise(step(values))
        pattern = os.path.join(glob.escape(folder), "**", "*.xplane.pb")
        for path in glob.glob(pattern, recursive=True):
            with open(path, "rb") as file:
                space.MergeFromString(file.read())
    return _events(space)


def _space() -> Any:
    """Return an empty trace.

    Raises:
        ImportError: this TensorFlow has no classes for it.
    """
    for place in _PLACES:
        name = f"{place}.profiler.protobuf.xplane_pb2"
        try:
            return importlib.import_module(name).XSpace()
        except ImportError as error:
            missing = error
    raise missing


def _events(space: Any) -> Iterator[tuple[bool, Event]]:
    for plane in space.planes:
        is_device, names = plane.name.startswith("/device:"), plane.event_metadata
        for line in plane.lines:
            for event in line.events:
                text = names[event.metadata_id].name
                if is_device:  # a kernel's; what ran it is among its facts
                    facts = [*names[event.metadata_id].stats, *event.stats]
                    text += " ".join(
                        one.str_value or plane.stat_metadata[one.ref_value].name for one in facts
                    )
                if text.endswith(_NO_WORK):
                    continue
                begin = 1000 * line.timestamp_ns + event.offset_ps
                yield is_device, (text, begin, begin + event.duration_ps)


def reached(backend: Any, one: Piece, values: Sequence[Any]) -> list[list[bool]]:
    """Return where gradients come: of each result to each value, and last to any weight."""
    wanted = [each for each in [*values, *_trained(one)] if "float" in str(each.dtype)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([value for value in values if value.dtype.is_floating])
        made = one.function(values)
    rows = []
    for result in made:
        is_float = result.dtype.is_floating
        found = tape.gradient(result, wanted) if is_float else [None] * len(wanted)
        left = iter(found)
        row = [value.dtype.is_floating and next(left) is not None for value in values]
        rows.append([*row, any(gradient is not None for gradient in left)])
    return rows
