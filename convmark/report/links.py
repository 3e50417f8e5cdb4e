"""Commits as links: the page of a commit, where the repository's remote says one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from convmark.core.git import Git, GitError

__all__ = ["CommitLinks", "commit_links", "commits_url"]

_HOST = r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?)"
_PATH = r"(?P<path>[A-Za-z0-9][\w.~-]*(?:/[A-Za-z0-9][\w.~-]*)+)/?"
_REMOTES = (
    re.compile(rf"(?P<scheme>https?)://(?:[^@/]*@)?{_HOST}/{_PATH}", re.ASCII),
    re.compile(rf"(?:ssh|git)(?P<scheme>)://(?:[^@/]*@)?{_HOST}/{_PATH}", re.ASCII),
    re.compile(rf"(?P<scheme>)(?:[^@/:]*@)?{_HOST}:{_PATH}", re.ASCII),
)
"""A URL, and the form that git takes for SSH: user@host:path."""

_FORMS = MappingProxyType({"github": "commit", "gitlab": "-/commit"})
"""By the first word of the host's name what comes before a commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitLinks:
    """The links of a repository."""

    url: str
    """What a commit's name is added to."""
    commits: tuple[str, ...]
    """Those that the repository has."""


def commits_url(remote: str) -> str:
    """Return what the address of a commit's page begins with; empty where it is not known.

    Only GitHub and GitLab are known, by their host's name. No credentials are taken along.
    """
    for form in _REMOTES:
        if found := form.fullmatch(remote.strip()):
            host, path = found["host"], found["path"].removesuffix(".git")
            if not found["scheme"]:
                host = host.partition(":")[0]  # the port is of SSH
            kind = _FORMS.get(host.lower().removeprefix("www.").partition(".")[0])
            return f"{found['scheme'] or 'https'}://{host}/{path}/{kind}/" if kind else ""
    return ""


def commit_links(folder: Path, commits: Iterable[str]) -> CommitLinks | None:
    """Return the links of the commits that the folder's repository has; None without any.

    Args:
        commits: by their first digits.
    """
    git = Git.at(folder)
    url = commits_url(git.answer("remote", "get-url", "origin") or "")
    asked = sorted({one for one in commits if re.fullmatch(r"[0-9a-f]{7,64}", one)})
    if not url or not asked:
        return None
    try:
        told = git.output("cat-file", "--batch-check", given="\n".join([*asked, ""]).encode())
    except GitError:
        return None
    kinds: Mapping[str, str] = dict(zip(asked, told.splitlines(), strict=False))
    known = tuple(name for name, kind in kinds.items() if " commit " in kind)
    return CommitLinks(url=url, commits=known) if known else None
