"""The comment on a pull request, against a stand-in for GitHub on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from github_actions import NUMBER, REPOSITORY, TOKEN, GitHub, variables
from histories import A_COMMIT, MACHINE, keep, keep_said, run_of
from test_comment import QUIET, SLOWER

from convmark.cli import main
from convmark.results.store import Store

COMMENTS = f"/repos/{REPOSITORY}/issues/{NUMBER}/comments"
MARKER = "<!-- convmark comment benchmark/gate -->"
Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture
def github(tmp_path: Path, monkeypatch: Patch) -> Iterator[GitHub]:
    monkeypatch.chdir(tmp_path)
    keep(Store(Path("results")), run_of("0001", 0.0, 0.1))
    found(*[SLOWER, QUIET])
    with GitHub().serving() as github:
        for name, value in variables(github, tmp_path, A_COMMIT).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        yield github


def found(*judgements: object) -> None:
    """Have the run these verdicts."""
    keep_said(Path("results") / MACHINE, *judgements)  # type: ignore[arg-type]


def posted(capsys: Captured, status: int = 0) -> str:
    """Return what the command says, and hold that it never shows the token."""
    assert main(["comment", "--post"]) == status
    printed = capsys.readouterr()
    assert TOKEN not in printed.out + printed.err
    assert printed.out.startswith("**Benchmark gate ")
    return printed.err


def test_one_comment_is_posted_then_updated_and_at_last_says_that_nothing_has_changed(
    github: GitHub, capsys: Captured
) -> None:
    github.comment("a word of somebody's")
    assert posted(capsys) == "convmark comment: comment posted\n"
    assert posted(capsys) == "convmark comment: comment updated\n"
    found(QUIET)
    assert posted(capsys) == "convmark comment: comment updated\n"
    first, own = github.comments
    assert first["body"] == "a word of somebody's"
    assert own["body"].startswith(f"{MARKER}\n\n**Benchmark gate passed: no change was found; ")
    assert set(github.tokens) == {f"Bearer {TOKEN}"}


def test_nothing_is_posted_where_nothing_has_changed(github: GitHub, capsys: Captured) -> None:
    found(QUIET)
    assert posted(capsys) == "convmark comment: no change to report; not posted\n"
    assert github.comments == []


def test_the_comment_is_found_behind_many_others_and_never_in_another_s(
    github: GitHub, capsys: Captured
) -> None:
    github.comment(MARKER, kind="User", login="somebody")
    for number in range(150):
        github.comment(str(number))
    github.answers["GET /user"] = (403, {}, b"{}")
    assert posted(capsys) == "convmark comment: comment posted\n"
    assert posted(capsys) == "convmark comment: comment updated\n"
    assert len(github.comments) == 152
    assert github.comments[0]["body"] == MARKER
    github.comments.pop()
    github.answers["GET /user"] = (200, {}, b'{"login": "somebody"}')
    assert posted(capsys) == "convmark comment: comment updated\n"
    assert github.comments[0]["body"] != MARKER


def test_an_older_commit_s_job_does_not_overwrite_the_comment(
    github: GitHub, capsys: Captured
) -> None:
    github.head = "f" * 40
    assert posted(capsys) == (
        "convmark comment: the pull request is at ffffffffffff by now; not posted\n"
    )
    assert github.comments == []


def test_a_fork_and_a_job_without_a_token_print_alone(
    github: GitHub, capsys: Captured, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "")
    assert posted(capsys) == "convmark comment: not posted: GITHUB_TOKEN is not set\n"
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    variables(github, tmp_path, A_COMMIT, fork=True)
    assert "not posted: the pull request is from a fork" in posted(capsys)
    event = json.loads((tmp_path / "event.json").read_text())
    event["pull_request"]["head"]["repo"] = None  # the fork was deleted
    (tmp_path / "event.json").write_text(json.dumps(event))
    assert "not posted: the pull request is from a fork" in posted(capsys)
    assert github.asked == []


def test_a_token_that_may_only_read_is_no_error(github: GitHub, capsys: Captured) -> None:
    refusal = b'{"message": "Resource not accessible by integration"}'
    github.answers[f"POST {COMMENTS}"] = (403, {}, refusal)
    assert "not posted: POST " in posted(capsys)


def test_the_token_goes_nowhere_else_by_a_redirect(github: GitHub, capsys: Captured) -> None:
    with GitHub().serving() as other:
        for status in (301, 302, 307, 308):
            to = {"Location": f"{other.url}/x"}
            github.answers[f"GET {COMMENTS}"] = (status, to, b"")
            assert f"status {status}: " in posted(capsys, 2)
        assert other.asked == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (401, {}, b'{"message": "Bad credentials"}'),
            "status 401: Bad credentials; the job needs",
        ),
        ((500, {}, b"<html>"), "status 500: Internal Server Error"),
        ((200, {}, b"<html>"), "no answer: "),
        ((200, {}, b'[{"body": 1, "user": {}}]'), "convmark comment: comment posted"),
        ((200, {}, b'[{"id": 1}]'), "GitHub's answer has another form: KeyError('body')"),
    ],
)
def test_an_answer_that_is_none_is_one_line(
    github: GitHub, capsys: Captured, answer: tuple[int, dict[str, str], bytes], words: str
) -> None:
    github.answers[f"GET {COMMENTS}"] = answer
    said = posted(capsys, 0 if "posted" in words else 2)
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("GITHUB_API_URL", "http://api.example", "GITHUB_API_URL: must begin with https://"),
        ("GITHUB_API_URL", "http://127.0.0.1@api.example", "GITHUB_API_URL: must begin with"),
        ("GITHUB_API_URL", "http://[", "GITHUB_API_URL: must begin with https://"),
        ("GITHUB_API_URL", "http://127.0.0.1:9", "no answer: "),
        ("GITHUB_TOKEN", f"{TOKEN}\nX-Other: 1", "GITHUB_TOKEN: must be one word of ASCII"),
        ("GITHUB_REPOSITORY", "../../user", "GITHUB_REPOSITORY: must be OWNER/NAME"),
        ("GITHUB_EVENT_PATH", "nowhere", "GITHUB_EVENT_PATH: nowhere must be the event of a pull"),
    ],
)
def test_a_wrong_variable_is_refused_on_one_line(
    github: GitHub, capsys: Captured, monkeypatch: Patch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["comment", "--post"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert TOKEN not in said
    assert len(said.splitlines()) == 1
    assert github.asked == []
