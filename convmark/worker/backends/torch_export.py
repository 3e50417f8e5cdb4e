"""A Keras model's forward pass as a program of torch.export, which PyTorch loads without Keras."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


class Forward(torch.nn.Module):  # type: ignore[misc]  # its types are not read
    """The forward pass of a model for one batch size, from tensors to tensors."""

    def __init__(
        self,
        model: Any,
        packed: Callable[[Sequence[Any]], Any],
        leaves: Callable[[Any], list[Any]],
        batch: Sequence[Any],
    ) -> None:
        """Take the model; nothing is run yet.

        Args:
            packed: makes what the model takes of a tensor for each input.
            leaves: parts what it gives into tensors.
            batch: an array for each input.
        """
        super().__init__()
        self.model = model
        self._packed = packed
        self._leaves = leaves
        self._batch = batch

    def forward(self, *tensors: Any) -> tuple[Any, ...]:
        return tuple(self._leaves(self.model(self._packed(tensors), training=False)))

    def outputs(self, batch: Sequence[Any]) -> list[Any]:
        """Return the arrays that the model gives, in order."""
        self.eval()
        with torch.no_grad():
            return [one.numpy() for one in self(*map(torch.from_numpy, batch))]

    @functools.cached_property
    def program(self) -> Any:
        """The exported program, with the weights as they are at the first use."""
        self.eval()
        # exporting refuses a mix of the old and new switches of TF32, which no CPU has
        torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Keras's own lists of layers, as its export does
            return torch.export.export(self, tuple(map(torch.from_numpy, self._batch)))

    def digest(self) -> str:
        """Return a hash of all that the export is made of: the graph, weights and versions."""
        program = self.program
        found = hashlib.sha256(
            f"{torch.version.git_version} {torch.__version__} {np.__version__}".encode()
        )
        for name, part in program.graph_module.named_modules():  # branches have a graph each
            found.update(f"{name} {getattr(part, 'code', '')}".encode())
        for name, tensor in sorted({**program.state_dict, **program.constants}.items()):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(np.ascontiguousarray(tensor.detach().numpy()).tobytes())
        return found.hexdigest()
