"""JAX, through Keras 3. Every step is a pure function that XLA compiles."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from convmark_zoo.keras_api import keras

from convmark.worker import reference
from convmark.worker.backends.jax_values import Copies, HandedOn, Reading, is_dense, variables_of
from convmark.worker.backends.jaxpr import as_written, held_arrays, jaxpr_work, lowered, step_digest
from convmark.worker.backends.keras3 import Keras3Backend, cuda_versions, distribution_version
from convmark.worker.backends.keras_parts import ByIdentity, loose, untracked
from convmark.worker.backends.keras_state import dtype_policy, read_all, set_policy
from convmark.worker.backends.losses import Batch, as_convolution, square_matrices
from convmark.worker.backends.own_training import OwnData
from convmark.worker.backends.step import Piece, Step
from convmark.worker.work import Work, per_sample

_DEFAULTS: Mapping[str, str] = {
    "jax_disable_jit": "False",
    "jax_enable_x64": "False",
    "jax_debug_nans": "False",
    "jax_debug_infs": "False",
    "jax_enable_checks": "False",
    "jax_check_tracer_leaks": "False",
    "jax_disable_most_optimizations": "False",
    "jax_cpu_enable_async_dispatch": "True",
}
"""Other values of JAX's configuration are compared with what they were at first."""

_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")


class Jax(Keras3Backend):
    """The framework's side of a measurement; one instance serves one process.

    The values of the weights live outside the model while it trains, in buffers that each step
    takes over from the one before; `settle` gives them back to the model.
    """

    name = "jax"
    always_compiles = True
    _plain_path = "jax.jit"
    as_written = staticmethod(as_written)
    _graph_digest = staticmethod(step_digest)

    def __init__(self) -> None:
        super().__init__()
        self._on_gpu = False
        self._states: ByIdentity[HandedOn] = ByIdentity()
        self.copies = Copies()

    @property
    def call_path(self) -> str:
        """How a step is called now: a model's code may have nothing compiled."""
        return "eager" if jax.config.jax_disable_jit else self._call_path

    def default_settings(self, precision: str) -> dict[str, str]:
        products = "tensorfloat32" if precision == "tf32" else "highest"
        return {
            **super().default_settings(precision),
            **_DEFAULTS,
            "jax_default_matmul_precision": products,
        }

    def settings(self) -> dict[str, str]:
        config = {
            name if name.startswith("jax") else f"jax_{name}": str(getattr(jax.config, name, one))
            for name, one in jax.config.values.items()
        }
        told = {"profiler": lambda: bool(vars(jax)["_src"].profiler._profile_state.profile_session)}
        return {**super().settings(), **config, **read_all(told)}

    def thread_counts(self) -> tuple[int, int]:
        threads = os.environ.get("PJRT_NPROC") or os.environ.get("NPROC", "")
        return (int(threads),) * 2 if threads.isdecimal() else (0, 0)

    def layer_precisions(self, model: Any) -> list[str]:
        """What each layer with weights computes in; without x64 JAX makes float32 of float64."""
        kinds, products = super().layer_precisions(model), jax.config.jax_default_matmul_precision
        if not jax.config.jax_enable_x64:
            kinds = [kind.replace("float64", "float32") for kind in kinds]
        if not self._on_gpu or products in ("highest", "float32"):
            return kinds
        of_float32 = "mixed_bfloat16" if "bf" in str(products).lower() else "tf32"
        return [of_float32 if kind == "float32" else kind for kind in kinds]

    def untouched(self) -> bool:
        from jax._src import xla_bridge

        return not xla_bridge.backends_are_initialized()

    def versions(self) -> dict[str, str | None]:
        return {
            "jax": jax.__version__,
            "keras": self.keras_version,
            "numpy": np.__version__,
            **(cuda_versions() if distribution_version(*_PLUGINS) else {}),
        }

    def devices(self) -> list[str]:
        try:
            gpus = jax.devices("gpu")
        except RuntimeError:  # there is none, or no plugin for it
            gpus = []
        return ["cpu", *(f"gpu:{index}" for index in range(len(gpus)))]

    def configure(self, *, device: str, threads: str, precision: str, seed: int) -> None:
        """Take the device and set threads, precision and seeds, before any work.

        The environment shows the process one GPU alone.

        Raises:
            RuntimeError: JAX does not see the GPU.
        """
        if threads != "default":
            os.environ["PJRT_NPROC"] = threads  # read when JAX makes its CPU's pool of threads
        if device == "cpu":
            jax.config.update("jax_platforms", "cpu")
        else:
            self._on_gpu = True
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
            if jax.devices()[0].platform != "gpu":
                raise RuntimeError(f"{device}: JAX sees no GPU, only {jax.devices()[0].platform}")
        products = "tensorfloat32" if precision == "tf32" else "highest"
        jax.config.update("jax_default_matmul_precision", products)
        jax.config.update("jax_enable_compilation_cache", False)  # the first step compiles
        set_policy(dtype_policy(precision))
        self.seed(seed)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)

    def synchronise(self, token: tuple[Any, Any]) -> None:
        jax.block_until_ready(token[0])

    def device_of(self, value: Any) -> str | None:
        if not isinstance(value, jax.Array) or isinstance(value, jax.core.Tracer):
            return None
        places = value.sharding.device_set  # of a buffer that a step took over, too
        return "cpu" if any(one.platform == "cpu" for one in places) else "gpu"

    def reset_peak_memory(self) -> None:
        """Nothing to do: JAX's peak cannot be reset, and a process measures one case."""

    def peak_memory(self) -> int | None:
        return self._allocated("peak_bytes_in_use")

    def held_memory(self) -> int | None:
        return self._allocated("bytes_in_use")

    def _allocated(self, key: str) -> int | None:
        found = (jax.devices()[0].memory_stats() or {}).get(key)
        return None if found is None else int(found)

    def _training_step(
        self, model: Any, batch: Batch, new_optimizer: Callable[[], Any], compiled: bool
    ) -> Step:
        """Compiled whether `compiled` or not, for JAX has no other way worth the name."""
        loss_of = self._loss(model, batch)
        trained, kept = list(model.trainable_variables), list(model.non_trainable_variables)
        optimizer = self._optimizer(new_optimizer, model)
        scales = list(optimizer.variables)

        def scaled_loss(values: Any, state: Any, pictures: Any, targets: Any) -> Any:
            mapping = zip([*trained, *kept, *scales], [*values, *state[0], *state[1]], strict=True)
            with keras.StatelessScope(list(mapping), collect_losses=True) as scope:
                output = model(pictures, training=True)
                loss = loss_of(output, targets, model.losses)
                scaled = optimizer.scale_loss(loss)
            return scaled, (loss, [scope.get_current_value(variable) for variable in kept])

        def train(state: Any, pictures: Any, targets: Any) -> Any:
            values, others, factors = state
            differentiated = jax.value_and_grad(scaled_loss, has_aux=True)
            (_, (loss, others)), gradients = differentiated(
                values, (others, factors), pictures, targets
            )
            values, factors = optimizer.stateless_apply(factors, gradients, values)
            return loss, [list(values), list(others), list(factors)]  # as they came in: one trace

        step = jax.jit(train, donate_argnums=0), (trained, kept, scales)
        return self._stateful(model, *step, jax.device_put((batch.images, batch.targets)))

    def added_losses(self, model: Any) -> bool:
        """Whether a training step of the model adds losses."""
        return self._states[model].adds_losses(model)

    def tensor(self, array: Any) -> Any:
        return jnp.asarray(array)

    def _fit_step(self, model: Any, data: OwnData, batch: tuple[Any, ...], compiled: bool) -> Step:
        """Return the model's own step, which takes the values of all variables and returns them."""
        placed = jax.device_put(batch)
        self._build_for_fit(model, data, placed)
        optimizer = model.optimizer.variables if model.optimizer is not None else []
        weights = list(model.trainable_variables), list(model.non_trainable_variables)
        variables = (*weights, list(optimizer), list(model.metrics_variables))
        state = [tuple([variable.value for variable in part] for part in variables)]
        eager = model.run_eagerly or not (model.jit_compile or compiled)
        self._call_path = "train_step, eager" if eager else "jax.jit(train_step)"
        train = model.train_step if eager else jax.jit(model.train_step, donate_argnums=0)

        def step(pictures: Any, targets: Any) -> tuple[Any, Any]:
            logs, after = train(state[0], data.as_given(pictures, targets))
            state[0] = tuple(map(list, after))  # as they came in: one trace
            found = self._proof_of(logs, state[0][0])
            return ([*found, *state[0][0]] if eager else found), found

        def trace(pictures: Any, targets: Any) -> Any:
            return lowered(train, state[0], data.as_given(pictures, targets))

        self._states[model] = HandedOn(variables, state, placed[0])

        def equations() -> Any:
            return jax.make_jaxpr(model.train_step)(state[0], data.as_given(*placed))

        return data.step(
            lambda: (step, None if eager else trace),
            placed,
            any_batch=is_dense(placed),
            equations=equations,
        )

    def _stateful(self, model: Any, train: Any, variables: Any, batch: tuple[Any, ...]) -> Step:
        """Return a step that hands the variables' values on from each call to the next."""
        state = [[[variable.value for variable in part] for part in variables]]

        def step(pictures: Any, targets: Any) -> tuple[Any, Any]:
            loss, state[0] = train(state[0], pictures, targets)
            return loss, loss

        self._states[model] = HandedOn(variables, state, batch[0])
        return Step(
            step,
            batch,
            lambda: lowered(train, state[0], *batch),
            is_dense(batch),
            equations=lambda: jax.make_jaxpr(train)(state[0], *batch),
        )

    def settle(self, model: Any) -> None:
        if model in self._states:
            self._states[model].settle()

    def training_progress(self, model: Any, *, whole: bool = False) -> tuple[int, str] | None:
        self.settle(model)
        return super().training_progress(model, whole=whole)

    def kept_values(self, model: Any) -> Callable[[], None]:
        return self._states[model].kept()

    def _inference_step(self, model: Any, pictures: Any, compiled: bool) -> Step:
        """Always compiled; what the model changes of its variables, each call hands on."""
        variables = list(model.variables)
        values = [variable.value for variable in variables]

        def forward(given: Any, pictures: Any) -> Any:
            with keras.StatelessScope(list(zip(variables, given, strict=True))) as scope:
                before = list(map(scope.get_current_value, variables))
                output = model(pictures, training=False)
                now = list(map(scope.get_current_value, variables))
            pairs = enumerate(zip(before, now, strict=True))
            return output, {place: new for place, (old, new) in pairs if new is not old}

        infer = jax.jit(forward)
        self._states[model] = HandedOn([variables], [[values]], pictures)

        def step(pictures: Any) -> tuple[Any, Any]:
            output, changed = infer(values, pictures)
            for place, value in changed.items():
                values[place] = value
            return output, output

        batch = (jax.device_put(pictures),)
        equations = functools.partial(jax.make_jaxpr(forward), values, *batch)
        trace = functools.partial(lowered, infer, values, *batch)
        return Step(step, batch, trace, is_dense(batch), equations=equations)

    def piece(self, one: Piece, compiled: bool) -> Callable[[Any], tuple[Any, Any]]:
        """Return the function, always compiled; the layers' variables are its arguments."""
        forward, held = self.copies.pure(one)
        compiled_forward = jax.jit(forward)

        def run(values: Any) -> tuple[Any, Any]:
            found = compiled_forward(held, values)
            return found, found[0]

        return run

    def backward_piece(self, one: Piece, compiled: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
        """Return the same with `jax.vjp`, whose gradients are of variables and inner tensors."""
        forward, held = self.copies.pure(one)
        followable = [*(each.trainable for each in variables_of(one.layers)), *(one.inner or ())]

        def backward(held: Any, values: Any, given: Any) -> Any:
            def of(wanted: Any) -> Any:
                left = iter(wanted)
                parts = zip([*held, *values], followed, strict=True)
                both = [next(left) if on else one for one, on in parts]
                own, passed = both[: len(held)], both[len(held) :]
                made, changed = forward(own, passed)
                floats = [one for one in made if jnp.issubdtype(one.dtype, jnp.floating)]
                return floats, (made, changed)

            chosen = list(zip([*held, *values], followable, strict=True))
            followed = [on and jnp.issubdtype(one.dtype, jnp.floating) for one, on in chosen]
            wanted = [one for (one, _), on in zip(chosen, followed, strict=True) if on]
            floats = [one for one in given if jnp.issubdtype(one.dtype, jnp.floating)]
            gives, back, found = jax.vjp(of, wanted, has_aux=True)
            _, floats = jax.lax.optimization_barrier((gives, floats))  # as it waits for the loss
            return found, back(floats)

        compiled_backward = jax.jit(backward)

        def run(values: Any, given: Any) -> tuple[Any, Any]:
            found = compiled_backward(held, values, given)
            return found, found[0][0]

        return run

    def feed(self, model: Any, task: str, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches without end, cut from arrays in host memory and put on the device."""
        pool = self._pool(model, task, batch_size, seed)
        for begin in itertools.cycle(range(0, len(jax.tree.leaves(pool)[0]), batch_size)):
            cut = slice(begin, begin + batch_size)
            yield jax.device_put(jax.tree.map(lambda array, cut=cut: array[cut], pool))

    def work(self, model: Any, samples: int) -> Work:
        """What a forward pass of so many samples computes, counted in its jaxpr, per sample."""
        variables, read, held = list(model.variables), dict[int, Any](), dict[int, Any]()

        def infer(given: Any, batch: Any) -> Any:
            with Reading(list(zip(variables, given, strict=True))) as scope:
                output = model(batch, training=False)
            read.update(scope.read)
            return output

        batch = jax.device_put(self.inputs(model).batch(samples, 0))
        values = [variable.value for variable in variables]

        def trace() -> Any:
            closed = jax.make_jaxpr(infer)(values, batch)
            held.update((id(one), one) for one in held_arrays(closed) if jnp.ndim(one))
            return closed

        found = jaxpr_work(trace)
        used = [getattr(one, "_value", None) for one in read.values()]
        used = [one for one in used if one is not None]
        outside = [one for key, one in held.items() if key not in set(map(id, used))]
        hidden = untracked(model, [*used, *loose(model, outside)])
        return replace(per_sample(found, samples), untracked=hidden)

    def training_work(self, step: Step, samples: int) -> Work:
        assert step.equations is not None
        return per_sample(jaxpr_work(step.equations), samples)

    def matrix_product(self, size: int) -> Callable[[], Any]:
        dtype = keras.config.dtype_policy().compute_dtype
        left, right = (jnp.asarray(array, dtype) for array in square_matrices(size))
        product = jax.jit(jnp.matmul)
        return lambda: (product(left, right), None)

    def products(self, left: Any, right: Any) -> list[Any]:
        product, convolution = jax.jit(jnp.matmul), jax.jit(_convolution, static_argnums=2)
        found = [product(left, right), convolution(*as_convolution(left, right), "SAME")]
        return list(map(np.asarray, found))

    def copy(self, size: int) -> Callable[[], Any]:
        source = jnp.ones(size // 4, jnp.float32)
        copied = jax.jit(lambda values: values + 1)
        return lambda: (copied(source), None)

    def reference_step(self, kind: str) -> Callable[[], Any]:
        pictures, labels = jax.device_put(reference.batch(kind))
        weights = [jax.device_put(reference.weights())]

        infer = jax.jit(_reference_logits)

        def loss_of(values: Any, batch: Any, classes: Any) -> Any:
            scores = jax.nn.log_softmax(_reference_logits(batch, values))
            return -jnp.mean(jnp.take_along_axis(scores, classes[:, None], axis=1))

        def train(values: Any, batch: Any, classes: Any) -> Any:
            loss, gradients = jax.value_and_grad(loss_of)(values, batch, classes)
            pairs = zip(values, gradients, strict=True)
            return loss, [value - reference.LEARNING_RATE * slope for value, slope in pairs]

        train = jax.jit(train, donate_argnums=0)

        def small() -> tuple[Any, Any]:
            return (output := infer(pictures, weights[0])), output

        def large() -> tuple[Any, Any]:
            loss, weights[0] = train(weights[0], pictures, labels)
            return loss, loss

        return small if kind == "small" else large


def _reference_logits(images: Any, variables: Any) -> Any:
    kernel_1, bias_1, kernel_2, bias_2, *dense = variables
    maps = _pooled(jnp.tanh(_convolution(images, kernel_1, "SAME") + bias_1))
    maps = _pooled(jnp.tanh(_convolution(maps, kernel_2, "VALID") + bias_2))
    values = maps.reshape(-1, 400)
    for weight, bias in zip(dense[:-2:2], dense[1:-2:2], strict=True):
        values = jnp.tanh(values @ weight + bias)
    return values @ dense[-2] + dense[-1]


def _convolution(maps: Any, kernel: Any, padding: str) -> Any:
    return jax.lax.conv_general_dilated(
        maps, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pooled(maps: Any) -> Any:
    return jax.lax.reduce_window(maps, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
