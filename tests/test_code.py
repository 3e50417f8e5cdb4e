"""The code of a run: its hash, its manifest beside the rows, and the files that no commit has."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workers import git

from convmark.core.errors import ConvmarkError, StoreError
from convmark.results.code.manifest import (
    FOLDER,
    Code,
    Roots,
    code_of,
    code_path,
    keep_files,
    lay_out,
    read_codes,
    root_folder,
    write_codes,
)
from convmark.results.code.of_run import CodeReader, KeptCodes, ran_at
from convmark.results.commit import are_of_commit
from convmark.worker.protocol import ABSENT, file_digest, names_digest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with a model and a settings file that git ignores, a zoo, a library outside."""
    here = tmp_path.resolve() / "place"
    for path, text in {
        "repo/nets.py": "WIDTH = 8\n",
        "repo/.gitignore": "local.json\n",
        "repo/local.json": "{}",
        "lib/shoplib.py": "SINES = 0\n",
        "zoo/lenet.py": "pass\n",
    }.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    git(here / "repo", "init", "-q")
    git(here / "repo", "add", ".")
    git(here / "repo", "commit", "-qm", "one")
    return here


Event = Callable[..., dict[str, Any]]


@pytest.fixture
def event(place: Path) -> Event:
    """What a worker says of the code that it ran in the repository."""

    def of(*files: str, **packages: str) -> dict[str, Any]:
        found = [(str(place / name), file_digest(place / name)) for name in files]
        return {
            "event": "code",
            "folder": str(place / "repo"),
            "sys_path": [str(place / "repo"), str(place / "lib"), "/x/site-packages"],
            "files": [
                {"path": path, "size": told[0], "sha256": told[1]} for path, told in found if told
            ],
            "packages": packages,
            "environ": {},
        }

    return of


@pytest.fixture
def reader(place: Path) -> CodeReader:
    head = git(place / "repo", "rev-parse", "HEAD")
    return CodeReader.at(place / "repo", place / "zoo", head)


def test_a_code_is_the_same_wherever_its_repository_lies_and_another_with_any_byte(
    place: Path, event: Event
) -> None:
    names = ("repo/nets.py", "lib/shoplib.py", "zoo/lenet.py")
    roots = Roots.of(place / "repo", place / "zoo")
    code = code_of(event(*names, scipy="1.0"), roots)
    assert [str(one.place) for one in code.files] == [
        "nets.py",
        "lib/shoplib.py",
        "zoo/lenet.py",
    ]
    told = json.dumps(event(*names, scipy="1.0"))
    place.rename(place.with_name("moved"))
    moved = json.loads(told.replace(str(place), str(place.with_name("moved"))))
    there = Roots.of(place.with_name("moved") / "repo", place.with_name("moved") / "zoo")
    assert code_of(moved, there).hash == code.hash
    moved["packages"] = {"scipy": "1.1"}
    assert code_of(moved, there).hash != code.hash
    moved["packages"] = {"scipy": "1.0"}
    moved["files"][1]["sha256"] = "0" * 64
    assert code_of(moved, there).hash != code.hash


@pytest.mark.parametrize(
    ("change", "files", "expected"),
    [
        (None, ["repo/nets.py", "zoo/lenet.py"], True),
        (("repo/nets.py", "WIDTH = 9\n"), ["repo/nets.py"], False),
        (("repo/nets.py", "WIDTH = 9\n"), ["zoo/lenet.py"], True),  # not what ran
        (None, ["repo/nets.py", "repo/local.json"], False),  # ignored by git
        (None, ["repo/nets.py", "lib/shoplib.py"], False),  # of another place
        (("repo/nets.py", "WIDTH = 8\r\n"), ["repo/nets.py"], True),  # a checkout on Windows
    ],
)
def test_a_code_is_the_commits_only_where_every_file_that_ran_is(
    place: Path,
    event: Event,
    reader: CodeReader,
    change: tuple[str, str] | None,
    files: list[str],
    expected: bool,
) -> None:
    if change:
        (place / change[0]).write_text(change[1], newline="")
    assert reader.code(event(*files)).of_commit is expected


def test_the_zoo_of_an_environment_in_the_repository_is_no_code_of_the_repository_s(
    place: Path, event: Event
) -> None:
    zoo = "repo/.venv/lib/python3.13/site-packages/convmark_zoo"
    (place / zoo).mkdir(parents=True)
    (place / zoo / "lenet.py").write_text("pass\n")
    (place / "repo/.venv/pyvenv.cfg").write_text("")
    head = git(place / "repo", "rev-parse", "HEAD")
    reader = CodeReader.at(place / "repo", place / zoo, head)
    code = reader.code(event("repo/nets.py", f"{zoo}/lenet.py"))
    assert code.of_commit
    assert ran_at(code, place / "repo", head)


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda repo: (repo / "new.txt").write_text(""), True),  # no string of the code names it
        (lambda repo: (repo / "fast.flag").write_text(""), False),
        (lambda repo: (repo / "kernels").mkdir() or (repo / "kernels/__init__.py").touch(), False),
        (lambda repo: (repo / "blocks/two.txt").touch(), False),
        (lambda repo: (repo / "notes.txt").unlink(), False),
        (lambda repo: (repo / "net.py").unlink() or (repo / "net.py").symlink_to("b.py"), False),
        (lambda repo: (repo / ".gitattributes").write_text("*.py eol=crlf\n"), False),
    ],
    ids=["new", "flag", "package", "listed", "gone", "link", "attributes"],
)
def test_what_a_process_looks_for_tells_codes_apart_and_not_only_what_it_reads(
    place: Path, event: Event, change: Callable[[Path], object], same: bool, staged: bool
) -> None:
    repo = place / "repo"
    looks = 'import os\nFAST = os.path.exists("fast.flag") or find_spec("kernels")\n'
    looks += 'BLOCKS = len(os.listdir("blocks"))\n'
    (repo / "blocks").mkdir()
    (repo / "blocks" / "one.txt").touch()
    for name, text in {"a.py": looks, "b.py": looks, "notes.txt": "", ".gitattributes": ""}.items():
        (repo / name).write_text(text)
    (repo / "net.py").symlink_to("a.py")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "looks for files")
    head = git(repo, "rev-parse", "HEAD")
    change(repo)
    if staged:
        git(repo, "add", ".")
    read = (repo / "net.py").resolve().relative_to(place).as_posix()
    code = CodeReader.at(repo, place / "zoo", head).code(event(read))
    assert (code.of_commit, ran_at(code, repo, head)) == (same, same)


@pytest.mark.parametrize(("project", "known"), [("others", True), ("nets", False)])
def test_of_another_clone_of_the_repository_nothing_is_known(
    place: Path, event: Event, project: str, known: bool
) -> None:
    repo, lib = place / "repo", place / "lib"
    (repo / "setup.py").write_text('setup(name="nets", version="1")\n')
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "a project")
    head = git(repo, "rev-parse", "HEAD")
    git(lib, "init", "-q")
    (lib / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    code = CodeReader.at(repo, place / "zoo", head).code(event("repo/nets.py", "lib/shoplib.py"))
    assert ran_at(code, repo, head) is known


def test_of_an_installed_copy_of_the_repository_s_own_project_nothing_is_known(
    place: Path, event: Event
) -> None:
    repo = place / "repo"
    (repo / "pyproject.toml").write_text('[project]\nname = "My_Nets"\n')
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "a project")
    head = git(repo, "rev-parse", "HEAD")
    reader = CodeReader.at(repo, place / "zoo", head)
    for packages, known in (({"other": "1.0"}, True), ({"my-nets": "1.0"}, False)):
        code = reader.code(event("repo/nets.py", **packages))
        assert (code.of_commit, ran_at(code, repo, head)) == (known, known)


def test_of_an_installed_copy_of_a_vendored_project_that_has_changed_nothing_is_known(
    place: Path, event: Event
) -> None:
    repo = place / "repo"
    (repo / "vendor/mylib").mkdir(parents=True)
    (repo / "vendor/mylib/pyproject.toml").write_text('[project]\nname = "mylib"\n')
    commits = []
    for text in ("SINES = 0\n", "SINES = 9\n"):
        (repo / "vendor/mylib/mylib.py").write_text(text)
        git(repo, "add", ".")
        git(repo, "commit", "-qm", "one more")
        commits.append(git(repo, "rev-parse", "HEAD"))
    before, head = commits
    code = CodeReader.at(repo, place / "zoo", head).code(event("repo/nets.py", mylib="1.0"))
    assert code.of_commit
    assert ran_at(code, repo, head)
    assert not ran_at(code, repo, before)


@pytest.mark.parametrize("folder", ["vendor/site-packages", "dist-packages/mylib-1"])
def test_code_that_a_repository_tracks_is_its_own_whatever_the_folder_s_name(
    place: Path, event: Event, folder: str
) -> None:
    repo, name = place / "repo", f"repo/{folder}/mylib.py"
    (repo / folder).mkdir(parents=True)
    commits = []
    for text in ("SINES = 0\n", "SINES = 9\n"):
        (place / name).write_text(text)
        git(repo, "add", ".")
        git(repo, "commit", "-qm", "one more")
        commits.append(git(repo, "rev-parse", "HEAD"))
    before, head = commits
    code = CodeReader.at(repo, place / "zoo", head).code(event("repo/nets.py", name))
    assert code.of_commit
    assert not ran_at(code, repo, before)
    (place / name).write_text("SINES = 8\n")
    assert not CodeReader.at(repo, place / "zoo", head).code(event("repo/nets.py", name)).of_commit


def test_git_told_to_assume_a_file_unchanged_is_not_believed(place: Path) -> None:
    repo = place / "repo"
    git(repo, "update-index", "--assume-unchanged", "nets.py")
    (repo / "nets.py").write_text("WIDTH = 9\n")
    assert git(repo, "status", "--porcelain") == ""
    assert not are_of_commit(repo, "HEAD", [repo / "nets.py"])


def test_a_file_in_lfs_is_the_commits_where_its_content_is_that_of_the_pointer(place: Path) -> None:
    repo = place / "repo"
    (repo / "w.bin").write_bytes(b"weights")
    found = file_digest(repo / "w.bin")
    assert found is not None
    (repo / "w.bin").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{found[1]}\nsize 7\n"
    )
    git(repo, "add", "w.bin")
    git(repo, "commit", "-qm", "pointer")
    (repo / "w.bin").write_bytes(b"weights")
    assert are_of_commit(repo, "HEAD", [repo / "w.bin"])
    (repo / "w.bin").write_bytes(b"others.")
    assert not are_of_commit(repo, "HEAD", [repo / "w.bin"])


def test_a_changed_file_that_is_no_text_is_not_the_commits(place: Path) -> None:
    repo = place / "repo"
    (repo / "w.bin").write_bytes(b"\xff\xfe\x00")
    git(repo, "add", "w.bin")
    git(repo, "commit", "-qm", "binary")
    assert are_of_commit(repo, "HEAD", [repo / "w.bin"])
    (repo / "w.bin").write_bytes(b"\xff\xfe\x01")
    assert not are_of_commit(repo, "HEAD", [repo / "w.bin"])


def test_a_run_keeps_what_it_ran_and_it_can_be_laid_out_again(
    place: Path, event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    run = tmp_path / "machine" / "0001.csv"
    run.parent.mkdir()
    code = reader.code(event("repo/nets.py", "repo/local.json", "lib/shoplib.py"))
    kept = KeptCodes(run)
    kept.keep(code)
    assert kept.left_out == []
    assert read_codes(run) == {code.hash: code}
    for name in ("repo/nets.py", "repo/local.json", "lib/shoplib.py"):
        (place / name).write_text("changed")
    tree = tmp_path / "tree"
    lay_out(run.parent, read_codes(run)[code.hash], tree)
    assert (root_folder(tree, ".") / "nets.py").read_text() == "WIDTH = 8\n"
    assert (root_folder(tree, ".") / "local.json").read_text() == "{}"
    assert (root_folder(tree, "lib") / "shoplib.py").read_text() == "SINES = 0\n"
    assert [str(one) for one in code.import_roots] == [".", "lib/."]


def test_the_code_of_a_commit_needs_no_files_of_its_own(
    event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    run = tmp_path / "0001.csv"
    KeptCodes(run).keep(reader.code(event("repo/nets.py")))
    assert code_path(run).is_file()
    assert not (tmp_path / FOLDER).exists()


def test_a_file_that_is_too_large_is_named_and_runs_again_only_as_it_was(
    place: Path,
    event: Event,
    reader: CodeReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("convmark.results.code.manifest.MOST_FILE_BYTES", 5)
    code = reader.code(event("repo/nets.py", "repo/local.json"))
    left_out = keep_files(tmp_path, code)
    assert [str(one.place) for one in left_out] == ["nets.py"]
    lay_out(tmp_path, code, tmp_path / "tree")
    assert (root_folder(tmp_path / "tree", ".") / "nets.py").read_text() == "WIDTH = 8\n"
    (place / "repo/nets.py").write_text("WIDTH = 9\n")
    with pytest.raises(ConvmarkError, match=r"nets\.py has changed since it was measured"):
        lay_out(tmp_path, code, tmp_path / "again")


def test_a_damaged_snapshot_is_refused_by_file(
    event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    code = reader.code(event("repo/local.json"))
    keep_files(tmp_path, code)
    (kept,) = (path for path in (tmp_path / FOLDER).rglob("*") if path.is_file())
    kept.write_text("{]")
    with pytest.raises(StoreError, match=f"{kept}: is damaged: local.json cannot be restored"):
        lay_out(tmp_path, code, tmp_path / "tree")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: text.replace("nets.py", "../nets.py"),
        lambda text: text.replace('"size_bytes": 10', '"size_bytes": "many"'),
        lambda text: text.replace("nets.py", "others.py"),
    ],
)
def test_a_damaged_manifest_is_refused_by_file(
    damage: Callable[[str], str], event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    run = tmp_path / "0001.csv"
    KeptCodes(run).keep(reader.code(event("repo/nets.py")))
    text = code_path(run).read_text()
    code_path(run).write_text(damage(text))
    assert code_path(run).read_text() != text
    with pytest.raises(StoreError, match=f"{code_path(run)}: is damaged"):
        read_codes(run)


def test_a_manifest_of_a_later_schema_is_refused_as_such(
    event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    run = tmp_path / "0001.csv"
    code = reader.code(event("repo/nets.py"))
    write_codes(run, {code.hash: code})
    code_path(run).write_text(code_path(run).read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(StoreError, match="must be of schema 1, got 2"):
        read_codes(run)


def test_a_case_whose_code_changes_in_the_middle_of_a_run_says_which_file(
    place: Path, event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    kept = KeptCodes(tmp_path / "0001.csv")

    def measured() -> Code:
        code = reader.code(event("repo/nets.py"))
        kept.keep(code)
        return code

    assert kept.other_than_before("net", measured().hash) == ""
    (place / "repo/nets.py").write_text("WIDTH = 9\n")
    assert kept.other_than_before("net", measured().hash) == (
        "other code than in the case's earlier processes: nets.py changed during the run"
    )
    assert kept.other_than_before("other", measured().hash) == ""


def test_processes_of_the_same_code_that_build_unlike_models_are_no_case(
    event: Event, reader: CodeReader, tmp_path: Path
) -> None:
    kept, code = KeptCodes(tmp_path / "0001.csv"), reader.code(event("repo/nets.py"))
    some = (950, 950, 3800)
    for sizes in [(None,) * 4, (*some, 1900), (None,) * 4, (*some, 1900), (*some, None)]:
        assert kept.other_than_before("net", code.hash, sizes) == ""
    assert "code: 950 parameters, now 930" in kept.other_than_before(
        "net", code.hash, (930, 930, 3720, 1900)
    )
    assert "code: 1900 FLOPs per sample, now 3800" in kept.other_than_before(
        "net", code.hash, (*some, 3800)
    )


def test_codes_compare_by_what_they_hold(event: Event, reader: CodeReader) -> None:
    code = reader.code(event("repo/nets.py"))
    assert dataclasses.replace(code, roots={}).hash == code.hash


def test_a_code_is_another_where_a_file_that_it_looks_for_is_there(
    place: Path, event: Event
) -> None:
    roots = Roots.of(place / "repo", place / "zoo")
    flag = str(place / "repo/fast.flag")
    plain = code_of(event("repo/nets.py"), roots)
    absent = code_of({**event("repo/nets.py"), "looked": {flag: ABSENT}}, roots)
    assert (
        len({plain.hash, absent.hash, code_of(event("repo/nets.py", "zoo/lenet.py"), roots).hash})
        == 3
    )
    run = place / "0001.csv"
    write_codes(run, {absent.hash: absent})
    assert read_codes(run) == {absent.hash: absent}


def test_a_folder_that_is_listed_is_the_commits_only_with_the_commits_names(
    place: Path, event: Event
) -> None:
    repo = place / "repo"
    (repo / "parts").mkdir()
    (repo / ".gitignore").write_text("*.npz\n")
    (repo / "parts/one.txt").touch()
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "parts")
    head = git(repo, "rev-parse", "HEAD")
    for folder in ("parts", "."):
        there = [path.name for path in (repo / folder).iterdir()]
        for ignored, same in (([], True), (["two.npz"], False)):
            looked = {str(repo / folder): names_digest([*there, *ignored])}
            told = {**event("repo/nets.py"), "looked": looked}
            code = CodeReader.at(repo, place / "zoo", head).code(told)
            assert (code.of_commit, ran_at(code, repo, head)) == (same, same), folder


def test_results_that_a_commit_has_are_no_names_of_its_code(place: Path, event: Event) -> None:
    repo = place / "repo"
    names = names_digest([path.name for path in repo.iterdir()])
    (repo / "results").mkdir()
    (repo / "results/0001.csv").touch()
    git(repo, "add", ".")
    git(repo, "add", "-f", "local.json")
    git(repo, "commit", "-qm", "results")
    head = git(repo, "rev-parse", "HEAD")
    told = {**event("repo/nets.py"), "looked": {str(repo): names}}
    code = CodeReader.at(repo, place / "zoo", head, repo / "results").code(told)
    assert code.of_commit
    assert ran_at(code, repo, head, repo / "results")
    assert not ran_at(code, repo, head)
