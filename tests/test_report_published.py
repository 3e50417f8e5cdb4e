"""Published accuracy beside measured step times: which rows have one, and that it is marked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_rows import SLOW, keep_run, measured

from convmark.core.table import Table
from convmark.report.build import build
from convmark.report.figures import figures_of
from convmark.report.keras_applications import PUBLISHED

SIZES = {"resnet50": 25_636_712, "mobilenetv2": 3_538_984, "vgg16": 138_357_544}


def table_of(folder: Path, *rows: Any) -> Table | None:
    known = [
        measured(SLOW, 1, model, number, task="infer", batch_size=1, parameters=size,
                 step_s=0.001 * place)
        for place, (model, size) in enumerate(SIZES.items(), 1)
        for number in (1, 2, 3)
    ]  # fmt: skip
    keep_run(folder, [*known, *rows])
    return next((one for one in build([folder]).tables if one.key == "published"), None)


def test_each_model_has_its_published_accuracy_and_the_front_is_by_time_and_accuracy(
    tmp_path: Path,
) -> None:
    table = table_of(tmp_path)
    assert table is not None
    found = [(row["model"], row["top_1"], row["front"]) for row in table.records()]
    assert found == [("resnet50", 0.749, "on the front"), ("mobilenetv2", 0.713, None),
                     ("vgg16", 0.713, None)]  # fmt: skip
    assert table.texts()[0][3] == "74.9 %"
    assert "published, not measured here" in table.caption
    (figure,) = [one for one in figures_of([table]) if one.key == "published"]
    assert "top-1 on ImageNet, published" in json.dumps(figure.specs)


@pytest.mark.parametrize(
    "changes",
    [{"asked_shape": "96x96x3"}, {"precision": "mixed_float16"}, {"task": "train"},
     {"parameters": 2_257_984}, {"model": "mobilenetv3small"}, {"model": "my.nets:xception"}],
    ids=lambda changes: str(next(iter(changes.values()))),
)  # fmt: skip
def test_what_differs_from_the_published_model_has_no_published_accuracy(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    facts = {"model": "xception", "task": "infer", "batch_size": 1, "parameters": 22_910_480}
    facts |= changes
    model = facts.pop("model")
    table = table_of(tmp_path, *(measured(SLOW, 1, model, n, **facts) for n in (1, 2, 3)))
    assert table is not None
    assert [row["model"] for row in table.records()] == ["resnet50", "mobilenetv2", "vgg16"]


def test_the_published_parameters_are_those_that_this_project_has_measured() -> None:
    text = (Path(__file__).parent.parent / "docs" / "results" / "models.md").read_text("utf-8")
    counted = {
        model: int(count.replace(",", ""))
        for model, count in re.findall(r"^\| (\w+) \| ([\d,]+) \| [\d,]+ \| [\d,]+ \|$", text, re.M)
    }
    assert len(PUBLISHED) == 38
    assert counted.keys() - PUBLISHED.keys() == {"mobilenetv3large", "mobilenetv3small"}
    for model, known in sorted(PUBLISHED.items()):
        assert known.parameters_million == pytest.approx(counted[model] / 1e6, abs=0.1), model


def test_published_times_stand_beside_those_of_the_same_network_and_case(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"task": "infer", "batch_size": 32, "parameters": SIZES["resnet50"]}
    card: dict[str, Any] = {**facts, "device": "gpu:0", "gpu": "NVIDIA H100", "step_s": 0.0092}
    others = [{"asked_shape": "96x96x3"}, {"batch_size": 1}, {"precision": "mixed_float16"},
              {"task": "train"}, {"parameters": 5}, {"threads": "1"}, {"jit": "on"}]  # fmt: skip
    keep_run(tmp_path, [
        *(measured(SLOW, 1, "resnet50", n, **facts, step_s=0.0291) for n in (1, 2, 3)),
        *(measured(SLOW, 1, "resnet50", n, **card) for n in (1, 2, 3)),
        measured(SLOW, 1, "convnexttiny", 1, **{**facts, "parameters": 28_589_128}),
        *(measured(SLOW, 1, "resnet101", n, **{**facts, "parameters": 44_707_176, **other})
          for n, other in enumerate(others, 1)),
    ])  # fmt: skip
    (table,) = [one for one in build([tmp_path]).tables if one.key == "published_times"]
    found = [(row["model"], row["on"], row["published_s"], round(row["ratio"], 6))
             for row in table.records()]  # fmt: skip
    assert found == [
        ("resnet50", "AMD EPYC, 92 cores", 0.0582, 0.5), ("resnet50", "NVIDIA A100", 0.0046, 2.0),
    ]  # fmt: skip
    assert "not measured here" in table.caption
