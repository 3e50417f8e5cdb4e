"""TensorFlow's settings that change speed: what is read back, and the defaults.

What is fixed with the first operation is made before any builder runs, so that a builder which
comes too late with it is refused in every kind of run alike.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from convmark.worker.failure import CaseFailure


@contextlib.contextmanager
def told_if_too_late() -> Iterator[None]:
    """Say what to do where a builder sets what TensorFlow has fixed."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().rstrip(".")
        if "cannot be modified after" in reason:
            raise CaseFailure(
                f"a builder cannot set what TensorFlow has already fixed: {reason}; set it "
                "when the module is imported, or threads with --threads"
            ) from error
        raise


def check_eager() -> None:
    """Hold the process to executing eagerly: where it does not, a call would only make a graph."""
    if not tf.executing_eagerly():
        raise CaseFailure(
            "eager execution must be on, but the model's code has turned it off; remove "
            "disable_eager_execution and disable_v2_behavior from it, or measure a SavedModel of it"
        )


def _graph_options() -> str:
    options = tf.config.optimizer.get_experimental_options()
    usual = {"disable_model_pruning": False, "disable_meta_optimizer": False}
    return ",".join(f"{key}:{one}" for key, one in sorted(options.items()) if one != usual.get(key))


def _logical_devices() -> str:
    found = []
    for device in tf.config.list_physical_devices():
        parts = tf.config.get_logical_device_configuration(device)
        name = device.name.removeprefix("/physical_device:")
        if parts is not None and (len(parts) > 1 or parts[0].memory_limit):
            found.append(f"{name}:{len(parts)}x{parts[0].memory_limit or ''}")
        if device.device_type == "GPU" and tf.config.experimental.get_memory_growth(device):
            found.append(f"{name}:growth")
    return ",".join(found)


def _visible_devices() -> str:
    return ",".join(
        d.name.removeprefix("/physical_device:") for d in tf.config.get_visible_devices()
    )


def _session_config() -> str:
    """Return what is set of a session's configuration beside what other readers tell."""
    config = _private("eager.context").context().config
    for name in _TOLD_APART:
        config.ClearField(name)
    config.graph_options.ClearField("rewrite_options")
    config.graph_options.optimizer_options.ClearField("global_jit_level")
    text, emptied = str(config), 1
    while emptied:
        text, emptied = re.subn(r"\w+ \{\s*\}", "", text)
    return " ".join(text.split())


_TOLD_APART = (
    *("allow_soft_placement", "device_count", "gpu_options", "inter_op_parallelism_threads"),
    *("intra_op_parallelism_threads", "log_device_placement"),
)


def _strategy() -> str:
    """Return the strategy whose scope is open; to ask for none begins a graph and its thread."""
    stack = _private("framework.ops")._default_graph_stack
    if getattr(stack, "_global_default_graph", stack) is None:
        return ""
    name = type(tf.distribute.get_strategy()).__name__
    return "" if name.startswith("_Default") else name


def _private(module: str) -> Any:
    return importlib.import_module(f"tensorflow.python.{module}")


READERS: Mapping[str, Callable[[], object]] = {
    "run_functions_eagerly": tf.config.functions_run_eagerly,
    "executing_eagerly": tf.executing_eagerly,
    "data_debug_mode": lambda: _private("data.ops.debug_mode").DEBUG_MODE,
    "xla_jit": tf.config.optimizer.get_jit,
    "graph_options": _graph_options,
    "op_determinism": lambda: _private("framework.config").is_op_determinism_enabled(),
    "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled,
    "soft_device_placement": lambda: tf.config.get_soft_device_placement(),
    "synchronous_execution": lambda: tf.config.experimental.get_synchronous_execution(),
    "device_policy": lambda: tf.config.experimental.get_device_policy(),
    "log_device_placement": lambda: tf.debugging.get_log_device_placement(),
    "op_callbacks": lambda: len(_private("eager.context").context().op_callbacks),
    "profiler": lambda: _private("profiler.profiler_v2")._profiler is not None,
    "auto_dtype_conversion": lambda: _private("framework.ops").is_auto_dtype_conversion_enabled(),
    "logical_devices": _logical_devices,
    "visible_devices": _visible_devices,
    "session_config": _session_config,
    "device_scope": lambda: _private("eager.context").context().device_name,
    "strategy": _strategy,
    "gradient_tape": lambda: not _private("pywrap_tfe").TFE_Py_TapeSetIsEmpty(),
    "summary_trace": lambda: _private("ops.summary_ops_v2")._current_trace_context is not None,
    "control_flow_v2": lambda: _private("ops.control_flow_util").ENABLE_CONTROL_FLOW_V2,
    "prefer_float32": lambda: _private("ops.numpy_ops.np_dtypes").is_prefer_float32(),
}
"""Each has its debugger, optimiser or user that changes it for the whole process."""

DEFAULTS: Mapping[str, str] = {
    "run_functions_eagerly": "False",
    "executing_eagerly": "True",
    "data_debug_mode": "False",
    "xla_jit": "",
    "graph_options": "",
    "op_determinism": "False",
    "soft_device_placement": "True",
    "synchronous_execution": "True",
    "device_policy": "silent",
    "log_device_placement": "False",
    "op_callbacks": "0",
    "profiler": "False",
    "gradient_tape": "False",
    "auto_dtype_conversion": "False",
}
