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
from convmark.report.tables.models import PUBLISHED_TOP_1

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
    assert len(PUBLISHED_TOP_1) == 38
    assert counted.keys() - PUBLISHED_TOP_1 == {"mobilenetv3large", "mobilenetv3small"}
    for model, (_, millions) in sorted(PUBLISHED_TOP_1.items()):
        assert millions == pytest.approx(counted[model] / 1e6, abs=0.1), model
