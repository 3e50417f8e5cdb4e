"""`convmark doctor`: what is here, and what of it makes figures unreliable."""

from __future__ import annotations

import os
import sys

import convmark.launch
from convmark.cautions import cautions, speed_flags
from convmark.doctor import findings
from convmark.environment import read_machine, read_state
from convmark.errors import ConvmarkError
from convmark.inspection import inspect
from convmark.options import Options

__all__ = ["doctor"]


def doctor(options: Options) -> bool:
    """Print the findings; return whether the framework can be used."""
    machine = read_machine()
    state = read_state()
    with convmark.launch.Interpreter(isolation="spawn") as interpreter:
        try:
            framework = inspect(interpreter, (), explain=bool(machine.gpus))
        except ConvmarkError as error:
            framework = {"error": str(error), "executable": sys.executable}
    print(
        findings(
            machine,
            state,
            cautions(machine, state, os.environ),
            framework,
            options.results,
            flags=speed_flags(os.environ),
            environ=os.environ,
        )
    )
    return "error" not in framework
