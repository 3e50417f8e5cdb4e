"""The list of accepted runs: what is appended to it, and what is refused."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from histories import A_COMMIT, MACHINE, keep, process, run_of

from convmark.compare.files import Acceptance, accept, read_accepted
from convmark.compare.history import accepted_history
from convmark.core.errors import OptionError, StoreError
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
RESNET = "mini_resnet-train-cpu-b32-float32"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def test_accepting_appends_run_time_commit_and_reason(store: Store) -> None:
    keep(store, run_of("0001", 0.0))
    keep(store, run_of("0002", 0.0, commit=None, dirty=None))
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    accept(store, MACHINE, "1", "  -3 %,\n as planned ", now=lambda: moment)
    accept(store, MACHINE, "0002", "new machine room", now=lambda: moment)
    path = store.folder / MACHINE / "accepted.csv"
    assert path.read_text() == (
        "run,accepted,commit,reason,case\n"
        f'0001,2026-01-02T03:04:05+00:00,{A_COMMIT},"\'-3 %, as planned",\n'
        "0002,2026-01-02T03:04:05+00:00,,new machine room,\n"
    )
    first, second = read_accepted(store, MACHINE)
    assert first.reason == "-3 %, as planned"
    assert second == Acceptance(
        run="0002", accepted="2026-01-02T03:04:05+00:00", commit=None, reason="new machine room"
    )
    assert [run.stem for run in store.runs(MACHINE)] == ["0001", "0002"]


def test_a_case_that_is_accepted_alone_leaves_the_anchors_of_the_others(store: Store) -> None:
    for run in ("0001", "0002", "0003"):
        keep(store, [*run_of(run, 0.0), *run_of(run, 0.0, model="mini_resnet")])
    accept(store, MACHINE, "2", "both")
    done = accept(store, MACHINE, "3", "wider", ["lenet5-*", LENET])
    assert [one.case for one in done] == [LENET]
    now = [*run_of("0004", 0.0), *run_of("0004", 0.0, model="mini_resnet")]
    cases = accepted_history(store, MACHINE, now).cases
    anchors = {name: case.anchor.run for name, case in cases.items() if case.anchor}
    assert anchors == {LENET: "0003", RESNET: "0002"}
    with pytest.raises(OptionError, match=r"--case: must match a case of the run, got 'lenet5'; "):
        accept(store, MACHINE, "3", "wider", [RESNET, "lenet5"])
    assert len(read_accepted(store, MACHINE)) == 2


def test_what_cannot_be_accepted_is_refused(store: Store) -> None:
    keep(store, [process(run="0001", status="error", error="x")])
    path = keep(store, run_of("0002", 0.0))
    elsewhere = path.rename(store.folder / "0002.csv")
    with pytest.raises(OptionError, match="--reason: must give"):
        accept(store, MACHINE, "0001", " \n")
    with pytest.raises(StoreError, match=r"0001\.csv: must have a measured row to be accepted"):
        accept(store, MACHINE, "0001", "because")
    with pytest.raises(StoreError, match="no run '0002'"):
        accept(store, MACHINE, "0002", "because")
    with pytest.raises(StoreError, match="must be a run in"):
        accept(store, MACHINE, str(elsewhere), "because")
    assert read_accepted(store, MACHINE) == []
