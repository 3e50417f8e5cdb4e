"""Hostile text in every field: inert in CSV, terminal, Markdown, page, annotations and file names;
and nothing that a results file names is imported or run."""

from __future__ import annotations

import contextlib
import csv
import html.parser
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_worker
import pytest
from histories import MACHINE, keep, keep_said, process, run_of
from json_tables import rows_of
from test_plugin import SUITE
from test_verdicts_file import judgement

from convmark.cli import main
from convmark.cli.run import describe_models
from convmark.compare.files import accept, read_accepted
from convmark.compare.index import index_path
from convmark.compare.live import ab_files
from convmark.compare.live.worktree import at_commit
from convmark.core.case import Case
from convmark.core.cells import to_cell
from convmark.core.errors import ConvmarkError, StoreError
from convmark.core.text import is_folder_name, is_plain
from convmark.machine.hardware import read_machine
from convmark.report.summary import summary_text
from convmark.report.verdicts import verdicts_report
from convmark.results.commit import read_commit
from convmark.results.names import is_machine_name, keep_name
from convmark.results.reading import HEADER, ONE_RUN, SOFTWARE, read_run
from convmark.results.record import COLUMNS, Record, from_cells
from convmark.results.store import Store
from convmark.session import progress
from convmark.session.facts import Job, facts_of

FORMULAS = (
    *("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", "'=1+1"),
    *('=HYPERLINK("http://x")', "\uff1d1+1", "\x00=1+1", "\u200b=1+1"),
)
TERMINAL = (
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "bell\x07", "back\b\b", "up\x1b[A"),
    *("a\rb", "a\nb", "a\u2028b", "a\u202eb", "a\x7fb", "a\x00b", "a\x0bb", "\udcff"),
)
MARKUP = (
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>'),
    *("[x](javascript:alert(1))", "![x](http://x/y.png)", "|a|b|", "`x`", "**x**", "</td></tr>"),
    *("</script><script>alert(1)</script>", "<!--", "{{ 7*7 }}", "${7*7}", "javascript:alert(1)"),
)
COMMANDS = (
    *("::error::x", "::set-output name=a::b", "a\n::error::x", "a%0A::error::x", "##[group]x"),
    *("##vso[task.setvariable variable=a]b", " ::error::x", "a\r::warning::x"),
)
PATHS = (
    "../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "..",
    "~/x",
    "C:\\x",
    "x" * 300,
    "con",
    "a/b\\c",
)
HOSTILE = FORMULAS + TERMINAL + MARKUP + COMMANDS + PATHS

CLOSED = {"status", "asked", *Case.__dataclass_fields__} - {"model"}
FREE = [column.name for column in COLUMNS if column.type is str and column.name not in CLOSED]
"""Columns that hold any text; the others have their closed lists."""


def moves_nothing(text: str) -> bool:
    """Whether nothing but line ends moves the cursor or turns the writing round."""
    kinds = {unicodedata.category(c) for c in text if c != "\n"}
    return not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def is_inert(text: str) -> bool:
    """Whether besides no line is a command for the reader of a CI's log."""
    lines = [line.strip() for line in text.split("\n")]
    commands = [line for line in lines if line.startswith("::") or re.search(r"##\w*\[", line)]
    return moves_nothing(text) and not commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_with(text: str) -> Iterator[tuple[str, Record]]:
    """Yield a row with the text in each column that holds any; a name must not be empty."""
    for order, name in enumerate(FREE, 1):
        with contextlib.suppress(StoreError):
            status = "unsteady" if name == "unsteady" else "ok"
            changes = {"process": order, "order": order, "status": status, name: text}
            yield name, process(**changes)


# CSV


def test_in_every_text_column_it_is_inert_in_the_file_and_reads_as_it_was_kept(
    tmp_path: Path,
) -> None:
    for number, text in enumerate(HOSTILE):
        run_file = Store(tmp_path / str(number)).create_run(MACHINE)
        held = list(rows_with(text))
        for _, row in held:
            run_file.append(row)
        run_file.close()
        data = run_file.path.read_bytes().decode()
        assert moves_nothing(data), text
        assert data.count("\n") == 1 + len(held), text
        cells = list(csv.reader(io.StringIO(data, newline="")))[1:]
        for row, (name, _) in zip(cells, held, strict=True):
            assert not row[HEADER.index(name)].startswith(("=", "+", "-", "@", "\uff1d")), text
        assert [from_cells(row) for row in cells] == [row for _, row in held], text


def test_in_the_other_tables_it_is_inert_too(tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE):
        store = Store(tmp_path / str(number))
        keep(store, run_of("0001", 0.0))
        keep_said(store.folder / MACHINE, judgement(run="0001", note=text, model=text or "x"))
        accept(store, MACHINE, "1", f"x{text}")
        for name in ("0001.verdicts.csv", "accepted.csv"):
            data = (store.folder / MACHINE / name).read_text()
            assert moves_nothing(data), text
            assert data.count("\n") == 2, text
        assert len(read_accepted(store, MACHINE)) == 1, text


def test_a_file_that_holds_it_raw_is_refused_or_read_as_text(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another tool wrote it: control characters are refused, a formula is a text like any other."""
    raw = [text for text in HOSTILE if to_cell(text) != text]
    assert len(raw) > 20
    for text in raw:
        path = keep(Store(Path("results")), run_of("0001", 0.0, cpu="CPUTEXT"))
        quoted = '"' + text.replace('"', '""') + '"'
        data = path.read_bytes().replace(b"CPUTEXT", quoted.encode(errors="surrogateescape"))
        path.write_bytes(data)
        status = main(["compare"])
        printed = capsys.readouterr()
        assert is_inert(printed.out + printed.err), text
        if status == 2:
            assert printed.err.startswith(f"convmark compare: {path}:2: "), text
        else:
            assert read_run(path)[0].cpu == text.removeprefix("'" if text.startswith("'=") else "")


# Terminal, Markdown, JSON, annotations


@pytest.fixture
def hostile_results(folder: Path) -> Path:
    """Runs whose every text is hostile, as far as a file may hold it."""
    store = Store(Path("results"))
    texts = MARKUP + COMMANDS + FORMULAS
    for run in (1, 2):
        rows: list[Record] = []
        shared = " ".join(texts if run == 1 else reversed(texts))
        for number, text in enumerate(texts, 1):
            named = {name: text for name in FREE if name not in ("run", "machine", "started")}
            failed = {"status": "error"} if number % 5 == 0 else {"status": "unsteady"}
            named |= {"model": f"{text}{number}", "error": text if number % 5 == 0 else None}
            named |= {name: shared for name in (*ONE_RUN, *SOFTWARE) if name in FREE}
            named |= {"not_judged": text if number == 3 else None}
            named |= {"run": f"{run:04d}", "order": number}
            rows.append(process(**{**named, **failed}))
        keep(store, rows)
    return folder / "results"


def test_every_table_of_every_command_is_inert(
    hostile_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_run(hostile_results / MACHINE / "0002.csv")
    for form in ("text", "markdown"):
        main(["compare", "--format", form])
        printed = capsys.readouterr()
        assert printed.out.count("alert(1)") > 2
        assert is_inert(printed.out + printed.err)
    for row in rows:
        assert main(["history", "--", row.case.name]) == 0
    for column in ("tensorflow", "commit", "machine"):
        for form in ("text", "markdown"):
            assert main(["compare", "--across", column, "--format", form]) == 0
    for form in ("text", "markdown"):
        assert main(["report", "--format", form]) == 0
    assert main(["accept", "1", "--reason", "because"]) == 0
    printed = capsys.readouterr()
    assert is_inert(printed.out + printed.err)
    assert is_inert(summary_text(rows))
    assert main(["compare", "--across", "commit", "--format", "csv"]) == 0
    assert main(["report", "--format", "csv"]) == 0
    printed = capsys.readouterr()
    assert moves_nothing(printed.out + printed.err)
    for cells in csv.reader(io.StringIO(printed.out)):
        for cell in cells:
            assert not cell.startswith(("=", "+", "@")) or cell.replace("+", "").isdecimal()


def test_markdown_holds_no_markup_of_a_file(
    hostile_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", "--format", "markdown"])
    main(["compare", "--across", "commit", "--format", "markdown"])
    main(["report", "--format", "markdown"])
    text = capsys.readouterr().out
    assert "alert" in text
    for tag in ("<script", "<img", "<svg", "</td", "<!--"):
        assert tag not in text
    assert "[x](" not in text
    assert "![x]" not in text


NAMES = [text for text in MARKUP + COMMANDS + FORMULAS if is_machine_name(text)]
NO_NAMES = [text for text in MARKUP + COMMANDS + FORMULAS if not is_machine_name(text)]


@pytest.mark.parametrize("form", ["text", "markdown"])
@pytest.mark.parametrize("named", [True, False])
def test_machines_their_names_and_the_sources_of_prices_are_inert(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    named: bool,
    form: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # where a line is broken any word may begin one
    results = Path("results")
    keep(Store(results), [process(process=n, order=n) for n in (1, 2, 3)])
    texts, asked = (NAMES if named else NO_NAMES), [str(results)]
    for number, text in enumerate(texts):
        machine = f"machine-{number}" if named else text
        made = keep(
            Store(folder), [process(process=n, order=n, machine=machine) for n in (1, 2, 3)]
        )
        if named:
            (results / machine).mkdir()
            made.rename(results / machine / made.name)
            keep_name(results / machine, text)
        else:
            asked.append(str(made.rename(folder / f"{number}.csv")))
    if not named:
        priced = [json.dumps(text, ensure_ascii=False) for text in texts if is_plain(text)]
        source = json.dumps(" ".join(filter(is_plain, texts)), ensure_ascii=False)
        each = "".join(f"[{told}]\nper_hour = 2\n" for told in priced)
        Path("prices.toml").write_text(
            f'currency = "USD"\ndate = 2026-01-31\nsource = {source}\n'
            f"[{MACHINE}]\nper_hour = 1\n{each}"
        )
        asked += ["--prices", "prices.toml"]
    assert main(["report", *asked, "--format", form]) == 0
    printed = capsys.readouterr()
    for text in texts:
        assert all(word in printed.out for word in re.findall("[a-z0-9]+", text)), text
    assert is_inert(printed.out + printed.err)
    if form == "markdown":
        assert "[x](" not in printed.out
        assert not re.search("<(script|img|svg)", printed.out)


def test_annotations_are_one_command_each_and_end_where_they_should() -> None:
    for text in HOSTILE:
        found = verdicts_report([judgement(case=text, note=text)], "github")
        assert len(found.split("\n")) == 1
        assert "\r" not in found
        assert found.startswith("::error title=")
        title, _, message = found.removeprefix("::error title=").partition("::")
        assert not set(title) & {",", ":", "\n"}
        assert "%0A" not in message.replace("%250A", "") or "\n" in text
    found = verdicts_report([judgement(case="a", note="x%0A::error::y")], "github")
    assert found.endswith("x%250A::error::y")  # no line break for the reader of commands


def test_json_holds_the_text_and_no_control_character(
    hostile_results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", "--format", "json"])
    text = capsys.readouterr().out
    assert moves_nothing(text)
    assert any(row["model"].startswith("<script>") for row in rows_of(text, "compare"))


@pytest.mark.parametrize("live", [False, True])
def test_progress_is_inert(live: bool) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return live

    shown = []
    for text in MARKUP + COMMANDS:
        stream = Stream()
        case = Case(model=text, task="train")
        job = Job(case=case, process=1, order=1)
        record = process(status="error", error=text)
        with progress.RunProgress(stream, lambda case: 1.0) as seen:
            seen.planned([job])
            seen.began(job)
            seen.phase(job, "steps")
            seen.ended(job, record)
        shown.append((text, stream.getvalue()))
    for text, printed in shown:
        assert "error:" in printed, text
        lines = printed.replace("\x1b[?25l", "").replace("\x1b[?25h", "").split("\n")
        if not live:
            assert is_inert(printed)
        assert not any(line.lstrip().startswith("::") for line in lines)


# The page


class Elements(html.parser.HTMLParser):
    """Counts elements, and keeps attributes that run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.running: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (value or "").strip().startswith("javascript:"):
                self.running.append((name, value or ""))


def page(folder: Path) -> tuple[str, Elements]:
    assert main(["report", "-o", "page.html"]) == 0
    text = (folder / "page.html").read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(text)
    return text, elements


def test_in_the_page_it_is_text(hostile_results: Path, folder: Path) -> None:
    text, found = page(folder)
    assert text.count("alert(1)") > 3
    assert found.tags.count("script") == 5
    assert not {"img", "iframe", "object", "embed", "link", "base", "form"} & set(found.tags)
    assert found.running == []
    assert "<script>alert" not in text
    own = text.partition('id="drawings">')[2].partition("</script>")[0]
    assert "<" not in own
    json.loads(own)
    assert moves_nothing(text.partition("<script>")[0])


def described(model: str, folder: Path) -> list[Path]:
    class Answers(fake_worker.FakeInterpreter):
        pass

    return describe_models([model], Answers(), 0, folder / "results" / MACHINE)


def test_described_models_are_kept_in_their_folder_and_shown_as_text(folder: Path) -> None:
    keep(Store(Path("results")), run_of("0001", 0.0, 0.1))
    home = (folder / "results" / MACHINE / "models").resolve()
    for text in MARKUP + PATHS:
        written = described(text, folder)
        assert len(written) == 2, text
        for path in written:
            assert path.resolve().parent == home, text
            assert len(path.name) < 120, text
    (_, elements) = page(folder)
    assert elements.tags.count("script") == 5
    assert elements.running == []
    assert "img" not in elements.tags


def test_a_description_with_control_characters_shows_none(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(Store(Path("results")), run_of("0001", 0.0, 0.1))
    json_path, _ = described("lenet5", folder)
    value = json.loads(json_path.read_text())
    for layer in value["layers"]:
        layer["name"] = layer["kind"] = "\x1b[31m::error::x\n::error::y"
    value["model"] = "\x1b]0;x\x07lenet5\n::error::z"
    value["keras"] = "\x9b31m3"
    json_path.write_text(json.dumps(value))
    for form in ("text", "markdown"):
        assert main(["report", "--format", form]) == 0
    assert is_inert(capsys.readouterr().out)
    assert main(["report", "--format", "csv"]) == 0
    assert moves_nothing(capsys.readouterr().out)
    text, _ = page(folder)
    assert "\x1b" not in text


# File names, machines, git


def test_files_named_after_it_stay_in_their_folder(tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE):
        sessions = tmp_path / str(number) / "0001.csv"
        sessions.parent.mkdir()
        kept = ab_files.keep_figure(sessions, text, "<svg/>")
        assert kept.resolve().parent == sessions.parent.resolve(), text
        assert kept.name.isprintable(), text
        index = index_path(sessions.parent / text.replace("\0", ""))
        assert index.parent.name == "index", text
        assert index.name.isascii(), text
        assert len(index.name) < 120, text


def test_a_machine_with_such_a_cpu_has_a_plain_folder(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    for text in HOSTILE:
        (tmp_path / "proc" / "cpuinfo").write_bytes(
            f"model name\t: {text}\n".encode(errors="surrogateescape")
        )
        machine = read_machine(root=tmp_path, nvml=lambda: None)
        assert machine.cpu.isprintable(), text
        assert (tmp_path / machine.name).resolve().parent == tmp_path.resolve(), text
        assert machine.name.isascii(), text
        assert len(machine.name) <= 80, text


def test_a_hosts_name_names_no_folder_and_is_inert_in_the_row_that_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, commit = read_machine(nvml=lambda: None), read_commit(tmp_path)
    for number, text in enumerate(HOSTILE):
        for place in ("platform.node", "socket.gethostname", "socket.getfqdn"):
            monkeypatch.setattr(place, lambda text=text: text)
        monkeypatch.setenv("HOSTNAME", text.replace("\0", ""))
        machine = read_machine(nvml=lambda: None)
        assert machine == before, text
        facts = facts_of("0001", machine, commit, {})
        path = keep(Store(tmp_path / str(number)), [process(node=facts.node)])
        assert moves_nothing(path.read_text(encoding="utf-8")), text
        with path.open(encoding="utf-8", newline="") as file:
            cell = next(csv.DictReader(file))["node"]
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), text
        assert [row.node for row in read_run(path)] == [facts.node], text


@pytest.mark.parametrize("text", [*PATHS, ".", ".hidden", "-x", "/", "a/../../b", "é" * 101])
def test_a_merge_writes_into_its_own_folder_whatever_a_row_calls_its_machine(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = process(machine=text).machine  # as a file may hold it
    path = keep(Store(Path("a/b/results")), [process(), process(process=2, order=2)])
    rows = [process(process=n, order=n, machine=machine) for n in (1, 2)]
    keep(Store(Path("a/b/results")), rows)
    before = {file for file in folder.rglob("*") if file.is_file()}
    status = main(["merge", "a/b/results", "--results", "a/b/joined"])
    new = {file for file in folder.rglob("*") if file.is_file()} - before
    joined = (folder / "a/b/joined").resolve()
    assert all(joined in file.resolve().parents for file in new)
    if is_folder_name(machine or ""):
        assert (status, len(new)) == (0, 1)
        return
    assert (status, new) == (2, set())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"convmark merge: {path}:2: column 'machine' must be the name of a folder"
    )
    with pytest.raises(StoreError, match="a machine must be the name of a folder"):
        Store(Path("elsewhere")).create_run(machine or "")


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=\x1b[31mn", "-c", "user.email=e@example.org"]
    done = subprocess.run(
        ["git", "-C", str(folder), *named, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "x.py").write_text("")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "\x1b]0;title\x07=cmd()\n\n::error::x\n<script>")
    return folder


def test_a_commits_message_and_author_reach_no_row(repository: Path) -> None:
    commit = read_commit(repository)
    assert commit.sha == git(repository, "rev-parse", "HEAD")
    assert commit.dirty is False


REFS = (
    *(
        "--upload-pack=touch marked",
        "-h",
        "$(touch marked)",
        "`touch marked`",
        "main; touch marked",
    ),
    *("main\ntouch", "\x1b[31m", "../../x", "a\0b", "", "x" * 5000),
)


@pytest.mark.parametrize("ref", REFS, ids=range(len(REFS)))
def test_a_hostile_ref_makes_no_worktree_and_runs_nothing(
    ref: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(ConvmarkError) as refused, at_commit(repository, ref):
        pass
    assert str(refused.value).isprintable()
    assert not list(tmp_path.rglob("marked"))
    assert len(git(repository, "worktree", "list").splitlines()) == 1


# Nothing is imported


MARKING = "from pathlib import Path\nPath({mark!r}).write_text('imported')\ndef builder(): 1 / 0\n"


@pytest.fixture
def evil(folder: Path) -> Path:
    """A module that leaves a mark when it is imported, on the path of everything that is run."""
    mark = folder / "mark"
    (folder / "evil").mkdir()
    (folder / "evil" / "__init__.py").write_text("")
    (folder / "evil" / "module.py").write_text(MARKING.format(mark=str(mark)))
    return mark


def evil_history(store: Store) -> None:
    for run in ("0001", "0002"):
        keep(store, [*run_of(run, 0.0, 0.1), *run_of(run, 0.0, model="evil.module:builder")])


READING = [
    ["compare"],
    ["compare", "1", "2"],
    ["compare", "--across", "tensorflow"],
    ["history", "evil.module:builder-train-cpu-b32-float32"],
    ["accept", "1", "--reason", "x"],
    ["report", "--format", "markdown"],
    ["report", "-o", "page.html"],
    ["report", "--against", "1"],
]


def test_nothing_that_a_results_file_names_is_imported(folder: Path, evil: Path) -> None:
    evil_history(Store(Path("results")))
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    script = (
        "import json, sys\nfrom convmark.cli import main\n"
        "for words in json.loads(sys.argv[1]): assert main(words) in (0, 1), words\n"
        "assert not [name for name in sys.modules if name.startswith('evil')]\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, json.dumps(READING)],
        env=environ,
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )
    assert not evil.exists()
    done = subprocess.run(  # the mark is left where it is imported
        [sys.executable, "-c", "import evil.module"], env=environ, check=True, timeout=60
    )
    assert done.returncode == 0
    assert evil.exists()


class Asked(fake_worker.FakeInterpreter):
    """Keeps which models the worker was asked for."""

    models: list[str] = []  # noqa: RUF012, the test empties it

    def answer(self, request: Any, on_event: Any = lambda event: None) -> Any:
        named = [request["case"]["model"]] if "case" in request else request["models"]
        type(self).models.extend(named)
        return super().answer(request, on_event)


@contextlib.contextmanager
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    Asked.models.clear()
    monkeypatch.setattr("convmark.interpreter.Interpreter", Asked)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    yield Asked.models


def test_a_run_asks_the_worker_for_what_the_user_typed_alone(
    folder: Path, evil: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Store(Path("results"))
    evil_history(own)
    (own.folder / MACHINE).rename(own.folder / read_machine(nvml=lambda: None).name)
    with asked(monkeypatch) as models:
        assert main(["run", "--models", "lenet5", "--processes", "1"]) == 0
    assert set(models) == {"lenet5"}
    assert not evil.exists()


def test_a_live_comparison_asks_for_the_suites_models_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pytester.mkdir("bench")
    (folder / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    store = Store(pytester.path / "results")
    with asked(monkeypatch) as models:
        assert pytester.runpytest_inprocess("bench").ret == 0
        (path,) = store.folder.glob("*/0001.csv")
        suites = set(models)
        rows = read_run(path)
        for run in ("0002", "0003"):
            text = path.read_text().replace(",lenet5,", ",evil.module:builder,")
            path.with_name(f"{run}.csv").write_text(text.replace(",0001,", f",{run},"))
        models.clear()
        result = pytester.runpytest_inprocess("bench", "--benchmark-compare")
    assert rows
    assert result.ret in (0, 1)
    assert set(models) == suites
    assert "evil.module:builder" not in models


def test_a_files_word_for_a_commit_names_no_branch() -> None:
    from convmark.compare.history import Anchor, CaseHistory, History
    from convmark.compare.live.anchor import Origin
    from convmark.plugin.baseline import Baseline
    from convmark.plugin.comparing import anchor_code

    case = Case(model="lenet5", task="train")
    origin = Origin(repository=Path("x"), folder=Path("models"), is_zoo=True)
    for commit in ("evil-branch", "HEAD", "--upload-pack=x", "a" * 39, "A" * 40, "", None):
        anchor = Anchor(run="0001", path=Path("0001.csv"), commit=commit, dirty=False)
        history = History(cases={case.name: CaseHistory(anchor=anchor)})
        with pytest.raises(ConvmarkError):
            anchor_code(Baseline(name="", commits={}), history, case.name, origin)
    good = Anchor(run="0001", path=Path("0001.csv"), commit="a" * 40, dirty=False)
    history = History(cases={case.name: CaseHistory(anchor=good)})
    found = anchor_code(Baseline(name="", commits={}), history, case.name, origin)
    assert found.commit == "a" * 40


def test_a_builder_of_the_users_own_imports_its_module_and_no_other(folder: Path) -> None:
    (folder / "mine.py").write_text("def builder(): return None\n")
    (folder / "other.py").write_text("raise SystemExit('imported')\n")
    script = (
        "import sys\nfrom unittest.mock import Mock\n"
        "from convmark.worker.builders import builder\n"
        "builder('mine:builder', Mock(is_model=bool, other_keras=lambda model: None))\n"
        "assert 'mine' in sys.modules\nassert 'other' not in sys.modules\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", script], env=environ, check=True, timeout=60)


def test_no_source_of_ours_unpickles_or_evaluates_text() -> None:
    import ast

    root = Path(__file__).resolve().parent.parent
    forbidden = {"eval", "exec", "compile", "__import__"}
    for path in (*root.glob("convmark/**/*.py"), *root.glob("models/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, path
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
