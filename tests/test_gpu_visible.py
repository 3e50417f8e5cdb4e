"""Which card `gpu:N` of a case is, under what the environment hides."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from convmark.core.case import Case
from convmark.interpreter import Interpreter
from convmark.interpreter import launch as interpreter
from convmark.interpreter.server import ServerLost
from convmark.machine.gpu.cards import alone, card_of, cards_of, choosing, visible_cards
from convmark.machine.gpu.devices import Card, Gpu, Slice, card_columns

ALIKE = tuple(
    Gpu(index=i, name="H200", memory_bytes=None, uuid=f"GPU-{letter}{i}-more")
    for i, letter in enumerate("aab")
)
UNLIKE = (
    Gpu(index=0, name="Tesla T4", memory_bytes=None, uuid="GPU-0"),
    Gpu(index=1, name="H200", memory_bytes=None, uuid="GPU-1"),
)
SLICES = tuple(
    Slice(
        index=i,
        name="A100 MIG 1g.20gb",
        memory_bytes=20,
        uuid=f"MIG-{i}-more",
        gpu_instance=3 + i,
        compute_instance=0,
    )
    for i in range(2)
)
SLICED = Gpu(index=0, name="A100", memory_bytes=80, uuid="GPU-x", mig=True, slices=SLICES)


def seen(gpus: tuple[Gpu, ...], **environ: str) -> list[str | None]:
    return [card and card.uuid for card in visible_cards(gpus, environ)]


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        (None, [0, 1, 2]),
        ("0", [0]),
        ("2,0", [2, 0]),
        (" 1 , 2 ", [1, 2]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [0]),
        ("0,9,1", [0]),
        ("0,nothing,1", [0]),
        ("1,1", []),
        ("1gpu,2", [1, 2]),
        ("GPU-b2-more", [2]),
        ("GPU-b", [2]),
        ("GPU-b,GPU-a0", [2, 0]),
        ("GPU-a", []),
        ("GPU-a0,GPU-zz,GPU-b", [0]),
        ("GPU-b,GPU-b2", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_chooses_and_orders(asked: str | None, places: list[int]) -> None:
    environ = {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked}
    assert seen(ALIKE, **environ) == [ALIKE[place].uuid for place in places]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, ["MIG-0-more"]),
        ("0", ["MIG-0-more"]),
        ("MIG-1-more", ["MIG-1-more"]),
        ("MIG-1", ["MIG-1-more"]),
        ("MIG-GPU-x/4/0", ["MIG-1-more"]),
        ("MIG-GPU-x/4/1", []),
        ("MIG-GPU-y/4/0", []),
        ("MIG-", []),
        ("GPU-x", ["MIG-0-more"]),
    ],
)
def test_a_slice_is_chosen_by_its_uuid(asked: str | None, expected: list[str]) -> None:
    environ = {} if asked is None else {"CUDA_VISIBLE_DEVICES": asked}
    assert seen((SLICED,), **environ) == expected


def test_a_card_in_mig_mode_without_a_slice_is_none() -> None:
    bare = Gpu(index=0, name="A100", memory_bytes=80, uuid="GPU-x", mig=True)
    assert visible_cards((bare, ALIKE[1]), {}) == visible_cards((ALIKE[1],), {})


def test_unlike_cards_in_the_order_of_their_speed_cannot_be_told_apart() -> None:
    assert seen(UNLIKE, CUDA_DEVICE_ORDER="PCI_BUS_ID") == ["GPU-0", "GPU-1"]
    assert seen(UNLIKE, CUDA_DEVICE_ORDER="FASTEST_FIRST") == [None, None]
    by_uuid = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "GPU-1"}
    assert seen(UNLIKE, **by_uuid) == ["GPU-1"]
    assert seen(ALIKE, CUDA_DEVICE_ORDER="FASTEST_FIRST") == seen(ALIKE)


@pytest.mark.parametrize(
    ("environ", "places"),
    [
        ({}, [0, 1, 2]),
        ({"ROCR_VISIBLE_DEVICES": "2,1"}, [2, 1]),
        ({"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [0, 1, 2]),
    ],
)
def test_amd_s_own_variables_choose_among_its_cards(
    environ: dict[str, str], places: list[int]
) -> None:
    cards = tuple(
        Gpu(index=i, name="MI300X", memory_bytes=None, uuid=f"{i}", vendor="amd") for i in range(3)
    )
    assert seen(cards, **environ) == [str(place) for place in places]


@pytest.mark.parametrize("asked", [None, "FASTEST_FIRST"])
def test_workers_count_cards_in_the_driver_s_order_unless_told_otherwise(
    asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr(
        interpreter, "Server", lambda command, **said: given.append(said["environ"])
    )
    environ = {} if asked is None else {"CUDA_DEVICE_ORDER": asked}
    with Interpreter(environ=environ, isolation="fork") as made:
        made.start()
    assert given[0]["CUDA_DEVICE_ORDER"] == (asked or "PCI_BUS_ID")


def test_a_device_of_a_case_is_its_card() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "2,0", "HOME": "/root"}
    card = card_of("gpu:1", ALIKE, environ)
    assert card is not None
    assert card.gpu is ALIKE[0]
    assert card_of("gpu:2", ALIKE, environ) is None
    assert card_of("cpu", ALIKE, environ) is None
    assert card_of("cpu:0", ALIKE, environ) is None
    assert choosing(environ) == {"CUDA_VISIBLE_DEVICES": "2,0"}


def test_replicas_have_the_cards_from_their_device_on() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "2,0"}
    case = Case(model="lenet5", task="train", device="gpu:0", replicas=2)
    assert [card.gpu for card in cards_of(case.devices_here, ALIKE, environ)] == [
        ALIKE[2],
        ALIKE[0],
    ]
    assert len(cards_of(["gpu:1", "gpu:2"], ALIKE, environ)) == 1
    assert cards_of(["cpu"], ALIKE, environ) == []


@pytest.mark.parametrize(
    ("device", "asked", "shown"),
    [
        ("gpu:1", None, "1"),
        ("gpu:1", "2, 0 ,1", "0"),
        ("gpu:0", "MIG-1-more", "MIG-1-more"),
        ("gpu:1", "GPU-b,GPU-a0", "GPU-a0"),
        ("gpu:0", "", ""),  # what is hidden stays hidden
    ],
)
def test_a_process_is_shown_its_card_alone(device: str, asked: str | None, shown: str) -> None:
    environ = {"HOME": "/root"} | ({} if asked is None else {"CUDA_VISIBLE_DEVICES": asked})
    assert alone(device, environ) == {"CUDA_VISIBLE_DEVICES": shown}
    assert alone("cpu", environ) == {}
    # and it is the card that the row names
    assert card_of(device, (*ALIKE, SLICED), environ) == card_of(
        "gpu:0", (*ALIKE, SLICED), environ | alone(device, environ)
    )


def test_a_request_tells_its_worker_the_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        """A server that notes what it is asked for and serves nothing."""

        def serving(self, request: dict[str, Any], log: object) -> Any:
            asked.append(request)
            raise ServerLost("enough")

        def close(self) -> None:
            """Nothing to end."""

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(interpreter, "Server", lambda command, **said: Refusing())
    case = Case(model="lenet5", task="train", device="gpu:1", backend="torch")
    with Interpreter(environ={"CUDA_VISIBLE_DEVICES": "3,5"}, isolation="fork") as made:
        made.answer({"kind": "measure", "case": case.as_fields()})
        made.answer({"kind": "inspect", "models": []})
    assert [request["one_gpu"] for request in asked] == [{"CUDA_VISIBLE_DEVICES": "5"}, {}]


def test_a_row_of_a_slice_names_the_slice_and_the_whole_card_s_limits() -> None:
    gpu = dataclasses.replace(SLICED, power_limit_w=500.0, ecc=True)
    card = card_of("gpu:0", (gpu,), {"CUDA_VISIBLE_DEVICES": "MIG-1-more"})
    assert card is not None
    columns = card_columns(card)
    assert columns["gpu"] == "A100 MIG 1g.20gb"
    assert columns["gpu_memory_bytes"] == 20
    assert columns["gpu_uuid"] == "MIG-1-more"
    assert (columns["mig"], columns["ecc"], columns["power_limit_w"]) == ("1g.20gb", "on", 500.0)


@pytest.mark.parametrize(("mig", "said"), [(None, None), (False, "off"), (True, "on")])
def test_a_whole_card_says_whether_it_is_in_mig_mode(mig: bool | None, said: str | None) -> None:
    gpu = Gpu(index=0, name="A100", memory_bytes=80, uuid="GPU-x", mig=mig)
    assert card_columns(Card(gpu=gpu))["mig"] == said
