"""Environments made from requirements: their names, their Pythons, the installer, the cache."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from convmark.core.errors import InstallError, OptionError
from convmark.interpreter.environments.cache import MARK, Cache, cache_folder
from convmark.interpreter.environments.installer import Installer, Pip, Uv, installer
from convmark.interpreter.environments.interpreter import interpreter_path, interpreters
from convmark.interpreter.environments.pythons import Python, installed
from convmark.interpreter.environments.releases import between, releases
from convmark.interpreter.environments.requirement import Wanted, looks_like_requirement, wanted

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


# -- the Pythons of the machine ------------------------------------------------------------------


def fake_python(path: Path, version: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\nexit {status}\n")
    path.chmod(0o755)
    return path


def test_every_minor_version_is_found_once_the_own_first_then_the_newest(tmp_path: Path) -> None:
    fake_python(tmp_path / "path" / "python3.9", "3.9.18")
    fake_python(tmp_path / "path" / "python3.18", "3.18.0", status=127)  # a shim that is not set
    fake_python(tmp_path / "pyenv" / "versions" / "3.8.1" / "bin" / "python", "3.8.1")
    fake_python(tmp_path / "pyenv" / "versions" / "3.9.1" / "bin" / "python", "3.9.1")
    fake_python(tmp_path / "pyenv" / "versions" / "3.19.4" / "bin" / "python", "3.19.4")
    environ = {"PATH": str(tmp_path / "path"), "PYENV_ROOT": str(tmp_path / "pyenv")}
    found = installed(environ)
    assert found[0].path == sys.executable
    assert [python.version for python in found[1:]] == ["3.19.4", "3.9.18"]
    assert found[1].minor == "3.19"


# -- the installers, with a stand-in for uv and pip ----------------------------------------------


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


UV = """
echo "$@" >> "$LOG"
case "$1 $2" in
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
    script(tmp_path / "bin" / "uv", UV.format(refuses="none-such", install="true"))
    return tmp_path / "bin"


def by_uv(uv: Path) -> Installer:
    found = installer({"PATH": f"{uv}:/bin:/usr/bin", "LOG": str(uv / "log")})
    assert isinstance(found, Uv)
    return found


PYTHONS = [Python("3.13.0", "/py/3.13"), Python("3.11.7", "/py/3.11")]
WANTED = Wanted(("tensorflow==2.20.*",))


def test_uv_resolves_for_the_first_python_and_installs_what_it_has_locked(
    uv: Path, tmp_path: Path
) -> None:
    assert by_uv(uv).install(WANTED, tmp_path / "env", PYTHONS) == PYTHONS[0]
    log = (uv / "log").read_text()
    assert "tensorflow==2.20.0\nnumpy==1.26.0" in log
    assert "--no-deps" in log
    assert by_uv(uv).frozen("python") == ["numpy==1.26.0", "tensorflow==2.20.0"]


def test_a_python_without_wheels_is_passed_over(uv: Path, tmp_path: Path) -> None:
    script(uv / "uv", UV.format(refuses="/py/3.13", install="true"))
    assert by_uv(uv).install(WANTED, tmp_path / "env", PYTHONS).version == "3.11.7"


def test_where_no_python_has_wheels_the_message_names_them_and_the_command_to_try(
    uv: Path, tmp_path: Path
) -> None:
    script(uv / "uv", UV.format(refuses="/py/", install="true"))
    with pytest.raises(InstallError) as caught:
        by_uv(uv).install(WANTED, tmp_path / "env", PYTHONS)
    message = str(caught.value)
    assert "\n" not in message
    assert "because tensorflow has no wheels" in message
    assert "no Python here has wheels for it (tried 3.13, 3.11)" in message
    assert "try by hand: uv run --no-project --python 3.13 --with 'tensorflow==2.20.*'" in message


def test_an_installation_that_fails_quotes_the_installers_last_lines(
    uv: Path, tmp_path: Path
) -> None:
    lines = "for n in 1 2 3 4 5 6; do echo line $n; done; exit 7"
    script(uv / "uv", UV.format(refuses="none-such", install=lines))
    with pytest.raises(InstallError, match="uv ended with status 7 and said: line 3 / line 4"):
        by_uv(uv).install(WANTED, tmp_path / "env", PYTHONS)


def test_without_uv_pip_tries_python_after_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere" / "python"))
    inner = "echo no matching distribution; exit 1"
    for name, status in (("old", "exit 0"), ("new", inner)):
        made = f'mkdir -p "$4/bin"; printf "#!/bin/sh\\n{status}\\n" > "$4/bin/python"'
        script(tmp_path / name, f'{made}; chmod +x "$4/bin/python"')
    by = installer({"PATH": "/bin:/usr/bin"})
    assert isinstance(by, Pip)
    new, old = Python("3.13.0", str(tmp_path / "new")), Python("3.11.7", str(tmp_path / "old"))
    assert by.install(WANTED, tmp_path / "env", [new, old]) == old
    with pytest.raises(InstallError, match=r"no matching distribution .*\(tried 3.13\)"):
        by.install(WANTED, tmp_path / "env", [new])


def test_an_installer_sees_no_other_environment_and_uv_gets_pips_index() -> None:
    found = installer({"PATH": "", "VIRTUAL_ENV": "/v", "PYTHONPATH": "/p", "HOME": "/h"})
    assert "VIRTUAL_ENV" not in found.environ
    assert "PYTHONPATH" not in found.environ
    assert found.environ["HOME"] == "/h"


# -- the cache -----------------------------------------------------------------------------------


class Fake(Installer):
    """Installs by making a folder; may fail half-way, or take its time."""

    name = "fake"

    def __init__(self, *, fails: BaseException | None = None, seconds: float = 0.0) -> None:
        object.__setattr__(self, "environ", {})
        object.__setattr__(self, "_fails", fails)
        object.__setattr__(self, "_seconds", seconds)
        object.__setattr__(self, "installed", [])

    def install(self, wanted: Wanted, folder: Path, pythons: Sequence[Python]) -> Python:
        assert not folder.exists()
        (folder / "bin").mkdir(parents=True)
        (folder / "lib").write_text("half")
        time.sleep(self._seconds)
        if self._fails is not None:
            raise self._fails
        (folder / "bin" / "python").symlink_to(sys.executable)
        self.installed.append(str(wanted))
        return pythons[0]

    def frozen(self, python: str) -> list[str]:
        return ["keras==3.15.0", "tensorflow==2.20.0"]


def cache(folder: Path, by: Fake) -> Cache:
    return Cache(folder, by=lambda: by, pythons=lambda: PYTHONS)


def test_an_environment_is_made_once_and_then_reused(tmp_path: Path) -> None:
    by, said = Fake(), []
    first = cache(tmp_path, by).get(WANTED, said.append)
    again = cache(tmp_path, by).get(WANTED, said.append)
    assert first == again
    assert os.access(first.python, os.X_OK)
    assert (first.version, first.packages) == ("3.13.0", ("keras==3.15.0", "tensorflow==2.20.0"))
    assert by.installed == ["tensorflow==2.20.*"]
    assert said == ["making the environment of tensorflow==2.20.*"]
    assert cache(tmp_path, by).list() == [first]


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
    assert [line.partition(" ")[0] for line in said] == ["making", "waiting"]


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
    with pytest.raises(OptionError, match="no environment 'x'; there are: none"):
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
    assert found["by"] == "fake"


# -- releases ------------------------------------------------------------------------------------

LISTED = {
    "3.13": "tensorflow (2.21.0)\nAvailable versions: 2.21.0, 2.20.0, 2.20.0rc0, 2.19.0.dev1",
    "3.11": "tensorflow (2.20.0)\nAvailable versions: 2.20.0, 2.9.1, 2.16.2, oddity",
}


def test_the_releases_of_all_pythons_are_taken_together_without_previews() -> None:
    found = releases("tensorflow", lambda package, minor: LISTED[minor], list(LISTED))
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
