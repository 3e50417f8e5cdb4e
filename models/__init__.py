"""The zoo: a name gives a builder, a builder gives a Keras model; importing it imports no Keras."""

from .registry import UnknownModelError, builder, names

__all__ = ["UnknownModelError", "builder", "names"]
