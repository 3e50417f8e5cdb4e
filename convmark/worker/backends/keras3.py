"""Shared by JAX and PyTorch: Keras 3 runs the network, its loss and its update."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from typing import Any

from convmark_zoo.keras_api import KERAS_VERSION, keras

from convmark.worker.backends.keras_model import KerasBackend
from convmark.worker.backends.keras_parts import ends_in_softmax, root_mean_square
from convmark.worker.backends.losses import Batch
from convmark.worker.backends.own_methods import own_function
from convmark.worker.backends.own_training import OwnData
from convmark.worker.failure import CaseFailure

if KERAS_VERSION < (3, 0):
    raise ImportError("JAX and PyTorch need Keras 3: pip install 'keras>=3'")


class Keras3Backend(KerasBackend):
    """A backend whose operations are those of `keras.ops`."""

    chooses_gpus = False
    takes_strings = False

    def fingerprint(self, token: tuple[Any, Any]) -> float:
        return root_mean_square(
            keras.ops.convert_to_numpy(keras.ops.cast(part, "float32"))
            for part in self.leaves(token[1])
        )

    def seed(self, seed: int) -> None:
        with _hidden("tensorflow"):  # Keras would import it only to seed it
            keras.utils.set_random_seed(seed)

    def _optimizer(self, new_optimizer: Callable[[], Any], model: Any) -> Any:
        """Return a new optimizer, its loss scaled where `compile` would scale it."""
        optimizer = new_optimizer()
        if model.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
        return optimizer

    def _build_for_fit(self, model: Any, data: OwnData, batch: tuple[Any, ...]) -> None:
        """Make every variable of the model's own step, as `fit` does before its first step."""
        if own_function(model):
            raise CaseFailure(
                "its own make_train_function or train_function is measured with TensorFlow "
                "only; override train_step, or use the backend tensorflow"
            )
        model._symbolic_build(data_batch=data.as_given(*batch))

    def _proof_of(self, logs: Any, weights: Any) -> list[Any]:
        """Return what the model's own step has returned: its loss, or all numbers, or a weight."""
        if isinstance(logs, dict) and logs.get("loss") is not None:
            logs = logs["loss"]
        numbers = self.leaves(logs)
        return [keras.ops.convert_to_tensor(one) for one in numbers or [weights[-1] + 0]]

    def _loss(self, model: Any, batch: Batch) -> Callable[[Any, Any, Any], Any]:
        """Return the loss of outputs, targets and the model's own losses, float32."""
        ops = keras.ops
        if batch.classes:
            cross_entropy = keras.losses.SparseCategoricalCrossentropy(
                from_logits=not ends_in_softmax(model)
            )

            def of_output(output: Any, targets: Any) -> Any:
                (scores,) = self.leaves(output)
                return cross_entropy(targets[0], ops.cast(scores, "float32"))

        else:

            def of_output(output: Any, targets: Any) -> Any:
                pairs = zip(self.leaves(output), targets, strict=True)
                return sum(
                    ops.mean(ops.square(ops.cast(got, "float32") - want)) for got, want in pairs
                )

        def total(term: Any) -> Any:
            term = ops.cast(term, "float32")
            return ops.sum(term) if len(term.shape) else term  # as `fit` adds it

        def loss(output: Any, targets: Any, own: Any) -> Any:
            return sum(map(total, own), of_output(output, targets))

        return loss


def cuda_versions() -> dict[str, str | None]:
    """Return the versions of the CUDA libraries that are installed as packages."""
    return {
        "cuda": distribution_version("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"),
        "cudnn": distribution_version("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"),
    }


def distribution_version(*names: str) -> str | None:
    """Return the version of the first of these that is installed."""
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Have the module look as if it were not installed, unless it is loaded already."""
    absent = module not in sys.modules
    if absent:
        sys.modules[module] = None  # type: ignore[assignment]  # None refuses its import
    try:
        yield
    finally:
        if absent:
            del sys.modules[module]
