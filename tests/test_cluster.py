"""Clusters as the user names them, and what is refused of them before anything is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from convmark.core.case import Case
from convmark.core.cluster import Cluster, check_devices, parse_cluster, with_index
from convmark.core.errors import OptionError
from convmark.core.option_values import AUTO
from convmark.core.options import Options, read
from convmark.core.suites import refuse_replicas
from convmark.session.run import request_of

TWO = ("10.0.0.1:5000", "10.0.0.2:5000")


def variable(kind: str, index: int, **machines: list[str]) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": machines, "task": {"type": kind, "index": index}})}


def test_local_is_a_cluster_without_addresses() -> None:
    assert parse_cluster("--cluster", "local") == Cluster()
    assert Cluster().name == "local"


def test_addresses_are_kept_in_order_and_counted_in_the_name() -> None:
    found = parse_cluster("--cluster", "b.example:1, [::1]:65535 ,a_c-1:22")
    assert found.addresses == ("b.example:1", "[::1]:65535", "a_c-1:22")
    assert found.name == "hosts3"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "an address must be HOST:PORT"),
        ("Local", "an address must be HOST:PORT"),
        ("10.0.0.1", "an address must be HOST:PORT"),
        ("10.0.0.1:0,10.0.0.2:1", "an address must be HOST:PORT"),
        ("10.0.0.1:65536,10.0.0.2:1", "an address must be HOST:PORT"),
        ("a:1,,b:1", "an address must be HOST:PORT"),
        ("a b:1,c:1", "an address must be HOST:PORT"),
        ("a:1", "two different HOST:PORT or more"),
        ("a:1,a:1", "two different HOST:PORT or more"),
    ],
)
def test_what_is_no_cluster_is_refused_on_one_line(text: str, rule: str) -> None:
    with pytest.raises(OptionError) as refusal:
        parse_cluster("--cluster", text)
    assert str(refusal.value).startswith("--cluster: ")
    assert rule in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("environ", "index"),
    [
        (variable("worker", 1, worker=["a:1", "b:1"]), 1),
        (variable("chief", 0, chief=["a:1"], worker=["b:1"]), 0),
        (variable("worker", 0, chief=["a:1"], worker=["b:1"]), 1),
    ],
)
def test_tf_config_tells_the_addresses_and_the_place(environ: dict[str, str], index: int) -> None:
    found = parse_cluster("--cluster", "TF_CONFIG", environ)
    assert found == Cluster(addresses=("a:1", "b:1"), index=index)
    assert with_index(found, None) == found


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TF_CONFIG": "no JSON"},
        {"TF_CONFIG": "[]"},
        {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'},
        variable("worker", 2, worker=["a:1", "b:1"]),
        variable("ps", 0, worker=["a:1", "b:1"]),
        variable("worker", 0, worker=["a:1"]),
        variable("worker", 0, worker=["a:1", "b"]),
        {"TF_CONFIG": json.dumps({"cluster": {"worker": [1, 2]}, "task": {"type": "worker",
                                                                         "index": 0}})},
    ],
)  # fmt: skip
def test_a_tf_config_that_does_not_tell_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(OptionError) as refusal:
        parse_cluster("--cluster", "TF_CONFIG", environ)
    assert str(refusal.value).startswith("--cluster: ")
    assert "\n" not in str(refusal.value)


def test_addresses_need_this_machine_s_place_and_nothing_else_has_one() -> None:
    hosts = Cluster(addresses=TWO)
    assert with_index(hosts, 1) == Cluster(addresses=TWO, index=1)
    assert with_index(Cluster(addresses=TWO, index=1), 0) == Cluster(addresses=TWO, index=0)
    for cluster, index in ((hosts, None), (hosts, 2), (Cluster(), 0), (None, 0)):
        with pytest.raises(OptionError, match="--index"):
            with_index(cluster, index)


def test_the_first_machine_keeps_the_rows() -> None:
    places = [Cluster(addresses=TWO, index=index).keeps_rows for index in (0, 1)]
    assert places == [True, False]
    assert Cluster().keeps_rows


def test_a_worker_is_told_of_the_cluster_where_the_case_is_spread_over_it() -> None:
    def told(options: dict[str, str], **axes: Any) -> object:
        case = Case(model="lenet5", task="train", **axes)
        return request_of(case, read(options)).get("cluster")

    hosts = {"cluster": ",".join(TWO), "index": "1"}
    assert told({}, replicas=2) is None
    assert told(hosts) is None  # one replica
    assert told({"cluster": "local"}, replicas=3, cluster="local") == {"processes": 3}
    assert told(hosts, replicas=2, cluster="hosts2") == {"addresses": list(TWO), "index": 1}


def on_gpus(replicas: int, first: str = "gpu:0", cluster: str | None = None) -> list[Case]:
    return [
        Case(model="lenet5", task="train", device=first, replicas=replicas, cluster=cluster),
        Case(model="lenet5", task="train", replicas=64),
    ]


@pytest.mark.parametrize(
    ("cases", "there"),
    [
        (on_gpus(1), 1),
        (on_gpus(2), 2),
        (on_gpus(2, "gpu:1"), 3),
        (on_gpus(4, cluster="local"), 4),
        (on_gpus(4, cluster="hosts2"), 2),
    ],
)
def test_each_replica_needs_a_gpu_of_its_own_but_cpus_are_split(
    cases: list[Case], there: int
) -> None:
    devices = ["cpu", *(f"gpu:{number}" for number in range(there))]
    check_devices(cases, {"tensorflow": devices})
    if cases[0].replicas > 1:
        with pytest.raises(OptionError, match=f"--replicas: {cases[0].replicas} need "):
            check_devices(cases, {"tensorflow": devices[:-1]})


def test_too_many_replicas_are_refused_with_what_is_there() -> None:
    with pytest.raises(OptionError) as refusal:
        check_devices(on_gpus(4), {"tensorflow": ["cpu", "gpu:0", "gpu:1"]})
    assert str(refusal.value) == (
        "--replicas: 4 need 4 GPUs here from gpu:0 on, there are gpu:0, gpu:1"
    )


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"replicas": (1,)}, "--cluster: needs --replicas"),
        ({"isolation": "none"}, "--cluster: needs --isolation"),
        ({"batch_sizes": "auto"}, "--batch-sizes: auto is for one machine"),
        (
            {"backends": ("tensorflow", "jax")},
            "--replicas: above 1 needs --backend tensorflow, got 2",
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(change: dict[str, Any], flag: str) -> None:
    fine = Options(replicas=(1, 2), cluster=Cluster(addresses=TWO), index=0, isolation="fork")
    refuse_replicas(fine)
    one_memory = {"cluster": Cluster(), "index": None, "batch_sizes": AUTO}
    refuse_replicas(replace(fine, **one_memory))
    refuse_replicas(Options(isolation="none", batch_sizes=AUTO, backends=("tensorflow", "jax")))
    with pytest.raises(OptionError, match=flag):
        refuse_replicas(replace(fine, **change))
