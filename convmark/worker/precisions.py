"""What layers compute in: as their policies say and as their operations multiply, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from convmark.core.case import FOUND_PRECISION, PRECISIONS, Case
from convmark.worker.failure import CaseFailure

_HEADS = ("float32", "float64", "tf32")
"""What single layers may compute in beside a mixed precision, such as the last one."""
_LOW = ("float16", "bfloat16")
_BITS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}


_ERRORS = {"float32": 1e-5, "mixed_float16": 3e-4, "mixed_bfloat16": np.inf}
"""Of the products below, as a share of the largest: up to these, operands of 23, 10 and 7 bits."""
_OF_PRODUCTS = re.compile(
    r"(ONEDNN|DNNL|ZENDNN|MKL|OPENBLAS|BLIS|ATEN|XLA|TF(?!_CPP|2_BEHAVIOR)|TORCH(?!INDUCTOR_CACHE))_?\w*"
)
"""Variables of the libraries that multiply."""
_BYTES = "int8"
"""In what a layer multiplies that quantises by itself."""


def kind_of(computed: str, stored: str) -> str:
    """Return a precision's name: of one dtype, mixed as Keras mixes them, or both dtypes."""
    if computed == stored:
        return computed
    if stored == "float32" and computed in _LOW:
        return f"mixed_{computed}"
    return f"{computed}_from_{stored}"


def _parts(kind: str) -> tuple[str, str]:
    """Return in which dtype a kind computes and in which it stores its weights."""
    if kind == "tf32":
        return "float32", "float32"
    if kind.startswith("mixed_"):
        return kind.removeprefix("mixed_"), "float32"
    computed, _, stored = kind.partition("_from_")
    return computed, stored or computed


def as_multiplied(
    kinds: Counter[str], multiplied: Collection[str], *, is_all: bool
) -> Counter[str]:
    """Return what layers compute in, where operations tell otherwise than the layers' policies.

    A layer that casts, a module of another library or an autocast computes in what no policy says.
    Wider products beside those of the policies are good practice; quantised layers have no rule.

    Args:
        kinds: how many layers with weights compute in each precision, by their policies.
        multiplied: the dtypes of the products of a step.
        is_all: whether these are those of all products.
    """
    parts = {kind: _parts(kind) for kind in kinds}
    told = {computed for computed, _ in parts.values()}
    if not told or not told <= _BITS.keys():
        return kinds
    others = set(multiplied) & {*_BITS, _BYTES} - told
    if told & set(multiplied):
        widest = max(_BITS[known] for known in told)
        others = {one for one in others if _BITS.get(one, 0) <= widest}
    if not others:
        return kinds
    unused = [kind for kind in kinds if parts[kind][0] not in multiplied] if is_all else []
    (most, _), *_ = Counter({kind: kinds[kind] for kind in unused or kinds}).most_common()
    found = Counter({kind: count for kind, count in kinds.items() if kind not in unused})
    found.update(kind_of(one, parts[most][1]) for one in others)
    return found


def _mostly_wider(precision: str, flops: Mapping[str, int]) -> list[str]:
    """Return the wider precisions that most of the FLOPs are in; none where most are not wider."""
    computed, stored = _parts(precision)
    bits = _BITS.get(computed, max(_BITS.values()))
    wider = {one: count for one, count in flops.items() if _BITS.get(one, 0) > bits}
    is_most = 2 * sum(wider.values()) > sum(flops.values())
    return [kind_of(one, stored) for one in wider] if is_most else []


def worked_precision(
    case: Case,
    kinds: Counter[str],
    multiplied: Collection[str],
    flops: Mapping[str, int],
    *,
    is_all: bool,
    asked: bool,
) -> str:
    """Return what the layers compute in by the operations of a step.

    Args:
        kinds: how many layers with weights compute in each precision, by their policies.
        multiplied: as of `as_multiplied`, with `is_all`.
        flops: those of the products by dtype; none where they are not known.
        asked: whether the user has named the precision.

    Raises:
        CaseFailure: it is not what was asked for, or has no name that a row could have.
    """
    kinds = as_multiplied(kinds, multiplied, is_all=is_all)
    found = checked_precision(case, kinds, asked=False)
    if "+" not in found and (wider := _mostly_wider(found, flops)):
        found = "+".join(sorted({found, *wider}))
    if found != case.precision and asked:
        raise CaseFailure(
            f"{case.model}: asked for precision {case.precision}, but its operations "
            f"multiply in {', '.join(sorted(multiplied))}; leave out --precisions, or do "
            "not cast to another dtype in the model's code"
        )
    return found


def _is_as_asked(kinds: Counter[str], asked: str) -> bool:
    """Whether layers compute as asked: all, or under a mixed policy most, the others wider."""
    others = {kind: count for kind, count in kinds.items() if kind != asked}
    if not others:
        return True
    wider = asked.startswith("mixed_") and set(others) <= set(_HEADS)
    return wider and kinds[asked] >= sum(others.values())


def checked_precision(
    case: Case, kinds: Counter[str], *, asked: bool, exported: bool = False
) -> str:
    """Return what the layers compute in: the case's own precision where they do as it says.

    Args:
        kinds: how many layers with weights compute in each precision.
        asked: whether the user has named the precision.
        exported: whether the model is to be exported, which the case's precision alone can be.

    Raises:
        CaseFailure: it is not what was asked for, or has no name that a row could have.
    """
    found = "+".join(sorted(kinds))
    if found in ("", case.precision) or (
        case.precision in PRECISIONS and _is_as_asked(kinds, case.precision)
    ):
        return case.precision
    if asked:
        number, total = sum(kinds.values()) - kinds[case.precision], sum(kinds.values())
        rule, remedy = f"precision {case.precision} was asked for", "leave out --precisions"
        if exported:
            rule = f"an export is made from a model in {case.precision}"
            remedy = "measure it with --runtime keras"
        raise CaseFailure(
            f"{case.model}: {rule}, {number} of {total} layers with weights compute otherwise: "
            f"{found}; {remedy}, or have the model's code set no policy or dtype"
        )
    if not FOUND_PRECISION.fullmatch(found):
        raise CaseFailure(
            f"{case.model}: layers must compute in at most 8 precisions that a row has names for, "
            f"they compute in {found}; use other dtypes or another quantization"
        )
    return found


def may_be_set(variables: Iterable[str]) -> bool:
    """Whether a variable is set that may have a library multiply in another dtype."""
    return any(map(_OF_PRODUCTS.fullmatch, variables))


def computed_precision(case: Case, precision: str, backend: Any, *, asked: bool) -> str:
    """Return a precision in which float32 is what products of float32 are computed in.

    A library may be set to round their operands, by a name that nobody has thought of: on a CPU
    it shows in the results of a product and of a convolution.

    Args:
        precision: what the layers and the operations of a step tell.
        asked: whether the user has named the precision.
    """
    parts = set(precision.split("+"))
    if case.device != "cpu" or "float32" not in parts:
        return precision
    source = np.random.RandomState(0)
    left, right = (source.uniform(1, 2, (size, 64)).astype("float32") for size in (256, 64))
    exact = left.astype("float64") @ right
    computed = set()
    for found in backend.products(left, right):
        error = np.abs(np.reshape(found, exact.shape) - exact).max() / exact.max()
        computed.add(next(kind for kind, most in _ERRORS.items() if error < most))
    if asked and computed != {"float32"}:
        lower = ", ".join(sorted(computed - {"float32"}))
        raise CaseFailure(
            f"{case.model}: asked for precision {case.precision}, but a setting of the process "
            f"has products of float32 computed in {lower.replace('mixed_', '')}; leave out "
            "--precisions, or remove the setting"
        )
    return "+".join(sorted(parts - {"float32"} | computed))
