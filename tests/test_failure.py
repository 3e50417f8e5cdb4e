"""Errors of frameworks in one line: the first sentence that is a reason."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest

from convmark.core.case import Case
from convmark.worker.failure import (
    MESSAGE_CHARS,
    CaseFailure,
    UnknownModelError,
    message_of,
    stack_of,
)
from convmark.worker.measurement import build
from convmark.worker.work import counted, followed

KERAS = (
    "Exception encountered when calling Sequential.call().\n\n\x1b[1mInput 0 of layer 'conv2d' is "
    "incompatible with the layer: expected axis -1 to have value 1\x1b[0m\n\nArguments received by "
    "Sequential.call():\n  • inputs=tf.Tensor(shape=(2, 3), dtype=float32)"
)
GRAPH = (
    "Graph execution error:\n\nDetected at node model/embedding/GatherV2 defined at (most recent "
    'call last):\n  File "net.py", line 13, in <module>\n\n  File "net.py", line 7, in show\n\n'
    "indices[0,0] = 9 is not in [0, 3)\n\t [[{{node model/embedding/GatherV2}}]] [Op:__inference_7]"
)
TRACED = (
    'in user code:\n\n    File "net.py", line 15, in call  *\n        return tf.reshape(x, [7])\n\n'
    "    ValueError: Cannot reshape a tensor with 6 elements to shape [7] (7 elements)\n"
)
CALLED_BACK = (
    "Graph execution error:\n\nDetected at node EagerPyFunc defined at (most recent call last):\n"
    '  File "net.py", line 6, in <module>\n\nValueError: no signal here\n'
    'Traceback (most recent call last):\n\n  File "api.py", line 643, in wrapper\n'
    "    return func(*args, **kwargs)\n           ^^^^^^^^^^^^^~~~~~~~~\n\n"
    "ValueError: no signal here\n\n\n\t [[{{node EagerPyFunc}}]] [Op:__inference_g_8]"
)
OPERATION = (
    "{{function_node __wrapped__MatMul_device_/job:localhost/device:CPU:0}} Matrix "
    "size-incompatible: In[0]: [2,3], In[1]: [2,3] [Op:MatMul] name: "
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ValueError(KERAS),
            "ValueError: Sequential: Input 0 of layer 'conv2d' is incompatible with the layer: "
            "expected axis -1 to have value 1",
        ),
        (RuntimeError(GRAPH), "RuntimeError: indices[0,0] = 9 is not in [0, 3)"),
        (RuntimeError(CALLED_BACK), "RuntimeError: ValueError: no signal here"),
        (
            ValueError(TRACED),
            "ValueError: Cannot reshape a tensor with 6 elements to shape [7] (7 elements)",
        ),
        (
            RuntimeError(OPERATION),
            "RuntimeError: Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]",
        ),
        (
            ValueError("Invalid value for `filters`. Expected some. Received: filters=-1. More. "),
            "ValueError: Invalid value for `filters`. Expected some. Received: filters=-1",
        ),
        (
            ValueError("Computed output size would be zero. Received `(None, 2)`. Try more. "),
            "ValueError: Computed output size would be zero. Received `(None, 2)`",
        ),
        (KeyError("Exception encountered when calling Own.call().\n\ngone"), "KeyError: Own: gone"),
        (ValueError(), "ValueError"),
        (CaseFailure("net: a reason. With advice."), "net: a reason. With advice."),
    ],
)
def test_a_message_is_the_first_sentence_that_is_a_reason(error: Exception, line: str) -> None:
    assert message_of(error) == line


def test_a_long_message_keeps_what_to_do_at_its_end() -> None:
    message = message_of(CaseFailure(f"net: a reason: {'path/' * 80}; use --precisions float32"))
    assert message.startswith("net: a reason: path/")
    assert message.endswith("; use --precisions float32")
    assert len(message) == MESSAGE_CHARS


def test_a_stack_is_kept_of_what_is_no_line_of_ours() -> None:
    with pytest.raises(ValueError, match="broken") as caught:
        raise ValueError("broken")
    assert "in test_a_stack_is_kept" in stack_of(caught.value)
    assert stack_of(CaseFailure("a reason")) == stack_of(UnknownModelError("a reason")) == ""


@pytest.mark.parametrize(
    ("text", "helps"),
    [
        ("No module named 'keras.engine'", True),
        ("cannot import name 'get_source_inputs' from 'tensorflow.keras.utils' (utils.py)", True),
        ("module 'keras' has no attribute 'ops'", True),
        ("A KerasTensor cannot be used as input to a TensorFlow function. A KerasTensor is", True),
        ("No module named 'keras'", False),
        ("cannot import name 'small' from 'keras_nets' (nets.py)", False),
    ],
)
def test_code_that_asks_keras_for_what_it_does_not_have_is_told_of_the_other_keras(
    text: str, helps: bool
) -> None:
    message = message_of(raised_by_a_build(ImportError(text)))
    assert message.count("TF_USE_LEGACY_KERAS=1") == helps


def test_what_is_said_of_a_model_that_was_built_has_no_advice_on_building_it() -> None:
    def trace() -> int:
        raise ImportError("No module named 'keras.engine'")

    note = counted(lambda: followed(trace)).note
    assert note == "the model cannot be traced: ImportError: No module named 'keras.engine'"


def raised_by_a_build(error: Exception) -> Exception:
    def builder() -> None:
        raise error

    case = Case(model="net", task="infer", batch_size=1)
    with pytest.raises(type(error)) as caught:
        build(case, builder, 0, SimpleNamespace(scope=contextlib.nullcontext), print)
    return caught.value


def test_a_package_that_cannot_download_is_told_to_build_without_its_weights() -> None:
    error = OSError("URL fetch failure on https://example.org/net.h5: None -- Connection refused")
    assert message_of(raised_by_a_build(error)).endswith(
        "; it cannot download; build it without pretrained weights, as in weights=None, or "
        "download them before"
    )
