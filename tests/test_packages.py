"""Which installed files and packages are part of what ran."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import FrameType
from typing import Any

import pytest

from convmark.core.installed import import_roots, version_of
from convmark.worker import packages as installed
from convmark.worker.packages import asks_for, names_at_start


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path of imports."""
    found = tmp_path.resolve()
    monkeypatch.syspath_prepend(found)
    monkeypatch.setattr(installed, "installed_folders", lambda: (str(found),))
    return found


def test_an_installed_file_that_was_edited_since_is_code(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "shoplib/__init__.py": "W = 8\n",
        "shoplib/more.py": "",
        "shop_tools.py": "W = 8\n",
        "_shop.cpython-311.so": "8",
        "shoplib-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: shoplib\nVersion: 1.0\n",
        "shoplib-1.0.dist-info/RECORD": "shoplib/__init__.py,sha256=another,6\n"
        "shoplib/more.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
        "shop_tools.py,sha256=another,6\n"
        "_shop.cpython-311.so,sha256=another,1\n",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    names = ("shoplib/__init__.py", "shoplib/more.py", "shop_tools.py", "_shop.cpython-311.so")
    files = [str(root / name) for name in names]
    assert installed.edited_files(files) == set()  # as old as the list of the package's files
    assert installed.edited_modules(files[:1]) == set()
    for file in files:
        os.utime(file, (2e9, 2e9))
    edited = {files[0], *files[2:]}
    assert installed.edited_modules(files) == edited - {files[0]}  # imported before it was edited
    (root / "loose.py").write_text("")
    told = installed.edited_files([*files, str(root / "shoplib/gone.py"), str(root / "loose.py")])
    assert told == {*edited, str(root / "loose.py")}
    (root / "conda-meta").mkdir()  # writes the environment's own path into files
    sha256 = hashlib.sha256((root / "shop_tools.py").read_bytes()).hexdigest()
    paths = [{"_path": "shop_tools.py", "sha256": "another", "sha256_in_prefix": sha256}]
    about = json.dumps({"paths_data": {"paths": paths}})
    (root / "conda-meta/shoplib-1.0-0.json").write_text(about)
    monkeypatch.setattr(sys, "prefix", str(root))
    assert installed.edited_files(files) == edited - {files[2]}


def test_a_folder_that_an_installer_has_filled_is_no_code_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled, plain, vendored, work = (
        tmp_path.resolve() / name
        for name in ("filled", "plain", "repository/vendored", "work/here")
    )
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    for folder in (filled, vendored, work.parent):  # as `pip install --target` leaves them
        written(folder, "shop-1.0.dist-info/RECORD")
    written(plain, "shop-1.0.egg-info/PKG-INFO")  # as `pip install -e` leaves a project
    (vendored.parent / ".git").mkdir()
    path = list(map(str, (filled, plain, vendored, work.parent)))
    assert import_roots(path=path) == [work, plain, vendored, work.parent]
    assert str(filled) in installed._installed_folders(tuple(path))
    assert {str(plain), str(vendored)}.isdisjoint(installed._installed_folders(tuple(path)))


def test_packages_that_are_links_are_installed_where_the_links_lead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path.resolve() / "cache/archive"
    about = Path(written(archive, "shop-1.0.dist-info/METADATA"))
    packages = tmp_path.resolve() / "lib/site-packages"
    (packages / about.parent.name).mkdir(parents=True)
    (packages / about.parent.name / "METADATA").symlink_to(about)
    found = installed._installed_folders((str(packages),))
    assert {str(packages), str(archive)} <= set(found)


def written(root: Path, name: str, text: str = "") -> str:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_what_a_package_without_a_list_has_brought_is_known_by_its_version(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(root, "Shop_Tools-1.egg-info/installed-files.txt", "../shop/__init__.py\nPKG-INFO\n")
    written(root, "Spaced-1.egg-info/top_level.txt", "spaced\n")
    known = (
        *("shop/__init__.py", "spaced/part.py", "old-1.0-py3.11.egg/old/__init__.py"),
        *("old-1.0-py3.11.egg/EGG-INFO/PKG-INFO", "unlisted-1.0.dist-info/METADATA"),
    )
    assert installed.edited_files([written(root, name) for name in known]) == set()
    loose = written(root, "shopping/__init__.py")
    assert installed.edited_files([loose]) == {loose}
    sha256 = hashlib.sha256(b"").hexdigest()  # what conda has not rewritten may have this one alone
    paths = [{"_path": "shopping/__init__.py", "sha256": sha256}]
    written(root, "conda-meta/shopping-1.0-0.json", json.dumps({"paths_data": {"paths": paths}}))
    monkeypatch.setattr(sys, "base_prefix", str(root))  # of an environment of venv
    assert installed.edited_files([loose]) == set()
    monkeypatch.undo()
    monkeypatch.setattr(installed, "installed_folders", lambda: (str(root),))
    monkeypatch.setattr(installed, "_SYSTEM", (str(root),))
    assert installed.edited_files([written(root, "of_the_system/__init__.py")]) == set()


def test_what_path_files_import_is_named_however_they_say_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (
        "import os; from hook_one.part import start; start()",
        "import hook_two.part, hook_three as three",
        "import sys; exec('try: import hook_four; __import__(\"hook_five\")\\nexcept OSError: 0')",
        "hook_six",
        "import __editable___hook_finder; __editable___hook_finder.install()",
        "import coverage; coverage.process_startup()",
    )
    written(root, "hooks.pth", "\n".join(lines))
    numbers = ("one", "two", "three", "four", "five", "six")
    there = (*(f"hook_{one}" for one in numbers), "start", "__editable___hook_finder", "coverage")
    for name in there:
        monkeypatch.setitem(sys.modules, name, sys)
    found = {name for name in names_at_start() if name not in sys.stdlib_module_names}
    assert found == {f"hook_{one}" for one in numbers[:5]}


def test_a_package_from_an_address_is_known_by_its_files_and_not_its_version_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "fromgit-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fromgit\nVersion: 1.0\n")
    record = "fromgit.py,sha256={},9\nfromgit-1.0.dist-info/RECORD,,\n"
    versions = []
    for address, digest in (("", "aa"), ("", "bb"), ("{}", "aa"), ("{}", "aa"), ("{}", "bb")):
        (folder / "direct_url.json").write_text(address)
        (folder / "RECORD").write_text(record.format(digest))
        versions.append(version_of("fromgit"))
    index, again, one, same, other = versions
    assert index == again == "1.0"
    assert one == same != other
    assert one.startswith("1.0@")


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux gives memory back")
def test_a_look_at_the_installed_modules_leaves_no_free_memory_to_forked_processes() -> None:
    script = """
        from convmark.worker import code_watch
        from convmark.worker.host import HostMemory

        kept = []

        def look(paths):
            several = [bytearray(900) for _ in range(40_000)]
            kept.append(several[-1])

        code_watch.edited_modules = look
        before = HostMemory().anonymous_bytes
        code_watch.look_at_modules(1)
        assert kept and HostMemory().anonymous_bytes - before < 2**22
        code_watch.look_at_modules(1)
        assert len(kept) == 1
    """
    subprocess.run([sys.executable, "-c", dedent(script)], check=True)


def test_what_a_framework_asks_for_it_asks_for_itself_whoever_calls_it(root: Path) -> None:
    def counts(library: str) -> bool:
        source = (
            f"import sys\n\n\ndef called(asks):\n    return asks(sys._getframe())\n# {library}\n"
        )
        module: dict[str, Any] = {}
        exec(compile(source, written(root, f"{library}/lazy.py", source), "exec"), module)
        return bool(module["called"](partial(asks_for, is_users=is_here, while_imported=True)))

    def is_here(frame: FrameType) -> bool:
        return frame.f_code.co_filename == __file__

    assert counts("some_library")
    assert not counts("keras")
    assert not counts("tf_keras")
