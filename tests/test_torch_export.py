"""What an exported program of PyTorch's is told apart by."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import Forks

BRANCHES = """
import numpy as np
import torch
from convmark.worker.backends.torch_export import Forward

def digest(factor):
    def model(one, training):
        return torch.cond(one.sum() > 0, lambda one: one * factor, lambda one: one + 1, (one,))

    batch = [np.ones((1, 2), np.float32)]
    return Forward(model, lambda tensors: tensors[0], lambda made: [made], batch).digest()

print(digest(2) == digest(2), digest(2) == digest(3))
"""


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_programs_that_differ_in_a_branch_alone_are_not_one(
    tmp_path: Path, forks_of: Callable[[str], Forks]
) -> None:
    done = forks_of("torch").run(BRANCHES, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "False"]
