"""The row of a case on a GPU, from execution beside a stand-in for the driver's library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from forks import SOCKETS
from nvml_standin import beside, needs_compiler

pytestmark = needs_compiler

EXECUTE = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from test_run import FACTS, Told, events, ok
from convmark.core.case import Case
from convmark.machine.hardware import read_machine
from convmark.machine.gpu.cards import choosing
from convmark.core.options import read
from convmark.session.facts import Facts
from convmark.session.facts import Job
from convmark.session.run import execute
from convmark.results.reading import read_run
from convmark.results.store import Store

class Slow:
    python = "python"
    def answer(self, request, on_event):
        said = events()
        said.insert(8, {"event": "phase", "phase": "windows"})
        for event in said:
            if event["event"] == "windows":
                event["run_steps"] = 50
            time.sleep(0.15 if event["event"] in ("windows", "rounds") else 0)
            on_event(event)
        return ok(said)

machine = read_machine()
facts = Facts(run="0001", machine=machine, commit=None, dirty=None, flags="",
              environ=choosing(os.environ))
case = Case(model="lenet5", task="train", device=os.environ["DEVICE"], batch_size=32)
run_file = Store(Path(os.environ["FOLDER"])).create_run(machine.name)
execute([Job(case=case, process=1, order=1)], Slow(), read({}), facts, run_file, Told(),
        keep=lambda result: None)
run_file.close()
(row,) = read_run(run_file.path)
print(json.dumps({name: getattr(row, name) for name in row.__dataclass_fields__}))
"""


WORKER = """
import json, os, sys
from convmark.core.case import Case
from convmark.machine.gpu.devices import Card, read_gpus
from convmark.machine.gpu.devices import load_nvml
from convmark.machine.gpu.cards import watching
from convmark.interpreter import Interpreter, server
sys.path.insert(0, "tests")
from forks import WARM

server.subprocess = WARM  # the framework's interpreter has nothing of the stand-in
environ = {name: text for name, text in os.environ.items() if name != "LD_LIBRARY_PATH"}
gpus, _ = read_gpus(load_nvml())
case = Case(model="lenet5", task="infer", device="cpu", batch_size=1)
request = {"kind": "measure", "case": case.as_fields(), "seed": 0, "time_budget_s": 0.2,
           "smoke": False}
card = Card(gpu=gpus[0])
with Interpreter(environ=environ) as interpreter, watching([card], period_s=0.002) as watch:
    answer = interpreter.answer(request, watch.see)
names = [event.get("phase", event["event"]) for event in answer.events]
print(json.dumps([answer.status, answer.message, names, watch.columns(1)]))
"""


def test_a_real_worker_says_when_its_card_counts(warm: None) -> None:
    sockets = {SOCKETS: os.environ[SOCKETS]}
    status, message, said, columns = beside(WORKER, STANDIN_CARDS="2", **sockets)
    assert (status, message) == ("ok", "")
    phases = ["warm_up", "steps", "windows", "peaks", "rounds"]
    assert [name for name in dict.fromkeys(said) if name in phases] == phases
    assert columns["gpu_samples"] > 10
    assert columns["joules_per_sample"] > 0
    assert columns["foreign_gpu_processes"] is None


def row(folder: Path, **variables: object) -> dict[str, Any]:
    found: dict[str, Any] = beside(EXECUTE, FOLDER=folder, **variables)
    return found


def test_a_row_has_the_card_and_its_state(tmp_path: Path) -> None:
    found = row(tmp_path, DEVICE="gpu:1", STANDIN_REASONS="4")
    assert found["status"] == "ok"
    expected = {
        "gpu": "NVIDIA GeForce RTX 3080",
        "gpu_uuid": "GPU-19d6d965-2acc-f646-00f8-4c76979aabb4",
        "compute_capability": "8.6",
        "driver": "535.54.03",
        "driver_cuda": "12.2",
        "pcie": "gen4 x16",
        "ecc": None,
        "mig": None,
        "power_limit_w": 320.0,
        "max_sm_clock_mhz": 2100,
        "max_memory_clock_mhz": 9501,
        "sm_clock_mhz": 1950.0,
        "power_w": pytest.approx(139.62),
        "throttle_reasons": "power_cap",
        "foreign_gpu_processes": None,
        "not_judged": None,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["gpu_samples"] >= 1
    # 139.62 W for at least 0.15 s over 50 steps of 32 samples
    assert found["joules_per_sample"] >= 139.62 * 0.14 / 1600


def test_the_visible_card_is_the_one_of_the_row(tmp_path: Path) -> None:
    found = row(tmp_path, DEVICE="gpu:0", CUDA_VISIBLE_DEVICES="1", STANDIN_CARDS="2,1")
    assert (found["gpu"], found["sm_clock_mhz"]) == ("Tesla T4", 585.0)
    uuid = "MIG-22222222-aaaa-5000-8000-000000000000"
    found = row(tmp_path, DEVICE="gpu:0", CUDA_VISIBLE_DEVICES=uuid, STANDIN_CARDS="1,0")
    assert (found["gpu"], found["mig"], found["gpu_uuid"]) == (
        "NVIDIA A100-SXM4-80GB MIG 1g.20gb",
        "1g.20gb",
        uuid,
    )


def test_a_slowed_run_says_so_in_its_row(tmp_path: Path) -> None:
    found = row(tmp_path, DEVICE="gpu:0", STANDIN_REASONS="8")
    assert found["not_judged"] == "the card was slowed (hardware_slowdown)"
    assert found["status"] == "ok"


def test_a_row_of_the_cpu_has_nothing_of_the_cards(tmp_path: Path) -> None:
    found = row(tmp_path, DEVICE="cpu", STANDIN_REASONS="8")
    assert found["gpu"] is found["gpu_samples"] is found["not_judged"] is found["driver"] is None
