"""convmark: a benchmark harness for Keras ConvNets.

This package imports nothing when it is loaded: the measured interpreter loads it too, and must need
nothing but the framework and the standard library.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
