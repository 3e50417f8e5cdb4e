"""The comment of a gate on GitHub: finds it by a hidden marker, and posts or updates it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from convmark.core.errors import ConvmarkError
from convmark.core.files import read_regular
from convmark.core.text import plain_text

TIME_LIMIT_S = 20.0
MOST_BYTES = 20_000_000
"""Of an answer, and of the event's file."""
PER_PAGE, MOST_PAGES = 100, 100
READ_ONLY = "not accessible by integration"
"""Of GitHub's message where a workflow's token lacks a permission."""
SHOWN = 12
"""Characters of a commit that are shown."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_TOKEN = re.compile(r"[!-~]+")
_LOCAL = ("127.0.0.1", "localhost", "::1")


class PullRequestError(ConvmarkError):
    """The comment cannot be posted."""


class _ReadOnlyError(PullRequestError):
    """The token may not write, as that of a workflow of Dependabot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """The pull request that a workflow runs for."""

    repository: str
    number: int
    head: str
    """Its commit, in full."""
    from_fork: bool

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> PullRequest | None:
        """Return that of the workflow's event; None where there is none.

        Raises:
            PullRequestError: the event or the repository's name cannot be read.
        """
        path, repository = environ.get("GITHUB_EVENT_PATH"), environ.get("GITHUB_REPOSITORY", "")
        if not path:
            return None
        try:
            event = json.loads(read_regular(Path(path), MOST_BYTES))
            if "pull_request" not in event:
                return None
            pull = event["pull_request"]
            head, number = pull["head"], pull["number"]
            origin = (head["repo"] or {}).get("full_name")  # None where the fork was deleted
            commit = head["sha"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PullRequestError(
                f"GITHUB_EVENT_PATH: {path} must be the event of a pull request: {error!r}"
            ) from None
        if not _REPOSITORY.fullmatch(repository):
            raise PullRequestError(f"GITHUB_REPOSITORY: must be OWNER/NAME, got {repository!r}")
        if type(number) is not int or type(commit) is not str:
            raise PullRequestError(f"GITHUB_EVENT_PATH: {path} must have a number and a commit")
        return cls(
            repository=repository, number=number, head=commit, from_fork=origin != repository
        )


def post(pull: PullRequest, text: str, environ: Mapping[str, str], *, is_news: bool) -> str:
    """Post the comment, or update the one that is there; return what was done, in words.

    Args:
        is_news: whether there is something to say; without, only a comment that exists is updated.

    Raises:
        PullRequestError: GitHub cannot be reached, or refuses.
    """
    api = _Api.of(environ)
    names = (environ.get(name, "") for name in ("GITHUB_WORKFLOW", "GITHUB_JOB"))
    job = "/".join(re.sub(r"[^A-Za-z0-9]+", "_", name) for name in names)
    marker = f"<!-- convmark comment {job} -->"  # by which a job finds its own comment
    try:
        return _post(api, pull, text, marker, is_news=is_news)
    except _ReadOnlyError as error:
        return f"not posted: {error}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PullRequestError(f"GitHub's answer has another form: {error!r}") from None


def _post(api: _Api, pull: PullRequest, text: str, marker: str, *, is_news: bool) -> str:
    body = {"body": f"{marker}\n\n{text}"}
    of_repository = f"/repos/{pull.repository}"
    head = api.call("GET", f"{of_repository}/pulls/{pull.number}")["head"]["sha"]
    if head != pull.head:
        return f"the pull request is at {str(head)[:SHOWN]} by now; not posted"
    comments = f"{of_repository}/issues/{pull.number}/comments"
    marked = [one for one in _comments(api, comments) if str(one["body"]).startswith(marker)]
    own = [one for one in marked if one["user"]["type"] == "Bot"]
    if marked and not own:  # a person's token, which may ask whose it is
        login = api.call("GET", "/user", absent=(401, 403, 404)).get("login")
        own = [one for one in marked if one["user"]["login"] == login]
    there = own[0]["id"] if own else None
    if there is not None:
        api.call("PATCH", f"{of_repository}/issues/comments/{int(there)}", body)
        return "comment updated"
    if not is_news:
        return "no change to report; not posted"
    api.call("POST", comments, body)
    return "comment posted"


def _comments(api: _Api, path: str) -> Iterator[Any]:
    for page in range(1, MOST_PAGES + 1):
        found = api.call("GET", f"{path}?per_page={PER_PAGE}&page={page}")
        yield from found
        if len(found) < PER_PAGE:
            return
    raise PullRequestError(f"{path}: must have at most {MOST_PAGES * PER_PAGE} comments")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token would go along."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


class _Api:
    """GitHub's REST API, by one token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "User-Agent": "convmark",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        self._opener = urllib.request.build_opener(_NoRedirect)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> _Api:
        """Return the API that the workflow's variables name."""
        url = (environ.get("GITHUB_API_URL") or "https://api.github.com").rstrip("/")
        try:
            parts = urllib.parse.urlsplit(url)
            safe = parts.scheme == "https" or parts.hostname in _LOCAL
        except ValueError:
            safe = False
        if not safe:
            raise PullRequestError(f"GITHUB_API_URL: must begin with https://, got {url!r}")
        token = environ.get("GITHUB_TOKEN", "")
        if not _TOKEN.fullmatch(token):
            raise PullRequestError("GITHUB_TOKEN: must be one word of ASCII characters")
        return cls(url, token)

    def call(
        self, method: str, path: str, body: object = None, *, absent: tuple[int, ...] = ()
    ) -> Any:
        """Return the answer.

        Args:
            absent: statuses that stand for an empty answer.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._url}{path}", data=data, headers=self._headers, method=method
        )
        told = f"{method} {self._url}{path}"
        try:
            with self._opener.open(request, timeout=TIME_LIMIT_S) as answer:
                return json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in absent:
                    return {}
                reason = _reason(error)
                kind = _ReadOnlyError if READ_ONLY in reason else PullRequestError
                raise kind(f"{told}: status {error.code}: {reason}{_hint(error.code)}") from None
        except (OSError, HTTPException, ValueError) as error:
            reason = plain_text(str(getattr(error, "reason", error)))
            raise PullRequestError(f"{told}: no answer: {reason}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return plain_text(str(json.loads(error.read(10_000))["message"]))[:200]
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return plain_text(str(error.reason))


def _hint(status: int) -> str:
    if status in (401, 403, 404):
        return "; the job needs `permissions: pull-requests: write`"
    return "; redirects are not followed" if 300 <= status < 400 else ""
