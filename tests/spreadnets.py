"""Spreads a model over two devices of the CPU by its own code; imported by workers, no test."""

from __future__ import annotations

from typing import Any

from convmark_zoo.keras_api import keras
from settingnets import plain

IS_JAX = keras.backend.backend() == "jax"

if IS_JAX:
    import jax

    jax.config.update("jax_num_cpu_devices", 2)
else:
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    tf.config.set_logical_device_configuration(cpu, parts)


def mirrored() -> Any:
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        return plain()


def jax_parallel() -> Any:
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    return plain()
