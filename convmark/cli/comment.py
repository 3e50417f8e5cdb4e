"""`convmark comment`: the verdicts of the newest run as a comment on a pull request."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convmark.cli.command import EXIT_OK, sayer
from convmark.compare.files import read_verdicts
from convmark.compare.intended import pass_accepted
from convmark.compare.judgement import is_interrupted
from convmark.core.errors import OptionError, StoreError
from convmark.core.files import read_regular, write_output, writing
from convmark.core.option_values import choice_of
from convmark.core.options import Options
from convmark.report.comment import Gate, badge_text, comment_text
from convmark.report.pull_request import PullRequest, post
from convmark.report.verdicts import run_words
from convmark.results.names import check_output
from convmark.results.reading import read_head
from convmark.results.record import Record
from convmark.results.store import newest_run

OUTCOMES = ("success", "failure")

_say = sayer("convmark comment")


def comment(given: argparse.Namespace, options: Options) -> int:
    """Print the comment, write the badge, and post where that is asked for and possible.

    Raises:
        OptionError: an option breaks its rule, or the run is not that of the gate.
        StoreError: there is no run with verdicts, a file does not fit, or the badge cannot be
            written.
        PullRequestError: GitHub cannot be reached, or refuses.
    """
    if given.outcome is not None:
        choice_of(OUTCOMES)("--outcome", given.outcome)
    if given.badge is not None:
        _check_badge(given.badge)
    pull = PullRequest.of(os.environ)
    place = Path(given.place or options.results)
    try:
        gate = _gate(place, given.outcome, _Workflow.of(pull, os.environ))
    except (OptionError, StoreError) as error:
        if given.badge is None:
            raise
        stays = "stays as it was" if Path(given.badge).exists() else "is not written"
        raise type(error)(f"{error}; {given.badge} {stays}") from None
    text = comment_text(gate)
    print(text, flush=True)
    if given.badge is not None:
        with writing(f"--badge: {given.badge}"):
            write_output(Path(given.badge), f"{badge_text(gate)}\n".encode())
    if given.post:  # which may fail
        _say(_posted(gate, text, pull, os.environ))
    return EXIT_OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workflow:
    """What a run of this workflow may be known by."""

    commits: Sequence[str]
    """Those that it may be of; none outside a workflow, where any run will do."""
    attempt: str
    """The name of the results folder of this attempt alone; empty where it is not known."""

    @classmethod
    def of(cls, pull: PullRequest | None, environ: Mapping[str, str]) -> _Workflow:
        found = (pull.head if pull else "", environ.get("GITHUB_SHA", ""))
        number, attempt = (environ.get(f"GITHUB_RUN_{name}", "") for name in ("ID", "ATTEMPT"))
        return cls(
            commits=[commit for commit in found if commit],
            attempt=f"{number}-{attempt}" if number and attempt else "",
        )

    def hold(self, path: Path, head: Record) -> None:
        """Refuse a run that may be another workflow's."""
        if not self.commits or head.commit in self.commits:
            return
        again = "run pytest with --benchmark-compare before, in the same job"
        folder = path.resolve().parent.parent
        run = f"{folder}: run {path.stem}"
        if head.commit:
            raise OptionError(
                f"{run} is of commit {head.commit[:12]}, the workflow of "
                f"{self.commits[0][:12]}; {again}"
            )
        if not self.attempt or folder.name != self.attempt:
            raise OptionError(
                f"{run} has no commit, so the folder must have the name "
                f"{self.attempt or 'GITHUB_RUN_ID-GITHUB_RUN_ATTEMPT'} of this workflow's run; "
                f"{again} and with --convmark-results=FOLDER/NAME"
            )


def _gate(place: Path, outcome: str | None, workflow: _Workflow) -> Gate:
    try:
        return _found(place, outcome, workflow)
    except (OptionError, StoreError):
        if outcome != "failure":
            raise
        return Gate(head=workflow.commits[0][:12] if workflow.commits else "", passed=False)


def _found(place: Path, outcome: str | None, workflow: _Workflow) -> Gate:
    path = newest_run([place])
    head = read_head(path) if path is not None else None
    if path is None or head is None:
        raise StoreError(f"{place}: must have the rows of a run, but it has none")
    workflow.hold(path, head)
    judgements = read_verdicts(path)
    if not judgements:
        raise StoreError(
            f"{path}: has no verdicts; `pytest bench --benchmark-compare=git:REF` makes them"
        )
    judgements = pass_accepted(judgements, path, [head.commit])
    failing = any(one.fails for one in judgements)
    if failing and outcome == "success":
        raise OptionError(f"--outcome success: run {path.stem} in {place} has cases that fail")
    interrupted = is_interrupted(judgements)
    if interrupted and outcome == "success":
        raise OptionError(f"--outcome success: run {path.stem} in {place} was interrupted")
    passed = outcome == "success" if outcome else not (failing or interrupted)
    words = run_words(path.stem, head.commit, head.dirty)
    return Gate(
        judgements,
        head=words if head.dirty or not head.commit else head.commit[:12],
        passed=passed,
    )


def _posted(gate: Gate, text: str, pull: PullRequest | None, environ: Mapping[str, str]) -> str:
    """Post the comment where that is possible, and say what was done."""
    if pull is None:
        return "not posted: the workflow does not run for a pull request"
    if pull.from_fork:
        return "not posted: the pull request is from a fork, whose workflow may not write"
    if not environ.get("GITHUB_TOKEN"):
        return "not posted: GITHUB_TOKEN is not set"
    return post(pull, text, environ, is_news=gate.has_news)


def _check_badge(name: str) -> None:
    """Refuse to write over a file that is no badge."""
    check_output("--badge", Path(name), (".json",))
    try:
        path = Path(name).resolve()
        there = not name.strip() or path.exists()
        held = json.loads(read_regular(path)) if there else {"schemaVersion": 1}
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or "schemaVersion" not in held:
        raise OptionError(f"--badge: must be a new file or a badge, got {name!r}")
