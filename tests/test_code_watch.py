"""What a process reads, looks for and imports: how its worker watches it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import glob
import os
import py_compile
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workers import git

from convmark.core import installed as core_installed
from convmark.core.installed import TREE_PREFIX
from convmark.interpreter import import_roots
from convmark.worker import code_watch, protocol
from convmark.worker import packages as installed
from convmark.worker.code_watch import CodeWatch, _mapped_files, real_folder
from convmark.worker.looked import MOST_VARIABLES, Looked, asker, told_variables
from convmark.worker.opened import KernelOpens, Opened
from convmark.worker.packages import installed_folders
from convmark.worker.protocol import ABSENT, file_digest


def test_a_worker_counts_packages_as_installed_outside_repositories_or_in_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path.resolve()
    tree = top / f"{TREE_PREFIX}1" / "repo"  # the files of a commit, without .git
    own = [one / "vendor/site-packages" for one in (top / "repo", tree)]
    installed = [top / "repo/.venv/lib/site-packages", top / "other/site-packages"]
    for folder in (top / "repo/.git", *own, *installed):
        folder.mkdir(parents=True)
    (top / "repo/.venv/pyvenv.cfg").write_text("")
    monkeypatch.setattr(sys, "path", [*map(str, own), *map(str, installed)])
    found = set(map(Path, installed_folders()))
    assert found.isdisjoint(own)
    assert found.issuperset(installed)
    assert set(own) <= set(import_roots())
    assert set(installed).isdisjoint(import_roots())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own ways to tell")
def test_what_native_code_reads_in_a_tracked_folder_of_packages_is_seen(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    weights = [tmp_path / folder / "site-packages/w.h5" for folder in ("vendor", ".conda")]
    for path in weights:
        path.parent.mkdir(parents=True)
        path.write_text("")
    (tmp_path / ".conda/conda-meta").mkdir()
    opened = Opened([str(tmp_path)])
    subprocess.run(["cat", *map(str, weights)], check=True)
    assert {path for path in opened.close()[0] if path.endswith(".h5")} == {str(weights[0])}


def test_a_large_file_is_known_by_size_time_head_and_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "WHOLE_BYTES", 1 << 18)
    path = tmp_path / "weights"
    path.write_bytes(bytes(1 << 19))
    first = file_digest(path)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert file_digest(path) != first


@pytest.fixture
def opens() -> Iterator[Callable[[Path], None]]:
    """Another program, which opens a file when it is told to."""
    code = "import sys\nfor line in sys.stdin: open(line[:-1]).close(); print(flush=True)"
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdin
        assert program.stdout

        def open_(path: Path) -> None:
            print(path, file=program.stdin, flush=True)
            program.stdout.readline()

        yield open_
        program.stdin.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own ways to tell")
@pytest.mark.parametrize("tells_whose", [True, False])
def test_what_another_program_opens_counts_only_where_the_kernel_does_not_tell_it_apart(
    tmp_path: Path,
    opens: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    tells_whose: bool,
) -> None:
    if not tells_whose:
        monkeypatch.setattr(KernelOpens, "_begin_fanotify", lambda self, folders: False)
    elif not KernelOpens([str(tmp_path)]).tells_whose:
        pytest.skip("fanotify is not allowed here")
    for name in ("module.py", "words.txt", "own.txt", "x.egg-info/entry_points.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    seen = []
    for started in (False, True):
        opened = Opened([str(tmp_path)])
        if started:  # by native code, which tells no one
            subprocess.run(["true"], check=True)
        for name in ("module.py", "words.txt", "x.egg-info/entry_points.txt"):
            opens(tmp_path / name)
        os.close(os.open(tmp_path / "own.txt", os.O_RDONLY))
        read, _ = opened.close()
        assert opened.missed == ""
        seen.append({Path(path).name for path in read})
    first = {"own.txt"} if tells_whose else {"own.txt", "words.txt"}
    assert seen == [first, {"own.txt", "words.txt", "module.py"}]


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("more opened than the kernel keeps", "more files were opened at once"),
        ("more folders than are watched", "the folders of the code are more than 3"),
        ("no watch left", "inotify: No space left on device"),
        ("no instance left", "inotify: Too many open files"),
    ],
)
def test_where_the_kernel_may_not_have_told_all_the_reason_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, why: str
) -> None:
    monkeypatch.setattr(KernelOpens, "_begin_fanotify", lambda self, folders: False)
    for name in "abcd":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    if trouble == "more folders than are watched":
        monkeypatch.setattr("convmark.worker.opened.MOST_FOLDERS", 3)
    refused = {"no watch left": ("inotify_add_watch", errno.ENOSPC),
               "no instance left": ("inotify_init1", errno.EMFILE)}.get(trouble)  # fmt: skip
    if refused:
        library = refusing(*refused)
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: library)
    opened = Opened([str(tmp_path)])
    if trouble == "more opened than the kernel keeps":
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for number in range(min(most, 1 << 17) + 100):
            os.close(os.open(tmp_path / "abcd"[number % 4] / "file", os.O_RDONLY))
        if most > 1 << 17:
            pytest.skip("the kernel keeps more than can be opened in a second")
    opened.close()
    assert opened.missed.startswith(why)


@pytest.mark.parametrize(
    ("model", "imported", "known"),
    [
        ("lenet5", ["zoo/lenet.py"], True),
        ("lenet5", ["zoo/lenet.py", "project/sitecustomize.py"], False),
        ("nets:net", ["zoo/registry.py"], False),
    ],
)
def test_of_the_zoo_alone_it_is_known_what_ran_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, imported: list[str], known: bool
) -> None:
    for name in ("zoo/__init__.py", *imported):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    watch = watching(model, tmp_path, imported, monkeypatch)
    watch._opened.missed = "the folders of the code are more than 8192"
    told: dict[str, Any] = {}
    watch.report(lambda event, **fields: told.update(fields))
    assert ("missed" not in told) == known


def watching(
    model: str,
    place: Path,
    imported: list[str],
    monkeypatch: pytest.MonkeyPatch,
    read: code_watch.Read | None = None,
) -> CodeWatch:
    """Begin to watch a process that imports these files, the folder zoo among them."""
    package = SimpleNamespace(__file__=str(place / "zoo/__init__.py"))
    monkeypatch.setitem(sys.modules, "convmark_zoo", package)
    monkeypatch.setattr(code_watch, "_not_code", lambda: ())
    paths = [str(place / name) for name in imported]
    monkeypatch.setattr(code_watch, "_module_files", lambda: iter(paths))
    return CodeWatch(model, [str(place)], read=read)


@pytest.mark.parametrize(
    ("name", "by_itself", "missed"),
    [
        ("nets.py", False, "nets.py was changed while it ran"),
        ("nets.py", True, None),
        ("zoo/__init__.py", False, "__init__.py was changed while it ran"),
        ("notes.py", False, None),
        ("net.tflite", False, "net.tflite was changed while it ran"),
    ],
)
def test_of_a_module_or_model_that_another_program_changes_meanwhile_it_is_not_known_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, by_itself: bool, missed: str | None
) -> None:
    for one in ("zoo/__init__.py", "nets.py", "notes.py", "net.tflite"):
        (tmp_path / one).parent.mkdir(exist_ok=True)
        (tmp_path / one).touch()
    monkeypatch.chdir(tmp_path)
    model = name if name.endswith(".tflite") else "nets:net"
    watch = watching(model, tmp_path, ["nets.py", "zoo/__init__.py"], monkeypatch)
    if by_itself:
        (tmp_path / name).write_text("")
    else:
        while (tmp_path / name).stat().st_ctime_ns < watch._began_ns:  # files' clock has ticks
            os.utime(tmp_path / name)
    told: dict[str, Any] = {}
    watch.report(lambda event, **fields: told.update(fields))
    assert told.get("missed") == missed


def test_a_module_of_the_user_s_that_is_imported_after_the_report_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may import it where it takes another branch: the code's hash lacks it."""
    for name in ("zoo/__init__.py", "later.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    watch = watching("nets:net", tmp_path, [], monkeypatch)
    assert watch.late() == ""
    watch.report(lambda event, **fields: None)
    assert watch.late() == ""
    installed = SimpleNamespace(__file__=str(Path(installed_folders()[0], "later.py")))
    monkeypatch.setitem(sys.modules, "installed_later", installed)
    assert watch.late() == ""
    own = SimpleNamespace(__file__=str(tmp_path / "later.py"))
    monkeypatch.setitem(sys.modules, "later", own)
    assert watch.late() == str((tmp_path / "later.py").resolve())


def test_a_file_that_is_first_read_after_the_report_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step may read it from its second call on: the code's hash lacks it."""
    for name in ("zoo/__init__.py", "early.npy", "later.py", "later.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    watch = watching("nets:net", tmp_path, [], monkeypatch)
    (tmp_path / "early.npy").read_bytes()
    watch.report(lambda event, **fields: None)
    (tmp_path / "own.txt").write_text("1")
    for name in ("early.npy", "own.txt", "later.py"):
        (tmp_path / name).read_bytes()
    watch.listens = False  # the other code's turn
    (tmp_path / "later.npy").read_bytes()
    assert watch.late() == ""
    watch.listens = True
    (tmp_path / "later.npy").read_bytes()
    assert watch.late() == str((tmp_path / "later.npy").resolve())
    resolved = code_watch._real

    def meanwhile(path: str) -> str:
        (tmp_path / "third.npy").touch()  # as a thread of the code does
        return resolved(path)

    monkeypatch.setattr(code_watch, "_real", meanwhile)
    assert watch.late() == str((tmp_path / "later.npy").resolve())


def test_what_a_framework_s_compiler_reads_later_is_code_only_where_the_user_s_has_called_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zoo/__init__.py", "cache.bin", "late.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    watch = watching("nets:net", tmp_path, [], monkeypatch)
    of = {"user": str(tmp_path / "nets.py"), "jax": str(Path(installed_folders()[0], "jax/a.py"))}
    users = lambda frame: frame.f_code.co_filename == of["user"]  # noqa: E731
    monkeypatch.setattr(watch, "_is_the_users", users)
    watch.report(lambda event, **fields: None)

    def read_by(callers: Sequence[str], name: str) -> str:
        def read() -> None:
            (tmp_path / name).read_bytes()

        for caller in callers:
            read = functools.partial(eval, compile("read()", of[caller], "eval"), {"read": read})
        read()
        return watch.late()

    assert read_by(["jax"], "cache.bin") == ""
    assert read_by(["jax", "user"], "cache.bin") == str((tmp_path / "cache.bin").resolve())
    watch._late.clear()
    assert read_by([], "late.npy") == str((tmp_path / "late.npy").resolve())  # as in its own thread


def test_what_the_user_s_code_reads_later_is_seen_where_autograph_has_rewritten_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zoo/__init__.py", "late.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    watch = watching("nets:net", tmp_path, [], monkeypatch)
    temporary = str(tmp_path.resolve() / "tmp")
    others = (temporary, os.path.dirname(__file__), os.path.realpath(os.path.dirname(os.__file__)))
    monkeypatch.setattr(code_watch, "_not_code", lambda: others)
    watch._users.clear()
    watch.report(lambda event, **fields: None)
    read = (tmp_path / "late.npy").read_bytes
    keras = str(Path(installed_folders()[0], "keras/layer.py"))
    for name in (f"{temporary}/own.py", f"{temporary}/__autograph_generated_file1_x.py"):
        assert watch.late() == ""
        call = functools.partial(eval, compile("read()", name, "eval"), {"read": read})
        eval(compile("call()", keras, "eval"), {"call": call})
    assert watch.late() == str((tmp_path / "late.npy").resolve())


def test_a_commit_s_code_changes_nothing_of_what_lies_beside_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / f"{TREE_PREFIX}1" / "project"
    cache = tmp_path.resolve() / "user" / "cache"
    for folder in (tree / "zoo", cache / "made", cache.with_name(".hidden")):
        folder.mkdir(parents=True)
    (tree / "zoo" / "__init__.py").touch()
    (cache / "w.txt").write_text("1")
    (tree / "large.npy").hardlink_to(cache / "w.txt")  # as a run's file that was not kept
    for name in ("cache", ".hidden"):
        (tree.parent / name).symlink_to(cache.with_name(name))
    watch = watching("nets:net", tree, [], monkeypatch)
    monkeypatch.chdir(tree)
    beside = Path("../cache")
    changes: list[Callable[[], object]] = [
        lambda: (beside / "w.txt").write_text("2"),
        lambda: os.open(beside / "new.txt", os.O_RDWR | os.O_CREAT),
        lambda: (beside / "new").mkdir(),
        lambda: (cache / "w.txt").unlink(),  # by its whole path too
        lambda: os.replace(beside / "w.txt", "mine.txt"),
        lambda: shutil.rmtree(beside.resolve()),
        lambda: (tree / "large.npy").open("r+b"),
    ]
    try:
        os.makedirs(beside / "made", exist_ok=True)  # which changes nothing
        (beside / "gone").unlink(missing_ok=True)
        shutil.rmtree(beside / "gone", ignore_errors=True)
        with pytest.raises(FileNotFoundError):
            (beside / "gone").rmdir()
        assert watch._beside.refused == ""
        for change in changes:
            with pytest.raises(PermissionError, match="a comparison changes no file of yours"):
                change()
        assert (beside / "w.txt").read_text() == "1"
        beside.resolve().mkdir(exist_ok=True)
        (tree / "own.txt").write_text("1")
        Path("../.hidden/lock").touch()
        told: dict[str, Any] = {}
        watch.report(lambda event, **fields: told.update(fields))
        assert told["missed"] == f"it may not change {cache / 'w.txt'}"
        assert watch.late() == ""
        with contextlib.suppress(PermissionError):
            (beside / "late.txt").touch()
        refused = watch.told_late()
        assert protocol.missed_late(refused) == f"it may not change {cache / 'late.txt'}"
        watch.listens = False  # today's code has its turn
        (beside / "todays.txt").touch()
    finally:
        watch.listens = False
        watch.close()
    assert sorted(os.listdir(cache)) == ["made", "todays.txt", "w.txt"]


def test_a_library_that_was_edited_since_it_was_installed_is_code_where_a_fork_has_it_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path.resolve() / "site-packages"
    for name in ("zoo/__init__.py", "nets.py", "site-packages/shop/libshop.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (site / "shop-1.0.dist-info").mkdir()
    (site / "shop-1.0.dist-info/RECORD").write_text("shop/libshop.so,sha256=another,1\n")
    os.utime(site / "shop/libshop.so", (2e9, 2e9))
    for module in (code_watch, installed):
        monkeypatch.setattr(module, "installed_folders", lambda: (str(site),))
    mapped = [str(site / "shop/libshop.so")]
    monkeypatch.setattr(code_watch, "_mapped_files", lambda: iter(mapped))
    watch = watching("nets:net", tmp_path, ["nets.py"], monkeypatch)
    told: dict[str, Any] = {}
    watch.report(lambda event, **fields: told.update(fields))
    assert {Path(one["path"]).name for one in told["files"]} == {"nets.py", "libshop.so"}


def test_a_later_case_of_the_process_has_what_the_module_has_read_and_asks_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("zoo/__init__.py", "nets.py", "width.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setenv("NETS_WIDTH", "8")
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port: sys.audit(*_asked(host)))
    codes = (
        "import importlib, os; open(os.environ['NETS_WIDTH'] and 'width.txt').close()\n"
        "importlib.import_module('jin' + 'ja2')",
        "import socket; socket.getaddrinfo('models.org', 80)",
    )
    monkeypatch.chdir(tmp_path)
    told: list[dict[str, Any]] = []
    read = code_watch.Read()
    for code in codes:
        watch = watching("nets:net", tmp_path, ["nets.py"], monkeypatch, read)
        exec(compile(code, str(tmp_path / "nets.py"), "exec"), {})
        watch.report(lambda event, **fields: told.append(fields))
    names = [{Path(one["path"]).name for one in case["files"]} for case in told]
    assert names == [{"nets.py", "width.txt"}] * 2
    assert [case["environ"] for case in told] == [{"NETS_WIDTH": "8"}] * 2
    assert ["jinja2" in {one.lower() for one in case["packages"]} for case in told] == [True] * 2
    assert [case.get("hosts") for case in told] == [None, ["models.org"]]


def _asked(host: str) -> tuple[Any, ...]:
    return "socket.getaddrinfo", host, 80, 0, 0, 0


def test_the_folder_of_a_code_is_that_which_it_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "lib", *sys.path])
    watch = watching("nets:net", tmp_path, [], monkeypatch)
    os.chdir("/")  # as a module does that writes its files elsewhere
    told: dict[str, Any] = {}
    watch.report(lambda event, **fields: told.update(fields))
    here = tmp_path.resolve()
    assert told["folder"] == str(here)
    assert told["sys_path"][:2] == [str(here), str(here / "lib")]


def test_what_a_model_reads_in_the_results_or_rewrites_is_code_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "zoo/__init__.py",
        "nets.py",
        "widths.pyc",
        "loaded.py",
        "results/best.json",
        "results/0001.csv",
        "nets.egg-info/PKG-INFO",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "tuned.json").write_text("{}")
    watching("nets:net", tmp_path, ["nets.py", "widths.pyc"], monkeypatch).close()
    results = [str(tmp_path / "results")]
    compiled = py_compile.compile(str(tmp_path / "loaded.py"))
    watch = CodeWatch("nets:net", [str(tmp_path)], results)
    Path(compiled).read_bytes()
    (tmp_path / "results/best.json").read_text()
    (tmp_path / "results/0001.csv").read_text()
    (tmp_path / "nets.egg-info/PKG-INFO").read_text()
    (tmp_path / "tuned.json").read_text()
    (tmp_path / "tuned.json").write_text("{1}")
    (tmp_path / "new.json").write_text("{}")
    told: dict[str, Any] = {}
    watch.report(lambda event, **fields: told.update(fields))
    files = {Path(one["path"]).name: one["size"] for one in told["files"]}
    names = ("nets.py", "widths.pyc", "loaded.py", "best.json")
    assert files == {**dict.fromkeys(names, 0), "tuned.json": 2}


def refusing(function: str, code: int) -> Any:
    """Return a C library of which one function fails."""

    def fail(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    library = ctypes.CDLL(None, use_errno=True)
    names = ("inotify_init1", "inotify_add_watch")
    return SimpleNamespace(**{name: getattr(library, name) for name in names} | {function: fail})


def test_what_code_looks_for_is_known_though_it_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("here.flag", "parts/one.npz", "parts/two.npz", "parts/.hidden", "more/one.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    looks: dict[str, Callable[[], object]] = {
        "exists": lambda: os.path.exists("gone.flag"),
        "pathlib": lambda: Path("gone.json").is_file(),
        "open": lambda: _tried("gone.txt"),
        "exec": lambda: exec("import os; os.path.exists('gone.exec')"),
        "lexists": lambda: os.path.lexists("gone.link"),
        "is_symlink": lambda: Path("gone.symlink").is_symlink(),
        "access": lambda: os.access("gone.access", os.R_OK),
        "strict": lambda: _tried("gone.strict", lambda name: Path(name).resolve(strict=True)),
        "no magic": lambda: glob.glob("gone.glob"),
        "Python 3.10": lambda: _tried("gone.310", accessor.stat),
        "TensorFlow": lambda: gfile.exists("gone.tensorflow"),
        "TensorFlow's glob": lambda: gfile.glob(["more/*.npz"]),
        "a bucket": lambda: gfile.exists("gs://bucket/flag"),
        "found": lambda: os.path.exists("here.flag"),
        "makes": lambda: os.makedirs("made/deep"),
        "glob": lambda: glob.glob("parts/*.npz"),
        "a package's version": lambda: version("pytest"),
    }
    accessor = SimpleNamespace(stat=os.stat)
    monkeypatch.setattr("pathlib._normal_accessor", accessor, raising=False)
    gfile = SimpleNamespace(exists=lambda path: False, glob=lambda pattern: [])
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(io=SimpleNamespace(gfile=gfile)))
    asked = Looked(lambda frame: frame.f_code.co_filename == __file__)
    auditing = [True]
    told_of = {"note": asked.note, "auditing": auditing}
    hook = "lambda *told: note(*told) if auditing[0] else None"
    sys.addaudithook(eval(hook, told_of))  # a frame without a file asks for nothing itself
    for look in looks.values():
        look()
    auditing[0] = False
    asked.stop()
    files, told, why = asked.close(lambda path: path.startswith(str(tmp_path)))
    assert {Path(path).name for path in files} == {"here.flag"}
    assert {Path(path).name for path, found in told.items() if found == ABSENT} == {
        *("gone.flag", "gone.json", "gone.txt", "gone.exec", "gone.link", "gone.symlink"),
        *("gone.access", "gone.strict", "gone.glob", "gone.310", "gone.tensorflow"),
    }
    assert str(tmp_path / "more") in told
    assert str(tmp_path) not in told  # its names are read once a process, whichever code asks first
    assert why == ""
    names = told[str(tmp_path / "parts")]
    (tmp_path / "parts/three.npz").touch()
    again = Looked(lambda frame: True)
    again.note_path("parts", again._folders)
    again.stop()
    assert again.close(lambda path: True)[1][str(tmp_path / "parts")] != names
    assert {os.stat.__module__, os.lstat.__module__, accessor.stat.__module__} == {"posix"}
    assert not hasattr(os.access, "__wrapped__")
    assert not hasattr(gfile.exists, "__wrapped__")


@pytest.mark.parametrize("module", [core_installed, installed])
def test_what_the_harness_itself_looks_for_is_asked_by_nobody(module: Any) -> None:
    assert eval(compile("asker()", module.__file__, "eval"), {"asker": asker}) is None


def test_what_the_process_has_in_memory_is_code_but_for_what_it_writes_and_cuda(
    tmp_path: Path,
) -> None:
    maps = tmp_path / "maps"
    begin = "7f00-7f01 {} 00000000 fd:00 12 "
    lines = {
        "r-xp": ["/home/ada/my ops/lib op.so", "/cluster/cuda/lib64/libcublasLt.so.12.6",
                 "/cluster/cuda/lib64/libcudnn_engines_precompiled.so.9",
                 "/home/ada/libcuda_ops.so",
                 "/usr/local/cuda-12/lib64/libcupti.so", "/opt/rocm/lib/libMIOpen.so",
                 "/home/ada/gone.so (deleted)", "[vdso]"],
        "r--s": ["/home/ada/weights.bin"],
        "rw-s": ["/home/ada/.cache/onnxruntime.db-shm"],
        "rw-p": ["/home/ada/libdata.so", ""],
    }  # fmt: skip
    maps.write_text(
        "".join(
            f"{begin.format(how)}    {path}\n" for how, paths in lines.items() for path in paths
        )
    )
    names = {"my ops/lib op.so", "libcuda_ops.so", "weights.bin", "libdata.so"}
    assert set(_mapped_files(str(maps))) == {f"/home/ada/{name}" for name in names}


def test_of_an_environment_that_is_copied_the_variables_that_the_code_names_are_told(
    tmp_path: Path,
) -> None:
    (tmp_path / "nets.py").write_text('KEPT = {k for k in os.environ if k.startswith("NETS_")}\n')
    variables = {f"V{number}": b"1" for number in range(MOST_VARIABLES)}
    copied = {**variables, "NETS_WIDTH": b"9", "SSH_AUTH": b"x"}
    assert told_variables(copied, [str(tmp_path / "nets.py")]) == {"NETS_WIDTH": "9"}
    (tmp_path / "fields.py").write_text("class Settings(Base):\n    depth: int\n")
    copied |= {"DEPTH": b"3", "DEPTHS": b"4"}
    found = told_variables(copied, [str(tmp_path / "fields.py")])
    assert found == {"DEPTH": "3"}  # a field's name, in letters of either case
    assert told_variables({"V1": b"1", "CI": b"true", "HOME": b"/h"}, []) == {
        "V1": "1",
        "CI": "true",
    }


def _tried(name: str, of: Callable[[str], object] = lambda name: open(name).close()) -> None:
    with contextlib.suppress(FileNotFoundError):
        of(name)


def test_a_folder_is_followed_through_the_links_among_its_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk/package/part").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "package")
    for folder in ("link/part", "link/..", "link/../package/./part/", "link/missing", "disk"):
        assert real_folder(f"{tmp_path}/{folder}") == os.path.realpath(tmp_path / folder)
    for place in ("disk", "disk/package"):  # what is relative is asked anew
        monkeypatch.chdir(tmp_path / place)
        assert real_folder("") == os.path.realpath(tmp_path / place)
