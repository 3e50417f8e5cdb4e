"""Described models: written by a run, read by a report, drawn as a diagram."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_worker
import pytest
from report_rows import HOSTILE, SLOW, keep_run, suite

from convmark.cli import main
from convmark.cli.run import describe_models
from convmark.core.errors import StoreError
from convmark.core.option import ReportOptions
from convmark.interpreter import Interpreter
from convmark.report.command import report
from convmark.report.describe import WIDTH, Layer, described_models, diagram, timed
from convmark.report.tables.layers import CaseLayers, bars_words, keep_bars
from convmark.results.reading import StoreWarning
from convmark.session.layers import REST, LayerRow

SVG = "{http://www.w3.org/2000/svg}"


def description(model: str = "lenet5", **changes: Any) -> dict[str, Any]:
    layer = {"kind": "Conv2D", "output_shape": [28, 28, 6], "flops": 235_200}
    layers = [
        {"name": "c1", "parameters": 156, "weight_bytes": 624, "inputs": [], **layer},
        {"name": "c2", "parameters": 0, "weight_bytes": 0, "inputs": [0], **layer,
         "flops": None, "output_shape": None},
        {"name": "add", "parameters": 0, "weight_bytes": 0, "inputs": [1, 0], **layer,
         "kind": "Add", "flops": 0},
    ]  # fmt: skip
    value = {"schema": 1, "model": model, "input_shape": [28, 28, 1], "tensorflow": "2.21.0",
             "keras": "3.15.0", "layers": layers}  # fmt: skip
    return {**value, **changes}


def kept(folder: Path, value: Any, name: str = "lenet5.json") -> Path:
    """Write a run and a description beside it; return the run's file."""
    run = keep_run(folder / "results", suite(SLOW, 1))
    (run.parent / "models").mkdir(exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    (run.parent / "models" / name).write_text(text)
    return run


def test_a_model_is_read_layer_by_layer(tmp_path: Path) -> None:
    (model,) = described_models([kept(tmp_path, description())])
    assert (model.model, model.depth) == ("lenet5", 1)
    assert model.traffic_elements is None  # a shape is not known
    assert model.table.texts() == [
        ["1", "c1", "Conv2D", "28x28x6", "156", "235 k", "624 B"],
        ["2", "c2", "Conv2D", "", "0", "", "0.00 B"],
        ["3", "add", "Add", "28x28x6", "0", "0", "0.00 B"],
    ]
    assert "Input 28x28x1, per sample; TensorFlow 2.21.0, Keras 3.15.0" in model.table.caption


def test_a_description_names_the_framework_that_made_it(tmp_path: Path) -> None:
    value = {**description(), "jax": "0.9.0"}
    del value["tensorflow"]
    (model,) = described_models([kept(tmp_path, value)])
    assert "per sample; JAX 0.9.0, Keras 3.15.0" in model.table.caption


def test_the_page_has_layers_and_diagram_and_escapes_every_name(tmp_path: Path) -> None:
    value = description(HOSTILE)
    value["layers"][0]["name"] = value["layers"][0]["kind"] = HOSTILE
    run = kept(tmp_path, value)
    report([run], output=str(tmp_path / "r.html"))
    text = (tmp_path / "r.html").read_text()
    assert "Models, layer by layer" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;  28x28x6" in text
    assert HOSTILE not in text


def test_the_depth_fills_the_applications_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = kept(tmp_path, description())
    report([run], form="csv", options=ReportOptions(style="applications"))
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert [row[-1] for row in rows if row[2] == "depth"] == ["1"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"schema": 1,\n"model": }', "lenet5.json:2: must be JSON"),
        (description(schema=9), "lenet5.json:1: must be of schema 1, got 9; `convmark run"),
        ({"schema": 1}, "lenet5.json:1: must describe a model by model, input_shape"),
        ([], "lenet5.json:1: must describe a model"),
        (description(tensorflow=None), "its framework's version: LookupError none of tensorflow"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_by_file_and_line(
    tmp_path: Path, value: Any, message: str
) -> None:
    run = kept(tmp_path, value)
    with pytest.raises(StoreError) as refused:
        described_models([run])
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


# The diagram


def layer(*inputs: int, parameters: int = 0) -> Layer:
    return Layer(name="n", kind="K", shape="1", parameters=parameters, flops=0, weight_bytes=0,
                 inputs=inputs)  # fmt: skip


def test_the_diagram_has_a_box_per_layer_and_a_line_per_connection() -> None:
    tree = ET.fromstring(diagram("m", [layer(), layer(0, parameters=7), layer(1, 0), layer()]))
    assert len(list(tree.iter(f"{SVG}rect"))) == 4
    lines = [(path.get("d"), path.get("stroke-dasharray")) for path in tree.iter(f"{SVG}path")]
    straight = [line for line, dots in lines if line and "H" not in line and not dots]
    beside = [line for line, _ in lines if line and "H" in line]
    dotted = [line for line, dots in lines if dots]
    assert (len(straight), len(beside), len(dotted)) == (2, 1, 1)
    words = ["".join(node.itertext()) for node in tree.iter(f"{SVG}text")]
    assert "7 parameters" in words[1]


def times(*named: tuple[str, str, float]) -> list[LayerRow]:
    """Return the rows of a case by name, class and seconds, the rest last."""
    optional = dict.fromkeys(LayerRow.__dataclass_fields__)
    step_s = sum(seconds for *_, seconds in named) + 1.0
    whole = {**optional, "measured": "2026-01-01T00:00:00+00:00", "case": "a", "model": "lenet5",
             "machine": SLOW, "version": "1", "sessions": 3, "step_s": step_s}  # fmt: skip
    rows = [*named, (REST, "", 1.0)]
    return [
        LayerRow(**{**whole, "place": place, "layer": name, "kind": kind, "time_s": seconds})
        for place, (name, kind, seconds) in enumerate(rows, 1)
    ]


def test_a_box_is_filled_as_far_as_its_layer_takes_of_the_slowest() -> None:
    layers = [
        replace(layer(), name=name, kind=kind)
        for name, kind in (("conv", "Conv2D"), ("relu", "ReLU"), ("conv", "Conv2D"), ("x", "Add"))
    ]
    rows = times(
        ("block/conv + block/relu", "Conv2D + ReLU", 4.0), ("block/conv#2", "Conv2D", 2.0),
        ("x", "Subtract", 1.0), ("own", "Own", 2.0),
    )  # fmt: skip
    assert {place: row.time_s for place, row in timed(layers, rows).items()} == {0: 4.0, 2: 2.0}
    tree = ET.fromstring(diagram("m", layers, rows))
    boxes = [(node.get("y"), float(node.get("width", ""))) for node in tree.iter(f"{SVG}rect")
             if node.get("fill") == "currentColor"]  # fmt: skip
    assert boxes == [("5", WIDTH), ("65", WIDTH / 2)]
    words = ["".join(node.itertext()) for node in tree.iter(f"{SVG}text")]
    assert "4.00 s, 40.0 %" in words
    assert words[-1] == "the rest, and what has no box: 40.0 %"


def test_the_diagram_of_a_described_model_has_the_times_of_its_layers(tmp_path: Path) -> None:
    kept(tmp_path, description())
    rows = times(("c1", "Conv2D", 3.0))
    bars, connected = keep_bars(tmp_path / "results" / SLOW, rows)
    assert bars.name == "a.layers.svg"
    assert "3.00 s, 75.0 %" in connected.read_text()
    (described,) = described_models([tmp_path / "results" / SLOW / "0001.csv"])
    shown = CaseLayers(model="lenet5", title="", rows=rows, table=described.table)
    assert shown.connected is None
    assert "3.00 s" in str(replace(shown, described=described).connected)
    (connected.parent / "lenet5.json").write_text("{}")
    assert bars_words(tmp_path / "results" / SLOW, rows) == f"drawn in {bars}"


# The run that writes it


def test_a_run_keeps_descriptions_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    options = ["--models", "lenet5", "--tasks", "infer", "--processes", "1"]
    assert main(["run", *options]) == 0
    assert list(tmp_path.glob("results/*/models/*")) == []
    assert main(["run", *options, "--describe"]) == 0
    names = sorted(path.name for path in tmp_path.glob("results/*/models/*"))
    assert names == ["lenet5.json", "lenet5.svg"]
    (model,) = described_models(list(tmp_path.glob("results/*/0002.csv")))
    assert [one.name for one in model.layers] == ["dense"]


def test_a_model_that_cannot_be_described_is_told_and_left_out(tmp_path: Path) -> None:
    with pytest.warns(StoreWarning, match="broken: is not described: RuntimeError: no weights"):
        assert describe_models(["broken"], fake_worker.FakeInterpreter(), 0, tmp_path) == []


def test_a_worker_describes_the_lectures_networks(
    tmp_path: Path, interpreter_of: Callable[[str], Interpreter]
) -> None:
    asked = ["lenet5", "mini_resnet_norm"]
    written = describe_models(asked, interpreter_of("tensorflow"), 0, tmp_path)
    assert [path.name for path in written] == [
        "lenet5.json", "lenet5.svg", "mini_resnet_norm.json", "mini_resnet_norm.svg",
    ]  # fmt: skip
    lenet, resnet = described_models([tmp_path / "0001.csv"])
    assert lenet.depth == 5
    assert sum(one.parameters for one in lenet.layers) == 61_706
    assert sum(one.weight_bytes for one in lenet.layers) == 4 * 61_706
    assert sum(one.flops or 0 for one in lenet.layers) == 833_040
    inner = 4704 + 1176 + 1600 + 400 + 120 + 120 + 84  # each written once and read once
    assert lenet.traffic_elements == 784 + 2 * inner + 10
    chain = [one.inputs for one in lenet.layers]
    assert chain[1:] == [(place,) for place in range(len(chain) - 1)]
    assert any(len(one.inputs) == 2 for one in resnet.layers)  # the shortcut joins
    ET.parse(tmp_path / "models" / "lenet5.svg")
