"""Precisions: what the frameworks are told, and that each trains; a CPU has no TF32 to run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from forks import Forks, printed
from workers import measured

from convmark.interpreter import Interpreter

CODE = """
import json, sys
from convmark.worker import backends
backend = backends.load(sys.argv[1])
backend.configure(device="cpu", threads="1", precision=sys.argv[2], seed=0)
keras = backend.keras
policy = getattr(keras.mixed_precision, "global_policy", None) or keras.config.dtype_policy
if sys.argv[1] == "tensorflow":
    import tensorflow as tf
    tf32 = [tf.config.experimental.tensor_float_32_execution_enabled()]
elif sys.argv[1] == "jax":
    import jax
    tf32 = [{"tensorfloat32": True, "highest": False}[jax.config.jax_default_matmul_precision]]
else:
    import torch
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # from 2.9; reading the old raises
        flags = [torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn]
        tf32 = [{"tf32": True, "ieee": False}[flag.fp32_precision] for flag in flags]
    else:
        tf32 = [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]
print(json.dumps([policy().name, tf32]))
"""


backends = pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])


@backends
@pytest.mark.parametrize(
    ("precision", "policy", "tf32"),
    [
        ("float32", "float32", False),
        ("tf32", "float32", True),
        ("mixed_bfloat16", "mixed_bfloat16", False),
    ],
)
def test_tf32_is_on_where_it_is_the_precision_and_nowhere_else(
    precision: str, policy: str, tf32: bool, backend: str, forks_of: Callable[[str], Forks]
) -> None:
    found_policy, found_tf32 = printed(forks_of(backend).run(CODE, backend, precision))
    assert found_policy == policy
    assert set(found_tf32) == {tf32}


@backends
def test_the_mixed_precisions_train_to_about_the_same_loss(
    backend: str, interpreter_of: Callable[[str], Interpreter]
) -> None:
    losses = {}
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        asked = measured("lenet5", task="train", batch_size=8, backend=backend, precision=precision)
        answer = interpreter_of(backend).answer(asked)
        assert (answer.status, answer.message) == ("ok", "")
        losses[precision] = (answer.event("proof") or {})["value"]
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["mixed_float16"] == pytest.approx(losses["float32"], rel=0.05)
    assert len(set(losses.values())) == 3
