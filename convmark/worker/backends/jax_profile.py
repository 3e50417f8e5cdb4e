"""The events of JAX's profiler: what XLA has compiled, by the scope that it was made in."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from convmark.worker.profiled import Event, on_device

named = jax.named_scope
_INSTRUCTION = re.compile(r'%?([\w.-]+) = [^\n]*?metadata=\{[^}\n]*?op_name="([^"]*)"')
"""Of a compiled module's text: a name, and the scopes and the operation that it was made for."""


def traced(
    backend: Any,
    function: Callable[[Any], list[Any]],
    layers: Sequence[Any],
    values: Sequence[Any],
    passes: int,
) -> list[Event]:
    """Return the events of so many passes, in nanoseconds."""
    forward, held = backend.copies.pure(function, layers)
    compiled = jax.jit(forward).lower(held, list(values)).compile()
    made_for = dict(_INSTRUCTION.findall(compiled.as_text()))
    jax.block_until_ready(compiled(held, list(values)))
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(passes):
                jax.block_until_ready(compiled(held, list(values)))
        pattern = os.path.join(glob.escape(folder), "**", "*.xplane.pb")
        found = []
        for path in glob.glob(pattern, recursive=True):
            data = jax.profiler.ProfileData.from_file(path)
            found += on_device(_events(data, made_for))
    return found


def _events(data: Any, made_for: Mapping[str, str]) -> Iterator[tuple[bool, Event]]:
    for plane in data.planes:
        is_device = plane.name.startswith("/device:")
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op", event.name)
                if (text := made_for.get(str(name))) is not None:
                    yield is_device, (text, event.start_ns, event.start_ns + event.duration_ns)
