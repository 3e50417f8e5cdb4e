"""SavedModel: TensorFlow's own graph, called by its serving signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from convmark.worker.runtimes.engine import Engine, Source, Taken

_SIGNATURE = "serving_default"


def convert(source: Source, path: str, precision: str) -> None:
    """Write the folder of a SavedModel."""
    module = tf.Module()
    module.owner = source.owner
    tf.saved_model.save(module, path, signatures={_SIGNATURE: source.function})


class SavedModel(Engine):
    """A folder that `convert` has written; a user's own is loaded as a model of the backend."""

    call_path = "savedmodel"

    def __init__(self, path: str, threads: str, device: str) -> None:
        self._loaded = tf.saved_model.load(path)  # its variables live as long as it does
        self._function = self._loaded.signatures[_SIGNATURE]
        self._takes = self._function.structured_input_signature[1]
        self._gives = sorted(self._function.structured_outputs)

    @property
    def taken(self) -> list[Taken]:
        return [
            Taken(name, tuple(spec.shape), spec.dtype.name)
            for name, spec in sorted(self._takes.items())
        ]

    def stored_precision(self) -> str:
        """float32: nothing else is exported to it."""
        return "float32"

    def bound(self, arrays: Sequence[Any]) -> Callable[[], Sequence[Any]]:
        function, gives = self._function, self._gives
        given = list(zip(sorted(self._takes), arrays, strict=True))

        def step() -> Sequence[Any]:
            outputs = function(**{name: tf.constant(one) for name, one in given})
            return [outputs[name].numpy() for name in gives]

        return step
