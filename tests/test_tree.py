"""A side's own tree: where it starts, what it may open, and what a commit lacks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workers import git

from convmark.compare.live import tree as trees
from convmark.compare.live.tree import (
    ForeignCode,
    Tree,
    check_lacked,
    tree_as_it_is,
    tree_at_commit,
)
from convmark.interpreter import zoo_folder

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 6\n"


def write(folder: Path, **texts: str) -> None:
    """Write files; in a name __ stands for a folder's end and the last _ for the dot."""
    for name, text in texts.items():
        parts = name.split("__")
        path = folder.joinpath(*parts[:-1], ".".join(parts[-1].rsplit("_", 1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a submodule, a second working tree, and files that no commit has."""
    top = tmp_path_factory.mktemp("made").resolve()
    library, repository = top / "library", top / "repo"
    for folder in (library, repository):
        folder.mkdir()
        git(folder, "init", "-q", "-b", "main")
    write(library, lib_py="")
    git(library, "add", ".")
    git(library, "commit", "-qm", "library")
    write(
        repository,
        src__shop__nets_py="",
        configs__net_json="{}",
        pyproject_toml='[project]\nname = "Shop_Nets"\n',
        work__notes_txt="",
        heavy_h5=POINTER,
        coded_bin="stored",
    )
    (repository / "src" / "shop" / "__init__.py").write_text("")
    (repository / ".gitignore").write_text("gen/\n")
    (repository / ".gitattributes").write_text("*.h5 filter=lfs\n*.bin filter=code\n")
    git(repository, "submodule", "--quiet", "add", str(library), "deps/library")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "all")
    write(repository, gen__sizes_py="", src__shop__extra_py="", settings_json="{}")
    (repository / "src" / "shop" / "built.abi3.so").touch()
    git(repository, "worktree", "add", "-q", "--detach", str(top / "second"))
    return repository


@pytest.fixture
def tree(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    monkeypatch.chdir(made)
    with tree_at_commit(made, "main", "git:main") as found:
        yield found


def code(*paths: Path, **packages: str) -> dict[str, Any]:
    """Return a worker's event."""
    return {"files": [{"path": str(path)} for path in paths], "packages": packages}


def refused(tree: Tree, event: dict[str, Any]) -> str:
    with pytest.raises(ForeignCode) as error:
        tree.check(event)
    assert str(error.value).isprintable()
    return str(error.value)


# -- where a side starts and imports from ----------------------------------------------------------


def test_a_side_starts_and_imports_in_the_same_places_of_its_tree(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path.resolve()
    roots = [made / "work", made / "src", outside, made.parent / "second" / "src"]
    monkeypatch.setattr(trees, "import_roots", lambda: roots)
    monkeypatch.chdir(made / "work")
    path = os.pathsep.join([str(outside), "../src"])
    with tree_at_commit(made, "main") as tree:
        found = tree.settings({"PYTHONPATH": path, "MINE": "1", "PWD": "x"})
        assert found["folder"] == tree.root / "work"
        src = tree.root / "src"
        assert found["import_roots"] == [tree.root / "work", src, outside, src]
        assert found["moved"] == dict.fromkeys(
            [str(made), str(made.parent / "second")], str(tree.root)
        )
        assert found["environ"] == {
            "PYTHONPATH": f"{outside}{os.pathsep}{src}",
            "MINE": "1",
            "PWD": str(tree.root / "work"),
        }
        assert "zoo" not in found


def test_a_folder_that_the_commit_does_not_have_is_made_and_outside_it_is_the_trees_own(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / "gen" / "here").mkdir(exist_ok=True)
    with tree_at_commit(made, "main") as tree:
        monkeypatch.chdir(made / "gen" / "here")
        assert tree.settings({})["folder"] == tree.root / "gen" / "here"
        assert (tree.root / "gen" / "here").is_dir()
        monkeypatch.chdir(tmp_path)
        assert tree.settings({})["folder"] == tree.root


def test_the_zoo_comes_from_the_tree_where_the_repository_holds_it(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "zoo_folder", lambda: made / "src" / "shop")
    with tree_at_commit(made, "main") as tree:
        assert tree.settings({})["zoo"] == tree.root / "src" / "shop"
        # an environment in the repository is not in the commit
        installed = made / ".venv" / "lib" / "python3.13" / "site-packages" / "convmark_zoo"
        write(made, **{".venv__pyvenv_cfg": ""})
        monkeypatch.setattr(trees, "zoo_folder", lambda: installed)
        assert "zoo" not in tree.settings({})
        assert tree.moved(installed) == installed
    assert "zoo" not in tree_as_it_is(made).settings({})
    assert zoo_folder().is_dir()


def test_today_s_code_keeps_its_folders_and_is_refused_from_another_working_tree(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tree_as_it_is(made).settings({"A": "1"}) == {"environ": {"A": "1"}}
    monkeypatch.chdir(made.parent / "second")
    with pytest.raises(ForeignCode, match="another working tree of the same repository"):
        tree_as_it_is(made).settings({})


# -- the rule --------------------------------------------------------------------------------------


def test_files_of_the_tree_and_files_of_no_repository_are_a_side_s_own(
    tree: Tree, tmp_path: Path, made: Path
) -> None:
    installed = tmp_path / "site-packages" / "other" / "nets.py"
    tree.check(code(tree.root / "src" / "shop" / "nets.py", tmp_path / "lib.py", installed))
    tree.check(code(tree.root / "coded.bin", other="1.0"))
    tree_as_it_is(made).check(code(made / "gen" / "sizes.py", made / "coded.bin"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "repo/configs/net.json",
            "in place of the commit's own configs/net.json; use a",
        ),
        ("repo/gen/sizes.py", "which does not have it: git ignores it or did not track it"),
        ("repo/settings.json", "which does not have it: git ignores it or did not track it"),
        ("repo/deps/library/lib.py", "which holds no file of the submodule deps/library"),
        ("second/configs/net.json", "in place of the commit's own configs/net.json"),
    ],
)
def test_a_file_of_the_repository_from_outside_the_tree_is_refused_by_name(
    tree: Tree, made: Path, name: str, said: str
) -> None:
    message = refused(tree, code(tree.root / "src" / "shop" / "nets.py", made.parent / name))
    assert message.startswith(f"git:main: {made.parent / name} ")
    assert said in message


def test_a_folder_named_as_those_of_packages_is_the_repository_s_own(
    tree: Tree, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendored = made / "vendor" / "site-packages"
    instead = tree.root / "vendor" / "site-packages"
    monkeypatch.setattr(trees, "import_roots", lambda: [vendored])
    settings = tree.settings({"PYTHONPATH": str(vendored)})
    assert settings["import_roots"] == [instead]
    assert settings["environ"]["PYTHONPATH"] == str(instead)
    assert "is not in the commit" in refused(tree, code(vendored / "mylib.py"))
    assert "belongs to another working tree" in refused(
        tree_as_it_is(made), code(made.parent / "second" / "vendor" / "site-packages" / "mylib.py")
    )
    tree.check(code(instead / "mylib.py"))
    tree_as_it_is(made).check(code(vendored / "mylib.py"))


def test_today_s_code_may_not_come_from_another_tree(tree: Tree, made: Path) -> None:
    today = tree_as_it_is(made, ".")
    other = made.parent / "second" / "src" / "shop" / "nets.py"
    assert f".: {other} belongs to another working tree" in refused(today, code(other))
    theirs = tree.root / "src" / "shop" / "nets.py"
    assert f"{theirs} is of the other side's files" in refused(today, code(theirs))


def test_an_installed_copy_of_what_the_repository_has_is_refused(
    tree: Tree, made: Path, tmp_path: Path
) -> None:
    environments = (tmp_path, made / ".venv")
    write(made, **{".venv__pyvenv_cfg": ""})
    copies = [folder / "lib" / "site-packages" / "shop" / "nets.py" for folder in environments]
    for side in (tree, tree_as_it_is(made)):
        for copy in copies:
            assert f"{copy} is an installed copy of src/shop" in refused(side, code(copy))
        message = refused(side, {"files": [], "packages": {"shop-nets": "1.0"}})
        assert "shop-nets 1.0 is an installed copy" in message
        assert "(pyproject.toml)" in message


def test_an_installed_copy_of_a_vendored_project_is_refused_once_the_project_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, vendor__lib__pyproject_toml='[project]\nname = "lib"\n', vendor__lib__lib_py="")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    monkeypatch.chdir(tmp_path)
    with tree_at_commit(tmp_path, "HEAD") as tree:
        tree.check(code(lib="1.0"))
        write(tmp_path, vendor__lib__lib_py="SINES = 9\n")
        assert "(vendor/lib/pyproject.toml)" in refused(tree, code(lib="1.0"))


def test_a_file_of_another_clone_of_the_repository_is_refused(
    tree: Tree, made: Path, tmp_path: Path
) -> None:
    git(made, "clone", "-q", str(made), str(tmp_path / "clone"))
    git(tmp_path, "init", "-q", "other")
    for side in (tree, tree_as_it_is(made)):
        message = refused(side, code(tmp_path / "clone" / "src" / "shop" / "nets.py"))
        assert f"is of {tmp_path / 'clone'}, another copy of a project of {made}" in message
        side.check(code(tmp_path / "other" / "nets.py"))


def test_the_models_of_another_clone_than_the_user_stands_in_are_refused(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user has changed there would not be what runs."""
    clone = tmp_path / "clone"
    git(made, "clone", "-q", str(made), str(clone))
    (clone / "pyproject.toml").unlink()
    git(clone, "commit", "-qam", "of no project by name, and ahead")
    git(tmp_path, "init", "-q", "other")
    around = tmp_path / "around"
    git(tmp_path, "init", "-q", "around")
    git(around, "clone", "-q", str(made), "inside")
    begun = tmp_path / "begun"
    git(made, "clone", "-q", str(made), str(begun))
    git(begun, "rm", "-rq", ".")
    write(begun, mine_py="", conftest_py="")
    git(begun, "add", ".")
    git(begun, "commit", "-qm", "another project")
    with tree_at_commit(made, "main") as old:
        sides = (old, tree_as_it_is(made))
        monkeypatch.chdir(clone / "src")
        for side in sides:
            with pytest.raises(ForeignCode, match=f"in {clone}, another clone of it; install "):
                side.settings({})
        for folder in (tmp_path, tmp_path / "other", begun, made, made / "deps" / "library"):
            monkeypatch.chdir(folder)
            for side in sides:
                side.settings({})
    monkeypatch.chdir(around)
    tree_as_it_is(around / "inside").settings({})


def test_a_clone_within_the_repository_is_another_clone_and_what_shares_an_index_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many projects name the same package index."""
    for name in ("nets", "mine"):
        text = f'[project]\nname = "{name}"\n\n[[tool.uv.index]]\nname = "pytorch"\n'
        write(tmp_path / name, pyproject_toml=text)
        git(tmp_path / name, "init", "-q")
        git(tmp_path / name, "add", ".")
        git(tmp_path / name, "commit", "-qm", name)
    nets = tree_as_it_is(tmp_path / "nets")
    monkeypatch.chdir(tmp_path / "mine")
    nets.settings({})
    git(tmp_path / "nets", "clone", "-q", ".", "scratch/nets")
    monkeypatch.chdir(tmp_path / "nets" / "scratch" / "nets")
    with pytest.raises(ForeignCode, match="another clone of it"):
        nets.settings({})


def test_an_lfs_pointer_in_place_of_weights_is_refused(tree: Tree) -> None:
    message = refused(tree, code(tree.root / "heavy.h5"))
    assert "heavy.h5 is a Git LFS pointer, whose contents this clone does not have" in message


def test_a_file_that_its_filter_would_change_is_refused_and_one_that_it_leaves_alone_is_not(
    made: Path, tree: Tree
) -> None:
    git(made, "config", "filter.code.smudge", "tr a-z A-Z")
    git(made, "config", "filter.code.clean", "tr A-Z a-z")
    try:
        tree.check(code(tree.root / "coded.bin"))  # the user's own file is what git stores
        (made / "coded.bin").write_text("STORED")
        message = refused(tree, code(tree.root / "coded.bin"))
        assert (
            "coded.bin is the file as git stores it, because the filter 'code' is not run"
            in message
        )
    finally:
        git(made, "config", "--remove-section", "filter.code")
        (made / "coded.bin").write_text("stored")


def test_a_file_that_no_commit_has_and_the_commits_code_names_is_no_fair_comparison(
    tree: Tree, made: Path
) -> None:
    """Such as an extension that is built, for which old code has a slow stand-in."""
    nets = tree.root / "src" / "shop" / "nets.py"
    nets.write_text("try:\n    from gen import sizes\nexcept ImportError:\n    sizes = None\n")
    today = code(made / "src" / "shop" / "nets.py", made / "gen" / "sizes.py")
    told = (
        "today's code runs gen/sizes.py, which the commit's code names too but continues without: "
        "it is not in the commit, which does not have it: git ignores it or did not track it"
    )
    assert tree.lacked(code(nets), today) == told
    with pytest.raises(ForeignCode, match=r"^git:main: today's code runs gen/sizes\.py"):
        check_lacked(tree, tree_as_it_is(made), {"old": code(nets), "new": today})
    with pytest.raises(ForeignCode, match=r"^git:main: today"):
        check_lacked(tree_as_it_is(made), tree, {"old": today, "new": code(nets)})
    check_lacked(tree, tree_as_it_is(made), {"new": today})
    check_lacked(None, tree_as_it_is(made), {"old": code(nets), "new": today})
    listing = {**code(), "looked": {str(tree.root / "gen"): "names"}}
    assert tree.lacked(listing, today) == told
    assert tree.lacked(code(), today) == ""  # the commit's code has nothing to do with it
    note = check_lacked(tree, tree_as_it_is(made), {"old": code(), "new": today})  # a package may
    assert note == "today's code reads gen/sizes.py, which no commit has: git:main ran without"
    assert tree.lacked(code(nets), code(made / "src" / "shop" / "extra.py")) == ""  # a new file
    library = code(made / "deps" / "library" / "lib.py")
    nets.write_text("import lib\n")
    assert "holds no file of the submodule deps/library" in tree.lacked(code(nets), library)


# -- what a commit lacks ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("ModuleNotFoundError: No module named 'gen'", "gen is not in the commit"),
        ("ImportError: cannot import name 'extra' from 'shop'", "src/shop/extra.py is not in"),
        ("No module named 'shop.extra'", "src/shop/extra.py is not in the commit, which does not"),
        ("No module named 'shop.built'", "src/shop/built.abi3.so is not in the commit, which does"),
        ("[Errno 2] No such file or directory: 'settings.json'", "settings.json is not in"),
        ("No such file: '{root}/gen/sizes.py'", "gen/sizes.py is not in the commit, which does"),
        ("cannot open deps/library/lib.py", "holds no file of the submodule deps/library"),
        ("file signature not found", "heavy.h5 is a Git LFS pointer"),
    ],
)
def test_a_failure_names_what_the_commit_does_not_have(tree: Tree, message: str, said: str) -> None:
    message = message.format(root=tree.root)
    found = tree.explained(message)
    assert found.startswith(f"{message}; ")
    assert said in found
    assert found.isprintable()


def test_a_failure_of_another_kind_stays_as_it_is(tree: Tree, made: Path) -> None:
    (tree.root / "heavy.h5").unlink()
    for message in ("ValueError: 3 / 0 in src/shop/nets.py", "x" * 5000, "No module named 'none'"):
        assert tree.explained(message) == message
    assert tree_as_it_is(made).explained("No module named 'gen'") == "No module named 'gen'"
