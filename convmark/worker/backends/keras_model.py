"""Access to a Keras model that all backends share, for Keras 2 and 3."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from convmark_zoo.keras_api import KERAS_RELEASE, keras

from convmark.core.runtimes import parted_signature
from convmark.worker.backends.keras_inputs import check_count, inputs_of
from convmark.worker.backends.keras_parts import (
    ByIdentity,
    Output,
    all_built,
    arguments_beside,
    calling_each,
    elements,
    ends_in_softmax,
    item_bytes,
    of_other_keras,
    present,
    returned,
    sizes,
    spread,
)
from convmark.worker.backends.keras_state import (
    DEFAULTS,
    Conventions,
    KerasContext,
    dtype_policy,
    kept_values,
    keras_settings,
    layer_precisions,
    limits_lifted,
    running_weights,
    training_progress,
)
from convmark.worker.backends.losses import (
    Batch,
    class_numbers,
    flat_losses,
    images,
    is_classes,
    pool_batches,
    targets_of,
    training_batch,
)
from convmark.worker.backends.own_methods import (
    STEPS,
    brings_training,
    inference_aside,
    is_compiled,
    overrides,
    training_aside,
)
from convmark.worker.backends.own_training import (
    JIT_AND_EAGER,
    PLAIN,
    OwnData,
    Recipe,
    Training,
    added_losses,
    own_targets,
    rates_are_zero,
)
from convmark.worker.backends.step import Framework, Step
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs, Leaf, called, mapped, own_inputs, symbols, text_of


class KerasBackend(Framework):
    """The part of a backend that no framework's own operation is needed for."""

    keras, keras_version = keras, KERAS_RELEASE
    takes_strings = True
    compile_options: Mapping[str, Any] = MappingProxyType({})
    """Of a `compile` that the harness calls for a loss that the user asks for."""
    replicas = 1
    """Copies of the model, each with a batch of its own."""
    learning_rate = 0.01
    """Of SGD, where nothing else is asked for."""
    chooses_gpus = True
    """Whether `configure` chooses among the GPUs that are seen; else the environment must."""
    asked_shapes: Mapping[str, Sequence[int]] = MappingProxyType({})
    """Of --input-shape: by the input's name, by the empty name that of the only input."""
    companions: tuple[int, ...] = ()
    """Other processes on this machine that share the case."""
    always_compiles = False
    """Whether what runs is compiled whole, whatever a case's jit says."""
    has_compiler = False
    """Whether a step's compiler has started threads and processes of its own in this process."""
    _plain_path = ""
    """How the harness's own step is called, where it is not compiled on demand."""
    conventions = Conventions()
    """As they were when Keras was imported."""

    def __init__(self) -> None:
        self._inputs: ByIdentity[Inputs] = ByIdentity()
        self._outputs: ByIdentity[list[tuple[Any, ...]]] = ByIdentity()
        self.given_targets: ByIdentity[Inputs] = ByIdentity()
        self._own: ByIdentity[weakref.ref[OwnData]] = ByIdentity()
        """What the steps take, which keep it, of models that are trained as `fit` would."""
        self.begin_step()

    def default_settings(self, precision: str) -> dict[str, str]:
        """What the settings are where nobody has changed them, as far as that is fixed."""
        return {**DEFAULTS, "dtype_policy": dtype_policy(precision)}

    def settings(self) -> dict[str, str]:
        """The settings of the framework and of Keras as they are now, as text."""
        return keras_settings()

    def thread_counts(self) -> tuple[int, int]:
        """The threads within and between operations; 0 is the framework's own choice."""
        return 0, 0

    def pool_threads(self) -> int | None:
        """The threads within operations; where none were asked for, one for each CPU."""
        of_process = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        return self.thread_counts()[0] or of_process or os.cpu_count()

    def layer_precisions(self, model: Any) -> list[str]:
        """What each layer with weights computes in, such as `mixed_bfloat16`."""
        return layer_precisions(model)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """What a model is built in."""
        return contextlib.nullcontext()

    def seed(self, seed: int) -> None:
        """Seed the random numbers of Python, NumPy and Keras."""
        keras.utils.set_random_seed(seed)

    def context(self) -> KerasContext:
        """Keras as it is now, for one of two codes that share the process."""
        return KerasContext()

    def begin_step(self) -> None:
        """Forget how an earlier step was called: another code's, in a process that two share."""
        self._call_path = self._plain_path

    @property
    def call_path(self) -> str:
        """How the step that was made last is called."""
        return self._call_path

    def agreed(self, seconds: float) -> float:
        """The seconds that all processes of the case go by: the slowest one's."""
        return seconds

    def is_model(self, candidate: Any) -> bool:
        return isinstance(candidate, keras.Model)

    def layers_alive(self) -> ByIdentity[bool]:
        found: ByIdentity[bool] = ByIdentity()
        for one in gc.get_objects():
            if issubclass(type(one), keras.layers.Layer):
                found[one] = True
        return found

    def has_layers_of(self, model: Any, earlier: ByIdentity[bool]) -> bool:
        """Whether any layer of the model with weights is one of those."""
        return any(one in earlier and one.weights for one in model._flatten_layers())

    def bytes_by_device(self, values: Iterable[Any]) -> Counter[str]:
        """The bytes of floating-point tensors, by the kind of device that holds them.

        What no device is known of is left out; so are integers, which TensorFlow keeps on the host.
        """
        found: Counter[str] = Counter()
        for value in values:
            kind = self.device_of(value)
            if kind is not None and "float" in str(value.dtype):
                found[kind] += elements(value) * item_bytes(value.dtype)
        return found

    def weights_by_device(self, model: Any) -> Counter[str]:
        """The bytes of the floating-point weights, by the kind of device that holds them."""
        pairs = ((one, getattr(one, "value", one)) for one in model.weights)
        return self.bytes_by_device(one if callable(value) else value for one, value in pairs)

    def outputs_by_device(self, token: tuple[Any, Any]) -> Counter[str]:
        """The bytes of a step's floating-point results, by the kind of device that holds them."""
        return self.bytes_by_device(self.leaves(token[1]))

    def has_call(self, model: Any) -> bool:
        """Whether the model can be called: one with a `train_step` of its own need not."""
        return type(model).call not in (keras.Model.call, keras.layers.Layer.call)

    def other_keras(self, candidate: Any) -> str | None:
        """Why a model of another Keras than this one's cannot be measured; None for others."""
        return None if self.is_model(candidate) else of_other_keras(candidate, self.keras_version)

    def load_model(self, path: str, *, trusted: bool, compiled: bool) -> Any:
        """Return the model of a file that Keras saved.

        Args:
            path: of a SavedModel, with the signature that is asked for.
            trusted: whether code that lies in the file may run.
            compiled: whether it is compiled where it was saved so; inference needs none of it.

        Raises:
            CaseFailure: it is a SavedModel, which is a graph of TensorFlow's.
            Exception: whatever Keras finds amiss.
        """
        if parted_signature(path)[0].endswith("/"):
            raise CaseFailure(f"{path}: a SavedModel needs the backend tensorflow")
        model = keras.models.load_model(path, compile=compiled, safe_mode=not trusted)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None and optimizer.built and not path.endswith(".keras"):
            # Keras 3 makes the slots of an .h5 file's optimizer for no variables
            model.optimizer = type(optimizer).from_config(optimizer.get_config())
        return model

    def take_inputs(self, model: Any, input_spec: Callable[..., Any] | None) -> Inputs:
        """Find out what the model takes, or have it from the user's own function; once a model.

        Raises:
            ValueError: the model does not tell, or the function gives no batch.
        """
        if input_spec is None:
            found = inputs_of(model, keras, self.asked_shapes)
        else:
            found = own_inputs(input_spec)
            check_count(model, found)
        if more := arguments_beside(model):
            raise ValueError(
                "its call() must take all inputs as one argument, as fit passes them, but it also "
                f"needs {', '.join(more)}; wrap it in a model that takes a list or a dictionary"
            )
        texts = [leaf.name for leaf in found.leaves if leaf.dtype == "string"]
        if texts and not self.takes_strings:
            raise ValueError(f"{texts[0]}: an input of strings needs TensorFlow")
        self._inputs[model] = found
        is_known = all(None not in leaf.shape for leaf in found.leaves)
        if not model.built and is_known and self.has_call(model):
            # what a step of its own is given need not be what it calls: a GAN makes it of noise
            kinds = [Exception] if overrides(model, *STEPS) else []
            with self.scope(), contextlib.suppress(*kinds):
                called(model, symbols(keras, found))  # JAX makes no weights inside a step
        return found

    def take_targets(self, model: Any, target_spec: Callable[..., Any]) -> None:
        """Have a model's own training compare with what the user's own function gives."""
        self.given_targets[model] = own_targets(model, target_spec)

    def inputs(self, model: Any) -> Inputs:
        return self._inputs[model] if model in self._inputs else self.take_inputs(model, None)

    def chosen(self, error: BaseException) -> str:
        """What models were given of which they do not tell, for the message of an error."""
        leaves = [leaf for inputs in self._inputs.values() for leaf in inputs.leaves if leaf.chosen]
        shapes = dict.fromkeys(f"{leaf.name}={text_of(leaf.shape)}" for leaf in leaves)
        text = f"; it was given {', '.join(shapes)}, try another --input-shape" if shapes else ""
        owns = [own for one in self._own.values() if (own := one()) is not None]
        return text + "".join(own.advice_on(error) for own in owns[-1:])

    def sample_shape(self, model: Any) -> tuple[int | None, ...]:
        """The shape of one sample of a model's only input, without the batch axis."""
        one = self.inputs(model).structure
        return tuple(one.shape) if isinstance(one, Leaf) else ()

    def _pool(self, model: Any, task: str, batch_size: int, seed: int) -> tuple[Any, ...]:
        """Return the samples of a few batches in host memory: images, in training targets too."""
        inputs = self.inputs(model)
        count = batch_size * pool_batches(inputs, batch_size)
        if task != "train":
            return (images(inputs, count, seed),)
        if model in self._own and (own := self._own[model]()) is not None:
            return images(inputs, count, seed), own.targets(count, seed)
        batch = self.host_batch(model, count, seed)
        return batch.images, batch.targets

    def device_batch(self, model: Any, samples: int, seed: int) -> Any:
        """Return so many samples on the device, as an inference step takes them."""
        return mapped(self.tensor, images(self.inputs(model), samples, seed))

    def array(self, value: Any) -> Any:
        """Return a tensor's values as an array in host memory."""
        return np.asarray(value)

    def host_batch(self, model: Any, samples: int, seed: int) -> Batch:
        """Return so many samples to train the model on, in host memory."""
        return training_batch(self.inputs(model), self.output_shapes(model), samples, seed)

    def output_shapes(self, model: Any) -> list[tuple[Any, ...]]:
        """The shapes of all outputs in training, with the batch axis; found once a model."""
        if model in self._outputs:
            return self._outputs[model]
        outputs = getattr(model, "outputs", None)
        known = outputs and all(None not in tuple(one.shape)[1:] for one in self.leaves(outputs))
        if not known:  # a subclassed model, or one of open axes, tells only when it is called
            found = self.outputs_of(model, training=True)
            outputs = called(model, symbols(keras, self.inputs(model))) if found is None else found
        shapes = self._outputs[model] = [tuple(output.shape) for output in self.leaves(outputs)]
        return shapes

    def make_variables(self, model: Any, *, trains: bool = False) -> None:
        """Call a subclassed model once, for it may make layers and weights when it is called.

        Sequential and functional models have all of theirs, but for layers that only training
        calls. What fails here is left to the first step, which is given a real batch.
        """
        if not getattr(model, "outputs", None):
            self.outputs_of(model)
        if trains and not all_built(model):
            self.outputs_of(model, training=True)

    def outputs_of(self, model: Any, *, training: bool = False) -> Any:
        """Return the outputs in their structure, without values; None where no call gives any."""
        inputs = self.inputs(model)
        with self.scope():
            with contextlib.suppress(Exception):  # the model's own code may raise anything
                each = calling_each(model) if training else model
                found = called(each, symbols(keras, inputs), training=training)
                return self._without_batch_size(found)
            with contextlib.suppress(Exception):  # it may look at values, or give None
                found = called(model, mapped(self.tensor, images(inputs, 1, 0)))
                return self._without_batch_size(found)
        return None

    def adds_losses(self, model: Any) -> bool:
        """Whether the model adds losses when it is called; it is called once to see."""
        if not model.losses:
            with contextlib.suppress(Exception):  # the model's own code may raise anything
                called(model, mapped(self.tensor, images(self.inputs(model), 1, 0)))
        return bool(model.losses)

    def _without_batch_size(self, outputs: Any) -> Any:
        there = present(outputs)
        return self.packed(there, [Output((None, *out.shape[1:])) for out in self.leaves(there)])

    def leaves(self, structure: Any) -> list[Any]:
        """Return the leaves of a nested structure that are there; Keras 2 has no `tree`."""
        return [one for one in keras.tree.flatten(structure) if one is not None]

    def packed(self, structure: Any, leaves: list[Any]) -> Any:
        return keras.tree.pack_sequence_as(structure, leaves)

    def described_inference(self, model: Any) -> dict[str, Any]:
        """What tells of an inference step after the first: of a Keras model nothing."""
        return {}

    def own_compile(self, model: Any) -> tuple[Any, Any] | None:
        """The optimizer and the loss that a model was compiled with; None of one that was not."""
        return (model.optimizer, model.loss) if is_compiled(model) else None

    def takes_classes(self, losses: Any) -> bool:
        """Whether losses that a model was compiled with compare scores with numbers of classes."""
        found = [targets_of(one, (10,), self.tensor) for one in flat_losses(losses)]
        return all(targets.make is class_numbers for targets in found)

    def training_of(self, model: Any, by: str) -> dict[str, str | None]:
        """What a compiled model is trained with, as its row has it."""
        return Training.of_compiled(model, by, adds_losses=self.added_losses(model)).as_fields()

    def nothing_to_train(self, model: Any) -> str:
        """Why a model without trainable weights is not trained, and what helps."""
        return getattr(model, "nothing_to_train", "") or (
            "nothing to train: the model has no trainable weights; set trainable = True "
            "on some layers, or measure the task infer"
        )

    def training_step(
        self,
        model: Any,
        batch_size: int,
        seed: int,
        learning_rate: float,
        compiled: bool,
        recipe: Recipe = PLAIN,
    ) -> Step:
        """Return the harness's own step: forward, backward and update of a synthetic batch."""
        batch = self.host_batch(model, batch_size * self.replicas, seed)
        new_optimizer = functools.partial(recipe.new_optimizer, learning_rate)
        return self._training_step(model, batch, new_optimizer, compiled)

    def inference_step(self, model: Any, batch_size: int, seed: int, compiled: bool) -> Step:
        """Return a forward pass of a synthetic batch."""
        pictures = images(self.inputs(model), batch_size * self.replicas, seed)
        return self._inference_step(model, pictures, compiled)

    def chosen_training(
        self, model: Any, batch_size: int, seed: int, compiled: bool, text: str | None
    ) -> tuple[Step, Callable[[], dict[str, str | None]]]:
        """Return the training step of a synthetic batch, and what then tells how it trains.

        That is to be asked after the first step, which may make optimizers and losses.

        Args:
            text: the case's recipe, for a model that brings no training.

        Raises:
            CaseFailure: the model has nothing to train, or cannot be trained so.
        """
        recipe = Recipe.of(text)
        if not model.trainable_variables and (model.weights or not brings_training(model)):
            raise CaseFailure(self.nothing_to_train(model))
        if brings_training(model) or recipe.loss is not None:
            return self._fit_training(model, batch_size, seed, compiled, recipe)
        rate = self.learning_rate if recipe.learning_rate is None else recipe.learning_rate
        step = self.training_step(model, batch_size, seed, rate, compiled, recipe)

        @functools.cache  # it stays what it is at the first step
        def described() -> dict[str, str | None]:
            classes, added = is_classes(self.output_shapes(model)), self.added_losses(model)
            told = Training.of_harness(recipe, rate, classes=classes, adds_losses=added)
            return told.as_fields()

        return step, described

    def _fit_training(
        self, model: Any, batch_size: int, seed: int, compiled: bool, recipe: Recipe
    ) -> tuple[Step, Callable[[], dict[str, str | None]]]:
        """Return the step that `fit` would take of a synthetic batch, and what tells of it.

        Args:
            recipe: for a model that was not compiled, which this compiles.
        """
        by = "model" if brings_training(model) else "harness"
        own = OwnData(model, self, recipe, self.learning_rate)
        self._own[model] = weakref.ref(own)
        if compiled and model.run_eagerly:
            raise CaseFailure(JIT_AND_EAGER)
        pictures = images(self.inputs(model), batch_size * self.replicas, seed)
        targets = own.targets(batch_size * self.replicas, seed)
        step = self._fit_step(model, own, (pictures, targets), compiled)
        return step, lambda: own.described(by)

    training_progress, kept_values = staticmethod(training_progress), staticmethod(kept_values)
    inference_aside, training_aside = staticmethod(inference_aside), staticmethod(training_aside)
    rates_are_zero = staticmethod(rates_are_zero)
    running_weights, spread = staticmethod(running_weights), staticmethod(spread)
    returned = staticmethod(returned)
    brings_training, is_softmax = staticmethod(brings_training), staticmethod(ends_in_softmax)
    sizes, limits_lifted = staticmethod(sizes), staticmethod(limits_lifted)
    added_losses = staticmethod(added_losses)

    def settle(self, model: Any) -> None:
        """Have the model hold its weights as they are now, where the steps keep them apart."""
