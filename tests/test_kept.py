"""The kept files of a run as a side: where they lie, and what they are held to."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convmark.compare.live.anchor import AnchorCode, KeptTree, anchor_trees
from convmark.compare.live.tree import ForeignCode
from convmark.core.errors import StoreError
from convmark.core.installed import TREE_PREFIX
from convmark.results.code.manifest import FOLDER, Code, Roots, code_of, code_path, root_folder
from convmark.results.code.of_run import KeptCodes
from convmark.worker.protocol import file_digest

Event = dict[str, Any]


def event_of(folder: Path, sys_path: list[Path], files: list[Path]) -> Event:
    """Return what a worker says of its code."""
    found = [(str(path), file_digest(path)) for path in files]
    return {
        "event": "code",
        "folder": str(folder),
        "sys_path": [*map(str, sys_path), "/x/site-packages"],
        "files": [
            {"path": path, "size": told[0], "sha256": told[1]} for path, told in found if told
        ],
        "packages": {"scipy": "1.0"},
        "environ": {},
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside git with a net and its data, a library, the zoo and a file elsewhere."""
    here = tmp_path.resolve() / "place"
    for path, text in {
        "work/nets.py": "WIDTH = 8\n",
        "work/sub/net.json": "{}",
        "lib/shoplib.py": "SINES = 0\n",
        "zoo/lenet.py": "pass\n",
        "elsewhere/weights": "w",
    }.items():
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(text)
    monkeypatch.chdir(here / "work")
    roots = [here / "work", here / "lib", here / "new"]
    monkeypatch.setattr("convmark.compare.live.anchor.zoo_folder", lambda: here / "zoo")
    monkeypatch.setattr("convmark.compare.live.anchor.import_roots", lambda: roots)
    return here


NAMES = ("work/nets.py", "work/sub/net.json", "lib/shoplib.py", "elsewhere/weights")


def measured(place: Path, *names: str) -> Code:
    """Return the code of a run that opened these files."""
    files = [place / name for name in names]
    event = event_of(place / "work", [place / "work", place / "lib"], files)
    return code_of(event, Roots.of(place / "work", place / "zoo"))


def keep(place: Path, code: Code) -> AnchorCode:
    """Keep a code as run 0001 does; return it as an anchor."""
    run = place / "results" / "machine" / "0001.csv"
    run.parent.mkdir(parents=True, exist_ok=True)
    KeptCodes(run).keep(code)
    return AnchorCode(code=code.hash, manifest=code_path(run))


def again(tree: KeptTree, *files: Path) -> Event:
    """Return what a worker says that has run the kept files, and these besides."""
    own = {name: root_folder(tree.root, name) for name in tree.code.roots}
    laid = [
        own[one.place.root] / one.place.path if one.place.root else Path(one.place.path)
        for one in tree.code.files
    ]
    settings = tree.settings({})
    return event_of(settings["folder"], settings["import_roots"], [*laid, *files])


def test_the_side_starts_and_imports_where_its_files_lie_and_the_places_of_then_lead_there(
    place: Path,
) -> None:
    with anchor_trees(None, keep(place, measured(place, *NAMES))) as (tree, today):
        settings = tree.settings({"A": "1", "PWD": "x"})
        here, lib = root_folder(tree.root, "."), root_folder(tree.root, "lib")
        assert settings["folder"] == here
        assert settings["import_roots"] == [here, lib, place / "new"]
        assert settings["moved"] == {str(place / "work"): str(here), str(place / "lib"): str(lib)}
        assert settings["environ"] == {"A": "1", "PWD": str(here)}
        assert "zoo" not in settings  # a net of one's own: the zoo is the interpreter's
        assert (here / "sub" / "net.json").read_text() == "{}"
        assert (tree.name, today) == ("run 0001", None)
    assert not tree.root.exists()


def test_a_net_of_the_zoo_takes_the_zoo_of_then(place: Path) -> None:
    with anchor_trees(None, keep(place, measured(place, "zoo/lenet.py"))) as (tree, _):
        zoo = root_folder(tree.root, "zoo")
        settings = tree.settings({})
        assert settings["zoo"] == zoo
        assert settings["moved"][str(place / "zoo")] == str(zoo)
        assert settings["folder"].is_dir()


def test_the_same_files_have_the_hash_of_the_run_and_pass_the_check(place: Path) -> None:
    code = measured(place, *NAMES)
    anchor = keep(place, code)
    (place / "work/nets.py").write_text("WIDTH = 9\n")
    with anchor_trees(None, anchor) as (tree, _):
        event = again(tree)
        tree.check(event)
        assert tree.hash_of(event) == code.hash
        event["packages"] = {"scipy": "1.1"}
        assert tree.hash_of(event) != code.hash


def test_the_zoos_own_files_that_serve_a_net_count_by_name_and_content(place: Path) -> None:
    code = measured(place, "work/nets.py", "zoo/lenet.py")
    with anchor_trees(None, keep(place, code)) as (tree, _):
        event = event_of(
            tree.settings({})["folder"],
            tree.settings({})["import_roots"],
            [root_folder(tree.root, ".") / "nets.py", place / "zoo/lenet.py"],
        )
        tree.check(event)
        assert tree.hash_of(event) == code.hash


Change = Callable[[Path, KeptTree], Path | None]


def changed_file(place: Path, tree: KeptTree) -> None:
    (root_folder(tree.root, ".") / "sub" / "net.json").write_text("[]")


def changed_library(place: Path, tree: KeptTree) -> None:
    (root_folder(tree.root, "lib") / "shoplib.py").write_text("SINES = 1\n")


def changed_elsewhere(place: Path, tree: KeptTree) -> None:
    (place / "elsewhere/weights").write_text("v")


def opened_by_its_whole_path(place: Path, tree: KeptTree) -> Path:
    return place / "work/nets.py"


def opened_for_the_first_time(place: Path, tree: KeptTree) -> Path:
    path = root_folder(tree.root, ".") / "other.json"
    path.write_text("{}")
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed_file, r"here/sub/net\.json has changed since it was measured"),
        (changed_library, r"other-lib/shoplib\.py has changed since it was measured"),
        (changed_elsewhere, r"elsewhere/weights has changed since it was measured"),
        (opened_by_its_whole_path, r"work/nets\.py was opened in place of the run's own file; use"),
        (opened_for_the_first_time, r"other\.json is opened now, but was not opened in the run"),
    ],
)
def test_what_is_not_the_runs_own_is_refused_by_name(
    place: Path, change: Change, says: str
) -> None:
    with anchor_trees(None, keep(place, measured(place, *NAMES))) as (tree, _):
        more = change(place, tree)
        with pytest.raises(ForeignCode, match=f"^run 0001: .*{says}"):
            tree.check(again(tree, *([more] if more else [])))


def test_a_damaged_or_lost_manifest_or_file_is_refused_by_name_and_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(place))
    anchor = keep(place, measured(place, *NAMES))
    assert anchor.manifest is not None
    run, text = anchor.manifest, anchor.manifest.read_text()

    def refused(match: str, one: AnchorCode = anchor) -> None:
        with pytest.raises(StoreError, match=match), anchor_trees(None, one):
            pass

    refused("does not have the code c2", dataclasses.replace(anchor, code="c2"))
    run.write_text(text[:-20])
    refused(f"{run}: is damaged")
    run.write_text(json.dumps({**json.loads(text), "schema": 2}))
    refused("must be of schema 1, got 2")
    run.write_text(text)
    (file, *_) = (path for path in (run.parent / FOLDER).rglob("*") if path.is_file())
    file.write_text("other")
    refused(f"{file}: is damaged")
    run.unlink()
    refused("does not have the code")
    assert not list(place.glob(f"{TREE_PREFIX}*"))


def test_a_kept_file_that_is_gone_runs_only_where_it_lies_as_it_was(place: Path) -> None:
    anchor = keep(place, measured(place, "work/nets.py"))
    assert anchor.manifest is not None
    shutil.rmtree(anchor.manifest.parent / FOLDER)
    with anchor_trees(None, anchor) as (tree, _):
        tree.check(again(tree))
