"""What is known to help a layer: how near it is to its roof, and a sentence for each thing to try.

A sentence has no figure of the gain: `convmark layers --suggest` measures it. A row that takes
hardly any of the step gets none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from convmark.core.backends import BACKENDS
from convmark.core.case import PRECISIONS, Case
from convmark.core.text import counted
from convmark.session.ceilings import Ceiling

FAR = 0.5
"""Of the peak: a layer that reaches less may be helped."""
SLOW = 4.0
"""Times what FLOPs and bytes need at the ceilings: no kernel of one operation is so slow by itself
that others would not be suspected."""
MANY = 8
"""Operations of a row, or rows, that starting them may be what takes the time."""
QUICK_S = 2e-5
"""That a small operation needs at the ceilings at most; to start one takes about so long."""
LEAST_SHARE, LEAST_OF_SMALL = 0.02, 0.2
"""Of the step: of a row that is worth a sentence, and of all small rows together."""
MULTIPLE = 8
"""Of the channels that `--suggest` tries: tensor cores need it for float16, and a CPU's vectors of
float32 have as many numbers or twice as many."""
FOLDS = "batch normalisation: can be folded into"
"""Begins what is said of one that the layer before it could do."""
_MULTIPLES: Mapping[str, int] = MappingProxyType({"tf32": 4, "mixed_float16": MULTIPLE})
"""Of channels, by the precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """How a row stands to the ceilings of its device (the roofline)."""

    of_peak: float | None = None
    """Its FLOP/s in the forward pass over the peak."""
    bound: str | None = None
    """`memory` or `compute`: which ceiling is lower for it."""
    needed_s: float | None = None
    """Seconds of its FLOPs or of its bytes at the ceilings, whichever are more."""

    @classmethod
    def over(
        cls,
        flops: int | None,
        moved: int | None,
        forward_s: float | None,
        ceiling: Ceiling | None,
    ) -> Roof:
        """Return the roof over a row; what is not known of it stays out."""
        if ceiling is None or forward_s is None or forward_s <= 0:
            return cls()
        of_peak = flops / forward_s / ceiling.peak_flops_per_s if flops else None
        if flops is None or not moved:
            return cls(of_peak=of_peak)
        compute_s, memory_s = flops / ceiling.peak_flops_per_s, moved / ceiling.peak_bytes_per_s
        bound = "compute" if compute_s > memory_s else "memory"
        return cls(of_peak=of_peak, bound=bound, needed_s=max(compute_s, memory_s))

    def is_slow(self, forward_s: float | None) -> bool:
        """Whether the row takes far longer than its FLOPs and bytes need."""
        is_known = self.needed_s is not None and forward_s is not None
        return is_known and (forward_s or 0.0) > SLOW * (self.needed_s or 0.0)


def advice(
    facts: Mapping[str, Any], roof: Roof, case: Case, *, forward_s: float | None, share: float
) -> str:
    """Return what is known to help a row; empty for nothing.

    Args:
        facts: the worker's.
        forward_s: the lower end of its interval, or the mean where there is none.
        share: of the step.
    """
    found = []
    if case.task == "infer" and (into := facts.get("folds_into")):
        # its two numbers of each channel are fixed: a kernel and a bias can hold them
        found.append(f"{FOLDS} {into}")
    if share >= LEAST_SHARE:
        found += [
            *_of_convolution(facts, roof, case),
            _many_operations(facts, roof, case, forward_s),
            _few_flops(facts, roof, case, forward_s),
        ]
    return "; ".join(filter(None, found))


def _of_convolution(facts: Mapping[str, Any], roof: Roof, case: Case) -> Iterator[str]:
    """Yield what helps a convolution or dense layer on a GPU.

    Source:
        NVIDIA, Convolutional Layers User's Guide, checklist,
        docs.nvidia.com/deeplearning/performance/dl-performance-convolutional: channels divisible by
        8 (FP16) or 4 (TF32) for Tensor Cores, which multiply no float32.
    """
    if case.device == "cpu":
        return
    settings = facts.get("settings") or {}
    channels, multiple = settings.get("channels"), _MULTIPLES.get(case.precision)
    far = roof.of_peak is not None and roof.of_peak < FAR
    if far and multiple and isinstance(channels, int) and channels % multiple:
        yield f"{channels} channels: tensor cores need a multiple of {multiple}"
    kernel = settings.get("kernel")
    is_float32 = case.precision == (facts.get("computes") or PRECISIONS[0]) == PRECISIONS[0]
    if is_float32 and kernel and set(kernel) == {1}:
        yield "1x1 convolution in float32: tensor cores need tf32 or mixed_float16"


def _many_operations(
    facts: Mapping[str, Any], roof: Roof, case: Case, forward_s: float | None
) -> str:
    several = (facts.get("operations") or 1) >= MANY
    if several and _may_compile(case) and roof.is_slow(forward_s):
        return "many small operations: --jit on may fuse them"
    return ""


def _few_flops(facts: Mapping[str, Any], roof: Roof, case: Case, forward_s: float | None) -> str:
    """Of a row that is near to the ceiling of the memory, and far from that of its FLOPs."""
    if roof.bound != "memory" or not facts.get("flops") or roof.is_slow(forward_s):
        return ""
    if (roof.of_peak or 0) >= FAR:
        return ""
    if 2 * (facts.get("weight_bytes") or 0) > facts["moved_bytes"]:
        return "few FLOPs for each byte, most of them weights: a larger batch reads them once"
    lower = not case.precision.startswith("mixed_")
    return "few FLOPs for each byte: a lower precision moves fewer" * lower


def _may_compile(case: Case) -> bool:
    return case.jit == "off" and BACKENDS[case.backend].optional_compiler


def of_small_rows(rows: Sequence[tuple[Roof, float | None, float]], case: Case) -> str:
    """Return what helps where the time is in starting many small layers; empty if it is not.

    Args:
        rows: of each layer its roof, the seconds of its forward pass and its share of the step.
    """
    shares = [
        share
        for roof, forward_s, share in rows
        if roof.is_slow(forward_s) and (roof.needed_s or 0) < QUICK_S
    ]
    if len(shares) < MANY or sum(shares) < LEAST_OF_SMALL or not _may_compile(case):
        return ""
    return (
        f"{counted(len(shares), 'small layer')} take far longer than FLOPs and bytes need: "
        "--jit on may fuse them"
    )
