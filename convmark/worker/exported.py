"""The backend of an exported model: the runtime runs the steps, the framework the reference.

A timed step begins with the batch in host memory and ends with the outputs in host memory, as a
server would have them, on every runtime alike.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np

from convmark.core.case import Case
from convmark.core.runtimes import RUNTIME_PRECISIONS
from convmark.worker import runtimes
from convmark.worker.backends.keras_parts import root_mean_square
from convmark.worker.backends.step import Step
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import Inputs, Leaf, flat, sized, text_of
from convmark.worker.runtimes.agreement import agreement, check
from convmark.worker.runtimes.export import COMPARED_SAMPLES, Exported
from convmark.worker.work import Work

MOST_BATCH_BYTES = 1 << 32
"""Of the inputs of a user's file, which may say anything."""


class Loaded:
    """A file in its runtime: what takes the model's place in a measurement."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine


class ExportedBackend:
    """A framework's backend in which an exported model takes the place of the Keras model."""

    has_compiler = False

    def __init__(
        self,
        framework: Any,
        case: Case,
        exported: Exported,
        seed: int,
        emit: Callable[..., None],
        *,
        precision_asked: bool = False,
    ) -> None:
        """Take the framework's place in a process that has loaded nothing yet.

        Args:
            exported: without batches where it is a file of the user's.
            seed: of the batch of such a file.
            precision_asked: whether the user has named the precision.
        """
        self._framework = framework
        self._case = case
        self._exported = exported
        self._seed = seed
        self._emit = emit
        self._inputs = _inputs_of(exported) if exported.batches else None
        self._precision = case.precision
        self._precision_asked = precision_asked
        self._threads_before = _tasks()
        self._threads: int | None = None
        self._settings: dict[str, str] = {}
        self.call_path = case.runtime
        """Of a file with several signatures also the one that runs, once it is loaded."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._framework, name)

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The framework's for a SavedModel; of another runtime it is to start no thread."""
        own = self._case.runtime != "savedmodel"
        return contextlib.nullcontext() if own else self._framework.scope()

    compiler = ""

    def is_model(self, candidate: Any) -> bool:
        """Whether it is a file that a runtime has loaded."""
        return isinstance(candidate, Loaded)

    def layers_alive(self) -> None:
        """Nothing: no Keras model is here."""

    def has_layers_of(self, model: Loaded, earlier: None) -> bool:
        return False

    def take_inputs(self, model: Loaded, input_spec: Any) -> Inputs | None:
        """What the file takes, which loading it has told."""
        return self._inputs

    def inputs(self, model: Loaded) -> Inputs | None:
        return self._inputs

    def make_variables(self, model: Loaded, *, trains: bool = False) -> None:
        """Nothing: the file has all of them."""

    def settle(self, model: Loaded) -> None:
        """Nothing: no step changes the file."""

    def running_weights(self, model: Loaded) -> dict[int, bytes]:
        """None: a runtime does not tell."""
        return {}

    def weights_by_device(self, model: Loaded) -> Counter[str]:
        """Nothing: a runtime does not tell."""
        return Counter()

    def outputs_by_device(self, token: tuple[Any, Any]) -> Counter[str]:
        """Nothing: the outputs are asked for in host memory."""
        return Counter()

    def layer_precisions(self, model: Loaded) -> list[str]:
        """The file's own; of an export what was asked of the exporting process."""
        return [self._precision]

    def pool_threads(self) -> int | None:
        """Those of the runtime, once its first step is over."""
        of_tensorflow = self._case.runtime == "savedmodel"  # which has others that compute nothing
        return self._framework.pool_threads() if of_tensorflow else self._threads

    def has_call(self, model: Loaded) -> bool:
        return True

    def sizes(self, model: Loaded) -> dict[str, int | None]:
        """Those of the Keras model that was exported; of a user's file they are not known."""
        told = self._exported.events.get("counted", {})
        return {
            name: told.get(name) for name in ("parameters", "trainable_parameters", "model_bytes")
        }

    def work(self, model: Loaded, samples: int) -> Work:
        """The FLOPs of the Keras model that was exported, and its weights that Keras lacks."""
        told = self._exported.events.get("work")
        if told is None:
            return Work(None, "the operations of a runtime's own file are not counted")
        return Work(told["flops_per_sample"], told["flops_note"], untracked=told["untracked"])

    def inference_step(self, model: Loaded, batch_size: int, seed: int, compiled: bool) -> Step:
        """Return a step: the batch from host memory through the runtime, into host memory."""
        engine, batch = model.engine, tuple(self._exported.batches[0])
        once = engine.bound(batch)
        return Step(
            lambda *arrays: (None, engine.bound(arrays)()),
            batch,
            takes_any=False,
            once=lambda: (None, once()),
        )

    def tensor(self, array: Any) -> Any:
        """Return the array: a runtime takes what lies in host memory."""
        return array

    def load(self, make: Callable[[str, str, str], Any]) -> Loaded:
        """Load the file, and report how long it took.

        Raises:
            CaseFailure: the runtime refuses it.
        """
        case, began = self._case, time.perf_counter()
        engine = runtimes.loaded(case, make, self._exported.path)
        seconds = time.perf_counter() - began
        self.call_path = engine.call_path
        self._emit("loaded", load_s=seconds, packages=runtimes.versions(case.runtime))
        multiplied = engine.multiplies_in()
        if self._inputs is None:
            self._precision = self._precision_of_file(engine, multiplied)
            self._inputs = self._inputs_of_file(engine)
            batch = flat(self._inputs.batch(case.batch_size, self._seed))
            self._exported = replace(self._exported, batches=[list(batch)])
            engine.resize([one.shape for one in self._exported.batches[0]])
        else:
            runtimes.check_stored(case, engine, multiplied)
        products, told = "+".join(sorted(multiplied)), engine.settings()
        if products not in ("", self._precision.partition("_from_")[0]):
            told |= {"multiplies_in": products}
        self._settings = {f"{case.runtime}.{name}": value for name, value in told.items()}
        return Loaded(engine)

    def runtime_settings(self) -> dict[str, str]:
        """How the runtime runs the file, as it has told."""
        return self._settings

    def _precision_of_file(self, engine: Any, multiplied: Collection[str]) -> str:
        """Return what a file computes in, or keeps its weights in, by its own word.

        Args:
            multiplied: the dtypes of its products, as far as they are known.
        """
        case, stored = self._case, str(engine.stored_precision())
        found = runtimes.precision_of(stored, multiplied)
        if not self._precision_asked or case.precision == found:
            return found
        if case.precision == stored and stored in multiplied:  # as of an export, the state has more
            return stored
        raise CaseFailure(
            f"{case.model}: the file is of {found}, got {case.precision}; leave out "
            "--precisions: the row has the precision of the file"
        )

    def _inputs_of_file(self, engine: Any) -> Inputs:
        """Return what a file takes, by its own word."""
        case, leaves = self._case, []
        for one in engine.taken:
            if not one.shape or 0 in one.shape:
                raise CaseFailure(
                    f"{case.model}: an input must have a batch axis and no axis of size 0, its "
                    f"input {one.name} has the shape {text_of(one.shape)}; convert it with others"
                )
            if one.shape[0] not in (None, case.batch_size):
                raise CaseFailure(
                    f"{case.model}: takes batches of size {one.shape[0]}, got {case.batch_size}; "
                    f"use --batch-sizes {one.shape[0]}"
                )
            if not _is_number(one.dtype):
                raise CaseFailure(
                    f"{case.model}: an exported model needs dense arrays of numbers, but its "
                    f"input {one.name} is of {one.dtype}; convert it without its preprocessing"
                )
            leaves.append(Leaf(one.name, one.shape[1:], one.dtype))
        if not leaves:
            raise CaseFailure(f"{case.model}: the file has no input; convert it with one")
        try:
            leaves = sized(leaves, self._framework.asked_shapes)
        except ValueError as error:
            raise CaseFailure(f"{case.model}: {error}") from None
        found = Inputs(leaves[0] if len(leaves) == 1 else leaves)
        if found.sample_bytes * case.batch_size > MOST_BATCH_BYTES:
            raise CaseFailure(
                f"{case.model}: a batch must have at most {MOST_BATCH_BYTES:,} bytes, but it "
                f"would have {found.sample_bytes * case.batch_size:,}"
            )
        self._framework._inputs[self] = found  # of which `chosen` tells
        return found

    def described_inference(self, model: Loaded) -> dict[str, Any]:
        """Compare the file with the Keras model, once its first step is over; report both.

        Raises:
            CaseFailure: it computes something else.
        """
        exported, case, found = self._exported, self._case, None
        outputs = [model.engine.run(batch) for batch in exported.batches]
        kinds = {type(one).__name__ for batch in outputs for one in batch}
        if not kinds:
            raise CaseFailure(f"{case.name}: the file has no outputs; export it with one")
        if kinds != {"ndarray"}:  # an array may be there before what it holds is computed
            raise CaseFailure(
                f"{case.name}: a runtime's step must return NumPy arrays, got {', '.join(kinds)}"
            )
        where = os.path.dirname(exported.path.rstrip("/"))
        if exported.references:
            most = COMPARED_SAMPLES if case.precision in RUNTIME_PRECISIONS else None
            found = agreement(outputs, exported.references, f"{case.name}:", where, most)
        figures = {} if found is None else found.columns
        self._threads = self._runtime_threads(model.engine)
        self._emit("agreement", runtime_threads=self._threads, **figures)
        told = model.engine.threads()
        if case.threads != "default" and told is not None and told != int(case.threads):
            raise CaseFailure(
                f"{case.name}: asked for threads {case.threads}, but the runtime uses {told}; "
                "leave out --threads"
            )
        if found is not None:
            check(found, case.precision, f"{case.name}:", where)
        return {}

    def synchronise(self, token: tuple[Any, Any]) -> None:
        """Wait for a step of the framework's; what a runtime has returned is there."""
        if token[0] is not None:
            self._framework.synchronise(token)

    def fingerprint(self, token: tuple[Any, Any]) -> float:
        """The outputs' root mean square, of texts that of their lengths."""
        return root_mean_square(
            np.vectorize(len, otypes=[float])(one) if one.dtype.kind in "SUO" else one
            for one in token[1]
        )

    def reset_peak_memory(self) -> None:
        """Have the allocator's peak begin anew; the framework itself has not begun elsewhere."""
        if self._case.runtime == "savedmodel":
            self._framework.reset_peak_memory()

    def peak_memory(self) -> int | None:
        """Nothing but for a SavedModel, whose allocator is the framework's."""
        return self._framework.peak_memory() if self._case.runtime == "savedmodel" else None

    def held_memory(self) -> int | None:
        """Nothing but for a SavedModel."""
        return self._framework.held_memory() if self._case.runtime == "savedmodel" else None

    def _runtime_threads(self, engine: Any) -> int | None:
        """The threads of the runtime: as it tells, else those that have begun since."""
        told = engine.threads()
        begun = _tasks()
        if told is not None or begun is None or self._threads_before is None:
            return None if told is None else int(told)
        return 1 + max(0, begun - self._threads_before)


def _inputs_of(exported: Exported) -> Inputs:
    """Return the inputs by the batch that is run, and the model's own names."""
    shapes = exported.events["built"]["input_shape"]
    names = list(shapes) if isinstance(shapes, dict) else ["input"]
    # the batch is in the framework's order, which sorts a dictionary's keys
    found = zip(exported.events["path"]["places"], exported.batches[0], strict=True)
    leaves = [
        Leaf(names[place], tuple(one.shape[1:]), np.dtype(one.dtype).name)
        for place, one in sorted(found, key=lambda pair: pair[0])
    ]
    return Inputs(leaves[0] if len(leaves) == 1 else leaves)


def _is_number(dtype: str) -> bool:
    """Whether NumPy has numbers of a dtype, by a runtime's name of it."""
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def _tasks() -> int | None:
    """Return the number of threads of this process; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None
