"""Which earlier runs a run is judged against, and how few files that takes."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from histories import A_COMMIT, ANOTHER_COMMIT, MACHINE, comparability, keep, process, run_of

from convmark.cli.parsers import parsers
from convmark.compare import earlier, history
from convmark.compare.comparability import comparable, difference
from convmark.compare.earlier import steady
from convmark.compare.files import accept, read_accepted
from convmark.compare.history import accepted_history, named_history
from convmark.compare.verdict import conclude, review
from convmark.core.errors import StoreError
from convmark.core.options import read
from convmark.core.suites import cases
from convmark.results.reading import StoreWarning
from convmark.results.record import Record
from convmark.results.schema import SCHEMA_VERSION
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
RESNET = "mini_resnet-train-cpu-b32-float32"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def read_in_full(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were read in full, as they are read."""
    read: list[str] = []
    original = history.read_run

    def recording(path: Path, *rest: Any) -> list[Record]:
        read.append(path.stem)
        return original(path, *rest)

    monkeypatch.setattr(earlier, "read_run", recording)
    return read


def found(store: Store, records: list[Record], case: str = LENET) -> list[str]:
    """The runs that a case is judged against."""
    runs = accepted_history(store, MACHINE, records).cases[case].runs
    return [rows[0].run for rows in runs]


def named(store: Store, name: str, records: list[Record]) -> history.History:
    """The history of a run that is named as the baseline."""
    return named_history(store.find(name, MACHINE), records)


def at(commit: str | None, *runs: str, **changes: Any) -> Iterable[list[Record]]:
    return [run_of(run, 0.0, 0.01, commit=commit, **changes) for run in runs]


# The anchor and its commit


@pytest.mark.parametrize("name", [None, "here"])
def test_figures_of_a_host_that_is_not_named_are_no_baseline_of_one_that_is(
    store: Store, name: str | None
) -> None:
    """Published rows may be of another machine of the kind; their code is an anchor's even so."""
    keep(store, run_of("0001", 0.0, 0.01, peak_host_memory_bytes=10**9))
    now = run_of("0002", 0.0, 0.01, node=name)
    history_ = accepted_history(store, MACHINE, now)
    case = history_.cases[LENET]
    assert case.anchor is not None
    judged = {one.metric: one for one in conclude(review(now, history_))}
    if name is None:
        assert judged["peak_host_memory"].verdict == "improved"
    else:
        assert case.runs == ()
        assert case.difference.startswith("the earlier rows do not name their host: the anchor's ")
        assert "peak_host_memory" not in judged or judged["peak_host_memory"].change is None
    assert named(store, "1", now).cases[LENET].difference == case.difference


def test_without_an_accepted_run_the_first_one_with_figures_is_the_anchor(store: Store) -> None:
    keep(store, [process(run="0001", status="error", error="no weights")])
    keep(store, run_of("0002", 0.0))
    keep(store, run_of("0003", 0.0, commit=ANOTHER_COMMIT))
    cases = accepted_history(store, MACHINE, run_of("0004", 0.0)).cases
    anchor = cases[LENET].anchor
    assert anchor is not None
    assert (anchor.run, anchor.commit, anchor.dirty) == ("0002", A_COMMIT, False)
    assert anchor.path == store.folder / MACHINE / "0002.csv"
    assert [rows[0].run for rows in cases[LENET].runs] == ["0002"]


def test_the_history_is_the_anchor_and_the_clean_runs_at_its_commit(store: Store) -> None:
    for rows in at(A_COMMIT, "0001", "0002", "0005"):
        keep(store, rows)
    keep(store, run_of("0003", 0.0, commit=ANOTHER_COMMIT))
    keep(store, run_of("0004", 0.0, dirty=True))
    assert found(store, run_of("0006", 0.0)) == ["0001", "0002", "0005"]


def test_only_earlier_runs_count(store: Store) -> None:
    for rows in at(A_COMMIT, "0001", "0002", "0003"):
        keep(store, rows)
    assert found(store, run_of("0002", 0.0)) == ["0001"]
    assert found(store, run_of("0001", 0.0)) == []


def test_a_dirty_anchor_stands_alone_for_its_commit_is_not_its_code(store: Store) -> None:
    keep(store, run_of("0001", 0.0, dirty=True))
    keep(store, run_of("0002", 0.0))
    assert found(store, run_of("0003", 0.0)) == ["0001"]


def test_an_anchor_without_commit_stands_alone(store: Store) -> None:
    for rows in at(None, "0001", "0002", dirty=None):
        keep(store, rows)
    assert found(store, run_of("0003", 0.0, commit=None, dirty=None)) == ["0001"]


def test_the_last_accepted_run_is_the_anchor(store: Store) -> None:
    for rows in at(A_COMMIT, "0001", "0002"):
        keep(store, rows)
    for rows in at(ANOTHER_COMMIT, "0003", "0004"):
        keep(store, rows)
    accept(store, MACHINE, "2", "first")
    accept(store, MACHINE, "0003", "faster kernels")
    assert found(store, run_of("0005", 0.0)) == ["0003", "0004"]
    assert found(store, run_of("0003", 0.0)) == ["0001", "0002"]


def test_a_run_that_was_given_the_number_of_an_accepted_one_is_no_anchor(store: Store) -> None:
    """As where the runs were removed, and the list of accepted ones was not."""
    for number in ("0001", "0002"):
        keep(store, run_of(number, 0.0))
    accept(store, MACHINE, "2", "first")
    (store.folder / MACHINE / "0002.csv").unlink()
    keep(store, run_of("0002", 0.0, commit=ANOTHER_COMMIT))
    with pytest.warns(StoreWarning, match=r"0002\.csv: is not the run that was accepted"):
        assert found(store, run_of("0003", 0.0)) == ["0001"]


def test_what_fitted_once_and_is_too_large_now_is_a_loss(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    full = [process(run="0002", status="out_of_memory", error="too much")]
    by_name = named_history(store.folder / MACHINE / "0001.csv", full)
    for before in (accepted_history(store, MACHINE, full), by_name):
        (lost,) = conclude(review(full, before))
        assert (lost.verdict, lost.fails) == ("inconclusive", True)


def test_a_case_that_the_accepted_run_lacks_keeps_its_own_anchor(store: Store) -> None:
    keep(store, [*run_of("0001", 0.0), *run_of("0001", 0.0, model="mini_resnet")])
    keep(store, run_of("0002", 0.0, commit=ANOTHER_COMMIT))
    accept(store, MACHINE, "2", "lenet5 alone")
    now = [*run_of("0003", 0.0), *run_of("0003", 0.0, model="mini_resnet")]
    assert found(store, now) == ["0002"]
    assert found(store, now, RESNET) == ["0001"]


def test_a_case_without_earlier_rows_has_no_history(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    cases = accepted_history(store, MACHINE, run_of("0002", 0.0, model="vgg16")).cases
    assert cases["vgg16-train-cpu-b32-float32"] == history.CaseHistory()


def test_what_the_anchor_has_and_the_run_has_not_is_absent(store: Store) -> None:
    keep(store, [*run_of("0001", 0.0), *run_of("0001", 0.0, 0.1, model="mini_resnet")])
    absent = accepted_history(store, MACHINE, run_of("0002", 0.0)).absent
    assert [row.case.name for row in absent] == [RESNET]
    failed = [*run_of("0002", 0.0), process(run="0002", model="mini_resnet", status="timeout")]
    assert accepted_history(store, MACHINE, failed).absent == ()


def test_unsteady_rows_count_where_there_are_no_others(store: Store) -> None:
    rows = run_of("0001", 0.1, 0.2)
    unsteady = process(run="0001", process=3, order=3, status="unsteady")
    assert steady([*rows, unsteady]) == tuple(rows)
    assert steady([unsteady, process(status="crashed")]) == (unsteady,)
    keep(store, [unsteady])
    assert found(store, run_of("0002", 0.0)) == ["0001"]


# By code


def test_the_history_is_every_run_of_the_anchors_code_whatever_the_commit(store: Store) -> None:
    keep(store, run_of("0001", 0.0, code="c1", dirty=True))
    keep(store, run_of("0002", 0.0, code="c1", commit=ANOTHER_COMMIT))
    keep(store, run_of("0003", 0.0, code="c2"))
    keep(store, run_of("0004", 0.0, code="c1", commit=None, dirty=None))
    assert found(store, run_of("0005", 0.0, code="c2")) == ["0001", "0002", "0004"]


def test_one_commit_with_another_code_is_no_history(store: Store) -> None:
    keep(store, run_of("0001", 0.0, code="c1"))
    keep(store, run_of("0002", 0.0, code="c2"))
    assert found(store, run_of("0003", 0.0, code="c1")) == ["0001"]


def test_rows_without_a_code_go_by_their_commit(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    keep(store, run_of("0002", 0.0, code="c1"))
    keep(store, run_of("0003", 0.0, code="c2", commit=None))
    keep(store, run_of("0004", 0.0, code="c1", dirty=True))  # edits that it did not run
    keep(store, run_of("0005", 0.0, dirty=True))
    assert found(store, run_of("0006", 0.0, code="c1")) == ["0001", "0002", "0004"]


def test_cases_of_one_run_may_have_codes_of_their_own(store: Store) -> None:
    def both(run: str, lenet: str, resnet: str) -> list[Record]:
        return [
            *run_of(run, 0.0, code=lenet),
            *run_of(run, 0.0, code=resnet, model="mini_resnet"),
        ]

    keep(store, both("0001", "a1", "b1"))
    keep(store, both("0002", "a2", "b1"))
    keep(store, both("0003", "a1", "b2"))
    now = both("0004", "a1", "b1")
    assert found(store, now) == ["0001", "0003"]
    assert found(store, now, RESNET) == ["0001", "0002"]
    cases = accepted_history(store, MACHINE, now).cases
    codes = {name: case.anchor.code for name, case in cases.items() if case.anchor}
    assert codes == {LENET: "a1", RESNET: "b1"}


def test_processes_of_different_code_in_one_case_are_the_code_of_none() -> None:
    torn = [*run_of("0001", 0.0, code="c1"), *run_of("0001", 0.0, code="c2")]
    assert not history.same_code(torn, run_of("0002", 0.0, code="c1"))
    assert not history.same_code(run_of("0001", 0.0, code="c1"), [])
    assert history.same_code(run_of("0001", 0.0, code="c1"), run_of("0002", 0.0, code="c1"))


def test_the_index_knows_the_codes_so_that_runs_of_other_code_are_not_read(
    store: Store, read_in_full: list[str]
) -> None:
    for number in range(1, 31):
        code = "same" if number % 10 == 1 else f"other{number}"
        keep(store, run_of(f"{number:04d}", 0.0, code=code))
    assert found(store, run_of("0031", 0.0, code="new")) == ["0001", "0011", "0021"]
    assert read_in_full == ["0001", "0021", "0011"]


def test_an_anchor_has_code_to_run_by_its_clean_commit_or_by_its_kept_files(store: Store) -> None:
    def anchor(run: str, **changes: Any) -> history.Anchor:
        keep(store, run_of(run, 0.0, **changes))
        found = named(store, run, run_of("0099", 0.0)).cases[LENET].anchor
        assert found is not None
        return found

    clean = anchor("0001")
    assert (clean.clean_commit, clean.lost) == (A_COMMIT, "")
    lost = anchor("0002", dirty=True)
    assert lost.lost.startswith("run 0002 has no code to run again: its tree was not clean and ")
    assert "it names no commit" in anchor("0003", commit=None, dirty=None).lost
    assert anchor("0004", commit="main").clean_commit == ""
    assert anchor("0006", dirty=True, code="c1").clean_commit == A_COMMIT  # edits elsewhere
    assert "it names no commit" in anchor("0007", commit=None, code="c1").lost
    (store.folder / MACHINE / "0005.code.json").write_text("{}")
    kept = anchor("0005", commit=None, dirty=True, code="c1")
    assert (kept.clean_commit, kept.code, kept.lost) == ("", "c1", "")
    assert kept.manifest == store.folder / MACHINE / "0005.code.json"


# Comparable or not

DIFFERENT = [
    (
        {"tensorflow": "2.20.0"},
        "tensorflow was 2.20.0, is 2.21.0: `convmark ab tensorflow==2.20.0 tensorflow==2.21.0 "
        "--models lenet5 --tasks train --batch-sizes 32` compares them live",
    ),
    ({"tensorflow": "a nightly"}, "tensorflow was a nightly, is 2.21.0: `convmark ab` compares"),
    ({"keras": "3.9.0"}, "keras was 3.9.0, is 3.15.0: `convmark ab`"),
    ({"python": "3.12.9"}, "python was 3.12, is 3.13: `convmark ab`"),
    (
        {"flags": "OMP_NUM_THREADS=1"},
        "flags was OMP_NUM_THREADS=1, is default: `convmark ab`",
    ),
    ({"numpy": "1.26.4"}, "numpy was 1.26.4, is not known: `convmark ab`"),
    ({"os": "Linux 6.8"}, "os was Linux 6.8, is not known: `convmark report`"),
    (
        {"state": "image_data_format=channels_first model:nice=19"},
        "image_data_format was channels_first, is the default: `convmark report`",
    ),
    ({"machine": "mac-8"}, "machine was mac-8, is xeon-2: `convmark report`"),
    ({"driver": "550.1"}, "driver was 550.1, is not known: `convmark report`"),
    ({"isolation": "spawn"}, "isolation was spawn, is fork: the two cannot be compared"),
    (
        {"threads": "1"},
        "threads was 1, is default: `convmark ab --set-a threads=1 --set-b threads=default --m",
    ),
    (
        {"cpus": "0-1"},
        "cpus was 0-1, is all: `convmark ab --set-a cpus=0-1 --set-b cpus=default --models lenet5",
    ),
    ({"cpus": "numa0"}, "cpus was numa0, is all: `convmark ab` compares them live"),
    (
        {"precision": "mixed_float16"},
        "precision was mixed_float16, is float32: `convmark ab --set-a precision=mixed_float16 "
        "--set-b precision=float32 --models lenet5 --tasks train --batch-sizes 32`",
    ),
    ({"precision": "int8"}, "precision was int8, is float32: `convmark ab` compares them live"),
]


@pytest.mark.parametrize(("changes", "message"), DIFFERENT)
def test_rows_that_differ_are_not_judged_and_the_difference_is_quoted(
    store: Store, changes: dict[str, Any], message: str
) -> None:
    keep(store, run_of("0001", 0.0, **changes))
    case = accepted_history(store, MACHINE, run_of("0002", 0.0)).cases[LENET]
    assert case.runs == ()
    assert case.anchor is None
    assert case.difference.startswith(message)
    by_name = named(store, "0001", run_of("0002", 0.0)).cases[LENET]
    assert (by_name.runs, by_name.difference) == ((), case.difference)


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ({"threads": "2", "precision": "mixed_float16", "jit": "on"}, "mixed_float16-jit-t2"),
        (
            {"task": "infer", "batch_size": 1, "runtime": "litert", "precision": "int8"},
            "int8-litert",
        ),
        ({"cpus": "0-1"}, "float32-cpus0-1"),
    ],
)
def test_the_command_that_compares_live_measures_the_case_in_all_its_settings(
    store: Store, own: dict[str, Any], name: str
) -> None:
    keep(store, run_of("0001", 0.0, tensorflow="2.20.0", **own))
    (case,) = accepted_history(store, MACHINE, run_of("0002", 0.0, **own)).cases.values()
    words = shlex.split(case.difference.split("`")[1])
    given = vars(parsers()[0].parse_args(words[1:]))
    (found,) = cases(read(given), {"tensorflow": ["cpu"]})
    assert found.name.endswith(name)
    assert {field: getattr(found, field) for field in own} == own


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"measurement_version": "def"}, "measurement version was def, is abc"),
        ({"reference_version": 2}, "reference version was 2, is 1"),
    ],
)
def test_a_new_way_to_measure_keeps_the_anchor_s_code_and_uses_none_of_its_figures(
    store: Store, changes: dict[str, Any], words: str
) -> None:
    keep(store, run_of("0001", 0.0, **changes))
    case = accepted_history(store, MACHINE, run_of("0002", 0.0)).cases[LENET]
    assert case.anchor is not None
    assert (case.anchor.run, case.runs) == ("0001", ())
    used = f"{words}: the anchor's figures are not used, its code is compared live"
    assert case.difference == used
    asked = {"task": "accuracy", "accuracy": 0.9}
    keep(store, run_of("0001", 0.0, **asked, **changes))
    (case,) = accepted_history(store, MACHINE, run_of("0002", 0.0, **asked)).cases.values()
    assert case.anchor is None  # an accuracy is not compared live
    assert case.difference.startswith(f"{words}: the two cannot be compared; later runs")


def test_versions_of_packages_are_compared_where_both_rows_import_them() -> None:
    one = comparability(process(code="ab", packages="einops==0.8.1 timm==1.0"))
    other = comparability(process(code="cd", packages="einops==0.8.2 timm==1.0"))
    none = comparability(process(code="ef"))
    said = "packages was einops 0.8.1, is einops 0.8.2: `convmark ab`"
    assert difference(other, one).startswith(said)
    assert comparable(none, one)  # which packages are imported is the code's own
    assert difference(comparability(process()), one) == ""  # of an earlier schema


@pytest.mark.parametrize(
    "changes",
    [
        {"python": "3.13.9"},
        {"seed": 3},
        {"packages": "scipy==1.17"},
        {"code": "ab12", "packages": "einops==0.8.1"},
    ],
)
def test_rows_that_differ_in_what_does_not_matter_are_judged(
    store: Store, changes: dict[str, Any]
) -> None:
    keep(store, run_of("0001", 0.0, **changes))
    assert found(store, run_of("0002", 0.0)) == ["0001"]
    facts = comparability(process(**changes))
    assert difference(facts, comparability(process())) == ""


def test_rows_from_before_training_was_told_are_the_harness_own() -> None:
    before, now = process(), process(training="harness", optimizer="SGD", loss_name="huber")
    assert difference(comparability(now), comparability(before)) == ""
    asked = process(training="harness", optimizer="Adam", recipe="optimizer=adam")
    assert difference(comparability(asked), comparability(now)).startswith(
        "recipe was not known, is optimizer=adam: "
    )
    other = process(training="model", optimizer="Adam", loss_name="mean_squared_error")
    same = process(training="model", optimizer="SGD", loss_name="huber")
    assert difference(comparability(other), comparability(same)) == ""  # a change of the code


EAGER = "model:run_functions_eagerly=True"


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ({}, {"state": EAGER}, "model:run_functions_eagerly was the default, is True, as the"),
        ({"state": EAGER}, {}, "model:run_functions_eagerly was True, is the default, as the"),
        ({}, {"training": "model"}, "training was harness, is model, as the model's own code"),
        (
            {},
            {"precision": "mixed_bfloat16", "asked": "precision=float32"},
            "precision was float32, is mixed_bfloat16",
        ),
        (
            {"threads": "1", "asked": "threads=default"},
            {"threads": "2", "asked": "threads=default"},
            "threads was 1, is 2",
        ),
    ],
)
def test_what_the_models_own_code_sets_keeps_its_anchor_but_has_no_history(
    store: Store, before: dict[str, Any], now: dict[str, Any], difference: str
) -> None:
    keep(store, run_of("0001", 0.0, **before))
    keep(store, run_of("0002", 0.0, **now))
    records = run_of("0003", 0.0, **now)
    by_accepted = accepted_history(store, MACHINE, records).cases
    by_name = named(store, "1", records).cases
    for (case,) in (by_accepted.values(), by_name.values()):
        assert case.anchor is not None
        assert (case.anchor.run, case.runs) == ("0001", ())
        assert case.difference.startswith(difference)
    for found in (accepted_history(store, MACHINE, records), named(store, "1", records)):
        assert found.absent == ()  # it ran, by another name


STATES = [
    (
        "ONEDNN_VERBOSE=1",
        None,
        "ONEDNN_VERBOSE was 1, is the default: `convmark ab --set-a ONEDNN_VERBOSE=1 --models "
        "lenet5 --tasks train --batch-sizes 32` where ONEDNN_VERBOSE is not set compares them live",
    ),
    (
        "KMP_BLOCKTIME=0 cpu_quota=2",
        "KMP_BLOCKTIME='1 s' cpu_quota=2",
        "KMP_BLOCKTIME was 0, is 1 s: `convmark ab --set-a KMP_BLOCKTIME=0 --set-b "
        "'KMP_BLOCKTIME=1 s' --models lenet5 --tasks train --batch-sizes 32` compares them live",
    ),
    (
        None,
        f"cpu_quota=1.5 {EAGER}",
        "cpu_quota was the default, is 1.5: `convmark report` shows them side by side",
    ),
]


@pytest.mark.parametrize(("before", "now", "message"), STATES)
def test_an_inherited_difference_is_not_compared_and_its_pair_is_named(
    store: Store, before: str | None, now: str | None, message: str
) -> None:
    keep(store, run_of("0001", 0.0, state=before))
    (case,) = accepted_history(store, MACHINE, run_of("0002", 0.0, state=now)).cases.values()
    assert (case.anchor, case.runs, case.difference) == (None, (), message)


def test_runs_of_another_inherited_state_are_not_read_once_they_are_known(
    store: Store, read_in_full: list[str]
) -> None:
    for number in range(1, 31):
        keep(store, run_of(f"{number:04d}", 0.0, state="cpu_quota=1"))
    keep(store, run_of("0031", 0.0))
    assert found(store, run_of("0032", 0.0)) == ["0031"]
    assert read_in_full == ["0031"]


def test_after_an_upgrade_the_first_run_under_it_is_the_anchor(store: Store) -> None:
    keep(store, run_of("0001", 0.0, tensorflow="2.20.0"))
    keep(store, run_of("0002", 0.0))
    keep(store, run_of("0003", 0.0, tensorflow="2.20.0"))
    assert found(store, run_of("0004", 0.0)) == ["0002"]
    assert found(store, run_of("0004", 0.0, tensorflow="2.20.0")) == ["0001", "0003"]


def test_a_driver_counts_for_the_cases_on_the_gpu_alone(store: Store) -> None:
    gpu = "lenet5-train-gpu:0-b32-float32"
    before = run_of("0001", 0.0, device="gpu:0", driver="550.1")
    keep(store, [*run_of("0001", 0.0), *before])
    now = [*run_of("0002", 0.0), *run_of("0002", 0.0, device="gpu:0", driver="560.2")]
    cases = accepted_history(store, MACHINE, now).cases
    assert len(cases[LENET].runs) == 1
    assert cases[gpu].difference.startswith("driver was 550.1, is 560.2")


# Named


def test_a_named_run_is_the_only_baseline(store: Store) -> None:
    for rows in at(A_COMMIT, "0001", "0002"):
        keep(store, rows)
    keep(store, run_of("0003", 0.0, commit=ANOTHER_COMMIT))
    now = run_of("0004", 0.0)
    for name in ("0003", "3", ANOTHER_COMMIT[:9], str(store.folder / MACHINE / "0003.csv")):
        case = named(store, name, now).cases[LENET]
        assert [rows[0].run for rows in case.runs] == ["0003"]
        assert case.anchor is not None
        assert case.anchor.commit == ANOTHER_COMMIT


BAD_FILES = [
    ("", "must hold a run's rows, it is empty"),
    ("schema\nx\n", f":1: must have the columns of schema {SCHEMA_VERSION}"),
    ("schema\n9\n", f":2: must be of schema 2 to {SCHEMA_VERSION}, got '9'; a later convmark"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_a_named_run_that_cannot_be_read_is_an_error_that_names_it(
    store: Store, text: str, message: str
) -> None:
    keep(store, run_of("0001", 0.0)).write_text(text)
    with pytest.raises(StoreError, match=r"0001\.csv") as refused:
        named(store, "0001", run_of("0002", 0.0))
    assert message in str(refused.value)


def test_a_named_run_must_be_there_and_hold_figures(store: Store) -> None:
    keep(store, [process(run="0001", status="timeout", error="hung")])
    with pytest.raises(StoreError, match=r"0001\.csv: must have a measured row"):
        named(store, "0001", run_of("0002", 0.0))
    with pytest.raises(StoreError, match=r"no run '0009'; expected a file, a commit or the number"):
        named(store, "0009", run_of("0002", 0.0))


# Lazily


def test_no_more_than_ten_runs_under_a_like_load_are_read(
    store: Store, read_in_full: list[str]
) -> None:
    for number in range(1, 31):
        keep(store, run_of(f"{number:04d}", 0.0))
    runs = found(store, run_of("0031", 0.0))
    assert runs == ["0001", *(f"{number:04d}" for number in range(22, 31))]
    assert read_in_full == ["0001", *(f"{number:04d}" for number in range(30, 21, -1))]


def test_runs_of_another_version_are_quoted_from_the_index_and_not_read(
    store: Store, read_in_full: list[str]
) -> None:
    for number in range(1, 11):
        keep(store, run_of(f"{number:04d}", 0.0, tensorflow="2.20.0"))
    assert found(store, run_of("0011", 0.0)) == []
    assert read_in_full == []


def test_a_new_case_reads_one_run_in_full_for_the_cases_that_are_absent(
    store: Store, read_in_full: list[str]
) -> None:
    for number in range(1, 11):
        keep(store, run_of(f"{number:04d}", 0.0))
    name = "vgg16-train-cpu-b32-float32"
    assert found(store, run_of("0011", 0.0, model="vgg16"), name) == []
    assert read_in_full == ["0010"]


def test_a_run_without_figures_hides_no_absent_case(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    keep(store, [process(run="0002", status="crashed", error="killed")])
    (store.folder / MACHINE / "0003.csv").write_text("")
    with pytest.warns(StoreWarning):
        absent = accepted_history(store, MACHINE, run_of("0004", 0.0, model="vgg16")).absent
    assert [row.case.name for row in absent] == [LENET]


def test_an_unreadable_run_is_left_out_with_one_warning(store: Store) -> None:
    for rows in at(A_COMMIT, "0001", "0002", "0003", "0004"):
        keep(store, rows)
    (store.folder / MACHINE / "0003.csv").write_text("schema\n")
    (store.folder / MACHINE / "0004.csv").write_text("")
    with pytest.warns(StoreWarning) as caught:
        assert found(store, run_of("0005", 0.0)) == ["0001", "0002"]
    (warning,) = caught
    assert (
        "0004.csv:1: must hold a run's rows, it is empty; left out of the history, and 1 more"
        in (str(warning.message))
    )


def test_no_folder_is_no_history_and_no_warning(store: Store) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(store, run_of("0001", 0.0)) == []


# Accepting


def test_a_list_from_before_single_cases_is_read_and_goes_on(store: Store) -> None:
    for rows in at(A_COMMIT, "0001", "0002", "0003", parameters=1):
        keep(store, rows)
    path = store.folder / MACHINE / "accepted.csv"
    path.write_text("run,accepted,commit,reason\n0002,2026-01-02T03:04:05+00:00,,x\n")
    with pytest.raises(StoreError, match=r"accepted\.csv: has no column 'case', .*; move it away"):
        accept(store, MACHINE, "3", "wider", [LENET])
    accept(store, MACHINE, "0003", "all")
    assert [(one.run, one.case) for one in read_accepted(store, MACHINE)] == [
        ("0002", None),
        ("0003", None),
    ]


def test_a_broken_list_of_accepted_runs_is_an_error_by_file_and_line(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    accept(store, MACHINE, "0001", "because")
    path = store.folder / MACHINE / "accepted.csv"
    path.write_text(path.read_text() + ",2026,,x,\n")
    with pytest.raises(StoreError, match=r"accepted\.csv:3: column 'run' must not be empty"):
        found(store, run_of("0002", 0.0))


# The run itself


def test_a_commit_names_another_run_than_the_one_that_is_judged(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    own = keep(store, run_of("0002", 0.0))
    assert store.find(A_COMMIT, MACHINE).stem == "0002"
    assert store.find(A_COMMIT, MACHINE, but=own).stem == "0001"
    (store.folder / MACHINE / "0001.csv").unlink()
    with pytest.raises(StoreError, match="0002 is the run that is judged"):
        store.find(A_COMMIT, MACHINE, but=own)


def test_a_run_is_not_named_as_its_own_baseline_by_number_link_or_copy(
    store: Store, tmp_path: Path
) -> None:
    own = keep(store, run_of("0002", 0.0))
    link, copy = tmp_path / "link.csv", tmp_path / "copy.csv"
    link.symlink_to(own)
    copy.write_bytes(own.read_bytes())
    (tmp_path / "elsewhere").symlink_to(store.folder)
    for name in ("2", str(own), str(link), str(tmp_path / "elsewhere" / MACHINE / "0002.csv")):
        with pytest.raises(StoreError, match="is the run that is judged; name an earlier run"):
            store.find(name, MACHINE, but=own)
    with pytest.raises(StoreError, match=r"copy\.csv: has the run that is judged, run 0002"):
        named_history(copy, run_of("0002", 0.0))


def test_a_copy_of_the_run_in_the_folder_is_no_history_of_it(store: Store) -> None:
    own = keep(store, run_of("0003", 0.0))
    (store.folder / MACHINE / "0001.csv").write_bytes(own.read_bytes())
    (store.folder / MACHINE / "0002.csv").symlink_to(own)
    with pytest.warns(StoreWarning, match="must be the file's number"):
        assert found(store, run_of("0003", 0.0)) == []


def test_in_a_folder_of_another_name_the_file_tells_which_runs_are_earlier(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    own = keep(store, run_of("0002", 0.0))
    keep(store, run_of("0003", 0.0))
    renamed = own.parent.rename(store.folder / "ci")
    cases = accepted_history(store, "ci", run_of("0002", 0.0), own=renamed / own.name).cases
    assert [rows[0].run for rows in cases[LENET].runs] == ["0001"]
