"""Files of other commits, written and removed without a trace in the user's repository."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from workers import git

from convmark.compare.live import worktree
from convmark.core.errors import ConvmarkError
from convmark.core.git import GitError
from convmark.results.commit import read_commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "net.py").write_text("old")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "old")
    git(folder, "tag", "v1")
    (folder / "net.py").write_text("new")
    git(folder, "commit", "-qam", "new")
    return folder


def test_the_tree_holds_the_commits_files_and_the_users_stay_as_they_are(repository: Path) -> None:
    (repository / "net.py").write_text("edited")
    (repository / "extra.txt").write_text("untracked")
    before = git(repository, "status", "--porcelain"), git(repository, "rev-parse", "HEAD")
    with worktree.at_commit(repository, "v1") as tree:
        assert (tree / "net.py").read_text() == "old"
        assert (repository / "net.py").read_text() == "edited"
    assert not tree.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert (
        git(repository, "status", "--porcelain"),
        git(repository, "rev-parse", "HEAD"),
    ) == before


def test_what_lies_beside_the_repository_lies_beside_the_tree_and_stays(repository: Path) -> None:
    """Code that names ../data would run without it, and perhaps another way."""
    data = repository.parent / "data"
    data.mkdir()
    (data / "net.json").write_text("{}")
    with worktree.at_commit(repository, "v1") as tree:
        beside = tree / ".." / "data" / "net.json"
        assert beside.resolve() == data / "net.json"
    assert not tree.parent.exists()
    assert (data / "net.json").read_text() == "{}"


def test_the_tree_is_removed_after_an_interruption(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktree.at_commit(repository, "v1") as tree:
        raise KeyboardInterrupt
    assert not tree.parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_the_tree_of_a_killed_process_is_removed_by_the_next(
    repository: Path, tmp_path: Path
) -> None:
    left = tmp_path / "tmp" / "convmark-tree-x" / "project"
    left.mkdir(parents=True)
    (left.parent / ".convmark_in_use").touch()
    with worktree.at_commit(repository, "v1"):
        pass
    assert not left.parent.exists()


def test_a_living_process_keeps_its_tree(repository: Path) -> None:
    with worktree.at_commit(repository, "v1") as first:
        with worktree.at_commit(repository, "main") as second:
            assert (second / "net.py").read_text() == "new"
        assert (first / "net.py").read_text() == "old"


@pytest.mark.parametrize("ref", ["v2", "--help", "0000000", ""])
def test_an_unknown_commit_is_refused_in_one_line(repository: Path, ref: str) -> None:
    with pytest.raises(ConvmarkError, match="git knows no commit") as error:
        worktree.resolve(repository, ref)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("ref", "near"), [("HAED", "HEAD"), ("mian", "main"), ("v11", "v1")])
def test_a_misspelt_commit_is_refused_with_the_nearest_name(
    repository: Path, ref: str, near: str
) -> None:
    with pytest.raises(ConvmarkError, match=rf"no commit '{ref}'; did you mean {near}\?"):
        worktree.resolve(repository, ref)


def test_a_name_that_a_shallow_clone_lacks_is_told_with_what_fetches_it(
    repository: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), str(clone))
    told = {"HEAD~1": "HEAD is there, but it has no ~1", "mian": "did you mean main.*"}
    for ref, words in told.items():
        with pytest.raises(ConvmarkError, match=rf"'{ref}'; {words}; this clone is shallow"):
            worktree.resolve(clone, ref)
    with pytest.raises(ConvmarkError, match=r"HEAD is there, but it has no ~9$"):
        worktree.resolve(repository, "HEAD~9")


def test_two_commits_are_merged_among_the_objects_alone_and_nothing_where_they_conflict(
    repository: Path,
) -> None:
    git(repository, "branch", "other", "v1")
    git(repository, "switch", "-q", "other")
    (repository / "more.py").write_text("more")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "more")
    ends = [git(repository, "rev-parse", one) for one in ("main", "other")]
    before = git(repository, "for-each-ref"), git(repository, "status", "--porcelain")
    both = worktree.merged(repository, *ends)
    assert git(repository, "show", f"{both}:net.py", f"{both}:more.py") == "newmore"
    assert (git(repository, "for-each-ref"), git(repository, "status", "--porcelain")) == before
    worktree.merged.cache_clear()
    assert worktree.merged(repository, *ends) == both
    (repository / "net.py").write_text("newest")
    git(repository, "commit", "-qam", "another")
    assert worktree.merged(repository, ends[0], git(repository, "rev-parse", "other")) == ""
    git(repository, "switch", "-q", "--orphan", "apart")
    git(repository, "commit", "-q", "--allow-empty", "-m", "apart")
    with pytest.raises(GitError, match="unrelated histories"):
        worktree.merged(repository, ends[0], git(repository, "rev-parse", "apart"))


def test_a_merge_driver_of_the_user_s_is_not_started(repository: Path) -> None:
    git(repository, "config", "merge.mine.driver", "touch ran; true")
    (repository / ".gitattributes").write_text("*.py merge=mine\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "with a driver")
    git(repository, "switch", "-qc", "other", "v1")
    (repository / "net.py").write_text("another")
    git(repository, "commit", "-qam", "another")
    git(repository, "switch", "-q", "main")
    ends = (git(repository, "rev-parse", one) for one in ("main", "other"))
    assert worktree.merged(repository, *ends) == ""
    assert not list(repository.rglob("ran"))


def test_the_repository_of_a_file_is_found_and_none_outside_of_one(
    repository: Path, tmp_path: Path
) -> None:
    assert worktree.repository_of(repository / "net.py") == repository.resolve()
    assert worktree.repository_of(tmp_path) is None


# -- what a repository would have git run ----------------------------------------------------------


def content(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return every file below a folder with its time and its content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def hostile(repository: Path, tmp_path: Path) -> Path:
    """A repository whose every program leaves a file in `ran`, fails, and leaves a child."""
    ran = tmp_path / "ran"
    ran.mkdir()
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}/$1.$$\nsleep 30 &\nexit 1\n")
    program.chmod(0o755)
    (repository / ".gitattributes").write_text("*.py filter=mine\n*.dat filter=long\n")
    (repository / "weights.dat").write_text("1 2 3")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "filtered")
    git(repository, "tag", "v2")
    for name in (
        *("post-checkout", "post-index-change", "post-merge", "pre-commit", "post-commit"),
        *("reference-transaction", "fsmonitor-watchman"),
    ):
        hook = repository / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\nexec {program} {name}\n")
        hook.chmod(0o755)
    for name, use in (("mine", "clean"), ("mine", "smudge"), ("long", "process")):
        git(repository, "config", f"filter.{name}.{use}", f"{program} {name}-{use}")
        git(repository, "config", f"filter.{name}.required", "true")
    git(repository, "config", "core.fsmonitor", f"{program} fsmonitor")
    return repository


def test_no_program_of_the_repository_is_run_and_nothing_of_it_is_changed(
    hostile: Path, tmp_path: Path
) -> None:
    for name in ("net.py", "weights.dat"):  # git has to compare their contents
        os.utime(hostile / name, (1_000_000_000, 1_000_000_000))
    before = content(hostile)
    began = time.monotonic()
    with worktree.at_commit(hostile, "v2") as tree:
        assert (tree / "net.py").read_text() == "new"
        assert (tree / "weights.dat").read_text() == "1 2 3"
        assert worktree.working_trees(hostile) == (hostile.resolve(),)
    assert read_commit(hostile).dirty is False
    assert worktree.repository_of(hostile) == hostile.resolve()
    assert time.monotonic() - began < 20  # a child would have held a pipe open for 30 s
    assert list((tmp_path / "ran").iterdir()) == []
    assert content(hostile) == before


def test_a_partial_clone_fetches_nothing_and_git_s_last_line_is_in_the_message(
    repository: Path, tmp_path: Path
) -> None:
    for allowed in ("allowFilter", "allowAnySHA1InWant"):
        git(repository, "config", f"uploadpack.{allowed}", "true")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{repository}", str(clone))
    git(clone, "config", "protocol.file.allow", "always")
    before = content(clone / ".git" / "objects")
    with (
        pytest.raises(ConvmarkError, match=r"cannot be written: .*(fetch|promisor)") as error,
        worktree.at_commit(clone, "v1"),
    ):
        pass
    assert "\n" not in str(error.value)
    assert content(clone / ".git" / "objects") == before
    assert not list((tmp_path / "tmp").iterdir())


def test_links_modes_and_line_ends_are_those_of_a_checkout_and_no_attribute_leaves_a_file_out(
    repository: Path,
) -> None:
    (repository / "run.sh").write_text("#!/bin/sh\n")
    (repository / "run.sh").chmod(0o755)
    (repository / "link.py").symlink_to("net.py")
    (repository / "lines.txt").write_bytes(b"a\r\nb\r\n")
    (repository / ".gitattributes").write_text(
        "run.sh export-ignore\nnet.py export-subst\nlines.txt eol=crlf\n"
    )
    (repository / "net.py").write_text("$Format:%H$")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "kinds")
    git(repository, "sparse-checkout", "set", "--no-cone", "/net.py")
    with worktree.at_commit(repository, "main") as tree:
        assert os.access(tree / "run.sh", os.X_OK)
        assert not os.access(tree / "net.py", os.X_OK)
        assert os.readlink(tree / "link.py") == "net.py"
        assert (tree / "lines.txt").read_bytes() == b"a\r\nb\r\n"
        assert (tree / "net.py").read_text() == "$Format:%H$"


def test_of_git_lfs_the_contents_that_the_clone_has_are_put_in_and_the_rest_stays_a_pointer(
    repository: Path,
) -> None:
    oids = {}
    for name in ("had.h5", "lacked.h5", "unfiltered.txt"):
        oids[name] = hashlib.sha256(name.encode()).hexdigest()
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oids[name]}\nsize 6\n"
        (repository / name).write_text(text)
        store = repository / ".git" / "lfs" / "objects" / oids[name][:2] / oids[name][2:4]
        if name != "lacked.h5":
            store.mkdir(parents=True)
            (store / oids[name]).write_text(name)
    (repository / ".gitattributes").write_text("*.h5 filter=lfs diff=lfs merge=lfs -text\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "weights")
    with worktree.at_commit(repository, "main") as tree:
        assert (tree / "had.h5").read_text() == "had.h5"
        assert worktree.pointer(tree / "lacked.h5") == oids["lacked.h5"]
        assert worktree.pointer(tree / "unfiltered.txt") == oids["unfiltered.txt"]
        assert worktree.pointer(tree / "had.h5") is None


def test_a_commit_is_resolved_in_the_working_tree_that_the_user_stands_in(
    repository: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    git(repository, "worktree", "add", "-q", "--detach", str(other), "v1")
    assert set(worktree.working_trees(repository)) == {repository.resolve(), other.resolve()}
    assert worktree.standing_in(repository, other) == other.resolve()
    assert worktree.standing_in(repository, tmp_path) == repository


def test_a_name_that_a_branch_and_a_tag_of_other_commits_have_is_refused(repository: Path) -> None:
    """Git would take the tag, and say so on standard error alone."""
    old, new = (git(repository, "rev-parse", ref) for ref in ("v1", "main"))
    git(repository, "tag", "main", "v1")
    for ref in ("main", "main^0"):
        rest = ref.removeprefix("main")
        with pytest.raises(ConvmarkError, match=re.escape(f"heads/main{rest} or tags/main{rest}")):
            worktree.resolve(repository, ref)
    assert worktree.resolve(repository, "heads/main") == new
    assert worktree.resolve(repository, "tags/main") == old
    git(repository, "tag", "--force", "main", "heads/main")
    assert worktree.resolve(repository, "main") == new
    git(repository, "update-ref", "refs/remotes/origin/main", new)
    git(repository, "branch", "origin/main", "v1")
    with pytest.raises(ConvmarkError, match="is a branch and a remote's branch of other commits"):
        worktree.resolve(repository, "origin/main")
    assert worktree.resolve(repository, "remotes/origin/main") == new


def test_a_ref_around_a_submodule_means_the_commit_that_it_has_of_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own branch of that name is where its owner has left it."""
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q", "-b", "main")
    git(outer, "commit", "-q", "--allow-empty", "-m", "without")
    git(outer, "tag", "before")
    git(outer, "submodule", "--quiet", "add", str(repository), "nets")
    inner = outer / "nets"
    git(inner, "checkout", "-q", "v1")
    git(outer, "add", ".")
    git(outer, "commit", "-qm", "the old one")
    git(inner, "checkout", "-q", "main")
    old, new = (git(repository, "rev-parse", ref) for ref in ("v1", "main"))
    monkeypatch.chdir(outer)
    assert worktree.resolve_here(inner, "main") == old
    assert worktree.resolve_here(inner, git(outer, "rev-parse", "main")) == old
    assert worktree.resolve_here(inner, new) == new
    assert worktree.resolve_here(outer, "main") == git(outer, "rev-parse", "main")
    with pytest.raises(ConvmarkError, match=r"before \(\w{12}\) has no submodule nets"):
        worktree.resolve_here(inner, "before")
    git(outer, "update-index", "--cacheinfo", f"160000,{'1' * 40},nets")
    git(outer, "commit", "-qm", "not here")
    with pytest.raises(ConvmarkError, match="git -C nets fetch origin 111111111111"):
        worktree.resolve_here(inner, "main")
    monkeypatch.chdir(inner)
    assert worktree.resolve_here(inner, "main") == new
