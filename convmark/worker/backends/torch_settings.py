"""PyTorch's settings that change speed: how TF32 is set, what is read back, and its defaults."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch


def set_tf32(on: bool) -> None:
    """Let products of float32 run in TF32 or not: PyTorch alone would let convolutions."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # from 2.9; the old names warn
        precision = "tf32" if on else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision
        torch.backends.cudnn.rnn.fp32_precision = precision
    else:
        torch.backends.cuda.matmul.allow_tf32 = on
        torch.backends.cudnn.allow_tf32 = on


def tf32() -> str:
    """Return what products and convolutions of float32 run in on a GPU."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        return f"{matmul.fp32_precision},{conv.fp32_precision}"
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return ",".join("tf32" if flag else "ieee" for flag in flags)


def _autocast() -> str:
    on = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return ",".join(f"{kind}:{torch.get_autocast_dtype(kind)}" for kind in on)


READERS: Mapping[str, Callable[[], object]] = {
    "default_dtype": torch.get_default_dtype,
    "default_device": lambda: torch.get_default_device(),
    "deterministic": lambda: torch.get_deterministic_debug_mode(),
    "matmul_tf32": tf32,
    "float32_matmul": lambda: torch.get_float32_matmul_precision(),
    "mkldnn_matmul": lambda: torch.backends.mkldnn.matmul.fp32_precision,
    "mkldnn_conv": lambda: torch.backends.mkldnn.conv.fp32_precision,
    "nnpack": lambda: torch.backends.nnpack.is_available(),
    "cudnn_rnn": lambda: torch.backends.cudnn.rnn.fp32_precision,
    "einsum": lambda: torch.backends.opt_einsum.strategy,
    "einsum_enabled": lambda: torch.backends.opt_einsum.enabled,
    "linalg": lambda: torch._C._get_linalg_preferred_backend(),
    "blas": lambda: torch._C._get_blas_preferred_backend(),
    "mha_fastpath": lambda: torch.backends.mha.get_fastpath_enabled(),
    "fills_memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
    "quantized_engine": lambda: torch.backends.quantized.engine,
    "jit": lambda: torch.jit._state._enabled.enabled,
    "module_hooks": lambda: _module_hooks(),
    "anomaly": torch.is_anomaly_enabled,
    "autocast": _autocast,
    "grad": torch.is_grad_enabled,
    "inference_mode": lambda: torch.is_inference_mode_enabled(),
    "profiler": lambda: torch.autograd.profiler._is_profiler_enabled,
    "compiler": lambda: _compiler_options(),
    "compiler_stance": lambda: sys.modules["torch._dynamo.eval_frame"]._stance.stance,
    "backward_threads": torch.autograd.is_multithreading_enabled,
    "saved_tensors_hooks": lambda: torch._C._autograd._top_saved_tensors_default_hooks(True),
    "function_mode": lambda: len(torch.overrides._get_current_function_mode_stack()),
    "dispatch_mode": lambda: len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()),
}
"""Each is of the whole process, or of its first thread, which takes the steps."""

OF_A_CALL = frozenset(["dispatch_mode", "function_mode", "grad", "inference_mode"])
"""What the count of a call's operations, or a call without gradients, sets for itself."""

DEFAULTS: Mapping[str, str] = {
    "changing_settings": "",
    "changing_threads": "",
    "default_dtype": "torch.float32",
    "deterministic": "0",
    "mkldnn_enabled": "True",
    "cudnn_enabled": "True",
    "cudnn_benchmark": "False",
    "cudnn_deterministic": "False",
    "anomaly": "False",
    "autocast": "",
    "grad": "True",
    "inference_mode": "False",
    "profiler": "False",
}


def own_threads() -> int:
    """Return how many threads this process has; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task"))
    return 0


def compiler_counts() -> Any:
    """Return what the compiler has counted in this process, by kind; empty without one."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo.counters if dynamo else {}


def compiled_functions() -> int:
    """Return how many functions PyTorch has compiled."""
    return int(compiler_counts().get("frames", {}).get("ok", 0))


def not_compiled() -> int:
    """Return how often PyTorch gave up compiling a function, or was told to leave it as it is.

    It gives up one that is another function at each call. Keras itself has random seeds left out.
    """
    counts = compiler_counts()
    told = (counts.get(kind, {}) for kind in ("unimplemented", "graph_break"))
    pairs = [pair for one in told for pair in one.items()]
    return sum(count for text, count in pairs if _LEFT.search(text) and _SEED not in text)


_LEFT = re.compile(r"(recompile|cache.size).limit|disable\(\)(`d| wrapped) function")
_SEED = "torch_seed_generator"


def with_code_of_its_own(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function in one whose code no other has: of one code the compiler makes few."""

    def run(*given: Any) -> Any:
        return step(*given)

    run.__code__ = run.__code__.replace()
    return run


_CONFIGURED = ("torch._dynamo.config", "torch._functorch.config", "torch._inductor.config")
_SWITCH = re.compile(r"_get_\w*(sdp|reduced|reduction|accumulation)\w*")


def switches() -> dict[str, Callable[[], object]]:
    """What reads the switches of PyTorch's libraries, whatever this release has, by name."""
    return {
        **{
            f"{library}_{name}": functools.partial(getattr, module, name)
            for library in ("cudnn", "mkldnn")
            for module in [getattr(torch.backends, library)]
            for name, one in vars(type(module)).items()
            if isinstance(one, torch.backends.ContextProp) and name != "allow_tf32"  # it may warn
        },
        **{
            name.removeprefix("_get_"): read
            for name, read in vars(torch._C).items()
            if _SWITCH.fullmatch(name)
        },
    }


def _module_hooks() -> int:
    """Return how many hooks every module calls."""
    module = torch.nn.modules.module
    names = [name for name in vars(module) if re.fullmatch(r"_global_\w*hooks", name)]
    return sum(len(vars(module)[name]) for name in names)


def _compiler_options() -> str:
    """Return the options of torch.compile that are not the default ones."""
    configs = [sys.modules[name] for name in _CONFIGURED if name in sys.modules]
    pairs = [
        f"{name}:{functools.reduce(getattr, name.split('.'), config)}"
        for config in configs
        for name in config._config
        if not config._is_default(name)
    ]
    return ",".join(sorted(pairs))
