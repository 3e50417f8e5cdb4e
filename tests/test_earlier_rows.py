"""Rows of an earlier version beside today's: what they do not tell is compared with nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from histories import MACHINE, comparability, keep, process, run_of
from report_rows import SLOW, keep_run, measured

from convmark.cli import main
from convmark.compare.comparability import Comparability, difference
from convmark.compare.files import accept
from convmark.compare.history import CaseHistory, accepted_history
from convmark.compare.sessions_file import conditions_of
from convmark.compare.verdict import conclude, review
from convmark.report.rows import read_rows
from convmark.report.sides import newest_versions, sides_of
from convmark.report.tables.history import trends
from convmark.results.record import COLUMNS, Record
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def history_of(store: Store, records: list[Record]) -> CaseHistory:
    (case,) = accepted_history(store, MACHINE, records).cases.values()
    return case


@pytest.mark.parametrize(
    ("earlier", "now", "other"),
    [
        ("", "model:untracked_parameters=5000", "model:untracked_parameters=9000"),
        ("nice=19", "model:asks=hub.example nice=19", "model:asks=hub.example nice=5"),
        ("", "model:jit_compile=not_run", ""),
        ("", "model:fit=not_run", ""),
        ("", "model:train_on_batch=not_run model:training=not_told", ""),
        ("", "openvino.hint=LATENCY openvino.streams=1", "openvino.streams=2"),
    ],
)
def test_what_is_told_of_a_state_today_alone_counts_where_both_rows_tell_it(
    store: Store, earlier: str, now: str, other: str
) -> None:
    today = run_of("0002", 0.0, state=now)
    keep(store, run_of("0001", 0.0, state=earlier or None))
    assert [rows[0].run for rows in history_of(store, today).runs] == ["0001"]
    assert conditions_of(today[0]) == conditions_of(process(state=earlier or None))
    if other:
        keep(store, run_of("0001", 0.0, state=other))
        name, was = other.split()[-1].split("=")
        assert history_of(store, today).runs == ()
        assert history_of(store, today).difference.startswith(f"{name} was {was}, is ")


PLAIN = {
    **{"runtime": "keras", "training": "harness", "packages": "einops==0.8.1"},
    **dict.fromkeys(("recipe", "asked_shape", "cpus", "state")),
}
"""What decides whether rows are comparable and files of schema 2 lack, as it is where nothing of it
was asked for: a column that joins them must say here what its absence stands for."""


def test_a_column_that_earlier_rows_lack_is_as_in_a_plain_row_of_today() -> None:
    facts = {field.name for field in dataclasses.fields(Comparability)}
    assert facts & {column.name for column in COLUMNS if column.since > 2} == PLAIN.keys()
    now, then = (comparability(one) for one in (process(**PLAIN), process()))
    assert difference(now, then) == difference(then, now) == ""


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ("0.8.1@aaaaaaaa", ""),
        ("0.8.2@aaaaaaaa", "packages was einops 0.8.1, is einops 0.8.2@aaaaaaaa"),
        ("0.8.1@bbbbbbbb", "packages was einops 0.8.1@aaaaaaaa, is einops 0.8.1@bbbbbbbb"),
    ],
)
def test_a_package_from_an_address_is_known_by_its_version_where_a_row_has_no_hash_of_its_files(
    now: str, words: str, store: Store
) -> None:
    before = "0.8.1@aaaaaaaa" if now.endswith("b") else "0.8.1"
    keep(store, run_of("0001", 0.0, packages=f"einops=={before}"))
    case = history_of(store, run_of("0002", 0.0, packages=f"einops=={now}"))
    assert bool(case.runs) == (not words)
    assert case.difference.startswith(words)


def test_a_file_of_which_a_part_is_quantised_keeps_the_anchor_that_named_it_otherwise(
    store: Store,
) -> None:
    shared = {
        "model": "a.onnx",
        "task": "infer",
        "runtime": "onnxruntime",
        "asked": "precision=float32",
    }
    keep(store, run_of("0001", 0.0, precision="int8", **shared))
    told = {"precision": "float32+int8", "state": "onnxruntime.providers=CPUExecutionProvider"}
    keep(store, run_of("0002", 0.0, precision="int8", **shared))
    today = run_of("0003", 0.0, **told, **shared)
    for anchor in ("0001", "0002"):
        case = history_of(store, today)
        assert case.anchor is not None
        assert case.anchor.run == anchor
        assert case.difference.startswith("precision was int8, is float32+int8")
        name = "a.onnx-infer-cpu-b32-int8-onnxruntime"
        accept(store, MACHINE, "2", "by its name of then", [name])


def test_a_page_sets_versions_side_by_side_of_which_one_was_told_more(tmp_path: Path) -> None:
    for run, version, state in ((1, "2.20.0", None), (2, "2.21.0", "model:untracked_parameters=9")):
        changes = {"code": "c" * 12, "tensorflow": version, "state": state}
        keep_run(tmp_path, [measured(SLOW, run, "lenet5", one, **changes) for one in (1, 2, 3)])
    rows = read_rows([tmp_path])
    found = newest_versions(sides_of(rows.frame, rows.runs).sides)
    assert found is not None
    assert (found.before, found.after) == ("TensorFlow 2.20.0", "TensorFlow 2.21.0")


def test_flops_of_other_rules_are_no_other_model_and_no_change(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, run_of("0001", 0.0, code="old", flops_per_sample=833_040))
    counted = {"code": "new", "flops_per_sample": 900_000, "counting_version": "2"}
    today = run_of("0002", 0.0, **counted)
    keep(store, today)

    def flops_of(records: list[Record]) -> tuple[str, str]:
        """The verdict of the FLOPs, and what begins a series of its own."""
        (judged,) = (
            one
            for one in conclude(review(records, accepted_history(store, MACHINE, records)))
            if one.metric == "flops_per_sample"
        )
        capsys.readouterr()
        assert main(["history", LENET, "--machine", MACHINE, "--results", str(store.folder)]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        rows = read_rows([store.folder])
        (trend,) = trends(rows.frame, rows.runs).values()
        told = "".join(one.conditions for one in trend.stretches)
        assert ("another model" in printed) == bool(told)
        return f"{judged.verdict}: {judged.note}", told

    assert flops_of(today) == ("inconclusive: counted by the rules of another version", "")
    accept(store, MACHINE, "2", "counted anew")
    later = run_of("0003", 0.0, **{**counted, "code": "later", "flops_per_sample": 950_000})
    keep(store, later)
    assert flops_of(later) == (
        "changed: ",
        "another model than run 0002: FLOPs per sample 900,000 -> 950,000",
    )
