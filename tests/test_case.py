"""Cases: their keys, what they refuse, and the grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from convmark.core.case import Case, expand
from convmark.core.errors import CaseError


def case(**changes: Any) -> Case:
    return Case(**{"model": "lenet5", "task": "train", "batch_size": 32, **changes})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "lenet5-train-cpu-b32-float32"),
        ({"task": "infer", "batch_size": 1}, "lenet5-infer-cpu-b1-float32"),
        ({"device": "gpu:1"}, "lenet5-train-gpu:1-b32-float32"),
        ({"precision": "mixed_float16"}, "lenet5-train-cpu-b32-mixed_float16"),
        ({"jit": "on"}, "lenet5-train-cpu-b32-float32-jit"),
        ({"threads": "2"}, "lenet5-train-cpu-b32-float32-t2"),
        ({"replicas": 2}, "lenet5-train-cpu-b32-float32-r2"),
        ({"replicas": 2, "cluster": "local"}, "lenet5-train-cpu-b32-float32-r2-local"),
        ({"replicas": 2, "cluster": "hosts2"}, "lenet5-train-cpu-b32-float32-r2-hosts2"),
        ({"jit": "on", "threads": "1", "replicas": 4}, "lenet5-train-cpu-b32-float32-jit-t1-r4"),
        ({"model": "my.package:net"}, "my.package:net-train-cpu-b32-float32"),
    ],
)
def test_a_case_is_named_by_its_axes_and_defaults_beyond_the_first_five_are_left_out(
    changes: dict[str, Any], name: str
) -> None:
    assert case(**changes).name == name


def test_a_case_is_grouped_with_the_other_models_on_the_same_axes() -> None:
    assert case().group == case(model="resnet50").group == "train-cpu-b32-float32"


def test_the_group_of_a_model_whose_name_repeats_loses_the_model_once() -> None:
    assert case(model="train").name == "train-train-cpu-b32-float32"
    assert case(model="train").group == "train-cpu-b32-float32"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("task", "training", "task must be one of train, infer, accuracy, waterfall, got 'tra"),
        ("task", "", "task must be one of train, infer, accuracy, waterfall, got ''"),
        ("precision", "float33", "precision must be one of float32, "),
        ("jit", "auto", "jit must be one of off, on, got 'auto'"),
        ("jit", True, "jit must be one of off, on, got True"),
        ("backend", "caffe", "backend must be one of tensorflow, jax, torch, got 'caffe'"),
        ("threads", "many", "threads must be 'default' or a whole number of at least 1, got"),
        ("threads", "0", "threads must be 'default' or a whole number of at least 1, got"),
        ("batch_size", 0, "batch size must be at least 1, got 0"),
        ("batch_size", -1, "batch size must be at least 1, got -1"),
        ("replicas", 0, "replicas must be at least 1, got 0"),
    ],
)
def test_a_bad_axis_is_refused_by_model_rule_and_value(field: str, value: Any, rule: str) -> None:
    with pytest.raises(CaseError) as refusal:
        case(**{field: value})
    assert str(refusal.value).startswith(f"lenet5: {rule}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("task", ["accuracy", "waterfall"])
def test_what_is_of_tensorflow_and_one_replica_is_refused_elsewhere(task: str) -> None:
    rule = f"lenet5: task {task} is of the backend tensorflow and one replica, got "
    with pytest.raises(CaseError) as refusal:
        case(task=task, backend="jax")
    assert str(refusal.value) == f"{rule}'jax' and 1"
    with pytest.raises(CaseError) as refusal:
        case(task=task, replicas=2)
    assert str(refusal.value) == f"{rule}'tensorflow' and 2"
    assert case(task=task).name == f"lenet5-{task}-cpu-b32-float32"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        (
            {"backend": "torch"},
            "replicas above 1 need the backend tensorflow, got 4 and the backend",
        ),
        ({"cluster": "hosts"}, "cluster must be local or hostsN, got 'hosts'"),
        ({"cluster": "hosts02"}, "cluster must be local or hostsN, got 'hosts02'"),
        ({"replicas": 1, "cluster": "local"}, "one replica needs no cluster, got 'local'"),
        ({"cluster": "hosts2"}, "replicas over 2 machines must be one for each on cpu, got 4"),
        (
            {"cluster": "hosts3", "device": "gpu:0"},
            "replicas over 3 machines must be a multiple of 3 on gpu:0, got 4",
        ),
    ],
)
def test_replicas_that_cannot_be_spread_so_are_refused(fields: dict[str, Any], rule: str) -> None:
    with pytest.raises(CaseError) as refusal:
        case(**{"replicas": 4, **fields})
    assert str(refusal.value).startswith(f"lenet5: {rule}")


def test_an_empty_cell_is_no_cluster_and_no_recipe() -> None:
    assert case(cluster="", recipe="") == case() == case(cluster=None)


def test_a_recipe_is_of_training_and_ends_the_name() -> None:
    recipe = "optimizer=adam learning_rate=0.001 loss=mse"
    asked = case(task="train", recipe=recipe)
    assert asked.name.endswith("-float32-optimizer=adam-lr=0.001-loss=mse")
    assert case(task="train", recipe="loss=mse").name.endswith("-loss=mse")
    for wrong in ("loss=mse optimizer=adam", "speed=2", "optimizer=a b", " ", "loss=mse "):
        with pytest.raises(CaseError, match=r"recipe must be of optimizer=NAME"):
            case(task="train", recipe=wrong)
    with pytest.raises(CaseError, match="a recipe is of the task train"):
        case(task="infer", recipe=recipe)


def test_the_cases_of_training_alone_have_the_recipe() -> None:
    axes = {"models": ["lenet5"], "devices": ["cpu"], "batch_sizes": [1]}
    cases = expand(tasks=["train", "infer"], recipe="optimizer=adam", **axes)
    assert [one.recipe for one in cases] == ["optimizer=adam", None]


@pytest.mark.parametrize(
    ("axes", "devices"),
    [
        ({}, ["cpu"]),
        ({"replicas": 2}, ["cpu"]),
        ({"device": "gpu:1"}, ["gpu:1"]),
        ({"device": "gpu:1", "replicas": 2}, ["gpu:1", "gpu:2"]),
        ({"device": "gpu:0", "replicas": 2, "cluster": "local"}, ["gpu:0", "gpu:1"]),
        ({"device": "gpu:0", "replicas": 4, "cluster": "hosts2"}, ["gpu:0", "gpu:1"]),
    ],
)
def test_each_replica_on_a_gpu_has_one_of_its_own_here(
    axes: dict[str, Any], devices: list[str]
) -> None:
    assert Case(model="lenet5", task="train", **axes).devices_here == devices


def test_machines_are_those_that_share_the_replicas() -> None:
    spread = [case(device="gpu:0", replicas=4, cluster=name) for name in (None, "local", "hosts2")]
    assert [found.machines for found in spread] == [1, 1, 2]
    assert [found.spans_machines for found in spread] == [False, False, True]


def test_a_batch_size_of_one_and_one_replica_are_the_least() -> None:
    assert case(batch_size=1, replicas=1).batch_size == 1


def test_a_case_cannot_be_changed_and_is_its_own_key() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        case().model = "resnet50"  # type: ignore[misc]
    assert {case(): 1}[case()] == 1


def test_the_fields_make_the_same_case_again() -> None:
    original = case(device="gpu:0", jit="on", threads="4")
    assert Case(**original.as_fields()) == original


def test_the_grid_has_every_combination_once_with_models_slowest() -> None:
    cases = expand(
        models=["b", "a"], tasks=["train", "infer"], devices=["cpu"], batch_sizes=[1, 32]
    )
    assert [(found.model, found.task, found.batch_size) for found in cases] == [
        ("b", "train", 1),
        ("b", "train", 32),
        ("b", "infer", 1),
        ("b", "infer", 32),
        ("a", "train", 1),
        ("a", "train", 32),
        ("a", "infer", 1),
        ("a", "infer", 32),
    ]


def test_the_grid_crosses_devices_precisions_jit_and_threads_and_binds_all() -> None:
    cases = expand(
        models=["a"],
        tasks=["infer"],
        devices=["cpu", "gpu:0"],
        batch_sizes=[1],
        precisions=["float32", "mixed_bfloat16"],
        jit=["off", "on"],
        threads=["1", "2", "default"],
        cpus="0-3",
    )
    assert len({found.name for found in cases}) == len(cases) == 24
    assert {found.threads for found in cases} == {"1", "2", "default"}
    assert {found.cpus for found in cases} == {"0-3"}


def test_a_value_given_twice_is_measured_once() -> None:
    cases = expand(models=["a", "a"], tasks=["train"], devices=["cpu"], batch_sizes=[1, 1])
    assert len(cases) == 1


def test_jax_which_always_compiles_has_the_first_state_of_jit_alone() -> None:
    cases = expand(
        models=["a"],
        tasks=["infer"],
        devices=["cpu"],
        batch_sizes=[1],
        jit=["off", "on"],
        backends=["tensorflow", "jax", "torch"],
    )
    assert [(found.backend, found.jit) for found in cases] == [
        ("tensorflow", "off"),
        ("jax", "off"),
        ("torch", "off"),
        ("tensorflow", "on"),
        ("torch", "on"),
    ]


def test_a_cpu_beside_a_gpu_has_no_case_of_tf32() -> None:
    cases = expand(
        models=["a"],
        tasks=["infer"],
        devices=["cpu", "gpu:0"],
        batch_sizes=[1],
        precisions=["float32", "tf32"],
    )
    assert [(found.device, found.precision) for found in cases] == [
        ("cpu", "float32"),
        ("gpu:0", "float32"),
        ("gpu:0", "tf32"),
    ]


def test_of_several_gpus_the_first_begins_the_cases_of_several_replicas() -> None:
    cases = expand(
        models=["a"],
        tasks=["train"],
        devices=["cpu", "gpu:1", "gpu:2"],
        batch_sizes=[32],
        replicas=[1, 2],
        cluster="local",
    )
    assert [(found.device, found.replicas, found.cluster) for found in cases] == [
        ("cpu", 1, None),
        ("cpu", 2, "local"),
        ("gpu:1", 1, None),
        ("gpu:1", 2, "local"),
        ("gpu:2", 1, None),
    ]


def test_tf32_on_cpus_alone_is_refused() -> None:
    with pytest.raises(CaseError, match="tf32 needs a GPU, got the device 'cpu'"):
        case(precision="tf32")
    with pytest.raises(CaseError, match="tf32 needs a GPU, got only the device 'cpu'"):
        expand(
            models=["a"],
            tasks=["infer"],
            devices=["cpu"],
            batch_sizes=[1],
            precisions=["tf32"],
        )


def test_an_empty_axis_makes_no_case() -> None:
    assert expand(models=["a"], tasks=[], devices=["cpu"], batch_sizes=[1]) == []


@pytest.mark.parametrize(
    "precision",
    ["float64", "float32+mixed_bfloat16", "int8_from_float32", "float32_from_bfloat16", "float16"],
)
def test_a_case_of_a_row_may_have_a_precision_that_nobody_can_ask_for(precision: str) -> None:
    assert precision in Case(model="lenet5", task="infer", precision=precision).name


@pytest.mark.parametrize("precision", ["", "float32+", "float", "float32 mixed", "=cmd", "half"])
def test_a_precision_of_no_dtypes_is_refused(precision: str) -> None:
    with pytest.raises(CaseError, match="precision must be"):
        Case(model="lenet5", task="infer", precision=precision)
