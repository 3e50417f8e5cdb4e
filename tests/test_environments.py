"""Environments made from requirements: their names, their Pythons, the installer, the cache."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import io
import json
import multiprocessing
import os
import sys
import tarfile
import threading
import time
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import pytest

from convmark.core.errors import InstallError, OptionError
from convmark.core.files import cache_folder
from convmark.interpreter.environments import (
    MARK,
    Cache,
    interpreter_path,
    interpreters,
)
from convmark.interpreter.installer import (
    Installer,
    Python,
    Resolved,
    Wanted,
    between,
    looks_like_requirement,
    releases,
    wanted,
)

# -- requirements --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tensorflow==2.20.*", ("tensorflow==2.20.*",)),
        ("tensorflow == 2.20.*", ("tensorflow==2.20.*",)),
        ("2.20.0", ("tensorflow==2.20.0",)),
        ("tensorflow==2.16.2 keras==3.3.3", ("keras==3.3.3", "tensorflow==2.16.2")),
        ("keras==3.3.3 tensorflow==2.16.2 keras==3.3.3", ("keras==3.3.3", "tensorflow==2.16.2")),
        ("tensorflow[and-cuda]>=2.14,<2.16", ("tensorflow[and-cuda]<2.16,>=2.14",)),
    ],
)
def test_requirements_are_known_whatever_their_spelling(text: str, found: tuple[str, ...]) -> None:
    assert wanted("--env", text).requirements == found
    assert looks_like_requirement(text)


@pytest.mark.parametrize(
    "text", ["", "  ", "tensorflow=2.20", "==2.20", "a/b c", "git:main", "-e ."]
)
def test_what_is_no_requirement_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(OptionError, match="--env: must be a requirement such as") as caught:
        wanted("--env", text)
    assert "\n" not in str(caught.value)
    assert not looks_like_requirement(text)


def test_a_folder_is_named_after_what_it_holds_and_no_two_share_one() -> None:
    names = [
        wanted("--env", text).name
        for text in ("tensorflow==2.20.*", "tensorflow==2.20", "tensorflow>=2.20", "x" * 200)
    ]
    assert names[0].startswith("tensorflow-2.20")
    assert len(set(names)) == 4
    assert all(len(name) < 80 and os.sep not in name for name in names)


# -- interpreters that a user names --------------------------------------------------------------


def test_an_interpreter_is_named_by_path_by_name_or_by_its_environments_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env" / "bin").mkdir(parents=True)
    python = tmp_path / "env" / "bin" / "python"
    python.symlink_to(sys.executable)
    assert interpreter_path("--python", str(python)) == str(python)
    assert interpreter_path("--python", str(tmp_path / "env")) == str(python)
    monkeypatch.setenv("PATH", str(python.parent))
    assert interpreter_path("--python", "python") == str(python)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("nothing", "no interpreter"),
        ("folder", "is a folder without bin/python"),
        ("plain file", "must be an executable file"),
    ],
)
def test_what_is_no_interpreter_is_refused(tmp_path: Path, made: str, said: str) -> None:
    path = tmp_path / "x"
    if made == "folder":
        path.mkdir()
    if made == "plain file":
        path.write_text("")
    with pytest.raises(OptionError, match=said):
        interpreter_path("--python", str(path))


def test_all_requirements_are_checked_before_one_is_made() -> None:
    def never() -> Cache:
        raise AssertionError("nothing may be made")

    with pytest.raises(OptionError, match="--env"):
        interpreters([], ["tensorflow==2.20.0", "tensor flow=="], never)


# -- the installer, with a stand-in for uv -------------------------------------------------------

LISTED_PYTHONS = [
    ("3.19.4", "/versions/3.19.4/bin/python3.19", "cpython"),
    ("3.19.1", "/usr/bin/python3.19", "cpython"),
    ("3.18.0", "/pyenv/shims/python3.18", "cpython"),
    ("3.17.0", "/pypy/bin/python3.17", "pypy"),
    ("3.9.18", "/usr/bin/python3.9", "cpython"),
    ("3.8.1", "/usr/bin/python3.8", "cpython"),
]
LISTED = json.dumps(
    [
        {
            "version": version,
            "version_parts": {"major": 3, "minor": int(version.split(".")[1])},
            "path": path,
            "implementation": kind,
            "variant": "default",
        }
        for version, path, kind in LISTED_PYTHONS
    ]
)
UV = """
echo "$@" >> "$LOG"
case "$1 $2" in
"python list") echo "$PATH" >> "$LOG"; cat "$LISTED";;
"pip compile")
  case "$*" in
  *{refuses}*) echo "no solution found" >&2; echo "because tensorflow has no wheels" >&2; exit 1;;
  esac
  cat > /dev/null; echo "tensorflow==2.20.0"; echo "numpy==1.26.0";;
"venv "*) for last; do :; done; mkdir -p "$last/bin"; cp /bin/true "$last/bin/python";;
"pip install") cat >> "$LOG"; {install};;
"pip freeze") echo "tensorflow==2.20.0"; echo "numpy==1.26.0";;
esac
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a stand-in for uv, which is on the PATH alone."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "listed").write_text(LISTED)
    set_uv(tmp_path / "bin")
    return tmp_path / "bin"


def set_uv(folder: Path, *, refuses: str = "none-such", install: str = "true") -> None:
    path = folder / "uv"
    path.write_text(f"#!/bin/sh\n{UV.format(refuses=refuses, install=install)}\n")
    path.chmod(0o755)


def by_uv(uv: Path, **more: str) -> Installer:
    paths = {"PATH": f"{uv}:/bin:/usr/bin", "LOG": str(uv / "log"), "LISTED": str(uv / "listed")}
    return Installer({**paths, **more})


PYTHON = Python("3.13.0", "/py/3.13")
WANTED = Wanted(("tensorflow==2.20.*",))
RESOLVED = Resolved(PYTHON, "tensorflow==2.20.0\nnumpy==1.26.0\n")


def test_every_minor_version_is_found_once_the_own_first_then_the_newest(
    uv: Path, tmp_path: Path
) -> None:
    (tmp_path / "pyenv" / "versions" / "3.19.4" / "bin").mkdir(parents=True)
    found = by_uv(uv, PYENV_ROOT=str(tmp_path / "pyenv")).pythons()
    assert found[0].path == sys.executable
    assert [python.version for python in found[1:]] == ["3.19.4", "3.9.18"]
    assert found[1].minor == "3.19"
    assert f":{tmp_path}/pyenv/versions/3.19.4/bin\n" in (uv / "log").read_text()


def test_uv_resolves_for_the_first_python_and_installs_what_it_has_locked(
    uv: Path, tmp_path: Path
) -> None:
    by = by_uv(uv)
    resolved = by.resolve(WANTED)
    assert resolved == Resolved(by.pythons()[0], RESOLVED.locked)
    by.install(WANTED, resolved, tmp_path / "env")
    log = (uv / "log").read_text()
    assert RESOLVED.locked.strip() in log
    assert "--no-deps" in log
    assert by.frozen("python") == ["numpy==1.26.0", "tensorflow==2.20.0"]


def test_a_python_without_wheels_is_passed_over(uv: Path) -> None:
    set_uv(uv, refuses=sys.executable)
    assert by_uv(uv).resolve(WANTED).python.version == "3.19.4"


def test_where_no_python_has_wheels_the_message_names_them_and_the_command_to_try(uv: Path) -> None:
    set_uv(uv, refuses="--python")
    with pytest.raises(InstallError) as caught:
        by_uv(uv).resolve(WANTED)
    message = str(caught.value)
    own = ".".join(map(str, sys.version_info[:2]))
    assert "\n" not in message
    assert "because tensorflow has no wheels" in message
    assert f"no Python here has wheels for it (tried {own}, 3.19, 3.9)" in message
    assert f"hand: uv run --no-project --python {own} --with 'tensorflow==2.20.*'" in message


def test_an_installation_that_fails_quotes_the_installers_last_lines(
    uv: Path, tmp_path: Path
) -> None:
    set_uv(uv, install="for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 7")
    with pytest.raises(InstallError, match="uv ended with status 7 and said: line 2 / line 3"):
        by_uv(uv).install(WANTED, RESOLVED, tmp_path / "env")


def test_without_uv_the_message_says_how_to_install_it(uv: Path) -> None:
    with pytest.raises(InstallError, match="pip install uv"):
        Installer({"PATH": "/none"})


def test_uv_sees_no_other_environment_and_gets_pips_settings(
    uv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", sys.orig_argv[0])
    index = "https://index.example/simple"
    found = by_uv(uv, VIRTUAL_ENV="/v", PYTHONPATH="/p", HOME="/h", PIP_INDEX_URL=index).environ
    assert "VIRTUAL_ENV" not in found
    assert "PYTHONPATH" not in found
    assert found["HOME"] == "/h"
    assert found["UV_DEFAULT_INDEX"] == index


def wheel(name: str, version: str) -> bytes:
    folder, content = f"{name}-{version}.dist-info", io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{folder}/METADATA", about)
        of_wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{folder}/WHEEL", of_wheel)
        archive.writestr(f"{folder}/RECORD", "")
    return content.getvalue()


def source(name: str, setup: str) -> bytes:
    content = io.BytesIO()
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for file, text in (("setup.py", setup), ("PKG-INFO", about)):
            member = tarfile.TarInfo(f"{name}-1.0/{file}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


class Index(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def test_an_index_with_other_files_than_it_says_installs_nothing_and_runs_nothing(
    tmp_path: Path,
) -> None:
    if not Path(sys.executable).with_name("uv").is_file():
        pytest.skip("needs uv")
    ran = tmp_path / "ran"
    files = {
        "changed": ("changed-1.0-py3-none-any.whl", wheel("changed", "1.0")),
        "other": ("other-1.0-py3-none-any.whl", wheel("other", "2.0")),
        "source": ("source-1.0.tar.gz", source("source", f"open({str(ran)!r}, 'w')")),
    }
    for name, (file, content) in files.items():
        folder = tmp_path / "simple" / name
        folder.mkdir(parents=True)
        (folder / file).write_bytes(content)
        fragment = f"#sha256={'0' * 64}" if name == "changed" else ""
        (folder / "index.html").write_text(f'<a href="{file}{fragment}">{file}</a>')
    serving = functools.partial(Index, directory=str(tmp_path))
    said = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serving) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {
            **os.environ,
            "UV_DEFAULT_INDEX": f"http://127.0.0.1:{server.server_port}/simple",
            "UV_CACHE_DIR": str(tmp_path / "cache"),
            "NO_PROXY": "127.0.0.1",
        }
        python = Python(".".join(map(str, sys.version_info[:3])), sys.executable)
        for name in files:
            by, resolved = Installer(environ), Resolved(python, f"{name}==1.0\n")
            with pytest.raises(InstallError) as refused:
                by.install(Wanted((f"{name}==1.0",)), resolved, tmp_path / "environments" / name)
            said[name] = str(refused.value)
        server.shutdown()
    assert "Hash mismatch" in said["changed"]
    assert "does not match filename" in said["other"]
    assert "`source`" in said["source"]
    assert not ran.exists()
    assert list((tmp_path / "environments").glob("*/lib/*/site-packages/*.dist-info")) == []


def test_a_local_file_is_part_of_what_requirements_come_to(uv: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "foo-1-py3-none-any.whl"
    named = wanted("--env", f"foo @ file://{wheel}")
    found = []
    for content in ("one", "two"):
        wheel.write_text(content)
        found.append(by_uv(uv).resolve(named).locked)
    assert found[0] != found[1]
    assert found[1] == by_uv(uv).resolve(named).locked


# -- the cache -----------------------------------------------------------------------------------


class Fake(Installer):
    """Installs by making a folder; may fail half-way, or take its time."""

    def __init__(self, *, fails: BaseException | None = None, seconds: float = 0.0) -> None:
        self.environ = {}
        self.comes_to = RESOLVED
        self.installed: list[str] = []
        self._fails = fails
        self._seconds = seconds

    def resolve(self, wanted: Wanted) -> Resolved:
        if isinstance(self._fails, InstallError):
            raise self._fails
        return self.comes_to

    def install(self, wanted: Wanted, resolved: Resolved, folder: Path) -> None:
        assert not folder.exists()
        (folder / "bin").mkdir(parents=True)
        (folder / "lib").write_text("half")
        time.sleep(self._seconds)
        if self._fails is not None:
            raise self._fails
        (folder / "bin" / "python").symlink_to(sys.executable)
        self.installed.append(str(wanted))

    def frozen(self, python: str) -> list[str]:
        return ["keras==3.15.0", "tensorflow==2.20.0"]


def cache(folder: Path, by: Fake) -> Cache:
    return Cache(folder, by=lambda: by, now=lambda: datetime(2026, 1, 2, tzinfo=timezone.utc))


def test_an_environment_is_made_once_and_then_reused(tmp_path: Path) -> None:
    by, said = Fake(), []
    first = cache(tmp_path, by).get(WANTED, said.append)
    again = cache(tmp_path, by).get(WANTED, said.append)
    assert first == again
    assert os.access(first.python, os.X_OK)
    assert (first.version, first.packages) == ("3.13.0", ("keras==3.15.0", "tensorflow==2.20.0"))
    assert by.installed == ["tensorflow==2.20.*"]
    assert said == [
        "making the environment of tensorflow==2.20.*",
        "the environment of tensorflow==2.20.*, made 2026-01-02T00:00:00+00:00, is up to date",
    ]
    assert cache(tmp_path, by).list() == [first]


def test_what_names_no_fixed_release_is_looked_up_again_and_made_anew_where_it_has_changed(
    tmp_path: Path,
) -> None:
    by, said = Fake(), []
    cache(tmp_path, by).get(WANTED)
    by.comes_to = Resolved(PYTHON, "tensorflow==2.20.1\n")
    assert cache(tmp_path, by).get(WANTED, said.append).locked == "tensorflow==2.20.1\n"
    assert said == ["making the environment of tensorflow==2.20.* again"]
    assert len(by.installed) == 2


def test_a_fixed_release_is_looked_up_only_where_it_is_asked_for(tmp_path: Path) -> None:
    by, fixed = Fake(), Wanted(("tensorflow==2.20.0",))
    cache(tmp_path, by).get(fixed)
    by.comes_to = Resolved(PYTHON, "tensorflow==2.20.0\nkeras==3.16.0\n")
    cache(tmp_path, by).get(fixed)
    assert len(by.installed) == 1
    cache(tmp_path, by).get(fixed, refresh=True)
    assert len(by.installed) == 2


def test_where_nothing_can_be_looked_up_what_is_there_is_used_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    made = cache(tmp_path, Fake()).get(WANTED)
    offline = Fake(fails=InstallError("no network"))
    assert cache(tmp_path, offline).get(WANTED, said.append) == made
    assert said == [
        "the environment of tensorflow==2.20.* is used as it was at 2026-01-02T00:00:00+00:00: "
        "no network"
    ]
    with pytest.raises(InstallError, match="no network"):
        cache(tmp_path, offline).get(WANTED, refresh=True)


@pytest.mark.parametrize(
    ("text", "is_fixed"),
    [
        ("tensorflow==2.20.0", True),
        ("tensorflow==2.20.0 keras===3.3.3", True),
        ("tensorflow==2.20.*", False),
        ("tensorflow==2.20.0 keras>=3", False),
        ("tf-nightly", False),
        ("foo @ file:///w.whl", False),
        ("foo @ git+https://host/foo@main", False),
    ],
)
def test_only_an_exact_version_is_a_fixed_release(text: str, is_fixed: bool) -> None:
    assert wanted("--env", text).is_fixed is is_fixed


@pytest.mark.parametrize(
    "error", [InstallError("no wheels"), KeyboardInterrupt(), OSError(28, "full")]
)
def test_nothing_half_made_stays(tmp_path: Path, error: BaseException) -> None:
    made = cache(tmp_path, Fake(fails=error))
    with pytest.raises((InstallError, KeyboardInterrupt)):
        made.get(WANTED)
    assert [path.suffix for path in made.folder.iterdir()] in ([], [".lock"])
    assert made.list() == []


def test_what_a_killed_maker_left_is_made_anew(tmp_path: Path) -> None:
    made = cache(tmp_path, Fake())
    half = made.folder / WANTED.name
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").symlink_to(sys.executable)
    assert made.list() == []
    assert made.get(WANTED).packages
    assert not (half / "half").exists()


def test_an_environment_whose_interpreter_is_gone_is_made_anew(tmp_path: Path) -> None:
    by = Fake()
    found = cache(tmp_path, by).get(WANTED)
    Path(found.python).unlink()
    assert cache(tmp_path, by).get(WANTED) == found
    assert len(by.installed) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "more": 2}', "\x00"])
def test_a_mark_that_is_damaged_counts_as_none(tmp_path: Path, text: str) -> None:
    by = Fake()
    made = cache(tmp_path, by)
    made.get(WANTED)
    (made.folder / WANTED.name / MARK).write_text(text)
    assert made.list() == []
    made.get(WANTED)
    assert len(by.installed) == 2


def test_two_makers_at_once_make_it_once_and_the_second_says_that_it_waits(tmp_path: Path) -> None:
    by, said = Fake(seconds=0.5), []
    threads = [
        threading.Thread(target=lambda: cache(tmp_path, by).get(WANTED, said.append))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert by.installed == ["tensorflow==2.20.*"]
    assert sorted(line.partition(" ")[0] for line in said) == ["making", "waiting"]


def _make(folder: Path) -> None:
    cache(folder, Fake(seconds=60)).get(WANTED)


def test_a_maker_that_is_killed_lets_go_of_the_lock(tmp_path: Path) -> None:
    maker = multiprocessing.get_context("fork").Process(target=_make, args=(tmp_path,))
    maker.start()
    half = tmp_path / "environments" / WANTED.name / "lib"
    while not half.exists():
        time.sleep(0.01)
    maker.kill()
    maker.join()
    by = Fake()
    cache(tmp_path, by).get(WANTED)
    assert by.installed == ["tensorflow==2.20.*"]


def test_an_environment_is_removed_by_name_or_by_requirements(tmp_path: Path) -> None:
    made = cache(tmp_path, Fake())
    made.get(WANTED)
    other = made.get(Wanted(("tensorflow==2.19.0",)))
    made.remove("tensorflow==2.20.*")
    assert made.list() == [other]
    made.remove(other.name)
    assert made.list() == []
    with pytest.raises(OptionError, match="no environment 'x'; known: none"):
        made.remove("x")


def test_a_cache_folder_that_cannot_be_made_is_said_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match="CONVMARK_CACHE names another"):
        cache(tmp_path / "file", Fake()).get(WANTED)


def test_the_folder_is_the_users_cache_unless_the_environment_names_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("CONVMARK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_folder() == tmp_path / "xdg" / "convmark"


def test_the_mark_tells_what_is_there(tmp_path: Path) -> None:
    made = cache(tmp_path, Fake())
    made.get(WANTED)
    found = json.loads((made.folder / WANTED.name / MARK).read_text())
    assert found["requirements"] == ["tensorflow==2.20.*"]
    assert found["locked"] == RESOLVED.locked


def test_the_mark_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    made = cache(tmp_path, Fake())
    before = made.get(Wanted(("tensorflow==2.20.0",)))
    mark = Path(before.python).parents[1] / MARK
    content = json.loads(mark.read_text())
    del content["locked"]
    mark.write_text(json.dumps({**content, "by": "pip"}))
    assert made.list() == [dataclasses.replace(before, locked="")]


# -- releases ------------------------------------------------------------------------------------

OF_THE_INDEX = {
    "3.13": "tensorflow (2.21.0)\nAvailable versions: 2.21.0, 2.20.0, 2.20.0rc0, 2.19.0.dev1",
    "3.11": "tensorflow (2.20.0)\nAvailable versions: 2.20.0, 2.9.1, 2.16.2, oddity",
}


def test_the_releases_of_all_pythons_are_taken_together_without_previews() -> None:
    found = releases("tensorflow", lambda package, minor: OF_THE_INDEX[minor], list(OF_THE_INDEX))
    assert found == ["2.9.1", "2.16.2", "2.20.0", "2.21.0"]


def test_an_index_that_names_none_is_said_with_the_command_to_try() -> None:
    with pytest.raises(InstallError, match="pip index versions tensorfow"):
        releases("tensorfow", lambda package, minor: "", ["3.13"])


def test_the_releases_between_two_go_from_good_to_bad_either_way() -> None:
    known = ["2.16.2", "2.17.0", "2.17.1", "2.18.0"]
    assert between(known, "2.17", "2.18.0") == ["2.17.0", "2.17.1", "2.18.0"]
    assert between(known, "2.18.0", "2.16.2") == known[::-1]
    with pytest.raises(OptionError, match=r"--good: no release '2\.15\.0' with wheels"):
        between(known, "2.15.0", "2.18.0")
    with pytest.raises(OptionError, match="--bad: must be another release"):
        between(known, "2.17.1", "2.17.1")
