"""The FLOPs of a traced JAX function: each equation of its jaxpr has a rule.

What a step of JAX is, in a hash: its StableHLO, and the values of all that it is given.

Names of functions are numbered, and places in the source are not printed; all else that JAX hands
to XLA counts. XLA compiles that text alone, so steps of one text and of one placing of arguments
run one program. What runs beside that program is refused: calls of Python, libraries and devices.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

from convmark.worker.work import NoRule, Work, counted, elements, followed, product

_WITHOUT_RULE = {
    *("cholesky", "eig", "eigh", "fft", "geqrf", "geqp3", "householder_product", "lu"),
    *("ormqr", "qr", "ragged_dot", "ragged_dot_general", "scaled_dot", "schur", "svd"),
    *("triangular_solve", "tridiagonal", "tridiagonal_solve", "cholesky_update", "hessenberg"),
    *("custom_call", "ffi_call", "io_callback", "pallas_call", "pure_callback"),
    *("linear_solve", "custom_linear_solve", "shard_map"),
}
_OWN = {
    *("add_any", "copy", "copy_p", "create_token", "device_put", "empty", "name"),
    *("stop_gradient", "debug_callback", "debug_print", "split", "reshard"),
    *("random_bits", "random_fold_in", "random_seed", "random_split", "random_unwrap"),
    *("random_wrap", "random_clone", "random_gamma", "threefry2x32", "erf_inv", "erf"),
    *("erfc", "lgamma", "digamma", "optimization_barrier", "platform_index", "pvary"),
    *("bessel_i0e", "bessel_i1e", "igamma", "igammac", "igamma_grad_a"),
    "regularized_incomplete_beta",
    *("random_gamma_grad", "polygamma", "zeta", "nextafter", "approx_top_k", "unreachable"),
}
"""Primitives of JAX's own that `jax.lax` does not show."""


def jaxpr_work(trace: Callable[[], Any]) -> Work:
    """Return the FLOPs of one run of the closed jaxpr that `trace` makes."""
    return counted(lambda: _of_jaxpr(followed(trace).jaxpr))


def held_arrays(closed: Any) -> Iterator[Any]:
    """Yield the arrays that a traced function has from outside and does not take as arguments."""
    yield from closed.consts
    for equation in closed.jaxpr.eqns:
        yield from (one.val for one in equation.invars if isinstance(one, core.Literal))
        for value in equation.params.values():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(one, core.ClosedJaxpr):
                    yield from held_arrays(one)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """In which functions are not compiled, and loops of JAX's own are loops of Python."""
    with jax.disable_jit():
        yield


def _of_jaxpr(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in _needed(jaxpr))


def _needed(jaxpr: Any) -> Iterator[Any]:
    """Yield the equations that outputs and side effects need, the last first; XLA drops others."""
    wanted = {id(variable) for variable in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(id(variable) in wanted for variable in equation.outvars):
            wanted.update(id(variable) for variable in equation.invars)
            yield equation


def _of_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name in _RULES:
        return product(name, _kinds(equation), lambda: _RULES[name](equation))
    if name in _WITHOUT_RULE:
        raise NoRule(f"{name} has no rule")
    inner = list(_inner(equation))
    if name == "cond":
        counts = {_of_jaxpr(branch) for branch in inner}
        if len(counts) > 1:
            raise NoRule("the branches of a condition count unlike")
        return counts.pop()
    total = sum(map(_of_jaxpr, inner))
    if name == "scan":
        return total * int(equation.params["length"])
    if name == "while":
        if total:
            raise NoRule("the number of loop iterations depends on the data")
        return 0
    if not inner and name not in _OWN and not hasattr(jax.lax, f"{name.replace('-', '_')}_p"):
        raise NoRule(f"{name} is no operation of JAX's own")
    return total


def _kinds(equation: Any) -> list[str]:
    """Return what a product multiplies in: its operands, or what its algorithm makes of them."""
    asked = equation.params.get("precision")
    if isinstance(asked, jax.lax.DotAlgorithm) and asked.num_primitive_operations == 1:
        return [str(jax.numpy.dtype(asked.lhs_precision_type))]
    if str(asked) in _ALGORITHMS:
        return [_ALGORITHMS[str(asked)]]
    return [str(variable.aval.dtype) for variable in equation.invars]


def _inner(equation: Any) -> Iterator[Any]:
    """Yield the jaxprs that an equation runs; of one with its own derivative, the function's."""
    for value in equation.params.values():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(one, core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, core.Jaxpr):
                yield one


def _product(equation: Any) -> int:
    """Count a product: each output sums over the contracted axes; without one nothing is added."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    if not contracted:
        return 0
    left = equation.invars[0].aval.shape
    summed = elements([left[axis] for axis in contracted], "dot_general")
    return 2 * elements(equation.outvars[0].aval.shape, "dot_general") * summed


def _convolution(equation: Any) -> int:
    """Count each kernel element once per output position; of a transposed one, input position.

    One whose input is dilated, or whose output is larger than its input, is a transposed one. One
    that sums over the batch, the first axis, is the gradient of the kernel that comes out of it.
    """
    of_given, of_kernel, of_output = equation.params["dimension_numbers"]
    given, kernel = (variable.aval.shape for variable in equation.invars)
    output = equation.outvars[0].aval.shape
    if of_given[1] == of_kernel[1] == 0:  # of input and slopes the smaller one has the positions
        both = _positions(given, of_given[1:]), _positions(kernel, of_kernel[1:])
        return 2 * min(both) * elements(output, "a convolution")
    taken = _positions(given, (of_given[0], *of_given[2:]))
    made = _positions(output, (of_output[0], *of_output[2:]))
    transposed = math.prod(equation.params["lhs_dilation"]) > 1 or made > taken
    return 2 * (taken if transposed else made) * elements(kernel, "a convolution")


def _positions(shape: Any, axes: Any) -> int:
    """Return the number of positions: the batch and the axes of space, the channels left out."""
    return elements([shape[axis] for axis in axes], "a convolution")


_ALGORITHMS = {
    **dict.fromkeys(("BF16_BF16_BF16", "BF16_BF16_F32"), "bfloat16"),
    **dict.fromkeys(("F16_F16_F16", "F16_F16_F32"), "float16"),
}
"""What an algorithm rounds its operands to, whatever they are stored in; those of several products,
which come near to float32, are left out."""

_RULES: dict[str, Callable[[Any], int]] = {
    "dot_general": _product,
    "conv_general_dilated": _convolution,
}


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
    called = set(re.findall(r"custom_call\b(?: @([\w.$-]+))?", text))  # "" where it is not known
    if _UNSEEN.search(text) or not called <= _OWN_CALLS:
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
