"""Ceilings: kept once per device, backend, precision and threads; the efficiency under them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rows import row
from test_run import MACHINE

from convmark.cli import fleet
from convmark.core.case import Case
from convmark.core.errors import StoreError
from convmark.interpreter import Answer, Interpreter
from convmark.session.ceilings import (
    ceilings_path,
    conditions,
    efficiency,
    exceeded,
    gather,
    keep_ceilings,
    key_of,
    read_ceilings,
)
from convmark.session.facts import Facts
from convmark.session.fleet.host import PreparedNode
from convmark.worker import ceiling

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
CPU = Case(model="lenet5", task="train", batch_size=32)
GPU = Case(model="lenet5", task="infer", device="gpu:0", precision="tf32")


class Worker:
    """Answers like one that measures ceilings, and remembers for which cases it was asked."""

    def __init__(
        self, status: str = "ok", others: float | None = 0.1, flops_per_s: float = 1e11
    ) -> None:
        self.asked: list[Any] = []
        self.others = others
        self.status = status
        self.flops_per_s = flops_per_s

    def __call__(self, request: Mapping[str, Any], see: Callable[[Any], None]) -> Answer:
        assert request["kind"] == "ceiling"
        assert (request["case"]["replicas"], request["case"]["cluster"]) == (1, None)
        self.asked.append(request["case"]["device"])
        events = [
            {"event": "environment", "tensorflow": "2.21.0"},
            {"event": "product", "matrix_size": 2048, "flops_per_s": self.flops_per_s},
            {"event": "copy", "copy_bytes": 2**28, "bytes_per_s": 1e10},
            {"event": "state", "other_cpu_share": self.others},
            {"event": "finished"},
        ]
        for event in events:
            see(event)
        message = "" if self.status == "ok" else "no memory"
        return Answer(status=self.status, message=message, events=events, ready_s=0.1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return ceilings_path(tmp_path, "xeon-2")


@pytest.fixture
def said() -> list[str]:
    return []


Gather = Callable[..., dict[Any, Any]]


@pytest.fixture
def gathered(path: Path, said: list[str]) -> Gather:
    def run(cases: list[Case], worker: Worker, which: str, **more: Any) -> dict[Any, Any]:
        return gather(cases, worker, path, which=which, say=said.append, now=lambda: NOW, **more)

    return run


def test_a_ceiling_is_measured_once_and_kept(gathered: Gather, path: Path, said: list[str]) -> None:
    worker = Worker()
    first = gathered([CPU, CPU, GPU], worker, "on")
    assert worker.asked == ["cpu", "gpu:0"]
    assert gathered([CPU, GPU], worker, "on") == first == read_ceilings(path)
    assert worker.asked == ["cpu", "gpu:0"]
    assert first[key_of(CPU)].peak_flops_per_s == 1e11
    assert first[key_of(GPU)].precision == "tf32"
    assert said == [
        "measuring the ceilings of cpu in float32 by tensorflow, once",
        "measuring the ceilings of gpu:0 in tf32 by tensorflow, once",
    ]
    assert path.parent.name == "xeon-2"


@pytest.mark.parametrize(("which", "asked"), [("auto", ["gpu:0"]), ("off", [])])
def test_a_cpu_has_a_ceiling_only_where_it_is_asked_for(
    which: str, asked: list[str], gathered: Gather
) -> None:
    worker = Worker()
    assert len(gathered([CPU, GPU], worker, which)) == len(asked)
    assert worker.asked == asked


def test_a_ceiling_that_is_there_is_given_without_asking(gathered: Gather) -> None:
    gathered([CPU], Worker(), "on")
    assert set(gathered([CPU], Worker(), "off")) == {key_of(CPU)}


def test_a_ceiling_of_a_busy_cpu_is_not_kept_but_that_of_a_gpu_beside_it_is(
    gathered: Gather, said: list[str]
) -> None:
    busy = Worker(others=0.11)
    assert set(gathered([CPU, GPU], busy, "on")) == {key_of(GPU)}
    assert "ceilings of cpu are not saved: other programs took 11 % of the CPUs' time" in said
    assert set(gathered([CPU], Worker(others=None), "on")) == {key_of(CPU), key_of(GPU)}


@pytest.mark.parametrize("why", ["the card was slowed (hardware_thermal)", None])
def test_a_ceiling_of_a_slowed_or_shared_card_is_not_kept(
    why: str | None, gathered: Gather, path: Path, said: list[str]
) -> None:
    seen: list[str] = []
    cards = SimpleNamespace(
        see=lambda event: seen.append(event["event"]), columns=lambda _: {"not_judged": why}
    )
    found = gathered([GPU], Worker(), "on", watch=lambda case: nullcontext(cards))
    assert {"product", "copy"} <= set(seen)
    assert set(found) == set(read_ceilings(path)) == (set() if why else {key_of(GPU)})
    assert why is None or said[-1] == f"ceilings of gpu:0 are not saved: {why}"


def test_a_ceiling_that_rows_exceed_is_measured_once_more_and_the_higher_counts(
    gathered: Gather, path: Path, said: list[str]
) -> None:
    """Measured on a hot card, or the rows multiply less often than is counted (Winograd)."""
    gathered([CPU], Worker(), "on")
    rows = [row(efficiency=0.9, peak_flops_per_s=1e11), row(efficiency=1.2, peak_flops_per_s=1e11)]
    assert exceeded(rows[:1], path) == []
    assert exceeded([row(efficiency=1.2, peak_flops_per_s=5e10)], path) == []  # under a quota
    assert exceeded(rows, path) == [rows[1].case]
    gathered(exceeded(rows, path), Worker(flops_per_s=2e11), "auto", again=True)
    assert "now 2e+11 FLOP/s, before 1e+11" in said[-1]
    assert read_ceilings(path)[key_of(CPU)].peak_flops_per_s == 2e11
    assert exceeded([row(efficiency=1.2, peak_flops_per_s=2e11)], path) == []  # once more, no more
    gathered([CPU], Worker(flops_per_s=1e10), "on", again=True)
    assert read_ceilings(path)[key_of(CPU)].peak_flops_per_s == 2e11


def test_beside_other_load_a_ceiling_that_rows_exceed_is_not_measured_in_each_run(
    gathered: Gather, path: Path
) -> None:
    gathered([CPU], Worker(), "on")
    quiet = row(efficiency=1.2, peak_flops_per_s=1e11)
    assert exceeded([dataclasses.replace(quiet, other_cpu_share=0.3)], path) == []
    gathered(exceeded([quiet], path), Worker(others=0.3, flops_per_s=1e10), "auto", again=True)
    assert read_ceilings(path)[key_of(CPU)].peak_flops_per_s == 1e11
    assert exceeded([quiet], path) == []


def test_a_power_limit_that_moves_by_a_watt_is_the_same_card(gathered: Gather, path: Path) -> None:
    def under(card: str) -> Callable[[str], tuple[str, None]]:
        return lambda device: (card, None)

    worker = Worker()
    for card, times in (
        ("NVIDIA H100, 700 W", 1),
        ("NVIDIA H100, 699.21 W", 1),
        ("NVIDIA H100, 600 W", 2),
        ("NVIDIA H200, 700 W", 3),
    ):
        found = gathered([GPU], worker, "on", under=under(card))
        assert (len(worker.asked), set(found)) == (times, {key_of(GPU)})
    exceeding = row(**GPU.as_fields(), efficiency=1.2, peak_flops_per_s=1e11)
    gathered([GPU], worker, "on", under=under("NVIDIA H100, 701 W"), again=True)
    assert exceeded([exceeding], path, under("NVIDIA H100, 700 W")) == []
    assert exceeded([exceeding], path, under("NVIDIA H100, 600 W")) == [GPU]


def test_ceilings_that_do_not_count_today_are_told_of_where_none_is_measured(
    gathered: Gather, path: Path, said: list[str]
) -> None:
    other = conditions(MACHINE, {"OMP_NUM_THREADS": "1"})
    gathered([CPU], Worker(), "on")
    for which, line in (
        ("off", f"no efficiency of cpu in float32: the ceilings in {path} are of another card, "),
        ("on", "measuring the ceilings of cpu in float32 by tensorflow, once"),
        ("off", ""),
    ):
        said.clear()
        gathered([CPU, dataclasses.replace(CPU, batch_size=1)], Worker(), which, under=other)
        assert [one.startswith(line) for one in said] == [True] * bool(line)


def test_under_a_cpu_quota_no_ceiling_of_the_whole_cpu_is_taken_and_none_is_kept(
    gathered: Gather, said: list[str]
) -> None:
    """Two containers of one machine: its name and its file are the same."""
    worker = Worker()
    gathered([CPU, GPU], worker, "on")
    assert key_of(CPU) not in gathered([CPU, GPU], worker, "off", quota=1.5)
    assert key_of(CPU) in gathered([CPU, GPU], worker, "on", quota=1.5)
    assert worker.asked == ["cpu", "gpu:0", "cpu"]
    assert said[-1] == "ceilings of cpu are not saved: they are of a CPU quota of 1.5 CPUs"
    other = Case(model="lenet5", task="train", threads="1")
    gathered([other], worker, "on", quota=1.5)
    assert key_of(other) not in gathered([other], worker, "off")


def test_of_a_node_under_a_quota_the_ceilings_of_its_card_alone_are_kept(
    gathered: Gather, tmp_path: Path
) -> None:
    found = gathered([CPU, GPU], Worker(), "on")
    node = Facts(run="0000", machine=MACHINE, commit=None, dirty=None, flags="", ceilings=found)
    for quota, kept in ((1.5, {key_of(GPU)}), (None, set(found)), (MACHINE.cores, set(found))):
        facts = dataclasses.replace(node, cpu_quota_cores=quota)
        path = ceilings_path(tmp_path / str(quota), MACHINE.name)
        path.parent.mkdir(parents=True)
        fleet._keep_ceilings(tmp_path / str(quota), [PreparedNode(cases=(), found={}, facts=facts)])
        assert set(read_ceilings(path)) == kept


@pytest.mark.parametrize(
    ("case", "environ"),
    [
        (CPU, {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}),
        (GPU, {"CUDA_VISIBLE_DEVICES": "1"}),
        (GPU, {"NVIDIA_TF32_OVERRIDE": "0"}),
    ],
)
def test_a_ceiling_is_of_the_card_and_of_the_variables_that_may_change_speed(
    case: Case, environ: dict[str, str], gathered: Gather, path: Path
) -> None:
    """Another card of the machine may be gpu:0 today."""
    worker, plain, other = Worker(), conditions(MACHINE, {}), conditions(MACHINE, environ)
    gathered([case], worker, "on", under=other)
    found = gathered([case], Worker(flops_per_s=1e10), "on", under=plain)
    assert found[key_of(case)].peak_flops_per_s == 1e10
    assert found == read_ceilings(path, plain) != read_ceilings(path, other)
    assert gathered([case], worker, "on", under=other) == read_ceilings(path, other)
    assert worker.asked == [case.device]
    exceeding = row(**case.as_fields(), efficiency=1.2, peak_flops_per_s=1e11)
    assert exceeded([exceeding], path, plain) == []
    assert exceeded([exceeding], path, other) == [case]


def test_what_a_runtime_alone_computes_in_has_no_ceiling(gathered: Gather, path: Path) -> None:
    worker, case = Worker(), Case(model="lenet5", task="infer", runtime="litert", precision="int8")
    assert gathered([case], worker, "on") == {}
    assert worker.asked == []
    (kept,) = gathered([CPU], worker, "on").values()
    of_float32 = dataclasses.replace(kept, precision="int8")  # as an earlier version measured it
    keep_ceilings(path, [of_float32])
    assert set(read_ceilings(path)) == {key_of(CPU)}


def test_other_threads_have_another_ceiling(gathered: Gather) -> None:
    worker = Worker()
    single = Case(model="lenet5", task="train", threads="1")
    assert len(gathered([CPU, single], worker, "on")) == 2


def test_a_bound_process_has_a_ceiling_of_its_own_in_an_earlier_file_too(
    gathered: Gather, path: Path
) -> None:
    worker, bound = Worker(), Case(model="lenet5", task="train", cpus="0")
    gathered([CPU], worker, "on")
    earlier = [line.rsplit(",", 3)[0] for line in path.read_text().splitlines()]
    assert "cpus" not in earlier[0]
    path.write_text("\n".join(earlier) + "\n")
    gathered([CPU, bound], worker, "on")
    assert worker.asked == ["cpu", "cpu"]
    assert set(read_ceilings(path)) == {key_of(CPU), key_of(bound)}


def test_a_ceiling_that_cannot_be_measured_is_said_and_left_out(
    gathered: Gather, path: Path, said: list[str]
) -> None:
    assert gathered([CPU], Worker("out_of_memory"), "on") == {}
    assert said[-1] == "no ceilings of cpu in float32: out_of_memory: no memory"
    assert not path.exists()


@pytest.mark.parametrize(("cell", "rule"), [("1e11", "peak_flops_per_s"), ("2048", "matrix_size")])
def test_a_file_that_does_not_fit_is_refused_by_line(
    cell: str, rule: str, gathered: Gather, path: Path
) -> None:
    gathered([CPU], Worker(), "on")
    text = path.read_text().replace("100000000000.0", "1e11")
    assert cell in text
    path.write_text(text.replace(cell, "-1" if rule == "peak_flops_per_s" else "many"))
    with pytest.raises(StoreError, match=r"ceilings\.csv:2: "):
        read_ceilings(path)


def test_the_efficiency_is_flops_reached_over_the_peak(gathered: Gather) -> None:
    known = gathered([CPU, GPU], Worker(), "on")
    # 1e6 FLOPs a sample, 1,000 samples/s: 1e9 FLOP/s of 1e11
    assert efficiency(GPU, 1_000_000, 1000.0, known[key_of(GPU)]) == pytest.approx(0.01)
    assert efficiency(CPU, 3_000_000, 1000.0, known[key_of(CPU)]) == pytest.approx(0.03)


def test_replicas_are_held_against_the_ceilings_of_all_their_devices(gathered: Gather) -> None:
    worker = Worker()
    two = [dataclasses.replace(case, replicas=2) for case in (CPU, GPU)]
    spread = dataclasses.replace(CPU, replicas=2, cluster="hosts2")
    known = gathered([*two, spread], worker, "on")
    assert worker.asked == ["cpu", "gpu:0"]
    found = [efficiency(case, 1_000_000, 1000.0, known[key_of(case)]) for case in (*two, spread)]
    # logical CPUs share the machine's, a GPU each and a machine each are twice as much
    assert found == pytest.approx([0.01, 0.005, 0.005])


# the worker's side


class Clocked:
    """A backend whose operations take as long as their work at a rate, on a real clock's stead."""

    def __init__(self, out_of_memory_at: int = 1 << 60) -> None:
        self.made: list[int] = []
        self.out_of_memory_at = out_of_memory_at

    def matrix_product(self, size: int) -> Callable[[], int]:
        self.made.append(size)
        if size >= self.out_of_memory_at:
            raise MemoryError(size)
        return lambda: size

    copy = matrix_product

    def synchronise(self, token: int) -> None:
        """Done already."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)


def events_of(backend: Clocked, seconds: Callable[[int], float]) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def operation_s(step: Callable[[], int], *_: Any) -> float:
        return seconds(step())

    def emit(event: str, **fields: Any) -> None:
        found[event] = fields

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceiling, "_operation_s", operation_s)
        ceiling.measure(backend, emit)
    return found


def test_sizes_grow_until_an_operation_is_long_and_the_best_rate_counts() -> None:
    backend = Clocked()
    found = events_of(backend, lambda size: {256: 1.0, 512: 0.01, 1024: 0.06}.get(size, 0.05))
    assert backend.made == [256, 1 << 26]
    assert found["product"] == {"matrix_size": 256, "flops_per_s": 2 * 256**3}
    backend = Clocked()
    found = events_of(backend, lambda size: {256: 0.01, 512: 0.01, 1024: 0.09}.get(size, 0.05))
    assert backend.made == [256, 512, 1024, 1 << 26]
    assert found["product"] == {"matrix_size": 512, "flops_per_s": 2 * 512**3 / 0.01}
    assert found["copy"] == {"copy_bytes": 1 << 26, "bytes_per_s": 2 * (1 << 26) / 0.05}
    assert "finished" in found


def test_what_does_not_fit_ends_the_growth_unless_it_is_the_smallest() -> None:
    backend = Clocked(out_of_memory_at=1 << 27)
    found = events_of(backend, lambda size: 0.001)
    assert found["product"]["matrix_size"] == 16384
    assert found["copy"]["copy_bytes"] == 1 << 26
    with pytest.raises(MemoryError):
        events_of(Clocked(out_of_memory_at=256), lambda size: 0.001)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_worker_measures_the_ceilings_of_its_cpu(
    backend: str, interpreter_of: Callable[[str], Interpreter]
) -> None:
    """They are kept for all models, so no module of one is imported, whose settings they had."""
    case = Case(model="not_there:net", task="train", backend=backend)
    # the largest sizes, which take most of the time, are of the clocked backend above
    asked = {"kind": "ceiling", "case": case.as_fields(), "seed": 0, "sizes": 2}
    answer = interpreter_of(backend).answer(asked)
    assert (answer.status, answer.message) == ("ok", "")
    product, copy = answer.event("product") or {}, answer.event("copy") or {}
    assert 1e7 < product["flops_per_s"] < 1e14
    assert 1e7 < copy["bytes_per_s"] < 1e12
    assert 0 <= (answer.event("state") or {})["other_cpu_share"] <= 1
