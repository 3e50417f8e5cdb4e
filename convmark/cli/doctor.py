"""`convmark doctor`: the hardware and software found, and what makes results unreliable."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import convmark.interpreter
from convmark.cli.command import exit_status, sayer
from convmark.core.errors import ConvmarkError
from convmark.core.options import Options
from convmark.core.table import Table, headings, table_of
from convmark.interpreter.environments import interpreters
from convmark.interpreter.inspection import inspect
from convmark.machine.cautions import cautions, speed_flags
from convmark.machine.doctor import Finding, findings, findings_text
from convmark.machine.hardware import Machine, read_machine, read_system
from convmark.machine.power import find_rapl
from convmark.machine.state import read_state
from convmark.report.tables import Answer, check_form, print_tables

_say = sayer("convmark doctor")


def doctor(given: argparse.Namespace, options: Options) -> int:
    """Print the findings, a page for each interpreter and backend; fail where one is of no use.

    Raises:
        ConvmarkError: an interpreter is not there, or an environment cannot be made.
    """
    form, machine = check_form(given.format), read_machine()
    paths = interpreters(options.pythons, options.environments, say=_say) or [sys.executable]
    pages = [(path, backend) for path in paths for backend in options.backends]
    usable, rows = True, []
    for number, (path, backend) in enumerate(pages):
        found, works = _page(machine, path, backend, options)
        usable = usable and works
        rows += [(path, backend, one) for one in found]
        if form == "text":
            head = f"{chr(10) * (number > 0)}{path}, {backend}\n\n" if len(pages) > 1 else ""
            print(f"{head}{findings_text(found)}")
    if form != "text":
        print_tables(Answer(command="doctor", machines=[machine.name], tables=[_table(rows)]), form)
    return exit_status(usable)


def _table(rows: Sequence[tuple[str, str, Finding]]) -> Table:
    names = ("section", "name", "value", "remedy")
    records = [
        {
            "interpreter": path,
            "backend": backend,
            **{name: getattr(one, name) for name in names},
        }
        for path, backend, one in rows
    ]
    keys = ("interpreter", "backend", *names)
    return table_of("findings", "Findings", "", headings(" ".join(keys)), records, keep=keys)


def _page(
    machine: Machine, python: str, backend: str, options: Options
) -> tuple[list[Finding], bool]:
    """Return what was found, and whether the interpreter is of use."""
    state, rapl = read_state(), find_rapl()
    with convmark.interpreter.Interpreter(
        python, isolation="spawn", backend=backend
    ) as interpreter:
        try:
            framework = inspect(interpreter, (), explain=bool(machine.gpus))
        except ConvmarkError as error:
            framework = {"error": str(error), "executable": python}
    found = findings(
        machine,
        state,
        cautions(machine, state, os.environ),
        {**framework, "backend": backend},
        options.results,
        flags=speed_flags(os.environ),
        environ=os.environ,
        more=[
            *read_system().rows,
            ("cooling", options.cooling or "unknown: convmark run --cooling TEXT keeps it"),
            ("CPU energy", rapl.scope or rapl.missing),
        ],
    )
    return found, "error" not in framework
