"""`convmark export`: each format is read by the tool that it is for, where that is installed."""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_worker import FakeInterpreter
from report_rows import SLOW, keep_run, measured, suite
from rows import row

from convmark.cli import main
from convmark.core.errors import OptionError
from convmark.report.export import TARGETS, export_of
from convmark.report.rows import read_rows

CASE = "lenet5-train-cpu-b32-float32"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with two runs of two cases, measured by a stand-in."""
    monkeypatch.setattr("convmark.interpreter.Interpreter", FakeInterpreter)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["run", "--models=lenet5", "--batch-sizes=32", "--processes=2"]) == 0
    return tmp_path


def exported(capsys: pytest.CaptureFixture[str], target: str) -> str:
    capsys.readouterr()
    assert main(["export", "--to", target]) == 0
    return capsys.readouterr().out


def test_bencher_gets_the_newest_run_with_half_its_range(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # docs of Bencher: {benchmark: {measure: {value, lower_value, upper_value}}}
    found = json.loads(exported(capsys, "bmf"))
    assert len(found) == 2
    step = found[CASE]["step_time_p50_s"]
    assert set(step) == {"value", "lower_value", "upper_value"}
    assert step["value"] == pytest.approx(0.01, rel=0.01)
    assert step["lower_value"] <= step["value"] <= step["upper_value"]
    assert set(found[CASE]["throughput_samples_per_s"]) == {"value"}


def test_what_to_be_wary_of_stands_in_every_format(tmp_path: Path) -> None:
    """Where a format has a place for it, and as its reader takes it."""
    wary: dict[str, Any] = {"other_cpu_share": 0.3, "status": "unsteady"}
    rows = [measured(SLOW, 1, "lenet5", n, **(wary if n < 3 else {})) for n in (1, 2, 3)]
    clear = [measured(SLOW, 1, "vgg16", n, other_cpu_share=0.01) for n in (1, 2, 3)]
    keep_run(tmp_path, [*rows, *clear])
    other = CASE.replace("lenet5", "vgg16")
    told = "30 % other load, 2 of 3 unsteady"
    every = read_rows([tmp_path])
    found = {target: export_of(every, target) for target in TARGETS}
    assert {one.doubtful for one in found.values()} == {1}
    bmf = json.loads(found["bmf"].files[""])
    states = [[bmf[case][name]["value"] for name in ("doubtful", "other_cpu_share")]
              for case in (CASE, other)]  # fmt: skip
    assert states == [[1, 0.3], [0, 0.01]]
    lines = found["openmetrics"].files[""].splitlines()
    for name, values in (("doubtful", "1.0 0.0"), ("other_cpu_ratio", "0.3 0.01")):
        own = [line for line in lines if line.startswith(f"convmark_{name}{{")]
        assert " ".join(line.rpartition(" ")[2] for line in own) == values
    texts = [text for name, text in found["otava"].files.items() if name.endswith(".csv")]
    doubts = [row["doubts"] for text in texts for row in csv.DictReader(text.splitlines())]
    assert sorted(doubts) == [told, "none"]
    info = [one["info"].get("doubts") for one in json.loads(found["conbench"].files[""])]
    assert set(info) == {told, None}
    assert [text for name, text in found["mlflow"].files.items() if "tags/doubts" in name] == [told]


def test_an_older_run_is_not_exported_as_the_newest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_run(tmp_path, suite(SLOW, 1))
    keep_run(tmp_path, [row(run="0002", machine=SLOW, status="crashed", error="boom")])
    assert main(["export", str(tmp_path), "--to", "bmf"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "bmf: exports the newest run, but 0002 has no figures; give" in printed.err
    assert main(["export", str(tmp_path / SLOW / "0001.csv"), "--to", "bmf"]) == 0


def test_cases_without_figures_are_counted_where_the_export_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_run(tmp_path, [row(run="0001", machine=SLOW, status="crashed", error="boom")])
    assert main(["export", str(tmp_path), "--to", "openmetrics"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "# EOF\n"
    assert "1 without figures left out" in printed.err


def test_openmetrics_is_parsed_by_the_client_of_prometheus(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = pytest.importorskip(
        "prometheus_client.openmetrics.parser", reason="prometheus_client is not installed"
    )
    families = parser.text_string_to_metric_families(exported(capsys, "openmetrics"))
    found = {family.name: family for family in families}
    step = found["convmark_step_time_p50_seconds"]
    assert step.unit == "seconds"
    by_case = {sample.labels["case"]: sample for sample in step.samples}
    assert by_case[CASE].value == pytest.approx(0.01, rel=0.01)
    assert by_case[CASE].labels["run"] == "0002"


def test_conbench_gets_a_result_with_the_value_of_every_process(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # required by Conbench's BenchmarkResultCreate, of which one of the last two is given
    required = {"batch_id", "context", "info", "run_id", "tags", "timestamp", "stats"}
    found = json.loads(exported(capsys, "conbench"))
    for one in found:
        assert required | {"cluster_info"} == set(one)
        assert set(one["stats"]) == {"data", "unit", "times", "time_unit", "iterations"}
        assert all(isinstance(value, str) for value in one["tags"].values())
    names = [
        (one["tags"]["name"], one["tags"]["case"], one["run_id"].split("-")[-2]) for one in found
    ]
    assert len(set(names)) == len(names)
    assert found[0]["tags"]["batch_size"] == "32"
    step = found[names.index(("step_time_p50_s", CASE, "0002"))]["stats"]
    assert (len(step["data"]), step["iterations"], step["unit"]) == (2, 2, "s")


def test_conbench_s_client_publishes_each_result_as_it_is(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchadapt = pytest.importorskip("benchadapt", reason="benchadapt is not installed")
    monkeypatch.setenv("CONBENCH_PROJECT_REPOSITORY", "https://github.com/example/nets")
    monkeypatch.delenv("CONBENCH_PROJECT_COMMIT", raising=False)
    found = json.loads(exported(capsys, "conbench"))
    for one in found:  # what its API refuses is a warning, and so an error here
        published = benchadapt.BenchmarkResult(**one).to_publishable_dict()
        assert {name: published[name] for name in one} == one
        assert "machine_info" not in published


def test_otava_reads_a_line_for_each_run(folder: Path) -> None:
    assert main(["export", "--to", "otava", "-o", "out"]) == 0
    tests: dict[str, Any] = json.loads(Path("out/otava.yaml").read_text())["tests"]
    assert all(Path("out", test["file"]).is_file() for test in tests.values())
    importer = pytest.importorskip("otava.importer", reason="apache-otava is not installed")
    from otava.test_config import create_csv_test_config

    (name,) = (name for name in tests if "train" in name)
    config = create_csv_test_config(name, {**tests[name], "file": f"out/{tests[name]['file']}"})
    series = importer.CsvImporter().fetch_data(config)
    assert series.data["step_time_p50_s"] == pytest.approx([0.01, 0.01], rel=0.01)
    assert series.attributes["run"] == ["0001", "0002"]


def test_mlflow_finds_an_experiment_and_its_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert main(["export", "--to", "mlflow", "-o", "mlruns"]) == 0
    assert len(list(Path("mlruns").glob("*/*/metrics/step_time_p50_s"))) == 4
    store = pytest.importorskip("mlflow.store.tracking.file_store", reason="mlflow is not there")
    found = store.FileStore("mlruns")
    (experiment,) = [one for one in found.search_experiments() if one.experiment_id != "0"]
    runs = found.search_runs([experiment.experiment_id], "", 1)
    assert {run.data.params["case"] for run in runs} >= {CASE}
    assert len(runs) == 4
    assert all(run.data.metrics["step_time_p50_s"] > 0 for run in runs)


def test_a_time_that_names_no_zone_is_in_utc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        for number, started in enumerate(("2026-01-01T00:00:00", "2026-01-01T00:00:00Z")):
            rows = [measured(SLOW, 1, "lenet5", process) for process in (1, 2)]
            keep_run(tmp_path / str(number), [replace(row, started=started) for row in rows])
            files = export_of(read_rows([tmp_path / str(number)]), "mlflow").files
            assert re.search(r"start_time\W+1767225600000\b", "".join(files.values()))
    finally:
        monkeypatch.undo()
        time.tzset()


def test_no_case_and_no_run_takes_the_place_of_another(tmp_path: Path) -> None:
    long = "vision.experiments." + "residual_networks." * 9 + ":build"
    cases = [("nets.small:build", 32), ("nets-small:build", 32), (long, 1), (long, 32)]
    records = [
        replace(measured(SLOW, 1, "lenet5", 1, batch_size=batch), model=model)
        for model, batch in cases
    ]
    later = "2026-06-01T00:00:00.000+00:00"
    keep_run(tmp_path / "one", records)
    keep_run(tmp_path / "other", [replace(one, started=later) for one in records])
    places = [tmp_path / "one", tmp_path / "other"]
    found = {target: export_of(read_rows(places), target).files for target in TARGETS}
    assert len([name for name in found["otava"] if name.endswith(".csv")]) == len(cases)
    assert len([name for name in found["mlflow"] if "/metrics/step" in name]) == 2 * len(cases)
    assert len({one["run_id"] for one in json.loads(found["conbench"][""])}) == 2
    keep_run(tmp_path / "part", [replace(one, parameters=1) for one in records[:2]])
    with pytest.raises(OptionError, match=r"0001 of xeon-2, started .*, is in two files"):
        export_of(read_rows([*places, tmp_path / "part"]), "mlflow")
    keep_run(tmp_path / "own", [replace(one, node="mine") for one in records])
    for target in ("conbench", "mlflow"):  # published without the host, and as it was measured
        with pytest.raises(OptionError, match=r"0001 of xeon-2, started .*, is in two files"):
            export_of(read_rows([*places, tmp_path / "own"]), target)


def test_a_run_is_the_same_in_each_export_whatever_is_beside_it(tmp_path: Path) -> None:
    published = [measured(SLOW, 1, "lenet5", number) for number in (1, 2)]
    keep_run(tmp_path / "published", published)
    keep_run(tmp_path / "own", [replace(one, run="0002", node="mine") for one in published])
    places = [tmp_path / "published", tmp_path / "own"]
    alone, beside = (
        json.loads(export_of(read_rows(some), "conbench").files[""])
        for some in (places[:1], places)
    )
    assert {one["run_id"] for one in alone} < {one["run_id"] for one in beside}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_what_is_not_known_is_left_out(target: str, tmp_path: Path) -> None:
    unknown = {"commit": None, "tensorflow": None, "keras": None}
    keep_run(tmp_path, [measured(SLOW, 1, "lenet5", 1)])
    keep_run(tmp_path, [measured(SLOW, 2, "lenet5", 1, **unknown)])
    assert main(["export", str(tmp_path), "--to", target, "-o", str(tmp_path / "out.txt")]) == 0
    files = export_of(read_rows([tmp_path]), target).files
    texts = "".join([*files, *files.values()])
    assert not {"nan", "None"} & set(re.findall(r"\w+", texts))
    assert "commit=" not in texts


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_an_output_is_never_an_input(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = folder.glob("results/*/0001.csv")
    before = path.read_bytes()
    (folder / "copy.csv").write_bytes(before)
    for places, output in ((["copy.csv"], "copy.csv"), ([], str(path)), ([], str(path.parent))):
        capsys.readouterr()
        assert main(["export", *places, "--to", target, "-o", output]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("convmark export: --output: must ")
    assert path.read_bytes() == (folder / "copy.csv").read_bytes() == before


def test_what_cannot_be_written_or_is_unknown_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").touch()
    for arguments, words in (
        (["--to", "bmff"], "--to: must be one of bmf, otava"),
        (["--to", "otava"], "needs a folder that does not exist yet"),
        (
            ["--to", "bmf", "-o", "none/there.json"],
            "No such file or directory; make it writable, or choose",
        ),
        (["--to", "mlflow", "-o", "file/out"], "Not a directory; make it writable, or choose"),
        (["--to", "otava", "-o", "none\0"], "must be a path"),
    ):
        capsys.readouterr()
        assert main(["export", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    assert not list(folder.glob(".*.part"))


@pytest.mark.parametrize("target", ["mlflow", "otava"])
def test_the_folders_above_an_output_folder_are_made(target: str, folder: Path) -> None:
    assert main(["export", "--to", target, "-o", "new/deep/out"]) == 0
    assert any((folder / "new" / "deep" / "out").iterdir())
