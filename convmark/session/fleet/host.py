"""The code that runs on a node: describes the node, and measures one job at a time.

It is told what to measure and gives rows back; no file of results is written on a node.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

import convmark
from convmark.core.case import Case
from convmark.core.errors import BusyError
from convmark.core.files import TemporaryFolder
from convmark.core.options import Options
from convmark.core.text import file_text, plain_text
from convmark.interpreter import zoo_folder
from convmark.interpreter.environments import interpreters
from convmark.machine.cautions import cautions
from convmark.machine.hardware import read_machine
from convmark.machine.lock import alone
from convmark.machine.state import read_state
from convmark.results.commit import Commit
from convmark.session.ceilings import Ceiling, ceilings_path, keep_ceilings
from convmark.session.facts import Facts, Job
from convmark.session.fleet.nodes import NodeFacts
from convmark.session.result import Result
from convmark.session.run import measure
from convmark.session.session import Session

NO_RUN = "0000"
"""The run in a row before the caller has given it a file."""

TURN_LIMIT_S = 30.0
"""How long another run on the machine is waited for where the caller does not say --wait."""
LOOK_AGAIN_S = 0.5

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What every node is told before it measures."""

    options: Options
    commit: Commit
    """Of the caller's folder."""
    folder: str
    """The caller's; where a node has it too, models are imported from there."""
    ceilings: Mapping[str, Sequence[Ceiling]] = field(default_factory=dict)
    """Those that are known, by machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedNode:
    """What a node is about to measure with, and what there is to measure on it."""

    cases: tuple[Case, ...]
    found: Mapping[str, Mapping[str, Any]]
    """What each backend's interpreter has."""
    facts: Facts
    """What its rows share; the run is the caller's to name."""


def code_version() -> str:
    """Return a hash of the code that measures and of the zoo: all nodes must have the same."""
    digest = hashlib.sha256()
    for folder in (Path(convmark.__file__).resolve().parent / "worker", zoo_folder()):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def about_this_node() -> NodeFacts:
    _as_the_node_was_started(os.environ, _parents_environ())
    machine, state = read_machine(), read_state()
    host = plain_text(platform.node()) or "unknown"
    return NodeFacts(
        host=host,
        boot=file_text(_BOOT).strip() or host,
        machine=machine,
        convmark=convmark.__version__,
        code=code_version(),
        python=platform.python_version(),
        niceness=_niceness(),
        cautions=tuple(cautions(machine, state, os.environ)),
        asks_for_token=os.environ.get("RAY_AUTH_MODE") == "token",
    )


def installed(options: Options) -> dict[str, dict[str, Any]]:
    """Return what each backend's interpreter on this node has; those of `--env` are made first.

    Raises:
        ConvmarkError: it has none, or the framework is not there.
    """
    with _session(replace(options, isolation="spawn")) as session:
        return session.interpreters.inspect(())


class Host:
    """Measures jobs on this node, one at a time, as the caller's settings say."""

    def __init__(self, settings: NodeSettings) -> None:
        """Take on the environment of the node's own processes; nothing is started yet."""
        _as_the_node_was_started(os.environ, _parents_environ())
        if os.path.isdir(settings.folder):
            os.chdir(settings.folder)
        self._settings = settings
        self._flags = f"nice={nice}" if (nice := _niceness()) else ""
        self._session: Session | None = None
        self._prepared: PreparedNode | None = None
        self._held: set[Case] = set()

    def ready(self) -> bool:
        """Answer, which takes until the node's slot is free."""
        return True

    def prepare(self) -> PreparedNode:
        """Make the environment where it is not there yet, and find the cases to measure here."""
        if self._prepared is not None:
            return self._prepared
        self._session = session = _session(self._settings.options)
        session.take(session.default_cases())
        facts = session.shared_facts(NO_RUN, commit=self._settings.commit)
        flags = " ".join(filter(None, [facts.flags, self._flags]))
        machine = session.machine.name
        with TemporaryFolder() as folder:  # those that the caller does not know are measured
            path = ceilings_path(folder, machine)
            keep_ceilings(path, self._settings.ceilings.get(machine, ()))
            ceilings = session.ceilings(path)
        session.facts = replace(facts, flags=flags, ceilings=ceilings)
        self._prepared = PreparedNode(
            cases=tuple(session.cases), found=session.found, facts=session.facts
        )
        return self._prepared

    def measure(self, job: Job) -> Result:
        """Measure one job and return its row; the machine is this job's meanwhile.

        Raises:
            BusyError: somebody else measures on the machine, and the caller does not wait.
            ConvmarkError: nothing can be measured here at all.
        """
        facts = self.prepare().facts
        assert self._session is not None
        with contextlib.ExitStack() as stack:
            self._take_turn(stack)
            session = self._session
            ask, first = session.interpreters, job.case not in self._held
            result = measure(job, ask, session.options, facts, each_sample=first)
        if result.record.measured:
            self._held.add(job.case)
        return result

    def _take_turn(self, stack: contextlib.ExitStack) -> None:
        """Hold the machine's lock until the stack ends; a lost node's job may have it a while."""
        options = self._settings.options
        until = time.monotonic() + TURN_LIMIT_S
        while True:
            turn = alone(wait=options.wait, concurrent=options.allow_concurrent, say=_unheard)
            try:
                stack.enter_context(turn)
                return
            except BusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(LOOK_AGAIN_S)

    def close(self) -> None:
        """End every process of the interpreters."""
        if self._session is not None:
            self._session.close()


def _unheard(line: str) -> None:
    """Nobody reads what a node would say."""


def _session(options: Options) -> Session:
    paths = interpreters(options.pythons, options.environments) or [sys.executable]
    return Session(options, read_machine(), _unheard, python=paths[0])


def _as_the_node_was_started(environ: MutableMapping[str, str], parents: Mapping[str, str]) -> None:
    """Take back what the cluster has set for its own workers, such as the number of threads.

    What it has taken from them stays away: Ray preloads an allocator into its own programs alone.

    Args:
        parents: the variables of the process that started this one; none where they cannot be read.
    """
    if not parents:
        return
    for name in list(environ):
        if name.startswith("RAY_"):
            continue
        if name in parents:
            environ[name] = parents[name]
        else:
            del environ[name]


def _parents_environ() -> dict[str, str]:
    try:
        return dict(psutil.Process(os.getppid()).environ())
    except (psutil.Error, OSError):
        return {}


def _niceness(
    current: Callable[[], int] = lambda: os.getpriority(os.PRIO_PROCESS, 0),
    take_back: Callable[[], None] = lambda: os.setpriority(os.PRIO_PROCESS, 0, 0),
) -> int:
    """Return how nice the measured processes will be: 0 where this one may become so.

    Ray has its workers give way to all others (niceness 15).
    """
    if current() > 0:
        try:
            take_back()
        except OSError:
            return current()
    return 0
