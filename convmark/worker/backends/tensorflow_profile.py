"""The events of TensorFlow's profiler: operations by their names, on a device its kernels."""

from __future__ import annotations

import glob
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from convmark.worker.backends.tensorflow_layers import piece
from convmark.worker.profiled import Event, on_device

named = tf.name_scope
_EACH_OPERATION = 3
"""Level of the tracer; by default there are the costly ones alone."""
_PLACES = ("tensorflow.tsl", "tensorflow.core")
"""Of the classes of a trace, in new and old versions."""


def traced(
    backend: Any,
    function: Callable[[Any], list[Any]],
    layers: Sequence[Any],
    values: Sequence[Any],
    passes: int,
) -> list[Event]:
    """Return the events of so many passes, in picoseconds."""
    step, space = piece(function, compiled=False), _space()
    backend.synchronise(step(values))
    backend.synchronise(step(values))
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=_EACH_OPERATION)
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        with tf.profiler.experimental.Profile(folder, options=options):
            for _ in range(passes):
                backend.synchronise(step(values))
        pattern = os.path.join(glob.escape(folder), "**", "*.xplane.pb")
        for path in glob.glob(pattern, recursive=True):
            with open(path, "rb") as file:
                space.MergeFromString(file.read())
    return on_device(_events(space))


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
                begin = 1000 * line.timestamp_ns + event.offset_ps
                yield is_device, (text, begin, begin + event.duration_ps)
