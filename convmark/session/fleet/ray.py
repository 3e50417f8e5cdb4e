"""The nodes of a Ray cluster: the one module that imports Ray.

Every node gets an actor, pinned to it, that takes all of its CPUs and GPUs and the resource that
Ray makes for each node's address: the slot of its host. So no two cases, of this caller or another,
run on a host at once, and no other work that Ray places. The caller holds the actors: when it
ends, so do they.

Nothing of what arrives is trusted less than the caller itself: Ray's own protocol lets whoever
reaches a cluster run code on it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.text import Say
from convmark.session.fleet.host import Host, NodeSettings, PreparedNode
from convmark.session.fleet.nodes import Node
from convmark.session.fleet.run import Event, JobEnded, NodeLost, ProcessEnded
from convmark.session.fleet.scheduler import Assignment
from convmark.worker.protocol import one_line

CONNECT_LIMIT_S = 5.0
CLOSE_LIMIT_S = 10.0
LOOK_S = 1.0
"""How often the caller may be interrupted while it waits."""

SLOT_WAIT_S = 20.0
"""After so long without an answer a node's slot is said to be taken."""

MOST_BREAKS = 3
"""Times in a row that the measuring process of a node may end under a job."""


class Failure(Exception):
    """A node that does not do what it was asked for; its text is one line."""


class RayCluster(contextlib.AbstractContextManager["RayCluster"]):
    """A cluster that is there already; a context manager that leaves it as it was."""

    def __init__(self, address: str) -> None:
        """Connect."""
        _refuse_unanswered(address)
        try:
            ray.init(
                address=address,
                namespace="convmark",
                log_to_driver=False,
                logging_level="ERROR",
                ignore_reinit_error=False,
            )
        except (ConnectionError, RuntimeError, ValueError, ImportError, RayError) as error:
            raise OptionError(f"--ray: {address}: {one_line(error)}; {_HINT}") from None
        self._nodes = {node.id: node for node in _alive()}
        self._settings: NodeSettings | None = None
        self._actors: dict[str, Any] = {}
        self._calls: dict[Any, str] = {}
        """Of what is being measured: the node by the reference."""
        self._again: dict[str, Assignment] = {}
        self._breaks: dict[str, int] = {}

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was started on the nodes, and disconnect; harmless when done twice."""
        if not ray.is_initialized():
            return
        self._end(list(self._actors))
        ray.shutdown()

    def nodes(self) -> list[Node]:
        """Return the nodes that were there when the caller came, those of one address together."""
        return sorted(self._nodes.values(), key=lambda node: (node.address, node.id))

    def free_slots(self) -> dict[str, float]:
        """Return the slots that nobody holds, by address."""
        free = ray.available_resources()
        return {node.address: float(free.get(_slot(node), 0.0)) for node in self.nodes()}

    def ask(
        self,
        names: Sequence[str],
        function: Callable[..., Any],
        *arguments: Any,
        limit_s: float,
    ) -> dict[str, Any]:
        """Return what the function gives on each of the nodes, a `Failure` where it does not."""
        remote = ray.remote(max_retries=0)(function)
        calls = {
            remote.options(num_cpus=0, scheduling_strategy=_pinned(name)).remote(*arguments): name
            for name in names
        }
        done, late = _wait(list(calls), limit_s)
        answers: dict[str, Any] = {}
        for call in done:
            with _failing(answers, calls[call]):
                answers[calls[call]] = ray.get(call)
        for call in late:
            answers[calls[call]] = Failure(f"does not answer within {limit_s:g} s")
            ray.cancel(call, force=True)
        return answers

    def prepare(
        self, names: Sequence[str], settings: NodeSettings, say: Say
    ) -> dict[str, PreparedNode | Failure]:
        """Ask the nodes what they can measure; `Failure` where one cannot.

        Args:
            say: is told of a node whose slot is taken.
        """
        self._settings = settings
        for name in names:
            self._start(name)
        waiting = {self._actors[name].ready.remote(): name for name in names}
        _, late = _wait(list(waiting), SLOT_WAIT_S)
        if late:
            taken = ", ".join(sorted(self._nodes[waiting[call]].address for call in late))
            say(f"waiting for the slot of {taken}: it is used by other work of the cluster")
        calls = {self._actors[name].prepare.remote(): name for name in names}
        found: dict[str, Any] = {}
        left = list(calls)
        while left:
            done, left = _wait(left, LOOK_S)
            for call in done:
                with _failing(found, calls[call]):
                    found[calls[call]] = ray.get(call)
        self._end([name for name, answer in found.items() if isinstance(answer, Failure)])
        return found

    def begin(self, assignment: Assignment) -> None:
        """Start the job on its node."""
        name = assignment.node
        if name not in self._actors:
            self._start(name)
        self._again[name] = assignment
        self._calls[self._actors[name].measure.remote(assignment.job)] = name

    def events(self) -> list[Event]:
        """Wait for rows, and for nodes that are lost."""
        while self._calls:
            done, _ = _wait(list(self._calls), LOOK_S, at_least=1)
            found = [event for call in done if (event := self._event(call)) is not None]
            if found:
                return found
        return []

    def _event(self, call: Any) -> Event | None:
        name = self._calls.pop(call)
        try:
            result = ray.get(call)
        except ActorUnavailableError:  # the network, or a node that is about to be found dead
            time.sleep(LOOK_S)
            self.begin(self._again[name])
            return None
        except ActorDiedError as error:
            return self._died(name, one_line(error))
        except RayError as error:
            self._end([name])
            return NodeLost(name, _reason(error))
        self._breaks.pop(name, None)
        return JobEnded(name, result)

    def _died(self, name: str, why: str) -> Event:
        """Tell a node that is gone from one whose measuring process alone has ended."""
        del self._actors[name]
        if name not in {node.id for node in _alive()}:
            return NodeLost(name, f"node {self._nodes[name].address} is gone")
        self._breaks[name] = self._breaks.get(name, 0) + 1
        if self._breaks[name] >= MOST_BREAKS:
            return NodeLost(name, f"its process ended {MOST_BREAKS} times in a row: {why}")
        return JobEnded(name, ProcessEnded(f"the measuring process of the node ended: {why}"))

    def _start(self, name: str) -> None:
        assert self._settings is not None
        if name in self._actors:
            return
        node = self._nodes[name]
        actor = ray.remote(max_restarts=0, max_task_retries=0)(Host)
        self._actors[name] = actor.options(
            num_cpus=node.resources.get("CPU", 0.0),
            num_gpus=node.resources.get("GPU", 0.0),
            resources={_slot(node): 1.0},
            scheduling_strategy=_pinned(name),
        ).remote(self._settings)

    def _end(self, names: Sequence[str]) -> None:
        """Tell the actors to end their workers, then end the actors."""
        actors = [self._actors.pop(name) for name in names if name in self._actors]
        idle = [actor.close.remote() for actor in actors]
        with contextlib.suppress(RayError):
            _wait(idle, CLOSE_LIMIT_S if not self._calls else LOOK_S)
        for actor in actors:
            with contextlib.suppress(RayError):
                ray.kill(actor)


_HINT = (
    "an address is HOST:PORT of the head, from a machine of the cluster, or ray://HOST:PORT from "
    "elsewhere; a cluster that asks for a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here"
)


def _refuse_unanswered(address: str) -> None:
    """Refuse an address at which nothing listens; Ray itself would wait for minutes."""
    if address == "auto":
        if os.environ.get("RAY_ADDRESS", "auto") != "auto":
            _refuse_unanswered(os.environ["RAY_ADDRESS"])
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise OptionError(f"--ray: must be an address, got {address!r}; {_HINT}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_LIMIT_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise OptionError(f"--ray: nothing answers at {address}: {reason}; {_HINT}") from None


def _alive() -> list[Node]:
    return [
        Node(
            id=str(found["NodeID"]),
            address=str(found["NodeManagerAddress"]),
            labels={str(key): str(value) for key, value in (found.get("Labels") or {}).items()},
            resources=dict(found.get("Resources") or {}),
        )
        for found in ray.nodes()
        if found["Alive"]
    ]


def _slot(node: Node) -> str:
    """Return the resource that Ray makes for the node's address, one of each."""
    return f"node:{node.address}"


def _pinned(name: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(name, soft=False)


def _wait(calls: list[Any], limit_s: float, at_least: int = 0) -> tuple[list[Any], list[Any]]:
    """Return the calls that are over, and those that are not; all are waited for by default."""
    if not calls:
        return [], []
    done, late = ray.wait(calls, num_returns=at_least or len(calls), timeout=limit_s)
    if at_least:  # whatever else is over by now
        done, late = ray.wait(calls, num_returns=len(calls), timeout=0)
    return done, late


@contextlib.contextmanager
def _failing(found: dict[str, Any], name: str) -> Iterator[None]:
    try:
        yield
    except RayError as error:
        found[name] = Failure(_reason(error))


def _reason(error: BaseException) -> str:
    """Return in one line what a node could not do."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, ConvmarkError):
        return str(cause)
    text = str(error)
    for missing in ("No module named 'convmark", "No module named 'psutil"):
        if missing in text:
            return (
                'has no convmark that this caller can use: pip install "convmark[ray]" in the '
                "Python that runs Ray there"
            )
    return one_line(cause if cause is not None else error)
