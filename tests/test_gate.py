"""What is compared live: which code stands for the anchor, and what needs no comparison."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from histories import A_COMMIT, ANOTHER_COMMIT, run_of
from test_live import Compare, changed, compare, verdicts
from test_live import session as duet

from convmark.compare.judgement import (
    INTERRUPTED,
    ONE_GRAPH,
    SAME_CODE,
    SAME_GRAPH,
    LiveComparison,
    LiveSession,
)
from convmark.compare.live import ab_files, gate, live
from convmark.compare.live import session as live_session
from convmark.compare.live.anchor import AnchorCode, Origin, anchor_trees
from convmark.compare.live.case_result import (
    CaseResult,
    LiveOptions,
    note_unlike,
    only_in_rows,
)
from convmark.compare.live.gate import (
    Sides,
    compare_with_anchors,
    measured_files,
    same_as_today,
)
from convmark.compare.live.session import Pairing, Session
from convmark.compare.rule.decision import Decision
from convmark.compare.sessions_file import TABLE, keep_sessions
from convmark.core.case import Case
from convmark.core.errors import ConvmarkError
from convmark.core.interval import Interval
from convmark.core.statistics import Estimate
from convmark.results.code.manifest import Code as RanCode
from convmark.results.code.manifest import CodeFile, Place
from convmark.results.commit import Commit

__all__ = ["compare"]

CASE = Case(model="nets:small", task="train")
KEPT = AnchorCode(code="c1" * 10, manifest=Path("0001.code.json"))
OF_COMMIT = AnchorCode(commit=A_COMMIT)
HERE = Origin(repository=Path("here"), folder=Path(), is_zoo=False)
TERMS = LiveOptions(seed=0, seconds_left=lambda: 10.0, clock=lambda: 0.0, results=Path("results"))


class Code:
    """A code that is run as it is."""

    def settings(self, environ: Mapping[str, str]) -> dict[str, str]:
        return {}


OLD, TODAY = Code(), Code()


def decision(verdict: str, estimate: float | None = 0.0, sessions: int = 3) -> Decision:
    return Decision(
        verdict=verdict,  # type: ignore[arg-type] # one of them
        sessions=sessions,
        estimate=estimate,
        interval=Interval(-0.01, 0.01),
        smallest_visible=0.03,
        spread=0.01,
        freedom=9.0,
    )


class Made:
    """What was compared, and what is found each time."""

    def __init__(self) -> None:
        self.pairings: list[Pairing] = []
        self.terms: list[LiveOptions] = []
        self.opened: list[tuple[object, object]] = []
        self.said: list[str] = []
        self.finds = CaseResult(decision=decision("unchanged"))

    def compare_live(
        self, pairings: Sequence[Pairing], terms: LiveOptions, say: object
    ) -> list[CaseResult]:
        self.pairings += pairings
        self.terms.append(terms)
        return [self.finds for _ in pairings]

    @contextlib.contextmanager
    def trees(self, origin: Origin | None, anchor: object) -> Iterator[Any]:
        self.opened.append((origin, anchor))
        yield OLD, TODAY


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(gate, "compare_live", made.compare_live)
    monkeypatch.setattr(gate, "anchor_trees", made.trees)
    return made


def confirmed(
    anchor: AnchorCode,
    origin: Origin | None,
    cases: Sequence[Case] = (CASE,),
    say: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> dict[str, LiveComparison]:
    with contextlib.ExitStack() as stack:
        found = compare_with_anchors(
            dict.fromkeys(cases, ()),
            lambda case, origin: anchor,
            TERMS,
            say,
            **{
                "origin_of": lambda case: origin,
                "codes": {},
                "shared": lambda backend: f"of {backend}",
                "sides": Sides(lambda **_: contextlib.nullcontext(object()), (), stack),
                "expected_s": lambda case: 6.0,
                **settings,
            },
        )
    return {case.name: one for case, one in found.items()}


def test_the_kept_files_of_a_run_are_run_beside_today_without_any_repository(made: Made) -> None:
    found = confirmed(KEPT, None)[CASE.name]
    assert made.opened == [(None, KEPT)]
    (pairing,) = made.pairings
    assert (pairing.old.code, pairing.new.code) == (OLD, TODAY)
    assert pairing.shared == "of tensorflow"
    assert (found.anchor, found.reason) == ("the kept code c1c1c1c1c1c1", "")
    assert found.decision is not None


def test_cases_of_one_anchor_share_its_files_and_the_interpreters_for_lock_step(
    made: Made,
) -> None:
    cases = (CASE, Case(model="nets:small", task="infer"))
    said: list[str] = []
    found = confirmed(OF_COMMIT, HERE, cases, said.append)
    assert made.opened == [(HERE, OF_COMMIT)]
    one, other = made.pairings
    assert one.old.interpreter is other.old.interpreter is not one.new.interpreter
    assert one.new.interpreter is other.new.interpreter
    assert [found[case.name].anchor for case in cases] == [A_COMMIT[:12]] * 2
    assert said == [f"2 cases to compare live with {A_COMMIT[:12]}, at most 10 s"]
    (terms,) = made.terms
    assert (terms.seconds_left(), terms.results) == (10.0, Path("results"))


def test_the_announcement_names_what_it_is_compared_with_and_about_the_time() -> None:
    told = gate._announcement
    assert told(["abc"], 4.0, 600.0) == (
        "1 case to compare live with abc, about 15 s where step times are as before, "
        "about 1 min 10 s where all have changed"
    )
    assert told(["abc"], 4.0, 30.0).endswith("as before, at most 30 s where all have changed")
    assert told(["abc", "def"], 61.0, 60.0) == (
        "2 cases to compare live with the code of their anchors, at most 1 min"
    )


def test_the_layers_of_slower_cases_are_announced_where_the_budget_has_room_for_them() -> None:
    announced = gate._announcement(["abc"], 4.0, 600.0, 12.0)
    assert announced.endswith("; then about 12 s for the layers of each slower case")
    short = gate._announcement(["abc"], 4.0, 61.0, 12.0)
    assert short.endswith("; the budget may end before the layers of slower cases are measured")


def test_time_is_kept_for_layers_where_they_are_announced(made: Made) -> None:
    for layers_s, kept_s in ((4.0, 2.0), (8.0, 0.0)):  # of 10 s
        confirmed(OF_COMMIT, HERE, layers_s=layers_s, expected_s=lambda case: 0.25)
        assert made.terms[-1].layers_s == kept_s


def test_time_is_left_for_the_layers_of_a_slower_case_that_is_not_accepted(
    compare: Compare,
) -> None:
    models = {
        "lenet5": changed(0.2),
        "conv_layer": lambda number, noise: duet(0.2 * (-1) ** number),
    }
    spent = []
    accepted = {"layers_of": lambda case: case.model != "lenet5"}
    for layers_s, more in ((0.0, {}), (30.0, {}), (30.0, accepted)):
        kept = {"layers_s": layers_s, **more}
        found, duets = compare(models, apart={"lenet5": 0.2}, budget_s=120.0, **kept)
        assert verdicts(found) == ["regressed", "undecided"]
        spent.append(duets.now_s)
    assert spent == [119.0, 89.0, 119.0]


def test_what_cannot_be_run_beside_is_a_reason_and_no_comparison(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gate, "same_as_today", lambda *case: "same code")
        assert confirmed(OF_COMMIT, HERE)[CASE.name].reason == "same code"
    monkeypatch.setattr(gate, "anchor_trees", anchor_trees)
    assert confirmed(OF_COMMIT, None)[CASE.name].reason == "the model is in no git repository"
    assert confirmed(KEPT, HERE)[CASE.name].reason == (
        "0001.code.json: does not have the code c1c1c1c1c1c1c1c1c1c1"
    )
    assert (made.pairings, made.opened) == ([], [])


def test_a_question_is_asked_of_cases_that_are_compared_alone(made: Made) -> None:
    said: list[str] = []
    confirmed(OF_COMMIT, HERE, (), said.append, question="accepted: slower since?")
    assert said == []
    confirmed(OF_COMMIT, HERE, (CASE,), said.append, question="accepted: slower since?")
    assert said[0] == "1 case accepted: slower since?"


def test_a_case_that_needs_sessions_says_why_its_graph_did_not_tell(made: Made) -> None:
    def why(wall: float, *graphs: str) -> str:
        found = CaseResult()
        found.look_at_graphs(of_graphs(wall, *graphs))
        return found.why_timed

    assert why(0.0, "a", "a") == ""
    assert why(0.0, "a", "b") == "other graph"
    assert why(0.3, "a", "a") == ONE_GRAPH
    assert why(0.0, "a") == why(0.0) == "no graph tells what its step does"
    made.finds = CaseResult(decision=decision("unchanged"), why_timed="other graph")
    assert confirmed(OF_COMMIT, HERE)[CASE.name].reason == "other graph"
    made.finds = CaseResult(decision=decision("undecided"), needs_s=8.0, why_timed=ONE_GRAPH)
    assert confirmed(OF_COMMIT, HERE)[CASE.name].reason == f"{SPENT}; {ONE_GRAPH}"


def test_a_check_that_tells_neither_from_0_nor_from_the_change_is_called_too_noisy() -> None:
    def told(*checked: float) -> str:
        found = CaseResult(decision=decision("regressed", 0.11), checked=list(checked))
        return found.separate[0]

    assert told(-0.6, 0.3, -0.9) == "separate processes are too noisy to tell (-45.1 %)"
    assert told(0.12, 0.13, 0.14).startswith("separate processes +13.9 %, within the noise of both")
    assert told(0.02, 0.03, 0.04).startswith("separate processes +3.0 %, within the noise of both")


def of_graphs(wall: float, *graphs: str) -> Session:
    both = dict(zip(("old", "new"), graphs, strict=False))
    return Session(wall=Estimate(value=wall, error=0.01), graphs=both)


@pytest.mark.parametrize(
    ("walls", "looks"),
    [
        ((0.04, 0.3), 1),
        ((0.118, -0.016, 0.02, -0.01), 4),  # the noise of the first does not keep it open
        ((-0.097, 0.01), 2),
        ((0.118, -0.016, 0.0), 0),  # it is not looked at after three
        ((0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0), 8),
        ((0.1,) * 16, 0),
    ],
)
def test_one_graph_is_looked_at_again_as_sessions_come_and_their_median_decides(
    walls: Sequence[float], looks: int
) -> None:
    found, taken = CaseResult(), 0
    for wall in walls:
        found.look_at_graphs(of_graphs(wall, *(() if found.live else "aa")))  # the first tells
        taken += 1
        if found.same:
            break
        found.live.append(LiveSession(wall=wall, cpu=None, seconds=2.0))
    assert (found.same, found.why_timed) == (("same graph", "") if looks else ("", ONE_GRAPH))
    assert taken == (looks or len(walls))


def test_time_left_does_not_grow_without_a_word() -> None:
    terms = replace(TERMS, seconds_left=lambda: 600.0)
    running = live._Running((), terms, print, Mock(), Mock())
    told = [running._time_left([Mock(expected_s=lambda *_: one)]) for one in (60.0, 50.0, 900.0)]  # noqa: B023
    why = " (longer than thought: step times vary more, or differ)"
    assert told == [", about 1 min left", ", about 50 s left", f", at most 10 min left{why}"]


SPENT = (
    "budget spent: about 8 s more would decide: run it again, which takes these sessions along, or "
    "try a larger --convmark-compare-budget"
)


@pytest.mark.parametrize(
    ("finds", "verdict", "reason"),
    [
        ({"decision": decision("regressed", 0.08)}, "regressed", ""),
        (
            {"decision": decision("unchanged"), "apart": "it sets threads"},
            "unchanged",
            "in a process each: it sets threads",
        ),
        ({"decision": decision("undecided"), "needs_s": 8.0}, "undecided", SPENT),
        (
            {"decision": decision("undecided")},
            "undecided",
            "budget spent: more time would most likely not decide",
        ),
        (
            {"decision": decision("undecided", None, 1)},
            None,
            SPENT.replace("about 8 s more would decide", "one session tells no change"),
        ),
        ({"decision": decision("unchanged"), "closed": "it died"}, "unchanged", ""),
        ({"decision": decision("undecided"), "closed": "it died"}, "undecided", "it died"),
        ({"decision": decision("undecided", None, 0), "closed": "it died"}, None, "it died"),
        ({"decision": decision("undecided", None, 0), "same": SAME_CODE}, None, "same code"),
        ({"decision": decision("undecided", None, 0), "same": "same graph"}, None, "same graph"),
    ],
)
def test_what_the_sessions_found_is_what_is_confirmed(
    made: Made, finds: dict[str, Any], verdict: str | None, reason: str
) -> None:
    made.finds = CaseResult(sizes={"old": {"parameters": 3}}, **finds)
    found = confirmed(OF_COMMIT, HERE)[CASE.name]
    assert found.reason == reason
    assert (found.decision and found.decision.verdict) == verdict
    assert found.sizes == {"parameters": 3}  # another model is known after one session


def test_one_session_is_kept_for_the_next_run_as_its_reason_promises(
    made: Made, tmp_path: Path
) -> None:
    session = LiveSession(wall=0.01, cpu=None, seconds=2.0)
    made.finds = CaseResult(
        decision=decision("undecided", None, 1), live=[session], codes=("c1", "c2"), needs_s=8.0
    )
    found = confirmed(OF_COMMIT, HERE)
    keep_sessions(
        tmp_path / "0001.csv", found.items(), {CASE.name: run_of("0001", 0.0, code="c2")[0]}
    )
    (kept,) = TABLE.of(tmp_path / "0001.csv")
    assert (kept.wall, kept.decided) == (0.01, False)


def test_what_the_user_has_ended_is_known_whatever_else_its_reason_says(made: Made) -> None:
    undecided = decision("undecided")
    for apart in ("", "it sets threads"):
        made.finds = CaseResult(decision=undecided, closed=INTERRUPTED, apart=apart)
        assert confirmed(OF_COMMIT, HERE)[CASE.name].interrupted
    made.finds = CaseResult(
        decision=decision("regressed"), closed=INTERRUPTED, not_checked=INTERRUPTED
    )
    found = confirmed(OF_COMMIT, HERE)[CASE.name]
    assert found.interrupted
    assert found.reason == "interrupted; not checked: interrupted"
    made.finds = CaseResult(decision=undecided, closed="it died")
    assert not confirmed(OF_COMMIT, HERE)[CASE.name].interrupted


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
        (OF_COMMIT, {"commit": None}, (A_COMMIT, False), ""),  # what ran is not known
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
    assert same_as_today(rows, HERE, anchor, commit_of, {}) == says
    assert same_as_today([], HERE, anchor, commit_of, {}) == ""


def test_git_does_not_speak_for_a_process_whose_hash_says_that_no_commit_has_its_code() -> None:
    rows = [*run_of("0002", 0.0), *run_of("0002", 0.0, code="c2", commit=None)]
    clean = Commit(sha=A_COMMIT, dirty=False)
    assert same_as_today(rows, HERE, OF_COMMIT, lambda repository: clean, {}) == ""
    assert same_as_today(rows[:1], HERE, OF_COMMIT, lambda repository: clean, {}) == "same commit"


def test_another_copy_of_the_repository_s_own_files_is_never_the_same_code(
    tmp_path: Path,
) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mynets"\n')
    for arguments in (
        ["init", "-q"],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "one"],
        ["worktree", "add", "-q", "--detach", "second"],
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    second = {".": str(tmp_path), "second": str(tmp_path / "second")}
    origin = Origin(repository=tmp_path, folder=Path(), is_zoo=False)
    for packages, roots, says in (
        ({"other": "1.0"}, {}, SAME_CODE),
        ({"mynets": "1.0"}, {}, ""),
        ({}, second, ""),
    ):
        code = RanCode(files=(), packages=packages, roots=roots)
        rows = run_of("0002", 0.0, 0.0, code=code.hash)
        anchor = AnchorCode(commit=A_COMMIT, code=code.hash)
        found = same_as_today(rows, origin, anchor, not_asked, {code.hash: code})
        assert found == says


def test_the_code_of_another_clone_than_the_user_stands_in_is_never_the_same_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edits in the clone that the user stands in have not run."""
    named = ("-c", "user.name=n", "-c", "user.email=e")
    for arguments in (
        ["init", "-q", "installed"],
        [*named, "-C", "installed", "commit", "-q", "--allow-empty", "-m", "one"],
        ["clone", "-q", "installed", "mine"],
    ):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    installed = tmp_path / "installed"
    (installed / "net.py").write_text("")
    origin = Origin(repository=installed, folder=Path(), is_zoo=False)
    rows = run_of("0002", 0.0, 0.0, code="c1")
    for folder, says in ((installed, SAME_CODE), (tmp_path, SAME_CODE), (tmp_path / "mine", "")):
        monkeypatch.chdir(folder)
        anchor = AnchorCode(commit=A_COMMIT, code="c1")
        assert same_as_today(rows, origin, anchor, not_asked, {}) == says


def test_a_file_that_was_edited_between_two_processes_counts_as_the_first_has_run_it() -> None:
    """So that the sessions, which run the second, leave the case without a verdict."""
    codes = {}
    for content in ("first", "second"):
        file = CodeFile(place=Place(".", "net.py"), sha256=content, size_bytes=1)
        code = RanCode(files=(file,), packages={}, roots={".": "/models"})
        codes[code.hash] = code
    rows = [row for code in codes for row in run_of("0002", 0.0, code=code)]
    assert measured_files(rows, codes) == {"/models/net.py": "first"}


def not_asked(repository: Path) -> Commit:
    raise AssertionError(repository)


def test_what_the_two_steps_differ_in_beside_their_time_is_noted() -> None:
    case, found = Case(model="m", task="infer", batch_size=1), CaseResult()
    alike = {"precision": "float32", "threads": "default"}
    old = {**alike, "call_path": "eager", "settings": {"gc": "False"}}
    new = {**alike, "call_path": "eager, torch.jit inside", "settings": {"xla_jit": "True"}}
    note_unlike({live_session.OLD: old, live_session.NEW: new}, found, case, case)
    assert found.unlike == (
        "call path differs: eager and eager, torch.jit inside; the new code sets xla_jit=True; "
        "the old code sets gc=False"
    )
    told = CaseResult()
    note_unlike({live_session.OLD: old, live_session.NEW: old}, told, case, case)
    assert told.unlike == ""


def test_what_differs_is_noted_of_an_undecided_case_too(made: Made) -> None:
    made.finds = CaseResult(
        decision=decision("undecided", None, 0), unlike="threads differs: default and 1"
    )
    found = confirmed(KEPT, None)[CASE.name]
    assert found.decision is None
    assert found.reason.endswith("; threads differs: default and 1")


def test_what_the_run_alone_has_read_is_named_and_is_no_same_code_or_graph(
    compare: Compare,
) -> None:
    """Of two codes of one hash, or one graph, the run may have run a third one."""
    models = {
        "lenet5": lambda number, noise: replace(duet(0.0, noise), graphs={"old": "g", "new": "g"}),
        "conv_layer": lambda number, noise: duet(0.0, noise, ("c1", "c1")),
    }
    told = "the run also read /nets/fast.json, the comparison did not"
    fast = {"measured": {"/nets/fast.json": "1"}}
    for measured, same, lack in (
        ({}, [SAME_GRAPH, SAME_CODE], ""),
        (fast, ["", ""], told),
        ({**fast, "measured_alone": False}, [SAME_GRAPH, SAME_CODE], ""),  # of --isolation none
    ):
        found, _ = compare(models, measured=measured)
        assert [(one.same, one.lack) for one in found] == [(one, lack) for one in same]
        assert [one.verdict("")[0] for one in found] == ["unchanged"] * 2
    by_the_other_side = [{"files": [{"path": "/nets/fast.json"}]}, {"files": []}]
    assert only_in_rows({"/nets/fast.json": "1"}, by_the_other_side) == ""


def test_the_note_says_why_code_that_may_be_equal_was_timed(compare: Compare) -> None:
    def reads_late(number: int, noise: random.Random) -> Session:
        found = duet(0.0, noise, ("c1", "c1"))
        late = {"hash": "c1", "missed": "later.npy was opened after the first step"}
        return replace(found, codes={**found.codes, "new": late})

    (found,), _ = compare({"lenet5": reads_late})
    found.lack = "today's code reads x.npy, which no commit has"
    told = "not known what {} ran: later.npy was opened after the first step"
    assert gate._comparison(found, "0123").reason.endswith(
        f"{found.lack}; {told.format('the new code')}"
    )
    assert f"{found.lack}; {told.format('B')}" in ab_files.verdict_fields(found)["note"]
