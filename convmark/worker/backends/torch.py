"""PyTorch, through Keras 3: eager operations, or the step compiled by torch.compile."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from convmark_zoo.keras_api import keras
from torch.nn import functional

from convmark.worker import reference
from convmark.worker.backends.keras3 import Keras3Backend, cuda_versions
from convmark.worker.backends.keras_parts import untracked
from convmark.worker.backends.keras_state import dtype_policy, keep_setting, read_all, set_policy
from convmark.worker.backends.losses import Batch, as_convolution, images, square_matrices
from convmark.worker.backends.own_training import OwnData
from convmark.worker.backends.step import Piece, Step
from convmark.worker.backends.torch_dispatch import dispatched_work, scripted_calls
from convmark.worker.backends.torch_export import Forward
from convmark.worker.backends.torch_settings import (
    DEFAULTS,
    OF_A_CALL,
    READERS,
    compiled_functions,
    compiler_counts,
    not_compiled,
    own_threads,
    set_tf32,
    switches,
    tf32,
    with_code_of_its_own,
)
from convmark.worker.inputs import filled, flat, mapped
from convmark.worker.work import Work, per_sample

MOST_LOOKS = 300
"""At the settings that hold within a call: one takes some 0.2 ms."""


class Torch(Keras3Backend):
    """The framework's side of a measurement; one instance serves one process."""

    name = "torch"
    compiler = "torch.compile"
    _plain_path = "eager"
    plainly_eager = True

    def __init__(self) -> None:
        super().__init__()
        self._keras_device = contextlib.ExitStack()
        self._device = torch.device("cpu")
        self._threads = own_threads()
        self._own_counts = torch.get_num_threads(), torch.get_num_interop_threads()
        self._set_threads: set[int] = set()
        self._set_within: dict[str, str] = {}

    @property
    def call_path(self) -> str:
        """How the step was called: PyTorch runs as it is what a setting keeps from its compiler."""
        path = self._call_path
        if "torch.compile" not in path:
            return path
        if not compiled_functions():
            return "train_step, eager" if "train_step" in path else "eager"
        return f"{path}, eager in part" if not_compiled() else path

    def untouched(self) -> bool:
        """Whether no operation has run yet, so that forking is safe.

        The first operation that is worth it starts a pool of threads, which a child would lack.
        NumPy's own pool ends at the first fork, so the fewest threads so far are what counts.
        """
        now, before = own_threads(), self._threads
        self._threads = min(now, before)
        return now <= before and not torch.cuda.is_initialized()

    def versions(self) -> dict[str, str | None]:
        cuda = torch.version.cuda
        return {
            "torch": torch.__version__,
            "keras": self.keras_version,
            "numpy": np.__version__,
            "cuda": cuda,
            "cudnn": cuda_versions()["cudnn"] if cuda else None,
        }

    def devices(self) -> list[str]:
        return ["cpu", *(f"gpu:{index}" for index in range(torch.cuda.device_count()))]

    def configure(self, *, device: str, threads: str, precision: str, seed: int) -> None:
        """Take the device and set threads, precision and seeds, before any work.

        The environment shows the process one GPU alone.
        """
        if threads != "default":
            torch.set_num_threads(int(threads))
            torch.set_num_interop_threads(int(threads))
        self._note_threads()
        self._set_within.clear()
        self._set_threads.clear()
        if "torch._dynamo" in sys.modules:  # of an earlier case of the process
            torch.compiler.reset()
            compiler_counts().clear()
        if device != "cpu":
            self._device = torch.device("cuda")
        # kept for as long as the process lives: dropped, it would put Keras back on the CPU
        self._keras_device.enter_context(keras.device(self._device.type))
        keep_setting("torch_device")
        set_tf32(precision == "tf32")
        set_policy(dtype_policy(precision))
        self.seed(seed)

    def compile_anew(self) -> None:
        """Give the compiler a folder of its own: by default the processes of a user share one."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="inductor-")

    def default_settings(self, precision: str) -> dict[str, str]:
        return {**super().default_settings(precision), **DEFAULTS}

    def _note_threads(self) -> None:
        """Note from here on which numbers of threads are set, such as within a step alone."""
        original = torch.set_num_threads

        @functools.wraps(original)
        def set_num_threads(number: int) -> None:
            self._set_threads.add(number)
            original(number)

        torch.set_num_threads = set_num_threads

    def settings(self) -> dict[str, str]:
        others = self._set_threads - {torch.get_num_threads()}
        within = (f"{name}:{value}" for name, value in sorted(self._set_within.items()))
        changing = {
            "changing_threads": ",".join(map(str, sorted(others))),
            "changing_settings": ",".join(within),
        }
        return {**super().settings(), **changing, **read_all({**switches(), **READERS})}

    def _dispatched(
        self, run: Callable[[], Any], samples: int, used: dict[int, Any] | None = None
    ) -> Work:
        """Return what a call computes per sample, and note what is set within it alone.

        Args:
            used: takes the parameters that it uses.
        """
        every = {**switches(), **READERS}
        readers = {name: every[name] for name in every if name not in OF_A_CALL}
        outside = read_all(readers)
        looks = itertools.count(1)

        def see() -> None:
            self._set_threads.add(torch.get_num_threads())
            now = read_all(readers) if next(looks) <= MOST_LOOKS else {}
            self._set_within |= {name: now[name] for name in now if now[name] != outside[name]}

        with scripted_calls() as scripted:
            work = per_sample(dispatched_work(run, see, used), samples)
        made = compiled_functions() > 0
        self.compiler = "torch.jit" if scripted and not made else "torch.compile"
        return replace(work, compiled=made or bool(scripted))

    def thread_counts(self) -> tuple[int, int]:
        now = torch.get_num_threads(), torch.get_num_interop_threads()
        return (0, 0) if now == self._own_counts else now

    def pool_threads(self) -> int:
        return int(torch.get_num_threads())

    def layer_precisions(self, model: Any) -> list[str]:
        """What each layer with weights computes in; autocast has float32 in its own dtype."""
        kinds, of_float32 = super().layer_precisions(model), "float32"
        if self._device.type == "cuda" and "tf32" in tf32():
            of_float32 = "tf32"
        if torch.is_autocast_enabled(self._device.type):
            dtype = str(torch.get_autocast_dtype(self._device.type)).removeprefix("torch.")
            of_float32 = f"mixed_{dtype}"
        return [of_float32 if kind == "float32" else kind for kind in kinds]

    def is_out_of_memory(self, error: BaseException) -> bool:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return True
        return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)

    def synchronise(self, token: tuple[Any, Any]) -> None:
        """Wait until the device has finished all steps so far; a CPU has when the call returns."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def device_of(self, value: Any) -> str | None:
        if not isinstance(value, torch.Tensor):
            return None
        return "gpu" if value.is_cuda else value.device.type

    def reset_peak_memory(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None

    def held_memory(self) -> int | None:
        return torch.cuda.memory_allocated() if self._device.type == "cuda" else None

    def _training_step(
        self, model: Any, batch: Batch, new_optimizer: Callable[[], Any], compiled: bool
    ) -> Step:
        loss_of = self._loss(model, batch)
        variables = list(model.trainable_variables)
        parameters = [variable.value for variable in variables]
        optimizer = self._optimizer(new_optimizer, model)
        model.train()

        def forward(pictures: Any, targets: Any) -> Any:
            return loss_of(model(pictures, training=True), targets, model.losses)

        forward = self._compiled(forward) if compiled else forward

        def train(pictures: Any, targets: Any) -> Any:
            loss = forward(pictures, targets)
            gradients = torch.autograd.grad(
                optimizer.scale_loss(loss), parameters, allow_unused=True
            )
            with torch.no_grad():
                optimizer.apply(gradients, variables)
            loss = loss.detach()
            return loss, loss

        return Step(
            train,
            (self._tensors(batch.images), tuple(map(self._tensor, batch.targets))),
        )

    def _fit_step(self, model: Any, data: OwnData, batch: tuple[Any, ...], compiled: bool) -> Step:
        placed = (self._tensors(batch[0]), tuple(map(self._tensor, batch[1])))
        self._build_for_fit(model, data, placed)
        model.train()  # as `fit` has it, for modules of PyTorch that no layer calls
        compiled = compiled or bool(model.jit_compile)
        self._call_path = "train_step, eager"
        own = model.train_step
        if compiled:
            own = self._compiled(own, "torch.compile(train_step)")

        def train(pictures: Any, targets: Any) -> Any:
            logs = own(data.as_given(pictures, targets))
            weights = [variable.value for variable in model.trainable_variables[-1:]]
            found = [number.detach() for number in self._proof_of(logs, weights)]
            return found, found

        return data.step(lambda: (train, None), placed, any_batch=True)

    def tensor(self, array: Any) -> Any:
        return self._tensor(array)

    def _inference_step(self, model: Any, pictures: Any, compiled: bool) -> Step:
        model.eval()  # as `predict` has it, for modules of PyTorch that no layer calls

        def infer(pictures: Any) -> Any:
            with torch.no_grad():
                output = model(pictures, training=False)
            return output, output

        return Step(self._compiled(infer) if compiled else infer, (self._tensors(pictures),))

    def piece(self, one: Piece, compiled: bool) -> Callable[[Any], tuple[Any, Any]]:
        """Return the function without autograd, compiled by `torch.compile` where asked."""
        function = one.function

        def run(values: Any) -> tuple[Any, Any]:
            with torch.no_grad():
                made = function(values)
            return made, made

        return self._compiled(run) if compiled else run

    def backward_piece(self, one: Piece, compiled: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Return the same with autograd over variables and inner tensors."""
        trained = [getattr(layer, "trainable_variables", []) for layer in one.layers]
        parameters = [variable.value for variables in trained for variable in variables]
        forward = self._compiled(one.function) if compiled else one.function

        def run(values: Any, given: Any) -> tuple[Any, Any]:
            passed = [
                value.detach().requires_grad_(on and value.is_floating_point())
                for value, on in zip(values, one.inner or (), strict=True)
            ]
            made = forward(passed)
            followed = [(one, to) for one, to in zip(made, given, strict=True) if one.requires_grad]
            wanted = [*(one for one in passed if one.requires_grad), *parameters]
            if followed and wanted:
                torch.autograd.grad(
                    [one for one, _ in followed],
                    wanted,
                    [to for _, to in followed],
                    allow_unused=True,
                )
            made = [one.detach() for one in made]
            return made, made

        return run

    def array(self, value: Any) -> Any:
        return value.detach().float().cpu().numpy()

    def feed(self, model: Any, task: str, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches without end, from host memory through a DataLoader of this process."""
        pool = self._pool(model, task, batch_size, seed)
        arrays = map(np.asarray, flat(pool))
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(*map(torch.from_numpy, arrays)),
            batch_size=batch_size,
            pin_memory=self._device.type == "cuda",
        )
        while True:
            for parts in loader:
                yield filled(pool, [part.to(self._device, non_blocking=True) for part in parts])

    def _compiled(
        self, step: Callable[..., Any], call_path: str = "torch.compile"
    ) -> Callable[..., Any]:
        self._call_path, self.has_compiler = call_path, True
        compiled: Callable[..., Any] = torch.compile(with_code_of_its_own(step))
        return compiled

    def _tensors(self, structure: Any) -> Any:
        return mapped(self._tensor, structure)

    def _tensor(self, array: Any) -> Any:
        return torch.from_numpy(array).to(self._device)

    def work(self, model: Any, samples: int) -> Work:
        """What a forward pass of so many samples computes, counted while it runs, per sample."""
        batch = self._tensors(images(self.inputs(model), samples, 0))

        used: dict[int, Any] = {}

        def infer() -> Any:
            with torch.no_grad():
                return model(batch, training=False)

        found = self._dispatched(infer, samples, used)
        return replace(found, untracked=untracked(model, used.values()))

    def training_work(self, step: Step, samples: int) -> Work:
        if "torch.compile" in self._call_path:
            return Work(None, "what torch.compile has made cannot be traced")
        return self._dispatched(step, samples)

    def exported_function(self, model: Any, batch: Sequence[Any]) -> Forward:
        """A forward pass of this batch's size, for a runtime to be converted from."""
        structure = self.inputs(model).structure
        return Forward(model, lambda tensors: filled(structure, tensors), self.leaves, batch)

    def exported_outputs(self, function: Forward, batch: Sequence[Any]) -> list[Any]:
        return function.outputs(batch)

    def exported_digest(self, function: Forward, model: Any) -> str:
        """A hash of all that an export is made of."""
        return function.digest()

    def matrix_product(self, size: int) -> Callable[[], Any]:
        dtype = getattr(torch, keras.config.dtype_policy().compute_dtype)
        left, right = (self._tensor(array).to(dtype) for array in square_matrices(size))
        output = torch.empty_like(left)
        return lambda: (torch.matmul(left, right, out=output), None)

    def products(self, left: Any, right: Any) -> list[Any]:
        maps, kernel = map(self._tensor, as_convolution(left, right))
        with torch.no_grad():
            product = self._tensor(left) @ self._tensor(right)
            maps, kernel = maps.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
            found = functional.conv2d(maps, kernel, padding=1).permute(0, 2, 3, 1)
        return [product.numpy(), found.numpy()]

    def copy(self, size: int) -> Callable[[], Any]:
        source = torch.ones(size // 4, device=self._device)
        output = torch.empty_like(source)
        return lambda: (torch.add(source, 1, out=output), None)

    def reference_step(self, kind: str) -> Callable[[], Any]:
        pictures, labels = map(self._tensor, reference.batch(kind))
        pictures = pictures.permute(0, 3, 1, 2).contiguous()
        variables = [self._weight(array) for array in reference.weights()]

        def small() -> tuple[Any, Any]:
            with torch.no_grad():
                output = _reference_logits(pictures, variables)
            return output, output

        def large() -> tuple[Any, Any]:
            loss = functional.cross_entropy(_reference_logits(pictures, variables), labels)
            gradients = torch.autograd.grad(loss, variables)
            with torch.no_grad():
                for variable, gradient in zip(variables, gradients, strict=True):
                    variable.sub_(gradient, alpha=reference.LEARNING_RATE)
            loss = loss.detach()
            return loss, loss

        return small if kind == "small" else large

    def _weight(self, array: Any) -> Any:
        """Return a weight; a kernel of (height, width, in, out) as PyTorch wants it."""
        tensor = self._tensor(array)
        if tensor.ndim == 4:
            tensor = tensor.permute(3, 2, 0, 1).contiguous()
        return tensor.requires_grad_()


def _reference_logits(maps: Any, variables: Any) -> Any:
    kernel_1, bias_1, kernel_2, bias_2, *dense = variables
    maps = torch.tanh(functional.conv2d(maps, kernel_1, bias_1, padding="same"))
    maps = functional.avg_pool2d(maps, 2, 2)
    maps = torch.tanh(functional.conv2d(maps, kernel_2, bias_2))
    maps = functional.avg_pool2d(maps, 2, 2)
    values = maps.permute(0, 2, 3, 1).reshape(-1, 400)  # the order of the other backends
    for weight, bias in zip(dense[:-2:2], dense[1:-2:2], strict=True):
        values = torch.tanh(values @ weight + bias)
    return values @ dense[-2] + dense[-1]
