"""Sets TensorFlow's threads where it is imported; imported by workers, no test."""

from __future__ import annotations

import tensorflow as tf
from settingnets import plain

__all__ = ["plain"]

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
