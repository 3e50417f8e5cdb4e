"""`convmark doctor`: the hardware and software found, and what makes results unreliable."""

from __future__ import annotations

import argparse
import os
import sys

import convmark.interpreter
from convmark.cli.command import exit_status, sayer
from convmark.core.errors import ConvmarkError
from convmark.core.options import Options
from convmark.interpreter.environments.cache import interpreters
from convmark.interpreter.inspection import inspect
from convmark.machine.cautions import cautions, speed_flags
from convmark.machine.doctor import findings
from convmark.machine.hardware import Machine, read_machine
from convmark.machine.state import read_state

__all__ = ["doctor"]

_say = sayer("convmark doctor")


def doctor(given: argparse.Namespace, options: Options) -> int:
    """Print the findings, a page for each interpreter and backend; fail where one is of no use.

    Raises:
        ConvmarkError: an interpreter is not there, or an environment cannot be made.
    """
    machine = read_machine()
    paths = interpreters(options.pythons, options.environments, say=_say) or [sys.executable]
    pages = [(path, backend) for path in paths for backend in options.backends]
    usable = True
    for number, (path, backend) in enumerate(pages):
        if len(pages) > 1:
            print(f"{chr(10) * (number > 0)}{path}, {backend}\n")
        usable = _page(machine, path, backend, options) and usable
    return exit_status(usable)


def _page(machine: Machine, python: str, backend: str, options: Options) -> bool:
    state = read_state()
    with convmark.interpreter.Interpreter(
        python, isolation="spawn", backend=backend
    ) as interpreter:
        try:
            framework = inspect(interpreter, (), explain=bool(machine.gpus))
        except ConvmarkError as error:
            framework = {"error": str(error), "executable": python}
    print(
        findings(
            machine,
            state,
            cautions(machine, state, os.environ),
            {**framework, "backend": backend},
            options.results,
            flags=speed_flags(os.environ),
            environ=os.environ,
        )
    )
    return "error" not in framework
