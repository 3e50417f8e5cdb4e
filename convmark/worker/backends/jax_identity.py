"""What a step of JAX is, in a hash: its StableHLO, and the values of all that it is given.

Names of functions are numbered, and places in the source are not printed; all else that JAX hands
to XLA counts. XLA compiles that text alone, so steps of one text and of one placing of arguments
run one program. What runs beside that program is refused: calls of Python, libraries and devices.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

_TOKENS = re.compile(
    r'(?P<path>jax\.result_info = "(?:[^"\\]|\\.)*")'
    r"|(?P<target>custom_call @[\w.$-]+)"
    r'|(?P<symbol>@(?:"(?:[^"\\]|\\.)*"|[\w.$-]+))'
    r'|"(?:[^"\\]|\\.)*"'
)
"""What has a name in it; other texts in quotes stand as they are, whatever they hold."""
_OWN_CALLS = frozenset(("Sharding", "mhlo.erf", "mhlo.topk"))
"""Targets of custom calls that XLA compiles itself; all others are of a library or of Python."""
_UNSEEN = re.compile(
    r"!stablehlo\.token"  # of what has an effect beside its result: callbacks, infeed, send
    r"|dense_resource|__elided__"  # values that are not printed
    r"|jax\.const"  # arguments that the caller does not see
)
_PLAIN = (list, tuple, dict)


def lowered(function: Any, *arguments: Any) -> tuple[Any, Any]:
    """Return what `jax.jit` makes of a function for arguments, and these."""
    return function.lower(*arguments), arguments


def step_digest(traced: tuple[Any, Any], batch: object = None) -> str | None:
    """Return the hash of a lowered function with the values that it is called with.

    None where they do not tell all that a call does: it calls Python, a library or a device,
    constants are hidden, or the classes of arguments or results have code of their own.

    Args:
        traced: what `lowered` returns, all weights among the arguments.
        batch: is among them.
    """
    program, arguments = traced
    leaves, tree = jax.tree.flatten(arguments)
    results = jax.tree.unflatten(program.out_tree, range(program.out_tree.num_leaves))
    if jax.config.jax_disable_jit or not (_is_plain(arguments) and _is_plain(results)):
        return None
    text = program.as_text(debug_info=False)
    if _UNSEEN.search(text) or not set(_targets(text)) <= _OWN_CALLS:
        return None
    found = hashlib.sha256(f"{_without_names(text)}{tree}{program.out_tree}".encode())
    for leaf in leaves:
        if not isinstance(leaf, jax.Array) or not leaf.is_fully_addressable:
            return None
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):  # a key of random numbers
            return None
        placed = leaf.aval, leaf.sharding, getattr(leaf, "format", None), leaf.committed
        found.update(str(placed).encode())
        for shard in leaf.addressable_shards:
            # of another array on the same memory: the step takes over what nobody else holds
            values = np.ascontiguousarray(shard.data)
            found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _is_plain(value: Any) -> bool:
    """Whether taking it apart and putting it together runs no code but JAX's."""
    if isinstance(value, _PLAIN):
        inner = value.values() if isinstance(value, dict) else value
        return type(value) in _PLAIN and all(map(_is_plain, inner))
    return value is None or isinstance(value, (int, jax.Array))


def _targets(text: str) -> Iterator[str]:
    """Yield the target of each custom call; an empty one where it is not known."""
    for found in re.finditer(r"custom_call\b(?: @([\w.$-]+))?", text):
        yield found.group(1) or ""


def _without_names(text: str) -> str:
    """Return a module's text, its functions named by the order in which they first occur."""
    numbers: dict[str, int] = {}

    def replaced(found: re.Match[str]) -> str:
        if found["path"]:
            return ""
        if found["symbol"]:
            return f"@{numbers.setdefault(found['symbol'], len(numbers))}"
        return found[0]

    return _TOKENS.sub(replaced, text)
