"""TensorFlow with several replicas: in one process MirroredStrategy, in several MultiWorker's.

The loop is written out, for Keras 3's `fit` does not work over several processes
(keras-team/keras issue 20585). Replica i has the i-th part of the batch that one replica would
have at their common batch size, so that n replicas take the same steps as that one.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from convmark.worker.backends.keras_parts import root_mean_square
from convmark.worker.backends.losses import Batch
from convmark.worker.backends.own_methods import own_function
from convmark.worker.backends.own_training import Made, OwnData
from convmark.worker.backends.step import Step
from convmark.worker.backends.tensorflow import TensorFlow
from convmark.worker.backends.tensorflow_training import (
    built_optimizer,
    fit_function,
    gradients_of,
    loss_of,
    pairs,
    probe_of,
)
from convmark.worker.companions import Place
from convmark.worker.failure import CaseFailure
from convmark.worker.inputs import mapped
from convmark.worker.work import Work


class ReplicatedTensorFlow(TensorFlow):
    """The backend of one case of several replicas, in each of the processes that share it.

    The probe of a step's token is a tuple of scalars, one of each replica of this process.
    """

    def __init__(self, replicas: int, place: Place | None) -> None:
        super().__init__()
        self.companions = place.companions if place else ()
        self._plain_path = f"tf.function, {'MultiWorker' if place else ''}MirroredStrategy"
        self.begin_step()
        self.replicas = replicas
        self._place = place
        self._here = replicas // len(place.addresses) if place else replicas
        """Replicas in this process."""
        self._training = False
        self._strategy: Any = None
        self._summed: Callable[[Any], Any] = np.asarray

    def _make_visible(self, device: str) -> None:
        if device != "cpu":
            first = int(device.removeprefix("gpu:"))
            if self._place and self._place.one_machine:
                first += self._place.index
            self._make_gpus_visible(first, self._here)
            return
        tf.config.set_visible_devices([], "GPU")
        if self._here > 1:
            (cpu,) = tf.config.list_physical_devices("CPU")
            parts = [tf.config.LogicalDeviceConfiguration() for _ in range(self._here)]
            tf.config.set_logical_device_configuration(cpu, parts)

    def join(self) -> None:
        """Make the strategy; with other processes, wait until all of them have come.

        The wait is in TensorFlow's own code, which no signal but SIGKILL ends.

        Raises:
            RuntimeError: the other processes have another number of devices.
        """
        if self._place is None:
            os.environ.pop("TF_CONFIG", None)  # of a cluster that this case is not spread over
            self._strategy = tf.distribute.MirroredStrategy(self._devices())
        else:
            os.environ["TF_CONFIG"] = json.dumps(
                {
                    "cluster": {"worker": list(self._place.addresses)},
                    "task": {"type": "worker", "index": self._place.index},
                }
            )
            self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        if self._strategy.num_replicas_in_sync != self.replicas:
            raise RuntimeError(
                f"the strategy has {self._strategy.num_replicas_in_sync} replicas, not the "
                f"{self.replicas} of the case"
            )
        if self._place is not None:
            self._summed = self._sum_over_processes()
            self.agreed(0.0)  # traced now, not beside the first step

    def _devices(self) -> list[str]:
        kind = self._device.partition(":")[0]
        return [f"{kind}:{number}" for number in range(self._here)]

    def _sum_over_processes(self) -> Callable[[Any], Any]:
        """Return what sums a float64 vector of this process with those of all others."""
        strategy, here = self._strategy, self._here

        def replica_sum(vector: Any) -> Any:
            context = tf.distribute.get_replica_context()
            # the strategy asks on which device the vector is, and an argument is on none
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(vector))

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def total(vector: Any) -> Any:
            return strategy.experimental_local_results(strategy.run(replica_sum, (vector,)))[0]

        return lambda vector: total(tf.constant(vector, tf.float64)).numpy() / here

    def everywhere(self, value: float) -> list[float]:
        """Return the values that all processes give, in the cluster's order."""
        if self._place is None:
            return [value]
        vector = np.zeros(len(self._place.addresses))
        vector[self._place.index] = value
        return [float(each) for each in self._summed(vector)]

    def agreed(self, seconds: float) -> float:
        return max(self.everywhere(seconds))

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """What a model is built in: the strategy's."""
        with super().scope(), self._strategy.scope():
            yield

    def output_shapes(self, model: Any) -> list[tuple[Any, ...]]:
        with self.scope():  # a subclassed model is called for them
            return super().output_shapes(model)

    def synchronise(self, token: tuple[Any, Any]) -> None:
        """Wait until every replica of this process has finished; `agreed` is for the others."""
        if isinstance(token[0], tuple):
            for probe in token[0]:
                probe.numpy()
        else:  # the reference's, which the first device runs alone
            super().synchronise(token)

    def fingerprint(self, token: tuple[Any, Any]) -> float:
        """The mean loss, or the output's root mean square, over all replicas everywhere."""
        if self._training:
            losses = [float(loss.numpy()) for loss in token[1]]
            return float(np.mean(self.everywhere(float(np.mean(losses)))))
        square = root_mean_square(self.leaves(token[1])) ** 2
        return float(np.sqrt(np.mean(self.everywhere(square))))

    def reset_peak_memory(self) -> None:
        for device in self._devices():
            with contextlib.suppress(ValueError):
                tf.config.experimental.reset_memory_stats(device)

    def peak_memory(self) -> int | None:
        """Peak bytes of the fullest device of this process, None where none counts them."""
        peaks = []
        for device in self._devices():
            with contextlib.suppress(ValueError):
                peaks.append(int(tf.config.experimental.get_memory_info(device)["peak"]))
        return max(peaks, default=None)

    def training_work(self, step: Step, samples: int) -> Work:
        """Per sample: this process's graph has the work of its own replicas alone."""
        return super().training_work(step, samples * self._here // self.replicas)

    def _training_step(
        self, model: Any, batch: Batch, new_optimizer: Callable[[], Any], compiled: bool
    ) -> Step:
        """Return a step of all replicas: each its own part, the gradients summed, an update."""
        self._training = True
        strategy, variables = self._strategy, model.trainable_variables
        with self.scope():
            optimizer = built_optimizer(new_optimizer, model)
            loss = loss_of(model, batch, replicas=self.replicas)
        differentiated = gradients_of(model, loss, optimizer, replicas=self.replicas)
        if compiled:
            differentiated = tf.function(differentiated, jit_compile=True)

        def replica_train(pictures: Any, targets: Any) -> Any:
            value, gradients = differentiated(pictures, targets)
            optimizer.apply_gradients(pairs(gradients, variables))
            return value

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def train(pictures: Any, targets: Any) -> Any:
            losses = strategy.run(replica_train, (pictures, targets))
            values = strategy.experimental_local_results(losses)
            return values, values

        return self._step(train, (batch.images, batch.targets))

    def _fit_step(self, model: Any, data: OwnData, batch: tuple[Any, ...], compiled: bool) -> Step:
        if own_function(model) or model.run_eagerly:
            raise CaseFailure(
                "several replicas need the model's train_step in one graph: compile it without "
                "run_eagerly and without a train_function of its own, or measure one replica"
            )
        self._training = True
        strategy = self._strategy
        if hasattr(model, "_symbolic_build"):  # Keras 3, whose metrics cannot be made in a replica
            samples = tf.nest.map_structure(tf.convert_to_tensor, batch)
            with self.scope():
                model._symbolic_build(data_batch=data.as_given(*samples))
        how_spread = self._call_path.partition(", ")[2]

        def make() -> Made:
            """Make the step of all replicas of `fit`'s own function, once the data is known."""
            function, how = fit_function(model, data, compiled)
            of_replica = function if how.endswith("XLA") else function.python_function
            self._call_path = f"{how}, {how_spread}"

            def replica_train(pictures: Any, targets: Any) -> Any:
                loss, _, logs = of_replica(pictures, targets)
                return loss, logs

            @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
            def train(pictures: Any, targets: Any) -> Any:
                losses, logs = strategy.run(replica_train, (pictures, targets))
                values = strategy.experimental_local_results(losses)
                return values, values, [strategy.experimental_local_results(one) for one in logs]

            return train, train.get_concrete_function

        return data.step(make, tuple(map(self._shared_out, batch)), any_batch=True)

    def _inference_step(self, model: Any, pictures: Any, compiled: bool) -> Step:
        """Return a step of all replicas: each its own part through its copy of the model."""
        if model.run_eagerly:
            raise CaseFailure(
                "several replicas infer in one graph, but the model was compiled with "
                "run_eagerly=True; leave it out, or measure one replica"
            )
        strategy = self._strategy

        def call(batch: Any) -> Any:
            return model(batch, training=False)

        if compiled:
            call = tf.function(call, jit_compile=True)

        def replica_infer(batch: Any) -> Any:
            output = self.leaves(call(batch))
            return probe_of(output[0]), output

        @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
        def infer(batch: Any) -> Any:
            probes, output = strategy.run(replica_infer, (batch,))
            results = [strategy.experimental_local_results(part) for part in output]
            return strategy.experimental_local_results(probes), results

        return self._step(infer, (pictures,))

    def _step(self, function: Any, batch: tuple[Any, ...]) -> Step:
        placed = tuple(map(self._shared_out, batch))
        return Step(function, placed, lambda: function.get_concrete_function(*placed))

    def _shared_out(self, part: Any) -> Any:
        """Return an array, or a tuple of them, with each replica's part on its device."""
        if isinstance(part, (dict, list, tuple)):
            return mapped(self._shared_out, part)
        size = len(part) // self.replicas
        devices = self._strategy.extended.worker_devices

        def of_replica(context: Any) -> Any:
            number = context.replica_id_in_sync_group
            with tf.device(devices[number % self._here]):
                return tf.identity(part[number * size : (number + 1) * size])

        return self._strategy.experimental_distribute_values_from_function(of_replica)

    def feed(self, model: Any, task: str, batch_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield batches without end, from host memory through tf.data, one for each replica."""
        pool = self._pool(model, task, batch_size, seed)

        def of_process(context: Any) -> Any:
            samples = tf.data.Dataset.from_tensor_slices(pool).repeat()
            return samples.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

        yield from self._strategy.distribute_datasets_from_function(of_process)
