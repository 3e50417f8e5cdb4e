"""What is compared live: which code stands for the anchor, and what needs no comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from histories import A_COMMIT, ANOTHER_COMMIT, run_of

from convmark.case import Case
from convmark.commit import Commit
from convmark.errors import ConvmarkError
from convmark.judging.confirm import Clocks, Decision
from convmark.judging.judgement import Confirmation
from convmark.lockstep import confirmation
from convmark.lockstep.anchor import AnchorCode, Beside, Origin
from convmark.lockstep.confirmation import Limits, confirm, same_as_today
from convmark.lockstep.engine import Comparison, Side

CASE = Case(model="nets:small", task="train")
KEPT = AnchorCode(code="c1" * 10, manifest=Path("0001.code.json"))
OF_COMMIT = AnchorCode(commit=A_COMMIT)
HERE = Origin(repository=Path("here"), folder=Path(), is_zoo=False)
LIMITS = Limits(seed=0, warm_up_s=0.1, budget_s=10.0)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[Side]:
    """The old sides of the comparisons that were made, each of which finds no change."""
    decision = Decision(
        verdict="unchanged", estimate=0.0, low=-0.01, high=0.01, smallest_visible=0.03
    )
    clocks = Clocks(decision=decision, decided_by="wall", wall=decision, cpu=decision)
    sides: list[Side] = []

    def compare(old: Side, *arguments: object, **settings: object) -> Comparison:
        sides.append(old)
        return Comparison(clocks=clocks, wall=(), cpu=(), reason="", sizes={})

    monkeypatch.setattr(confirmation, "compare", compare)
    return sides


def confirmed(anchor: AnchorCode, origin: Origin | None, **settings: Any) -> Confirmation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confirmation, "origin_of", lambda case, sources: origin)
        found = confirm(
            [CASE],
            lambda case, origin: anchor,
            {},
            lambda **keywords: None,  # type: ignore[arg-type, return-value] # nothing is started
            LIMITS,
            lambda: 0.0,
            **{"is_same": lambda case, origin, anchor: "", **settings},
        )
    return found[CASE.name]


BOTH = (Beside("old", None), Beside("new", None))  # type: ignore[arg-type] # nothing is started


def test_the_kept_files_of_a_run_are_run_beside_today_without_any_repository(
    compared: list[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[object, AnchorCode]] = []

    @contextlib.contextmanager
    def beside_kept(origin: Origin | None, anchor: AnchorCode, make: Any) -> Iterator[Any]:
        opened.append((origin, anchor))
        yield BOTH

    monkeypatch.setattr(confirmation, "beside_kept", beside_kept)
    found = confirmed(KEPT, None)
    assert opened == [(None, KEPT)]
    assert [side.interpreter for side in compared] == ["old"]
    assert (found.anchor, found.reason) == ("the kept code c1c1c1c1c1c1", "")
    assert found.decision is not None


def test_a_commit_is_run_from_its_repository(
    compared: list[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[object, str]] = []

    @contextlib.contextmanager
    def beside(origin: Origin, commit: str, make: Any) -> Iterator[Any]:
        opened.append((origin, commit))
        yield BOTH

    monkeypatch.setattr(confirmation, "beside", beside)
    found = confirmed(OF_COMMIT, HERE)
    assert opened == [(HERE, A_COMMIT)]
    assert found.anchor == A_COMMIT[:12]


def test_what_cannot_be_run_beside_is_a_reason_and_no_comparison(compared: list[Side]) -> None:
    assert confirmed(OF_COMMIT, None).reason == "the model is in no git repository"
    assert confirmed(KEPT, HERE).reason == (
        "0001.code.json: does not have the code c1c1c1c1c1c1c1c1c1c1"
    )
    assert confirmed(OF_COMMIT, HERE, is_same=lambda *case: "same code").reason == "same code"
    assert compared == []


def test_an_anchor_is_a_commit_or_a_hash_with_its_manifest() -> None:
    for nothing in ({}, {"code": "c1"}, {"manifest": Path("0001.code.json")}):
        with pytest.raises(ConvmarkError, match="must be a commit, or a hash with its manifest"):
            AnchorCode(**nothing)  # type: ignore[arg-type] # as a caller might


@pytest.mark.parametrize(
    ("anchor", "row", "today", "says"),
    [
        (KEPT, {"code": KEPT.code}, None, "same code"),
        (KEPT, {"code": "c2"}, (A_COMMIT, False), ""),
        (AnchorCode(commit=A_COMMIT, code="c1"), {"code": "c2"}, (A_COMMIT, False), ""),
        (OF_COMMIT, {"code": "c2"}, None, "same commit"),
        (OF_COMMIT, {"code": "c2", "commit": None}, (A_COMMIT, False), ""),
        (OF_COMMIT, {"code": "c2", "dirty": True}, None, "same commit"),  # edits elsewhere
        (OF_COMMIT, {"code": "c2", "commit": ANOTHER_COMMIT}, (A_COMMIT, False), ""),
        (OF_COMMIT, {}, (A_COMMIT, False), "same commit"),
        (OF_COMMIT, {}, (A_COMMIT, True), ""),
        (OF_COMMIT, {}, (ANOTHER_COMMIT, False), ""),
        (KEPT, {}, (A_COMMIT, False), ""),
    ],
)
def test_the_hash_says_whether_code_is_the_same_and_git_only_where_there_is_none(
    anchor: AnchorCode, row: dict[str, Any], today: tuple[str, bool] | None, says: str
) -> None:
    def commit_of(repository: Path) -> Commit:
        assert today is not None, "git is not asked"
        return Commit(sha=today[0], dirty=today[1])

    rows = run_of("0002", 0.0, 0.0, **row)
    assert same_as_today(rows, HERE, anchor, commit_of) == says
    assert same_as_today([], HERE, anchor, commit_of) == ""
