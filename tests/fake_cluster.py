"""A stand-in for `RayCluster` of convmark: nodes of this process, in which nothing runs."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from test_run import MACHINE

import convmark
from convmark.core.errors import ConvmarkError
from convmark.machine.gpu.devices import Gpu
from convmark.machine.hardware import Machine
from convmark.results.record import ASCENDING
from convmark.session.fleet import host
from convmark.session.fleet.host import Host, NodeSettings, PreparedNode, about_this_node, installed
from convmark.session.fleet.nodes import Node, NodeFacts
from convmark.session.fleet.run import Event, JobEnded, NodeLost, ProcessEnded
from convmark.session.fleet.scheduler import Assignment

A100 = Gpu(index=0, name="A100", memory_bytes=40 * 2**30, uuid="GPU-0")


def machine(name: str = "xeon-2", gpus: tuple[Gpu, ...] = ()) -> Machine:
    return dataclasses.replace(MACHINE, name=name, gpus=gpus, driver=None)


def about(name: str, **changes: Any) -> NodeFacts:
    """Return what a node of this name says, as the caller's own convmark would."""
    fields: dict[str, Any] = {
        "host": name,
        "boot": name,
        "machine": machine(),
        "convmark": convmark.__version__,
        "code": host.code_version(),
        "python": "3.13.2",
        "niceness": 0,
        "asks_for_token": True,
    }
    return NodeFacts(**{**fields, **changes})


@dataclass
class FakeCluster:
    """Measures by the fake worker, in turn; what a test wants to happen it is told before."""

    abouts: Mapping[str, NodeFacts | Exception]
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    has: Mapping[str, Any] = field(default_factory=dict)
    """What `installed` gives on a node that has not all."""
    dies_at: dict[str, int] = field(default_factory=dict)
    """By node the number, from 1, of the job in which it dies."""
    breaks_at: dict[str, int] = field(default_factory=dict)
    """By node the job in which its measuring process ends."""
    interrupt_after: int | None = None
    slower: Mapping[str, float] = field(default_factory=dict)
    cannot_prepare: Mapping[str, str] = field(default_factory=dict)
    taken: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.begun: dict[str, int] = {}
        self.order: list[tuple[str, str, int]] = []
        self.closed = False
        self._hosts: dict[str, Host] = {}
        self._coming: deque[Assignment] = deque()
        self._settings: NodeSettings | None = None

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed = True

    def nodes(self) -> list[Node]:
        return [
            Node(id=name, address=f"10.0.0.{number}", labels=self.labels.get(name, {}))
            for number, name in enumerate(self.abouts, start=1)
        ]

    def free_slots(self) -> dict[str, float]:
        return {node.address: float(node.id not in self.taken) for node in self.nodes()}

    def ask(
        self, names: Sequence[str], function: Callable[..., Any], *arguments: Any, limit_s: float
    ) -> dict[str, Any]:
        if function is about_this_node:
            return {name: self.abouts[name] for name in names}
        assert function is installed
        usual = {"tensorflow": {"tensorflow": "2.21.0", "keras": "3.15.0", "devices": ["cpu"]}}
        return {name: self.has.get(name, usual) for name in names}

    def prepare(
        self, names: Sequence[str], settings: NodeSettings, say: Callable[[str], None]
    ) -> dict[str, PreparedNode | Exception]:
        self._settings = settings
        found: dict[str, PreparedNode | Exception] = {}
        for name in names:
            if name in self.cannot_prepare:
                found[name] = ConvmarkError(self.cannot_prepare[name])
                continue
            try:
                found[name] = self._host(name).prepare()
            except ConvmarkError as error:
                found[name] = error
        return found

    def begin(self, assignment: Assignment) -> None:
        name, job = assignment.node, assignment.job
        self.begun[name] = self.begun.get(name, 0) + 1
        self.order.append((name, job.case.model, job.process))
        self._coming.append(assignment)

    def events(self) -> list[Event]:
        if self.interrupt_after is not None and len(self.order) > self.interrupt_after:
            raise KeyboardInterrupt
        assignment = self._coming.popleft()
        name = assignment.node
        number = self.begun[name]
        if self.dies_at.get(name) == number:
            return [NodeLost(name, f"node {name} is gone")]
        if self.breaks_at.get(name) == number:
            return [JobEnded(name, ProcessEnded("the measuring process of the node ended: killed"))]
        result = self._host(name).measure(assignment.job)
        factor = self.slower.get(name, 1.0)
        if factor != 1.0 and result.record.step_time_p50_s is not None:
            names = (*ASCENDING, "step_time_mean_s", "step_time_std_s")
            times = {name: getattr(result.record, name) for name in names}
            slow = {name: seconds * factor for name, seconds in times.items() if seconds}
            record = dataclasses.replace(result.record, **slow)
            result = dataclasses.replace(result, record=record)
        return [JobEnded(name, result)]

    def _host(self, name: str) -> Host:
        found = self.abouts[name]
        assert isinstance(found, NodeFacts)
        _Here.about = found
        if name not in self._hosts:
            assert self._settings is not None
            self._hosts[name] = Host(self._settings)
        return self._hosts[name]


class _Here:
    """The node whose turn it is."""

    about: NodeFacts


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each host believe that it is the node whose turn it is."""
    monkeypatch.setattr("convmark.session.fleet.host.read_machine", lambda: _Here.about.machine)
    monkeypatch.setattr("platform.node", lambda: _Here.about.host)
    monkeypatch.setattr("convmark.session.fleet.host._parents_environ", dict)
    monkeypatch.setattr("convmark.session.fleet.host._niceness", lambda: _Here.about.niceness)
