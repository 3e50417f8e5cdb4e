"""The FLOPs of PyTorch code: each dispatched operation has a rule."""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from convmark_zoo.keras_api import keras
from torch.utils._python_dispatch import TorchDispatchMode

from convmark.worker.work import NoRule, Work, counted, elements, followed, product, real_numbers

_WITHOUT_RULE = re.compile(
    r"conv|mm$|mm_|matmul|addmv|^addr|^mv$|dot|linalg|fft|cholesky|_cdist|lstm|gru|rnn|quant"
    r"|^_?lu|^qr|^geqrf|svd|_eig|^eig|inverse|triangular_solve|_solve$|attention|sparse|trilinear"
    r"|transformer|(?<!bi)linear$|linear_backward$"
)
_HARMLESS = re.compile(r"^(_?convert|_to_copy|constant_pad|conversion|linalg_vector_norm)")


def dispatched_work(
    run: Callable[[], Any],
    see: Callable[[], None] = lambda: None,
    used: dict[int, Any] | None = None,
) -> Work:
    """Run the function once and return the FLOPs of what it dispatches.

    Args:
        see: called before each operation of this thread that multiplies.
        used: takes the parameters that are operands, by their identity.
    """

    def count() -> int:
        counter = _Counter(see, {} if used is None else used)
        with counter, _noted_aside(counter):
            followed(run)
        if counter.reason is not None:
            raise NoRule(counter.reason)
        return counter.flops

    return counted(count)


class _Counter(TorchDispatchMode):  # type: ignore[misc]  # PyTorch has no types here
    def __init__(self, see: Callable[[], None], used: dict[int, Any]) -> None:
        super().__init__()
        self.flops = 0
        self._used = used
        self._see, self._thread = see, threading.get_ident()
        self.reason: str | None = None
        self._context = contextvars.copy_context()
        """Of the count: a GPU's gradients are computed by threads that have another one."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self._used.update((id(one), one) for one in args if isinstance(one, torch.nn.Parameter))
        name = str(getattr(function, "_overloadpacket", function)).rpartition(".")[2]
        if name in _RULES and threading.get_ident() == self._thread:
            self._see()
        result = function(*args, **(kwargs or {}))
        try:
            self.flops += self._context.copy().run(_of_call, function, args, result)
        except NoRule as reason:
            self.reason = self.reason or str(reason)
        return result


def _of_call(function: Any, args: Any, result: Any) -> int:
    packet = function._overloadpacket
    namespace, _, name = str(packet).rpartition(".")
    if name in _RULES:
        factors = [one for one in args if isinstance(one, torch.Tensor)]
        if name.startswith(_ATTENTION):  # sums and seeds come with them
            factors = factors[:3]
        kinds = [str(one.dtype).removeprefix("torch.") for one in factors]
        return product(name, kinds, lambda: _RULES[name](args, result))
    multiplies = _WITHOUT_RULE.search(name) and not _HARMLESS.search(name)
    if namespace == "quantized" or (multiplies and _is_of_bytes(args)):
        real_numbers(name, ["int8"])
    if namespace not in ("aten", "prim", "prims", "profiler"):
        raise NoRule(f"{packet} is no operation of PyTorch's own")
    if multiplies:
        raise NoRule(f"{name} has no rule")
    return 0


def _is_of_bytes(args: Any) -> bool:
    return any(getattr(one, "dtype", None) == torch.int8 for one in args)


def _size(tensor: Any) -> int:
    return elements(tuple(tensor.shape), "an operation")


def _product(args: Any, result: Any) -> int:
    return 2 * _size(result) * int(args[0].shape[-1])


def _added_product(args: Any, result: Any) -> int:
    return 2 * _size(result) * int(args[1].shape[-1])


def _convolution(args: Any, result: Any) -> int:
    """Count each kernel element once per output position; of a transposed one, input position."""
    given, kernel, transposed = args[0], args[1], args[6]
    positions = _size(given) // given.shape[1] if transposed else _size(result) // result.shape[1]
    return 2 * int(positions) * _size(kernel)


def _convolution_backward(args: Any, result: Any) -> int:
    """Count a backward convolution: as the forward one, for the input and for the kernel."""
    slopes, given, kernel, transposed = args[0], args[1], args[2], args[7]
    positions = _size(given) // given.shape[1] if transposed else _size(slopes) // slopes.shape[1]
    return 2 * int(positions) * _size(kernel) * sum(bool(wanted) for wanted in args[10][:2])


def _attention(args: Any, result: Any) -> int:
    """Count attention's two products: scores of queries against keys, then sums of values."""
    query, key, value = args[:3]
    return 2 * _size(query) * int(key.shape[-2]) + 2 * (
        _size(query) // int(query.shape[-1]) * int(key.shape[-2]) * int(value.shape[-1])
    )


def _attention_backward(args: Any, result: Any) -> int:
    """Count attention's backward pass: the scores once more, and two products for each forward."""
    slopes, query, key = args[:3]
    return 2 * int(key.shape[-2]) * (3 * _size(query) + 2 * _size(slopes))


_ATTENTION = "_scaled_dot_product_"
_KERNELS = (
    *("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention"),
    "fused_attention_overrideable",
)

_RULES: dict[str, Callable[[Any, Any], int]] = {
    "mm": _product,
    "bmm": _product,
    "mv": _product,
    "dot": lambda args, result: 2 * _size(args[0]),
    "addmm": _added_product,
    "baddbmm": _added_product,
    "addmv": _added_product,
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "convolution_backward": _convolution_backward,
    **{f"{_ATTENTION}{kernel}": _attention for kernel in _KERNELS},
    **{f"{_ATTENTION}{kernel}_backward": _attention_backward for kernel in _KERNELS},
}


_TORCH, _NUMPY, _KERAS = (
    os.path.join(os.path.dirname(str(one.__file__)), "") for one in (torch, np, keras)
)
_LIBRARIES = (_TORCH, _NUMPY, *(os.path.join(_KERAS, "src", one, "") for one in ("backend", "ops")))
_ASIDE: tuple[tuple[Any, str, str], ...] = (
    (torch.Tensor, "numpy", "what is computed outside PyTorch cannot be counted"),
    (torch.Tensor, "__array__", "what is computed outside PyTorch cannot be counted"),
    (threading.Thread, "start", "what is computed in other threads cannot be counted"),
    (ThreadPoolExecutor, "submit", "what is computed in other threads cannot be counted"),
)
"""By what a model's code goes where nothing is counted, and the reason that there is no count."""


@contextlib.contextmanager
def _noted_aside(counter: _Counter) -> Iterator[None]:
    """Note where a model's code computes aside; what Keras itself takes out, as a seed, is none."""

    def noted(original: Any, reason: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            frame = sys._getframe(1)
            while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
                frame = frame.f_back
            if not frame.f_code.co_filename.startswith(_KERAS):
                counter.reason = counter.reason or reason
            return original(*arguments, **named)

        return call

    own = [(holder, name, vars(holder).get(name)) for holder, name, _ in _ASIDE]
    for holder, name, reason in _ASIDE:
        setattr(holder, name, noted(getattr(holder, name), reason))
    try:
        yield
    finally:
        for holder, name, original in own:
            if original is None:
                delattr(holder, name)
            else:
                setattr(holder, name, original)


_SCRIPTED: tuple[Any, ...] = (torch._C.ScriptFunction, torch._C.ScriptMethod)


@contextlib.contextmanager
def scripted_calls() -> Iterator[list[str]]:
    """Note each call of TorchScript's functions and methods until the block ends."""
    called: list[str] = []
    originals = {kind: kind.__call__ for kind in _SCRIPTED}

    def noted(kind: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            called.append(kind.__name__)
            return originals[kind](*arguments, **named)

        return call

    for kind in _SCRIPTED:
        kind.__call__ = noted(kind)
    try:
        yield called
    finally:
        for kind, original in originals.items():
            kind.__call__ = original
