"""The commit of a folder, in repositories made for the purpose."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from workers import git

from convmark.core.errors import ConvmarkError
from convmark.core.git import Git
from convmark.results.code.manifest import HERE, Code, CodeFile, Place
from convmark.results.code.of_run import ran_at
from convmark.results.commit import Commit, are_of_commit, is_changed, read_commit
from convmark.worker.protocol import file_digest

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
UNKNOWN = Commit(sha=None, dirty=None)


def make_repository(folder: Path) -> str:
    """Make a repository of one commit and return the commit."""
    (folder / "package").mkdir(parents=True)
    (folder / "package/model.py").write_text("DEPTH = 20\n")
    (folder / "notes.md").write_text("one\n")
    (folder / ".gitignore").write_text("build/\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    make_repository(folder)
    return folder


@needs_git
def test_a_clean_repository_gives_its_commit_from_any_folder(tmp_path: Path) -> None:
    sha = make_repository(tmp_path)
    assert read_commit(tmp_path) == Commit(sha=sha, dirty=False)
    assert read_commit(tmp_path / "package") == Commit(sha=sha, dirty=False)


@needs_git
@pytest.mark.parametrize("file", ["package/model.py", "notes.md"])
def test_a_changed_tracked_file_is_dirty_seen_from_any_folder(repository: Path, file: str) -> None:
    (repository / file).write_text("changed\n")
    assert read_commit(repository / "package").dirty is True


@needs_git
def test_a_staged_a_deleted_and_a_renamed_file_are_dirty(repository: Path) -> None:
    (repository / "new.txt").write_text("new\n")
    git(repository, "add", "new.txt")
    assert read_commit(repository).dirty is True
    git(repository, "rm", "--quiet", "--cached", "new.txt")
    assert read_commit(repository).dirty is False
    git(repository, "mv", "notes.md", "moved.md")
    assert read_commit(repository).dirty is True
    git(repository, "mv", "moved.md", "notes.md")
    (repository / "notes.md").unlink()
    assert read_commit(repository).dirty is True


@needs_git
@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("new.py", True),
        ("deep/er/new model.py", True),
        ("new.csv", False),
        ("build/new.py", False),
        ("line\nbreak.py", True),
    ],
)
def test_an_untracked_file_is_dirty_if_it_is_python_and_not_ignored(
    repository: Path, file: str, dirty: bool
) -> None:
    path = repository / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x = 1\n")
    git(repository, "config", "status.showUntrackedFiles", "no")
    assert read_commit(repository).dirty is dirty


@needs_git
def test_changes_below_the_named_folders_do_not_count(repository: Path, tmp_path: Path) -> None:
    results = repository / "results"
    results.mkdir()
    (results / "verdicts.csv").write_text("a\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=second")
    (results / "verdicts.csv").write_text("a\nb\n")
    assert read_commit(repository).dirty is True
    assert read_commit(repository, besides=[results, tmp_path / "elsewhere"]).dirty is False
    (repository / "package/model.py").write_text("DEPTH = 56\n")
    assert read_commit(repository, besides=[results]).dirty is True


@needs_git
def test_no_repository_and_no_commit_are_unknown(tmp_path: Path) -> None:
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    assert read_commit(tmp_path / "absent", environ=environ) == UNKNOWN
    (tmp_path / "plain").mkdir()
    assert read_commit(tmp_path / "plain", environ=environ) == UNKNOWN
    git(tmp_path, "init", "--quiet")
    (tmp_path / "new.py").write_text("x = 1\n")
    assert read_commit(tmp_path, environ=environ) == UNKNOWN


@needs_git
def test_a_bare_repository_has_a_commit_but_no_changes_to_tell(repository: Path) -> None:
    git(repository, "clone", "--quiet", "--bare", ".", "../bare")
    commit = read_commit(repository.parent / "bare")
    assert commit == Commit(sha=git(repository, "rev-parse", "HEAD"), dirty=None)


@needs_git
def test_the_variables_of_a_hook_do_not_mislead(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_repository(other)
    git(other, "commit", "--quiet", "--allow-empty", "--message=second")
    hook = {
        "GIT_DIR": str(other / ".git"),
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": str(other / ".git/absent-index"),
        "GIT_PREFIX": "package/",
        "GIT_CONFIG_COUNT": "not a number",
    }
    commit = read_commit(repository, environ={**os.environ, **hook})
    assert commit == Commit(sha=git(repository, "rev-parse", "HEAD"), dirty=False)


@needs_git
def test_the_users_own_settings_of_git_still_count(repository: Path) -> None:
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(repository.resolve())}
    assert read_commit(repository / "package", environ=environ) == UNKNOWN


@needs_git
def test_reading_writes_nothing(repository: Path) -> None:
    index = repository / ".git/index"
    model = repository / "package/model.py"
    os.utime(model, (1_000_000_000, 1_000_000_000))  # a status that may write refreshes the index
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    content = index.read_bytes()
    assert read_commit(repository).dirty is False
    assert index.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


def test_an_absent_git_is_unknown(tmp_path: Path) -> None:
    assert read_commit(tmp_path, environ={"PATH": str(tmp_path)}) == UNKNOWN


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for git is a shell script")
def test_a_git_that_hangs_is_given_up(tmp_path: Path) -> None:
    stand_in = tmp_path / "git"
    stand_in.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    stand_in.chmod(0o755)
    commit = read_commit(tmp_path, environ={"PATH": str(tmp_path)}, time_limit_s=0.1)
    assert commit == UNKNOWN


@needs_git
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is looked for now and then")
def test_the_end_of_git_is_known_as_soon_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it is looked for"))
    slow = ("-c", "alias.slow=!sleep 0.05; echo done", "slow")
    assert Git.at(tmp_path).answer(*slow) == "done\n"


@pytest.mark.parametrize("sha", ["", "HEAD", "a" * 39, "A" * 40])
def test_a_commit_refuses_what_is_no_sha(sha: str) -> None:
    with pytest.raises(ConvmarkError, match="hex digits"):
        Commit(sha=sha, dirty=False)


@pytest.fixture
def with_submodule(repository: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return a repository, its submodule whose filter is a program, and what the program makes."""
    make_repository(tmp_path / "other")
    (tmp_path / "other" / ".gitattributes").write_text("*.md filter=mine\n")
    git(tmp_path / "other", "add", ".")
    git(tmp_path / "other", "commit", "--quiet", "--message=filtered")
    source = str(tmp_path / "other")
    git(
        repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", source, "sub"
    )
    git(repository, "commit", "--quiet", "--message=with it")
    ran, sub = tmp_path / "ran", repository / "sub"
    git(sub, "config", "filter.mine.clean", f"touch {ran}; cat")
    return repository, sub, ran


@needs_git
@pytest.mark.parametrize(("text", "dirty"), [("one\n", False), ("two\n", True)])
def test_a_submodule_counts_and_no_program_of_it_is_run(
    with_submodule: tuple[Path, Path, Path], text: str, dirty: bool
) -> None:
    repository, sub, ran = with_submodule
    (sub / "notes.md").write_text(text)
    os.utime(sub / "notes.md", (1_000_000_000, 1_000_000_000))  # git has to compare its content
    assert read_commit(repository).dirty is dirty
    sha = git(repository, "rev-parse", "HEAD")
    for folder in (".", "sub", "sub/package"):
        assert is_changed(repository, sha, folder) is dirty
    assert is_changed(repository, sha, "package") is False
    assert not ran.exists()


@needs_git
def test_a_file_named_like_an_option_is_of_its_commit(repository: Path) -> None:
    for name in ("--name-only", "-r"):
        (repository / name).write_text("DEPTH = 20\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=named")
    sha = git(repository, "rev-parse", "HEAD")
    paths = [repository / name for name in ("--name-only", "-r", "package/model.py")]
    assert are_of_commit(repository, sha, paths)
    paths[0].write_text("changed")
    assert not are_of_commit(repository, sha, paths)


@needs_git
def test_of_code_that_ran_in_another_clone_nothing_is_known_of_this_one(tmp_path: Path) -> None:
    """So a case is not called of the commit's code before it runs, for its last run was there."""
    there, here = tmp_path.resolve() / "there", tmp_path.resolve() / "here"
    sha = make_repository(there)
    git(tmp_path, "clone", "--quiet", str(there), str(here))
    size, digest = file_digest(there / "package/model.py") or (0, "")
    ran = CodeFile(Place(HERE, "package/model.py"), digest, size)
    code = Code(files=(ran,), packages={}, roots={HERE: str(there)})
    (here / "package/model.py").write_text("DEPTH = 34\n")
    assert ran_at(code, there, sha)
    assert not ran_at(code, here, sha)
