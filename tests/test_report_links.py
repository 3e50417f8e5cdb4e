"""Commits as links: which remotes have pages, and which commits the repository has."""

from __future__ import annotations

from pathlib import Path

import pytest
from workers import git

from convmark.report.page import CommitLinks, commit_links, commits_url

GITHUB, GITLAB = "https://github.com/own/nets/commit/", "https://gitlab.com/a/b/nets/-/commit/"


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://github.com/own/nets.git", GITHUB),
        ("https://me:secret@github.com/own/nets", GITHUB),
        ("git@github.com:own/nets.git", GITHUB),
        ("ssh://git@github.com:22/own/nets.git", GITHUB),
        ("https://oauth2:token@gitlab.com/a/b/nets.git/", GITLAB),
        ("http://gitlab.lab.local:8080/a/nets", "http://gitlab.lab.local:8080/a/nets/-/commit/"),
        ("https://example.org/own/nets.git", ""),
        ("https://evilgithub.com/own/nets", ""),
        ("https://github.com/own/nets?x=<script>", ""),
        ("https://github.com/../../nets", ""),
        ("javascript://github.com/own/nets", ""),
        ("/srv/git/github.com/nets.git", ""),
        ("", ""),
    ],
)
def test_a_remote_has_pages_of_commits_or_none(remote: str, url: str) -> None:
    assert commits_url(remote) == url


def test_only_commits_of_the_repository_are_links(tmp_path: Path) -> None:
    assert commit_links(tmp_path, ["a" * 12]) is None
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit_links(tmp_path, [commit]) is None
    git(tmp_path, "remote", "add", "origin", "https://me:secret@github.com/own/nets.git")
    found = commit_links(tmp_path, [commit, "0123456789ab", "", "HEAD", "--all"])
    assert found == CommitLinks(url=GITHUB, commits=(commit,))
    assert commit_links(tmp_path, ["0123456789ab"]) is None
