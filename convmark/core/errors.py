"""The errors of convmark: each message is one line that names the subject, reason and remedy.

A docstring names only those errors that the first line of it and these classes do not tell.
"""

from __future__ import annotations


class ConvmarkError(Exception):
    """Base of all errors that a user may see; its text is one line."""


class OptionError(ConvmarkError):
    """An option's value breaks its rule."""


class BusyError(ConvmarkError):
    """The machine is taken."""


class CaseError(ConvmarkError):
    """A case that cannot exist."""


class StoreError(ConvmarkError):
    """A results folder or file that cannot be read or written."""


class DrawingError(ConvmarkError):
    """A figure that cannot be drawn; no measured value depends on it."""


class InstallError(ConvmarkError):
    """An environment to measure in that cannot be made."""


class MeasurementError(ConvmarkError):
    """Numbers from which the wanted figure does not follow."""


class WorkerError(ConvmarkError):
    """A worker process that could not be started or does not keep to the protocol."""
