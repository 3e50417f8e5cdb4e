"""Two versions of one package in one process: each side imports its own, and shares the rest."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.machinery
import importlib.resources
import importlib.util
import json
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from convmark.core.backends import packages_shared
from convmark.worker.framework_functions import framework_content, own_framework, patched
from convmark.worker.module_tables import Code, Tables

PACKAGE = {
    "shop/__init__.py": "",
    "shop/nets.py": """\
import json
from shop import sizes
calls = 0
class Box:
    label = "{side}"
def net():
    global calls
    calls += 1
    from shop.late import label
    return sizes.WIDTH, label, calls
""",
    "shop/sizes.py": "from pathlib import Path\nWIDTH = int(Path('width.txt').read_text())\n",
    "shop/late.py": "label = 'late {side}'\n",
    "shop/data.txt": "{side}",
    "width.txt": "{width}",
    "space/part.py": "NAME = '{side}'\n",  # a namespace package
    "made.py": "import sys, types\nsys.modules['made_up'] = types.SimpleNamespace(side='{side}')\n",
    "trick.py": "import sys\nclass M:\n    side = '{side}'\nsys.modules[__name__] = M()\n",
    "json_patch.py": "import sys, types\nm = types.ModuleType('wave')\nm.side = '{side}'\n"
    "sys.modules['wave'] = m\n",
    "zoo/__init__.py": "from .registry import builder\n",
    "zoo/registry.py": "def builder(name):\n    return '{side} zoo'\n",
}


@pytest.fixture
def codes(tmp_path: Path) -> list[Code]:
    """Two trees of one package; the new one in a src layout, with imports from there."""
    found = []
    for side, width in (("old", "3"), ("new", "5")):
        tree = tmp_path.resolve() / side
        source = tree / "src" if side == "new" else tree
        for name, text in PACKAGE.items():
            path = (tree if name.startswith(("zoo", "width")) else source) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("{side}", side).replace("{width}", width))
        fields = {"folder": str(tree), "import_roots": [str(source)], "zoo": str(tree / "zoo")}
        found.append(Code.of(side, fields))
    return found


@pytest.fixture
def tables(codes: list[Code]) -> Iterator[Tables]:
    import wave  # noqa: F401  # a module of the standard library that one side replaces

    before = list(sys.path), os.getcwd(), list(sys.meta_path)
    with Tables(codes) as made:
        yield made
    assert (sys.path, os.getcwd(), sys.meta_path) == before
    left = {name.partition(".")[0] for name in sys.modules}
    assert not {"shop", "space", "made", "made_up", "trick"} & left


def on_both(tables: Tables, ask: Callable[[], Any], *, all_of_it: bool = True) -> dict[str, Any]:
    answers = {}
    for side in ("old", "new"):
        with tables[side].active(all_of_it=all_of_it):
            answers[side] = ask()
    return answers


def imported(name: str) -> Any:
    return importlib.import_module(name)


def test_each_side_imports_its_own_also_late_and_counts_for_itself(tables: Tables) -> None:
    for calls in (1, 2):
        found = on_both(tables, lambda: imported("shop.nets").net())
        assert found == {"old": (3, "late old", calls), "new": (5, "late new", calls)}
    assert "shop" not in sys.modules


def test_a_light_switch_sees_what_is_imported_within_a_turn(tables: Tables) -> None:
    nets = on_both(tables, lambda: imported("shop.nets"))
    for side, module in nets.items():
        with tables[side].active(all_of_it=False):
            assert module.net()[1] == f"late {side}"
        assert "shop.late" not in sys.modules
    for side in nets:
        with tables[side].active(all_of_it=False):
            assert sys.modules["shop.late"].label == f"late {side}"


def test_namespaces_made_modules_and_modules_that_replace_themselves_are_the_sides_own(
    tables: Tables,
) -> None:
    def ask() -> tuple[str, ...]:
        imported("made")
        part, trick, made = map(imported, ("space.part", "trick", "made_up"))
        return part.NAME, trick.side, made.side

    expected = {"old": ("old",) * 3, "new": ("new",) * 3}
    assert on_both(tables, ask) == expected
    assert on_both(tables, ask) == expected
    assert not {"space", "space.part", "trick", "made_up"} & sys.modules.keys()


def test_a_shared_module_that_one_side_replaces_stays_for_the_other(tables: Tables) -> None:
    shared = sys.modules["wave"]
    with tables["old"].active():
        imported("json_patch")
        assert sys.modules["wave"].side == "old"  # type: ignore[attr-defined]
    assert sys.modules["wave"] is shared
    with tables["new"].active():
        assert sys.modules["wave"] is shared
    with tables["old"].active(all_of_it=False):
        assert sys.modules["wave"] is not shared


def test_resources_and_pickles_are_of_the_active_side(tables: Tables) -> None:
    text = on_both(tables, lambda: importlib.resources.files("shop").joinpath("data.txt"))
    assert {side: path.read_text() for side, path in text.items()} == {"old": "old", "new": "new"}
    pickled = on_both(tables, lambda: pickle.dumps(imported("shop.nets").Box))
    labels = on_both(tables, lambda: pickle.loads(pickled["old"]).label)
    assert labels == {"old": "old", "new": "new"}


def test_each_side_has_its_own_zoo(tables: Tables) -> None:
    def ask() -> str:
        from convmark_zoo import builder

        return str(builder("lenet5"))

    for side in ("old", "new"):
        with tables[side].active():
            tables[side].load_zoo()
    assert on_both(tables, ask) == {"old": "old zoo", "new": "new zoo"}


def test_a_finder_of_an_editable_installation_does_not_win_over_the_sides_folders(
    codes: list[Code], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = Path(codes[1].import_roots[0])

    class Editable:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name == "shop":
                return importlib.util.spec_from_file_location(
                    name,
                    installed / "shop" / "__init__.py",
                    submodule_search_locations=[str(installed / "shop")],
                )
            return None

    monkeypatch.setattr(sys, "meta_path", [Editable, *sys.meta_path])
    with Tables(codes) as tables:
        found = on_both(tables, lambda: imported("shop.nets").Box.label)
    assert found == {"old": "old", "new": "new"}


def test_a_package_that_only_a_finder_knows_is_taken_from_the_tree_in_its_place(
    codes: list[Code], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new = Path(codes[1].folder)
    for tree, side in ((new, "new"), (Path(codes[0].folder), "old")):
        (tree / "lib").mkdir()
        (tree / "lib" / "shelf.py").write_text(f"NAME = '{side}'\n")

    class Editable:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            file = new / "lib" / "shelf.py"
            return importlib.util.spec_from_file_location(name, file) if name == "shelf" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable])
    old = dataclasses.replace(codes[0], moved={str(new): codes[0].folder})
    with Tables([old, codes[1]]) as tables:
        assert on_both(tables, lambda: imported("shelf").NAME) == {"old": "old", "new": "new"}


def test_a_package_in_a_folder_of_links_is_taken_from_the_tree(
    codes: list[Code], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a strict editable installation has it: git ignores the folder, so no tree has it."""
    old, new = (Path(code.folder) for code in codes)
    for tree, side in ((new, "new"), (old, "old")):
        (tree / "lib" / "linked").mkdir(parents=True)
        (tree / "lib" / "linked" / "__init__.py").write_text("")
        (tree / "lib" / "linked" / "nets.py").write_text(f"NAME = '{side}'\n")
    links = new / "build" / "linked"
    links.mkdir(parents=True)
    for file in (new / "lib" / "linked").iterdir():
        (links / file.name).symlink_to(file)
    monkeypatch.setattr(sys, "path", [str(links.parent), *sys.path])
    given = [
        dataclasses.replace(
            codes[0],
            import_roots=[*codes[0].import_roots, str(old / "build")],
            moved={str(new): str(old)},
        ),
        codes[1],
    ]
    with Tables(given) as tables:
        found = on_both(tables, lambda: imported("linked.nets").NAME)
    assert found == {"old": "old", "new": "new"}


def test_the_path_of_a_side_has_no_folder_of_the_other_and_all_that_is_nobodys(
    codes: list[Code], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(sys, "path", [*codes[1].import_roots, str(tmp_path / "lib"), *sys.path])
    with Tables(codes) as tables:
        found = on_both(tables, lambda: list(sys.path))
    for code, other in zip(codes, reversed(codes), strict=True):
        assert found[code.name][0] == code.import_roots[0]
        assert not set(other.import_roots) & set(found[code.name])
        assert str(tmp_path / "lib") in found[code.name]


def test_a_side_keeps_its_own_path_and_finders(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "outside.py").write_text("count = 0\n")
    with tables["old"].active():
        sys.path.append(str(tmp_path / "extra"))
        imported("outside").count += 1
    with tables["new"].active(), pytest.raises(ModuleNotFoundError):
        imported("outside")
    with tables["old"].active():
        assert imported("outside").count == 1


def test_what_was_imported_from_a_sides_folder_before_is_put_aside_and_comes_back(
    codes: list[Code], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(codes[0].import_roots[0])
    monkeypatch.chdir(codes[0].folder)
    before = imported("shop.nets")
    try:
        with Tables(codes) as tables:
            assert on_both(tables, lambda: imported("shop.nets").Box.label)["new"] == "new"
        assert sys.modules["shop.nets"] is before
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]


def test_what_both_import_of_an_installation_is_shared(tables: Tables) -> None:
    sys.modules.pop("colorsys", None)
    found = on_both(tables, lambda: imported("colorsys"))
    assert found["old"] is found["new"]
    assert isinstance(sys.modules["colorsys"], types.ModuleType)


def test_a_file_of_the_other_sides_folders_is_foreign(codes: list[Code], tables: Tables) -> None:
    old, new = (Path(code.folder) for code in codes)
    own = str(old / "shop" / "nets.py")
    assert tables.foreign_file("old", [own, "/somewhere/else.py"]) is None
    assert tables.foreign_file("new", [own]) == own
    inside = str(new / "src" / "shop" / "nets.py")
    assert tables.foreign_file("old", [own, inside]) == inside


@pytest.fixture
def _no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what earlier tests have imported: to look through a framework takes over a second."""
    for name in [name for name in sys.modules if name.partition(".")[0] in packages_shared()]:
        monkeypatch.delitem(sys.modules, name)


class MyConv:
    def call(self, inputs: Any) -> Any:
        return inputs


def my_relu(inputs: Any) -> Any:
    return inputs


def _decorated() -> Any:
    """Return a function of another file around this file's own."""
    found = types.FunctionType(json.dumps.__code__, {})
    return functools.update_wrapper(found, my_relu)


@pytest.mark.usefixtures("_no_framework")
def test_a_framework_is_of_a_code_only_where_the_other_does_not_have_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common, one, other = (tmp_path.resolve() / name for name in ("common", "one", "other"))
    roots = {"old": [common, one], "new": [common, other]}
    codes = [
        Code(side, str(own[1]), list(map(str, own)), "/nowhere", {}) for side, own in roots.items()
    ]
    package = types.ModuleType("keras")
    monkeypatch.setitem(sys.modules, "keras", package)
    with Tables(codes) as tables:
        for folder, found in {
            common: None,  # as one that PYTHONPATH names, or an editable installation
            other: "the new code has a keras of its own",
        }.items():
            package.__path__ = [str(folder / "keras")]
            assert own_framework(tables.owner) == found
            owner = tables.owner(str(folder / "keras" / "layers.py"))
            assert owner == ("new" if found else None)
        assert tables.owner(str(common / "patches.py")) == "old"  # both have it, each for itself


@pytest.mark.usefixtures("_no_framework")
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (MyConv, "made.call"),
        (my_relu, "made"),
        (functools.partial(my_relu), "made"),
        (_decorated(), "made"),
        (staticmethod(my_relu), "made"),
        (functools.partial(json.dumps), ""),
        (json.JSONEncoder, ""),
    ],
    ids=["class", "function", "partial", "wrapped", "static", "partial of another", "other class"],
)
def test_what_a_code_puts_into_a_module_of_the_framework_is_seen_however_it_is_wrapped(
    value: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("keras.of_this_test")
    module.made = value  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = patched(lambda file: "old" if file == __file__ else None, {})
    place = f"keras.of_this_test.{named}"
    words = f"the old code replaces functions of the framework: {place}"
    assert found == (words if named else None)


class Called:
    def __call__(self, inputs: Any) -> Any:
        return inputs


def _of_a_library(inputs: Any) -> Any:
    return inputs


def _once_more(inputs: Any) -> Any:
    return inputs


@pytest.mark.usefixtures("_no_framework")
@pytest.mark.parametrize(
    ("instead", "seen"),
    [
        (functools.partial(_of_a_library), True),
        (Called(), True),
        (Called().__call__, True),
        (functools.partialmethod(_of_a_library), True),
        (property(_of_a_library), True),
        (abs, True),
        (json.JSONDecoder, True),
        (_once_more, True),
        (types.FunctionType(_of_a_library.__code__, {}), False),
        (_of_a_library, False),
        (None, False),
    ],
    ids=[
        *("partial", "object", "method", "partial method", "property", "builtin", "class"),
        "another of the framework's",
        *("newly made by the framework", "itself", "nothing that is called"),
    ],
)
@pytest.mark.parametrize("place", ["keras.of_this_test", "keras.of_this_test.Layer"])
def test_whatever_is_called_in_the_place_of_a_function_of_the_framework_is_seen(
    instead: Any, seen: bool, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("keras.of_this_test")
    layer = type("Layer", (), {"__module__": module.__name__, "made": _of_a_library})
    vars(module).update(made=_of_a_library, other=_once_more, Layer=layer)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    before = framework_content()
    holder = layer if place.endswith("Layer") else module
    monkeypatch.setattr(holder, "made", instead)
    words = f"a code replaces functions of the framework: {place}.made"
    assert patched(lambda file: None, before) == (words if seen else None)
