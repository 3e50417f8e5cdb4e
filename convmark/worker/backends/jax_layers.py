"""What the layers of a JAX model need besides pieces: its profiler's events, and gradients' ways.

XLA's instructions have the scope that they were made in; the profiler has their names alone. On a
CPU an event is the launch of an instruction, which other threads may work on after its end: it
lasts until the trace has its end, or until an instruction begins that takes its result. The former
alone is too late: the thread that ends one begins the next before it notes the end.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from convmark.worker.backends.jax_values import variables_of
from convmark.worker.backends.step import SCOPE, Event, Piece

named = jax.named_scope
_NAME = re.compile(r"%?([\w.-]+) = ")
_MADE_FOR = re.compile(r'op_name="([^"]*)"')
_CALLS = re.compile(r"(?:calls|to_apply|body)=%?([\w.-]+)")
_TAKES = re.compile(r" = .*? [\w-]+\(([^)]*)\)")
_ENDED = "end: "
"""Begins the event of the end of the instruction whose name follows."""


def traced(
    backend: Any, one: Piece, values: Sequence[Any], passes: Iterable[object]
) -> list[tuple[bool, Event]]:
    """Return the events of the passes, in nanoseconds."""
    options, read = jax.profiler.ProfileOptions(), jax.profiler.ProfileData.from_file
    options.python_tracer_level = 0
    forward, held = backend.copies.pure(one)
    compiled = jax.jit(forward).lower(held, list(values)).compile()
    text = compiled.as_text()
    jax.block_until_ready(compiled(held, list(values)))
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in passes:
                jax.block_until_ready(compiled(held, list(values)))
        pattern = os.path.join(glob.escape(folder), "**", "*.xplane.pb")
        return of_units([read(path) for path in glob.glob(pattern, recursive=True)], text)


def instructions(text: str) -> dict[str, str]:
    """Return the scopes of each instruction of a compiled module, by its name.

    They are its own and those of all that it calls: a fusion may be of several units.
    """
    found: dict[str, str] = {}
    inside: dict[str, dict[str, None]] = {}
    for computation, name, line in _lines(text):
        called = _CALLS.search(line)
        scopes = {**inside.get(called[1], {})} if called else {}
        if (own := _MADE_FOR.search(line)) and SCOPE.search(own[1]):
            scopes[own[1]] = None
        inside.setdefault(computation, {}).update(scopes)
        if scopes:
            found[name] = " ".join(scopes)
    return found


def takers(text: str) -> dict[str, list[str]]:
    """Return the instructions that take the result of each, all of a compiled module.

    What a computation results in is taken by those that take the result of what calls it.
    """
    lines = list(_lines(text))
    found: dict[str, list[str]] = {name: [] for _, name, _ in lines}
    roots = {computation: name for computation, name, line in lines if "ROOT " in line}
    for _, name, line in lines:
        taken = _TAKES.search(line)
        for one in re.findall(r"[\w.-]+", taken[1]) if taken else ():
            if one in found:
                found[one].append(name)
    for _, name, line in reversed(lines):  # what calls stands after what it calls
        if called := _CALLS.search(line):
            found.get(roots.get(called[1], ""), []).extend(found[name])
    return found


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the instructions of a compiled module: the computation, the name and the line."""
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and (head := re.match(r"(?:ENTRY )?%?([\w.-]+) ", line)):
            computation = head[1]
        elif name := _NAME.search(line):
            yield computation, name[1], line


def of_units(traces: Sequence[Any], text: str) -> list[tuple[bool, Event]]:
    """Return the events of a compiled module's units, each with whether it is one of a device.

    Those of a device that are of no unit too, by their own names.
    """
    made_for, taken_by = instructions(text), takers(text)
    on_device: list[Event] = []
    on_host: list[Event] = []
    ends: dict[str, list[float]] = {}
    for plane in (one for trace in traces for one in trace.planes):
        found = on_device if plane.name.startswith("/device:") else on_host
        for line in plane.lines:
            for event in line.events:
                name = str(dict(event.stats).get("hlo_op", event.name))
                if name in taken_by or found is on_device:
                    found.append((name, event.start_ns, event.start_ns + event.duration_ns))
                elif name.startswith(_ENDED):
                    ends.setdefault(name.removeprefix(_ENDED), []).append(event.start_ns)
    return [
        (is_device, (made_for.get(name, name), begin, end))
        for is_device, events in ((True, on_device), (False, until_done(on_host, ends, taken_by)))
        for name, begin, end in events
        if is_device or name in made_for
    ]


def until_done(
    events: Iterable[Event], ends: Mapping[str, Sequence[float]], taken_by: Mapping[str, list[str]]
) -> list[Event]:
    """Return instructions' launches on a CPU, by their names, each until its work is done.

    Args:
        ends: by an instruction's name, when the trace has its ends.
    """
    begins: dict[str, list[float]] = {}
    launches = sorted(events, key=lambda one: one[1])
    for name, begin, _ in launches:
        begins.setdefault(name, []).append(begin)

    def followers(name: str) -> set[str]:
        """Return those that take its result, also through one that is no work, as of a tuple."""
        found: set[str] = set()
        seen, left = {name}, [name]
        while left:
            new = set(taken_by[left.pop()]) - seen
            seen |= new
            found |= new & begins.keys()
            left += new - begins.keys()
        return found

    ended = {name: sorted(ends.get(name, ())) for name in begins}
    after = {name: [ended[name], *(begins[one] for one in followers(name))] for name in begins}
    found = []
    for name, begin, end in launches:
        places = [(times, bisect_left(times, begin)) for times in after[name]]
        next_ones = [times[place] for times, place in places if place < len(times)]
        found.append((name, begin, max(end, min(next_ones, default=end))))
    return found


def reached(backend: Any, piece: Piece, values: Sequence[Any]) -> list[list[bool]]:
    """Return where gradients come: of each result to each value, and last to any weight.

    JAX gives zeros where none comes, which depend on nothing.
    """
    forward, held = backend.copies.pure(piece)
    trained = [one.trainable for one in variables_of(piece.layers)]
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
