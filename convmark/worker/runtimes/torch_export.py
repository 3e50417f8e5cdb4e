"""torch.export: a program of PyTorch's operations, loaded and run without Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from convmark.worker.runtimes.engine import Engine, Source, Taken


def convert(source: Source, path: str, precision: str) -> None:
    """Write a .pt2 file."""
    torch.export.save(source.function.program, path)


class TorchExport(Engine):
    """The module of one program, whose operations run eagerly."""

    call_path = "torchexport"

    def __init__(self, path: str, threads: str, device: str) -> None:
        program = torch.export.load(path)
        self._module = program.module()
        signature = program.graph_signature
        tensors = {
            node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta
        }
        self._takes = [(name, tensors[name]) for name in signature.user_inputs]

    @property
    def taken(self) -> list[Taken]:
        return [
            Taken(name, tuple(one.shape), str(one.dtype).removeprefix("torch."))
            for name, one in self._takes
        ]

    def stored_precision(self) -> str:
        """float32: nothing else is exported to it."""
        return "float32"

    def threads(self) -> int | None:
        return int(torch.get_num_threads())

    def bound(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        module = self._module

        def step() -> Sequence[Any]:
            with torch.inference_mode():
                return [one.numpy() for one in module(*map(torch.from_numpy, arrays))]

        return step
