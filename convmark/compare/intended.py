"""Intended changes: who accepts them, and which failures pass because of them.

The sizes of a model that differ, and its precision, are another model's, and fail the case until
the change is meant. A change of a case is meant where `--allow-change` names the case, or a trailer
of a commit that the anchor has not:

    Benchmark-Accept: lenet5-*, mini_resnet-train-*

What a case cannot say of itself is never meant: an error, a time limit, a missing case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Any

from convmark.compare.accepted_code import held_to, is_open, slower_since, with_followers
from convmark.compare.earlier import by_name
from convmark.compare.files import VERDICT_TABLE, Acceptance, accepted_of, verdicts_path
from convmark.compare.history import History, anchor_of
from convmark.compare.judgement import PRECISION, SIZES, Judgement, LiveComparison, joined
from convmark.compare.live.worktree import merged
from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.git import SHOWN, Git, GitError
from convmark.core.text import change_text, counted, plain_text
from convmark.results.record import Record

TRAILER = "Benchmark-Accept"
BY_COMMIT = "accepted by commit"
_WITH = ", and so is what "
"""After what one trailer let pass that stood before other commits."""
_LINE = "> "
_FORMAT = f"--format={_LINE}%H %(trailers:key={TRAILER},valueonly,unfold,separator=%x2C)"

Names = Mapping[str, Collection[str]]
"""By the name of a case that ran, the names that a pattern may match: of what was asked for too."""


MOST_LETTERS = 150
"""Of the names in the line that is proposed."""
_END = 60
"""Of either end of a name that is longer."""


def trailer_line(cases: Sequence[str]) -> tuple[str, int]:
    """Return the line in a commit that accepts the cases, and how many have no room in it."""
    patterns = list(map(_pattern, cases))
    found = (patterns[:n] for n in range(len(cases), 1, -1))
    named = next((one for one in found if len(", ".join(one)) <= MOST_LETTERS), patterns[:1])
    return f"{TRAILER}: {', '.join(named)}", len(cases) - len(named)


def _pattern(case: str) -> str:
    """Return what a line names a case by: its ends where it is too long for a comment.

    A name may have what is a pattern's, and what a line or a comment's code has a use for.
    """
    ends = [case] if len(case) <= MOST_LETTERS else [case[:_END], case[-_END:]]
    return "*".join(re.sub(r"[,|`]", "?", re.sub(r"[*?[]", r"[\g<0>]", end)) for end in ends)


def changed_sizes(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Return the one judgement by which a case fails whose sizes have changed, listing them."""
    changed = [one for one in judgements if one.verdict == "changed"]
    note = ", ".join(
        f"{one.metric.replace('_', ' ')} {one.baseline:,.0f} -> {one.value:,.0f}" for one in changed
    ).replace("flops", "FLOPs")
    nothing: dict[str, Any] = dict.fromkeys(("baseline", "value", "change"))
    return [
        replace(one, metric=SIZES, unit="", note=note, fails=True, **nothing) for one in changed[:1]
    ]


def case_names(records: Iterable[Record]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in records:
        found.setdefault(row.case.name, {row.case.name}).add(row.asked_case.name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailerRange:
    """Where the trailers are looked for: in the commits of the head that the anchor has not."""

    repository: Path
    anchor: str
    """Commit in full; empty where it is not known."""
    head: str
    """As the anchor."""
    unknown: str = ""
    """What ran code of no known commit, where one of the two is not known."""
    around: TrailerRange | None = None
    """The same in the repository whose submodule this one is, where the user stands in that."""


def _trailers(since: TrailerRange) -> tuple[tuple[str, str], ...]:
    """Return commit and pattern of each trailer, newest commit first."""
    if not since.anchor or not since.head:
        raise ConvmarkError(f"no commit has the code of {since.unknown}")
    git = Git.at(since.repository)
    if git.answer("merge-base", since.anchor, since.head) is None:
        raise ConvmarkError(
            f"{since.repository} has no history that joins {since.anchor[:SHOWN]} and "
            f"{since.head[:SHOWN]} (a shallow clone holds only the newest: git fetch --unshallow)"
        )
    try:
        printed = git.output("rev-list", _FORMAT, f"{since.anchor}..{since.head}", "--")
    except GitError as error:
        raise ConvmarkError(f"{since.repository}: {error}") from None
    found = []
    for line in printed.split("\n"):
        if line.startswith(_LINE):
            commit, _, values = line.removeprefix(_LINE).partition(" ")
            found += [(commit, word) for each in values.split(",") if (word := each.strip())]
    return tuple(found)


def _outside(since: TrailerRange, read: Collection[str]) -> list[str]:
    """Return the commits that have such a line outside their trailers, as a squashed one may."""
    asked = (f"--grep=^{TRAILER}:", f"{since.anchor}..{since.head}", "--")
    named = Git.at(since.repository).answer("rev-list", *asked) or ""
    return [commit for commit in named.split() if commit not in read]


def _has_commit(around: TrailerRange, commit: str, inner: TrailerRange, of_inner: str) -> bool:
    """Whether a commit of the repository around a submodule has one that the submodule has."""
    place = inner.repository.resolve().relative_to(around.repository.resolve()).as_posix()
    there = Git.at(around.repository).answer("rev-parse", "--verify", f"{commit}:{place}") or ""
    asked = ("merge-base", "--is-ancestor", of_inner, there.strip())
    return bool(there) and Git.at(inner.repository).answer(*asked) is not None


class IntendedChanges:
    """Tells of a case by what its change is meant."""

    def __init__(
        self,
        names: Names,
        patterns: Sequence[str],
        since: Callable[[str], TrailerRange | None],
        say: Callable[[str], None],
        accepted: Iterable[Acceptance] = (),
    ) -> None:
        """Describe it; git is asked when a case fails.

        Args:
            patterns: those of --allow-change.
            since: by a case's name; None where no repository holds its model.
            say: is told which trailers cannot be read, and which match no case.
            accepted: what somebody has accepted of this very run.
        """
        self._accepted = list(accepted)
        self._names = names
        self._patterns = patterns
        self._since = since
        self.say = say
        self._read: dict[TrailerRange, tuple[tuple[str, str], ...]] = {}

    def reason(self, case: str) -> str:
        """Return by what a change of the case is meant, in words; empty where it is not."""
        names = self._names.get(case, {case})
        if any(_matches(names, pattern) for pattern in self._patterns):
            return "allowed by --allow-change"
        for one in self._accepted:
            if one.case in (None, case):
                return f"accepted: {one.reason}"
        _, commit = self._by_trailer(case)
        return f"{BY_COMMIT} {commit[:SHOWN]}" if commit else ""

    def _by_trailer(self, case: str) -> tuple[TrailerRange | None, str]:
        """Return the newest commit whose trailer accepts a case, in full, and its range."""
        since, names = self._since(case), self._names.get(case, {case})
        found: tuple[TrailerRange | None, str] = (None, "")
        while since is not None:
            own = (commit for commit, pattern in self._trailers(since) if _matches(names, pattern))
            commit = next(own, "")
            if commit and (found[0] is None or _has_commit(since, commit, found[0], found[1])):
                found = since, commit
            since = since.around
        return found

    def accepting_commit(self, case: str) -> tuple[str, str]:
        """Return the commit, in full, whose code tells what its trailer accepts, and its name.

        The code of one that lacks what the anchor has would be slower or faster by that too, so
        that it is merged with the anchor's. Both are empty where there is none.
        """
        since, commit = self._by_trailer(case)
        if since is None or not self.reason(case).startswith(BY_COMMIT):
            return "", ""
        git, anchor = Git.at(since.repository), since.anchor
        if git.answer("merge-base", "--is-ancestor", anchor, commit) is not None:
            return commit, ""
        why = "the two do not merge"
        try:
            if both := merged(since.repository, commit, anchor):
                return both, f"{commit[:SHOWN]} with {anchor[:SHOWN]}"
        except GitError as error:
            why = f"git cannot merge the two here ({error})"
        self.say(
            f"{commit[:SHOWN]}: its code cannot be compared, because it lacks {anchor[:SHOWN]} and "
            f"{why}, so its {TRAILER} accepts what it did in earlier runs; a trailer in a commit "
            "after the merge accepts what that commit has"
        )
        return "", ""

    def later(self, case: str) -> str:
        """Say that the commits after that of a trailer pass by it as well; empty without any."""
        since, commit = self._by_trailer(case)
        assert since is not None
        asked = ("--count", "--no-merges", f"{since.anchor}..{since.head}")
        count = Git.at(since.repository).answer("rev-list", *asked, f"^{commit}", "--")
        if count is None or not int(count):
            return ""
        return (
            f"{_WITH}{counted(int(count), 'later commit')} changed, because no earlier "
            "run limits it"
        )

    def _trailers(self, since: TrailerRange) -> tuple[tuple[str, str], ...]:
        """Return the trailers, and say once what is wrong with them."""
        if since not in self._read:
            try:
                self._read[since] = _trailers(since)
            except ConvmarkError as error:
                self._read[since] = ()
                self.say(f"{TRAILER} trailers are not read: {error}")
            else:
                for commit in _outside(since, {commit for commit, _ in self._read[since]}):
                    self.say(
                        f"{commit[:SHOWN]}: its line {TRAILER} is not read, because it is not in "
                        "the last paragraph of the commit's message"
                    )
            for commit, pattern in self._read[since]:
                if not any(_matches(names, pattern) for names in self._names.values()):
                    told = plain_text(pattern)
                    self.say(f"{commit[:SHOWN]}: {TRAILER}: {told} matches no case of this run")
        return self._read[since]


def _matches(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


_MORE = 0.03
"""The size of one change differs by so much from run to run."""


def _let_pass(
    runs: Iterable[Path], say: Callable[[str], None]
) -> dict[tuple[str, str], list[dict[str, Judgement]]]:
    """Return what earlier runs let pass, by case and reason: the judgements by metric of each."""
    found: dict[tuple[str, str], list[dict[str, Judgement]]] = {}
    for run in runs:
        by_case: dict[str, dict[str, Judgement]] = {}
        try:
            for one in VERDICT_TABLE.read(verdicts_path(run)):
                by_case.setdefault(one.case, {})[one.metric] = one
        except StoreError as error:
            say(f"{error}; so a trailer {TRAILER} may let more pass than it did in that run")
        for case, judged in by_case.items():
            for reason in {one.accepted for one in judged.values() if one.accepted}:
                found.setdefault((case, reason.partition(_WITH)[0]), []).append(judged)
    return found


def _beyond(now: Mapping[str, Judgement], failing: Judgement, then: Mapping[str, Judgement]) -> str:
    """Say what an earlier run let pass, where the case has changed more; empty where it has not.

    Only a run against the same baseline tells.
    """
    if failing.metric == SIZES:
        for name, one in now.items():
            size = then.get(name)
            if size is None or size.value in (None, one.value) or one.against != size.against:
                continue
            if one.verdict == "changed":
                return f"of {size.value:,.0f} {name.replace('_', ' ')} in run {size.run}"
        return ""
    other = then.get(failing.metric)
    if failing.metric == PRECISION:
        is_other = other and other.against == failing.against and _told(other) != _told(failing)
        return f"of {_told(other)} in run {other.run}" if other and is_other else ""
    if other is None or other.change is None or other.against != failing.against:
        return ""
    if failing.low is not None and other.high is not None:
        within = 1 + failing.low <= (1 + other.high) * (1 + _MORE)
    else:  # memory and accuracy, whose own tolerance tells
        more = abs(failing.change or 0.0) - abs(other.change)
        within = more <= (failing.smallest_visible or 0.0)
    return "" if within else f"of {change_text(other.change)} in run {other.run}"


_PERHAPS = "perhaps more than"


def _perhaps_beyond(failing: Judgement, then: Sequence[Mapping[str, Judgement]]) -> str:
    """Say which change that passed this one may be more than, where noise leaves it open."""
    for was in then:
        other = was.get(failing.metric)
        if other is None or None in (other.change, other.high, failing.change):
            continue
        if other.against == failing.against and (failing.change or 0.0) > (other.high or 0.0):
            more = f"the {change_text(other.change)} of run {other.run}"
            return f"{_PERHAPS} {more}, which noise hides: measure again on an idle machine"
    return ""


def doubt_of(one: Judgement) -> str:
    """Return what the note of an accepted change says where it may be more than what was meant."""
    return next((part for part in one.note.split("; ") if part.startswith(_PERHAPS)), "")


def _told(one: Judgement) -> str:
    """Return what a note says of the change, without by what it was accepted."""
    return one.note.partition("; ")[0]


def _bounds(then: Mapping[str, Judgement], failing: Judgement) -> bool:
    """Whether what an earlier run let pass was of the same metric against the same baseline."""
    other = then.get(failing.metric)
    if other is None or other.against != failing.against:
        return False
    return failing.metric in (SIZES, PRECISION) or other.change is not None


def pass_intended(
    judgements: Sequence[Judgement],
    meant: IntendedChanges,
    earlier: Sequence[Path] = (),
    since: Mapping[str, LiveComparison] = MappingProxyType({}),
) -> list[Judgement]:
    """Return the judgements, those that fail by a change that is meant no longer failing.

    The verdict stays, and the note says by what the change is meant. A commit's trailer lets no
    more pass than that commit's code has changed, or where that is not known, than it did in the
    earlier runs: it stays in the history, and what comes later is another change.

    Args:
        earlier: the files of the earlier runs, oldest first.
        since: by case what was found live against the commit whose trailer accepts it.
    """
    found: list[Judgement] = []
    before: dict[tuple[str, str], list[dict[str, Judgement]]] | None = None
    for one in judgements:
        by_a_change = one.fails and one.verdict in ("regressed", "changed")
        reason = meant.reason(one.case) if by_a_change else ""
        then: Sequence[dict[str, Judgement]] = ()
        if reason.startswith(BY_COMMIT):
            now = {other.metric: other for other in judgements if other.case == one.case}
            held = held_to(since.get(one.case), one, now, reason)
            if held is None or is_open(held):
                before = _let_pass(earlier, meant.say) if before is None else before
                then = before.get((one.case, reason), ())
            if told := next(filter(None, (_beyond(now, one, was) for was in then)), ""):
                told = f"what is {reason} was {told}, and this is another change"
                note = joined(one.note, told)
                found.append(replace(one, note=note))
                continue
            if held is not None:
                found.append(held)
                continue
            if not any(_bounds(was, one) for was in then):
                reason += meant.later(one.case)
        if reason:
            note = joined(one.note, reason, _perhaps_beyond(one, then))
            found.append(replace(one, fails=False, note=note, accepted=reason))
        elif one.case in since and not by_a_change:
            found.append(slower_since(since[one.case], one, meant.reason(one.case)))
        else:
            found.append(one)
    return with_followers(found)


def pass_accepted(
    judgements: Sequence[Judgement], run: Path, commits: Iterable[str | None]
) -> list[Judgement]:
    """Return what a kept run's session has judged, with what somebody has accepted of it since."""
    if not any(one.fails for one in judgements):
        return list(judgements)
    accepted = accepted_of(run, commits)
    return pass_intended(judgements, IntendedChanges({}, (), no_range, lambda line: None, accepted))


def no_range(case: str) -> None:
    """Return where the trailers of a case are looked for: nowhere."""


def trailer_range_of(
    history: History, path: Path, records: Sequence[Record], folder: Path
) -> Callable[[str], TrailerRange | None]:
    """Return where the trailers of a kept run are looked for, by the commits that its rows name.

    Args:
        path: the run's file.
        folder: in the repository of the models.
    """
    rows = by_name(row for row in records if row.measured)
    if Git.at(folder).answer("rev-parse", "--git-dir") is None:
        return lambda case: None

    def since(case: str) -> TrailerRange | None:
        """Return the commits between the case's anchor and now; None where there is no anchor."""
        anchor = history.cases[case].anchor
        if anchor is None:
            return None
        own = anchor_of(path, rows[case])
        unknown = [f"run {one.run}" for one in (anchor, own) if not one.clean_commit]
        return TrailerRange(
            repository=folder,
            anchor=anchor.clean_commit,
            head=own.clean_commit,
            unknown=" and ".join(unknown),
        )

    return since
