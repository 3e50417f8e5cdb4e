"""What the layers of a JAX model need besides pieces: its profiler's events, and gradients' ways.

XLA's instructions have the scope that they were made in; the profiler has their names alone.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from convmark.worker.backends.jax_values import variables_of
from convmark.worker.backends.step import SCOPE, Event

named = jax.named_scope
_NAME = re.compile(r"%?([\w.-]+) = ")
_MADE_FOR = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(r"(?:calls|to_apply|body)=%?([\w.-]+)")


def traced(
    backend: Any,
    function: Callable[[Any], list[Any]],
    layers: Sequence[Any],
    values: Sequence[Any],
    passes: Iterable[object],
) -> list[tuple[bool, Event]]:
    """Return the events of the passes, in nanoseconds."""
    options, read = jax.profiler.ProfileOptions(), jax.profiler.ProfileData.from_file
    options.python_tracer_level = 0
    forward, held = backend.copies.pure(function, layers)
    compiled = jax.jit(forward).lower(held, list(values)).compile()
    made_for = instructions(compiled.as_text())
    jax.block_until_ready(compiled(held, list(values)))
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in passes:
                jax.block_until_ready(compiled(held, list(values)))
        pattern = os.path.join(glob.escape(folder), "**", "*.xplane.pb")
        found: list[tuple[bool, Event]] = []
        for path in glob.glob(pattern, recursive=True):
            found += _events(read(path), made_for)
    return found


def instructions(text: str) -> dict[str, str]:
    """Return the scopes of each instruction of a compiled module, by its name.

    They are its own and those of all that it calls: a fusion may be of several units.
    """
    found: dict[str, str] = {}
    inside: dict[str, dict[str, None]] = {}
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and (head := re.match(r"(?:ENTRY )?%?([\w.-]+) ", line)):
            computation = head[1]
        elif name := _NAME.search(line):
            called = _CALLS.search(line)
            scopes = {**inside.get(called[1], {})} if called else {}
            if (own := _MADE_FOR.search(line)) and SCOPE.search(own[1]):
                scopes[own[1]] = None
            inside.setdefault(computation, {}).update(scopes)
            if scopes:
                found[name[1]] = " ".join(scopes)
    return found


def _events(data: Any, made_for: Mapping[str, str]) -> Iterator[tuple[bool, Event]]:
    for plane in data.planes:
        is_device = plane.name.startswith("/device:")
        for line in plane.lines:
            for event in line.events:
                name = dict(event.stats).get("hlo_op", event.name)
                if (text := made_for.get(str(name))) is not None:
                    yield is_device, (text, event.start_ns, event.start_ns + event.duration_ns)


def reached(
    backend: Any, function: Callable[[Any], list[Any]], layers: Sequence[Any], values: Sequence[Any]
) -> list[list[bool]]:
    """Return where gradients come: of each result to each value, and last to any weight.

    JAX gives zeros where none comes, which depend on nothing.
    """
    forward, held = backend.copies.pure(function, layers)
    trained = [one.trainable for one in variables_of(layers)]
    both = [*values, *held]
    wanted = [
        place
        for place, (one, on) in enumerate(zip(both, [True] * len(values) + trained, strict=True))
        if on and jnp.issubdtype(one.dtype, jnp.floating)
    ]

    def made(chosen: Sequence[Any]) -> list[Any]:
        filled = dict(zip(wanted, chosen, strict=True))
        every = [filled.get(place, one) for place, one in enumerate(both)]
        return list(forward(every[len(values) :], every[: len(values)])[0])

    chosen = [both[place] for place in wanted]
    rows = []
    for place, one in enumerate(jax.eval_shape(made, chosen)):
        comes: set[int] = set()
        if jnp.issubdtype(one.dtype, jnp.floating):
            back = functools.partial(_back, made, chosen, place)
            found = jax.make_jaxpr(back)(jnp.zeros(one.shape, one.dtype))
            comes = {wanted[number] for number in _follow(found.jaxpr)}
        weights = any(number >= len(values) for number in comes)
        rows.append([*(number in comes for number in range(len(values))), weights])
    return rows


def _back(made: Callable[[Any], list[Any]], chosen: Any, place: int, given: Any) -> Any:
    _, pull = jax.vjp(lambda one: made(one)[place], chosen)
    return pull(given)[0]


def _follow(jaxpr: Any) -> list[int]:
    """Return the places of the results that depend on what a traced function takes."""
    known = {id(one) for one in jaxpr.invars}
    for equation in jaxpr.eqns:
        if any(id(one) in known for one in equation.invars):
            known.update(id(one) for one in equation.outvars)
    return [place for place, one in enumerate(jaxpr.outvars) if id(one) in known]
