"""What a container leaves: memory, from the files of both versions of cgroups, and CPU time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_worker import FakeInterpreter

from convmark.core.case import Case
from convmark.core.options import read
from convmark.interpreter import Answer
from convmark.machine.hardware import Machine
from convmark.machine.state import memory_left_bytes, read_state
from convmark.session import run
from convmark.session.facts import Facts, Job

GIB = 2**30
NO_LIMIT = "9223372036854771712\n"
"""What version 1 gives where there is no limit: the largest 64-bit number in whole pages."""


def files(root: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"memory.max": f"{4 * GIB}\n", "memory.current": f"{GIB}\n"}
V1 = {
    "memory/memory.limit_in_bytes": f"{4 * GIB}\n",
    "memory/memory.usage_in_bytes": f"{GIB}\n",
}


@pytest.mark.parametrize(
    ("membership", "texts", "left"),
    [
        ("0::/\n", V2, 3 * GIB),
        ("0::/\n", {**V2, "memory.stat": f"anon 5\ninactive_file {GIB // 2}\n"}, 3.5 * GIB),
        ("0::/\n", {**V2, "memory.max": "max\n"}, None),
        ("0::/\n", {**V2, "memory.current": f"{5 * GIB}\n"}, 0),
        ("0::/\n", {"memory.max": f"{GIB}\n"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {**V2, "a/memory.max": f"{2 * GIB}\n", "a/memory.current": "0\n"}, 2 * GIB),
        ("4:memory:/\n0::/\n", V1, 3 * GIB),
        ("4:memory:/gone\n0::/\n", V1, 3 * GIB),
        ("4:memory:/\n", {**V1, "memory/memory.stat":
                          f"inactive_file 1\ntotal_inactive_file {GIB}\n"}, 4 * GIB),
        ("9:cpu:/\n", V1, None),
        ("nonsense", {"memory.max": "lots", "memory.current": "-1"}, None),
    ],
)  # fmt: skip
def test_memory_is_what_the_strictest_cgroup_leaves(
    tmp_path: Path, membership: str, texts: dict[str, str], left: float | None
) -> None:
    assert memory_left_bytes(membership, files(tmp_path, texts)) == left


def test_without_a_limit_the_machine_s_memory_counts_and_with_one_the_lesser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory:
        available = 2 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    root = files(tmp_path, {"proc/self/cgroup": "4:memory:/\n"})
    for text, available in ((NO_LIMIT, 2 * GIB), (f"{GIB + 4096}", 4096)):
        files(root / "sys/fs/cgroup/memory", {"memory.limit_in_bytes": text,
                                              "memory.usage_in_bytes": f"{GIB}"})  # fmt: skip
        assert read_state(root=root).available_memory_bytes == available


MACHINE = Machine(
    name="a", cpu="b", cores=4, physical_cores=4, ram_bytes=GIB, gpus=(), driver=None, os="c"
)
READ_BACK = {
    **{"event": "read_back", "inherited": {}, "model": {}, "environ": {}, "precision": "float32"},
    **{"threads": "default", "cores": 4, "call_path": "eager"},
}


class Worker(FakeInterpreter):
    def answer(self, request: Any, on_event: Callable[..., None] = lambda event: None) -> Answer:
        answer = super().answer(request, on_event)
        answer.events.insert(-1, READ_BACK)
        return answer


@pytest.mark.parametrize(
    ("quotas", "state"),
    [
        ((None, None), None),
        ((None, 4.0), None),
        ((1.5, 1.5), "cpu_quota=1.5"),
        ((2.0, 0.7), "cpu_quota=0.7 cpu_quota_moved=True"),
        ((0.7, None), "cpu_quota=0.7 cpu_quota_moved=True"),
    ],
)
def test_the_quota_of_a_process_is_read_at_both_its_ends(
    quotas: tuple[float | None, ...], state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had been read once for a run, of which the processes after a change looked like others."""
    left = iter(quotas)
    monkeypatch.setattr(run, "own_cpu_quota", lambda: next(left))
    job = Job(case=Case(model="lenet5", task="train", batch_size=32), process=1, order=1)
    facts = Facts(run="0001", machine=MACHINE, commit=None, dirty=None, flags="")
    record = run.measure(job, Worker(), read({}), facts).record
    assert (record.error, record.state) == (None, state)
