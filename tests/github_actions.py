"""A workflow's commands as shell, and a stand-in for GitHub's REST API; not a test itself.

The commands are those of the YAML file. `uses:` steps are left out: the caller checks out, and lays
down the environment as a cache would.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = ROOT / "docs" / "github-actions" / "gate.yml"
REPOSITORY = "owner/models"
TOKEN = "ghs_stand_in"
NUMBER = 7
RESULTS = "gate-results/42-1"
"""Where the workflow's run keeps them."""


@dataclass
class GitHub:
    """What the stand-in holds, and what it was asked."""

    head: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    answers: dict[str, tuple[int, Mapping[str, str], bytes]] = field(default_factory=dict)
    """By method and path: status, headers and body of an answer of its own."""
    url: str = ""

    def comment(self, body: str, kind: str = "Bot", login: str = "github-actions[bot]") -> None:
        number = 100 + len(self.comments)
        self.comments.append({"id": number, "body": body, "user": {"type": kind, "login": login}})

    def answer(self, method: str, address: str, body: Any) -> tuple[int, Mapping[str, str], bytes]:
        parts = urlsplit(address)
        of_issue = f"/repos/{REPOSITORY}/issues/{NUMBER}/comments"
        if own := self.answers.get(f"{method} {parts.path}"):
            return own
        found: Any = None
        if (method, parts.path) == ("GET", f"/repos/{REPOSITORY}/pulls/{NUMBER}"):
            found = {"head": {"sha": self.head}}
        elif (method, parts.path) == ("GET", of_issue):
            query = {key: int(values[0]) for key, values in parse_qs(parts.query).items()}
            start = query["per_page"] * (query["page"] - 1)
            found = self.comments[start : start + query["per_page"]]
        elif (method, parts.path) == ("POST", of_issue):
            self.comment(body["body"])
            found = self.comments[-1]
        elif method == "PATCH":
            number = int(parts.path.rpartition("/")[2])
            (found,) = [one for one in self.comments if one["id"] == number]
            found["body"] = body["body"]
        status = 404 if found is None else 200
        body = {"message": "Not Found"} if found is None else found
        return status, {}, json.dumps(body).encode()

    @contextlib.contextmanager
    def serving(self) -> Iterator[GitHub]:
        """Listen on 127.0.0.1 for the block."""
        github = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                github.asked.append(f"{self.command} {self.path}")
                github.tokens.append(self.headers.get("Authorization"))
                status, headers, body = github.answer(
                    self.command, self.path, json.loads(given) if given else None
                )
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = handle_any

            def log_message(self, *arguments: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        looks_at_its_end_s = 0.01
        thread = threading.Thread(
            target=server.serve_forever, args=(looks_at_its_end_s,), daemon=True
        )
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def variables(
    github: GitHub, folder: Path, head: str, *, base: str = "", fork: bool = False
) -> dict[str, str]:
    """Return the variables of a workflow of a pull request, its event written to the folder.

    Args:
        base: the commit at the tip of the base branch.
    """
    repository = "somebody/models" if fork else REPOSITORY
    head_of = {"sha": head, "repo": {"full_name": repository}}
    event = folder / "event.json"
    pull = {"number": NUMBER, "head": head_of, "base": {"sha": base}}
    event.write_text(json.dumps({"pull_request": pull}))
    github.head = head
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": github.url,
        "GITHUB_EVENT_PATH": str(event),
        "GITHUB_JOB": "gate",
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_RUN_ID": "42",
        "GITHUB_SHA": "0" * 40,  # the merge commit, which the workflow does not check out
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_WORKFLOW": "benchmark",
        "no_proxy": "127.0.0.1",
    }


def run_workflow(
    repository: Path, environ: Mapping[str, str], *, last: str = ""
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run the commands of the job's steps in a checkout, and return what came of each by its name.

    An environment in it counts as found in the cache; without one it is installed.

    Args:
        last: the step after which it ends, without what a cache has; empty for all.
    """
    found = (repository / ".venv").exists() and not last
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    event = json.loads(Path(environ["GITHUB_EVENT_PATH"]).read_text())
    known = {
        "github.run_id": environ["GITHUB_RUN_ID"],
        "github.run_attempt": environ["GITHUB_RUN_ATTEMPT"],
        "github.event.pull_request.base.sha": event["pull_request"]["base"]["sha"],
        "github.token": TOKEN,
        "steps.environment.outputs.cache-hit": str(found).lower(),
        "steps.gate.outcome": "skipped",
        "cancelled()": "",
    }
    done: dict[str, subprocess.CompletedProcess[str]] = {}
    for step in (step for step in job["steps"] if "run" in step):
        if not _holds(step.get("if", "${{ true }}"), known):
            continue
        given = {**job["env"], **step.get("env", {})}
        own = {name: _filled(value, known) for name, value in given.items()}
        done[step["name"]] = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=repository,
            env={**os.environ, **environ, **own},
            capture_output=True,
            text=True,
            check=False,
        )
        if step["name"] == last:
            break
        if step.get("id") == "gate":
            good = done[step["name"]].returncode == 0
            known["steps.gate.outcome"] = "success" if good else "failure"
    return done


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)


def _holds(condition: str, known: Mapping[str, str]) -> bool:
    """Whether a condition holds that joins comparisons and negations by `&&`."""
    inside = re.fullmatch(r"\$\{\{ (.*) \}\}", condition)
    assert inside is not None, condition
    return all(_term(term, known) for term in inside[1].split(" && "))


def _term(term: str, known: Mapping[str, str]) -> bool:
    if term in ("true", "!cancelled()"):
        return True
    found = re.fullmatch(r"(\S+) (==|!=) '(\w+)'", term)
    assert found is not None, term
    return (known[found[1]] == found[3]) == (found[2] == "==")


class Sample:
    """A throw-away repository: a base, one that changes no model, a slowed and an accepted one."""

    def __init__(self, folder: Path, files: Mapping[str, str], slowed: Mapping[str, str]) -> None:
        """Make it where it is not there yet.

        Args:
            files: of the commit on `main`, by path.
            slowed: those that the branch `slow` has changed.
        """
        self.folder = folder
        self.origin = folder / "origin"
        if self.origin.exists():
            return
        self.origin.mkdir(parents=True)
        self._git("init", "-q", "-b", "main")
        ignored = {".gitignore": ".venv/\n__pycache__/\n", "requirements.txt": "convmark\n"}
        self._commit({**ignored, **files}, "base")
        self._git("switch", "-qc", "same")
        self._git("commit", "-q", "--allow-empty", "-m", "no model")
        self._git("switch", "-qc", "slow", "main")
        self._commit(slowed, "slower")
        self._git("switch", "-qc", "accepted")
        self._git("commit", "-q", "--allow-empty", "-m", "meant", "-m", "Benchmark-Accept: *")
        self._git("switch", "-q", "main")

    def _git(self, *words: str) -> str:
        name = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")
        done = subprocess.run(
            ["git", *name, *words], cwd=self.origin, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def _commit(self, files: Mapping[str, str], message: str) -> None:
        for name, text in files.items():
            path = self.origin / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._git("add", "-A")
        self._git("commit", "-qm", message)

    def commit(self, ref: str) -> str:
        """Return the commit of a ref in full."""
        return self._git("rev-parse", ref)

    def check_out(self, branch: str, *, cached: bool = True) -> Path:
        """Return a fresh clone at the branch's commit.

        Args:
            cached: whether the environment is there, as from the cache.
        """
        clone = self.folder / f"clone-of-{branch}"
        command = ["git", "clone", "-q", f"file://{self.origin}", str(clone)]
        subprocess.run(command, check=True)
        switch = ["git", "-C", str(clone), "checkout", "-q", "--detach", self.commit(branch)]
        subprocess.run(switch, check=True)
        if cached:
            _lay_environment(clone / ".venv")
        return clone


def _lay_environment(folder: Path) -> None:
    """Make an environment that has all that this one has, and the command `convmark`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/*/site-packages")
    here = next(entry for entry in sys.path if entry.endswith("site-packages"))
    (site / "parent.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    command = folder / "bin" / "convmark"
    command.write_text(
        f"#!{folder}/bin/python\nimport sys\nfrom convmark.cli import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
