"""The default suites, and how options shape them."""

from __future__ import annotations

from typing import Any

import pytest

from convmark.core.errors import CaseError, OptionError
from convmark.core.options import Options, read
from convmark.core.suites import INFERENCE, LAYERS, SCALING, SUITES, TRAINING, Suite, cases


def options(**given: str) -> Options:
    return read(given)


def names(suite: Suite, devices: tuple[str, ...] = ("cpu",), **given: str) -> list[str]:
    return [case.name for case in suite.cases(options(**given), devices)]


def test_training_is_the_four_networks_at_batch_32() -> None:
    assert names(TRAINING) == [
        "lenet5-train-cpu-b32-float32",
        "mini_inception-train-cpu-b32-float32",
        "mini_resnet-train-cpu-b32-float32",
        "mini_resnet_norm-train-cpu-b32-float32",
    ]


def test_inference_is_the_four_networks_at_batch_1_and_32() -> None:
    assert names(INFERENCE, models="lenet5") == [
        "lenet5-infer-cpu-b1-float32",
        "lenet5-infer-cpu-b32-float32",
    ]
    assert len(names(INFERENCE)) == 8


def test_layers_are_both_single_layer_models_in_both_tasks() -> None:
    assert names(LAYERS) == [
        "conv_layer-train-cpu-b32-float32",
        "conv_layer-infer-cpu-b32-float32",
        "separable_layer-train-cpu-b32-float32",
        "separable_layer-infer-cpu-b32-float32",
    ]


def test_models_replace_those_of_a_suite_but_only_choose_among_the_layers() -> None:
    assert names(TRAINING, models="resnet50") == ["resnet50-train-cpu-b32-float32"]
    assert names(LAYERS, models="resnet50") == []
    assert names(LAYERS, models="resnet50,conv_layer", tasks="train") == [
        "conv_layer-train-cpu-b32-float32"
    ]


def test_tasks_leave_out_those_that_a_suite_has_not() -> None:
    assert names(TRAINING, tasks="infer") == []
    assert names(INFERENCE, tasks="train") == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"batch_sizes": "8"}, ["lenet5-train-cpu-b8-float32"]),
        ({"threads": "2"}, ["lenet5-train-cpu-b32-float32-t2"]),
        ({"precisions": "mixed_float16"}, ["lenet5-train-cpu-b32-mixed_float16"]),
        ({"jit": "both"}, ["lenet5-train-cpu-b32-float32", "lenet5-train-cpu-b32-float32-jit"]),
    ],
)
def test_options_shape_the_cases(given: dict[str, Any], expected: list[str]) -> None:
    assert names(TRAINING, models="lenet5", **given) == expected


@pytest.mark.parametrize(
    ("gpus", "replicas"),
    [(0, []), (1, []), (2, [1, 2]), (3, [1, 2]), (4, [1, 2, 4]), (8, [1, 2, 4, 8])],
)
def test_scaling_doubles_the_replicas_up_to_the_gpus_that_are_there(
    gpus: int, replicas: list[int]
) -> None:
    devices = [f"gpu:{number}" for number in range(gpus)]
    found = [case for case in SCALING.cases(options(), devices) if case.device == "gpu:0"]
    assert [case.replicas for case in found] == replicas


def test_replicas_replace_those_of_every_suite_and_lie_on_a_cpu_too() -> None:
    expected = ["lenet5-train-cpu-b32-float32", "lenet5-train-cpu-b32-float32-r2"]
    for suite in (SCALING, TRAINING):
        assert names(suite, models="lenet5", replicas="1,2") == expected
    local = names(SCALING, models="lenet5", replicas="2", cluster="local")
    assert local == ["lenet5-train-cpu-b32-float32-r2-local"]


def test_a_search_for_batch_sizes_begins_at_32_whatever_the_suite() -> None:
    assert names(INFERENCE, models="lenet5", batch_sizes="auto") == ["lenet5-infer-cpu-b32-float32"]


def test_each_device_is_measured() -> None:
    assert names(TRAINING, ("cpu", "gpu:0"), models="lenet5") == [
        "lenet5-train-cpu-b32-float32",
        "lenet5-train-gpu:0-b32-float32",
    ]
    assert names(TRAINING, ()) == []


def test_all_suites_together_have_each_case_once() -> None:
    together = cases(options(), {"tensorflow": ["cpu"]})
    assert len(together) == sum(len(suite.cases(options(), ["cpu"])) for suite in SUITES) == 16
    twice = cases(options(models="conv_layer"), {"tensorflow": ["cpu"]})
    assert len(twice) == len({case.name for case in twice})


def test_every_backend_has_the_same_cases_on_the_devices_that_it_sees() -> None:
    asked = options(models="lenet5", tasks="train", backend="tensorflow,torch")
    found = cases(asked, {"tensorflow": ["cpu"], "torch": ["cpu", "gpu:0"]})
    assert [case.name for case in found] == [
        "lenet5-train-cpu-b32-float32",
        "lenet5-train-cpu-b32-float32-torch",
        "lenet5-train-gpu:0-b32-float32-torch",
    ]
    assert names(TRAINING, models="lenet5", backend="tensorflow,torch") == [
        "lenet5-train-cpu-b32-float32",
        "lenet5-train-cpu-b32-float32-torch",
    ]


def test_a_suites_models_are_a_tuple_of_names_each_model_by_one() -> None:
    with pytest.raises(CaseError, match=r"^Suite: models must be a tuple, .*got 'lenet5'$"):
        Suite(models="lenet5", tasks=("train",), batch_sizes=(32,))  # type: ignore[arg-type]
    with pytest.raises(CaseError, match=r"^Suite: batch_sizes must be a tuple, as in \(32,\)"):
        Suite(models=("lenet5",), tasks=("train",), batch_sizes=32)  # type: ignore[arg-type]
    suite = Suite(models=("nets:net(b=1, a=2)",), tasks=("train",), batch_sizes=(32,))
    assert suite.models == ("nets:net(a=2,b=1)",)


def test_suites_of_projects_import_from_the_face_and_from_the_old_place() -> None:
    from convmark.suites import TRAINING as OLD  # type: ignore[import-not-found]

    import convmark
    from convmark.plugin.replay import Measured

    assert (convmark.Suite, convmark.Measured) == (Suite, Measured)
    assert OLD is TRAINING
    with pytest.raises(AttributeError, match="no attribute 'Sweet'"):
        convmark.Sweet  # noqa: B018


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"precisions": "int8"}, "keras has no precision 'int8', which is of litert and openvino"),
        ({"runtime": "litert", "replicas": "2"}, "runtime litert needs replicas 1, got 2"),
        ({"models": "m.tflite", "tasks": "train"}, "litert needs task infer, got 'train'"),
    ],
)
def test_options_that_leave_no_case_are_refused_with_the_rule(
    given: dict[str, str], rule: str
) -> None:
    with pytest.raises(OptionError, match=f"^--runtime: leaves nothing to measure: .*{rule}"):
        cases(options(**{"models": "lenet5", "tasks": "infer", **given}), {"tensorflow": ["cpu"]})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"precisions": "float32,int8"}, ["left out: lenet5: runtime keras has no precision"]),
        ({"models": "m.tflite"}, ["left out: m.tflite: its file is of the runtime litert, not"]),
        ({"runtime": "keras,litert", "tasks": "train,infer"}, []),
        ({"runtime": "keras,torchexport"}, ["left out: runtime torchexport needs backend torch"]),
    ],
)
def test_what_no_runtime_can_run_is_said_in_one_line(
    given: dict[str, str], said: list[str]
) -> None:
    lines: list[str] = []
    asked = options(**{"models": "lenet5", "tasks": "infer", **given})
    assert cases(asked, {"tensorflow": ["cpu"]}, lines.append)
    assert [line[: len(said[0])] for line in lines] == said
