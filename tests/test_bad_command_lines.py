"""Bad command lines of every command, and bad options of pytest: one line, the status, no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fake_worker
import pytest
from histories import MACHINE, keep, run_of
from snapshots import check, plain
from test_plugin import SUITE

from convmark.cli import main
from convmark.results.store import Store

LENET = "lenet5-train-cpu-b32-float32"
ONE_CASE = ("--models", "lenet5", "--tasks", "train", "--batch-sizes", "32", "--devices", "cpu")
LONG = "x" * 100_000
ESCAPE = "\x1b[31mred\x07"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    store = Store(Path("results"))
    keep(store, run_of("0001", 0.0, 0.1))
    keep(store, run_of("0002", 0.0, 0.1))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    return tmp_path


BAD: list[tuple[list[str], str]] = [
    # no command, and none such
    ([""], "invalid choice: ''"),
    (["ruin"], "invalid choice: 'ruin'"),
    (["--models", "lenet5"], "COMMAND"),
    (["run", "--proceses", "3"], "did you mean --processes?"),
    (["run", "--process", "3"], "unrecognized arguments: --process; did you mean"),
    (["run", ESCAPE], "unrecognized arguments: red"),
    (["run", "a\nb"], "unrecognized arguments: a b"),
    # run
    (["run", "--models"], "argument --models: expected one argument"),
    (["run", "--models", "--seed"], "argument --models: expected one argument"),
    (["run", "--models", ""], "--models: must be a comma-separated list"),
    (["run", "--models", "lenet6"], "lenet6: no such model"),
    (["run", "--models", "../../etc/passwd"], "--models: passwd: a model file must be in"),
    (["run", "--models", ESCAPE], "--models: must be one line without control characters"),
    (["run", "--models", "a\0b"], "--models: must be one line without control characters"),
    (["run", "--models", "lenet5\n::error::x"], "must be one line without control characters"),
    (["run", "--models", LONG], "no such model"),
    (["run", "--tasks", "fit"], "--tasks: unknown name 'fit'"),
    (["run", "--devices", "tpu"], "--devices: unknown device 'tpu'"),
    (["run", "--devices", "gpu:99"], "--devices: gpu:99 does not exist"),
    (["run", "--batch-sizes", "0"], "--batch-sizes: must be a whole number of at least 1"),
    (["run", "--batch-sizes", "9" * 5000], "--batch-sizes: must be a whole number of at least 1"),
    (["run", "--precisions", "float8"], "--precisions: unknown name 'float8'"),
    (["run", "--precisions", "tf32", "--devices", "cpu"], "tf32 needs a GPU"),
    (["run", "--jit", "yes"], "--jit: must be one of off, on, both"),
    (["run", "--threads", "0"], "--threads: must be 'default' or a whole number"),
    (["run", "--backend", "caffe"], "--backend: unknown name 'caffe'"),
    (["run", "--ceilings", "maybe"], "--ceilings: must be one of auto, on, off"),
    (["run", "--processes", "1e3"], "--processes: must be a whole number"),
    (["run", "--time-budget", "nan"], "--time-budget: must be a number of seconds above 0"),
    (["run", "--time-limit", "-1"], "--time-limit: must be a number of seconds above 0"),
    (["run", "--isolation", "thread"], "--isolation: must be one of fork, spawn, none"),
    (
        ["run", "--isolation", "none", "--threads", "1,2"],
        "--threads: one process has one number of threads, got 1,2 and --isolation none",
    ),
    (["run", "--results", ""], "--results: must be the path of a folder"),
    (["run", "--results", "file"], "--results: must be a folder, but file is a file"),
    (["run", "--results", "file/deeper"], "--results: must be a folder"),
    (["run", "--results", "a\0b"], "--results: must be the path of a folder"),
    (["run", "--results", "x" * 5000], "--results: "),
    (["run", "--seed", "random"], "--seed: must be a whole number"),
    (["run", "--python", "./nowhere"], "--python: no interpreter './nowhere'"),
    (["run", "--python", "folder"], "--python: folder is a folder without bin/python"),
    (["run", "--python", "other.csv"], "--python: other.csv must be an executable file"),
    (["run", "--python", "a\0b"], "--python: must not be empty"),
    (["run", "--env", "not a requirement =="], "--env: must be a requirement"),
    (["run", "--describe=yes"], "--describe: ignored explicit argument 'yes'"),
    (["run", "--margin", "0.1"], "unrecognized arguments: --margin"),
    # compare
    (["compare", "1", "2", "3"], "RUN: must be at most two, got 3"),
    (["compare", "99"], "no run '99'"),
    (["compare", "9" * 5000], "no run '999"),
    (["compare", "-1"], "no run '-1'"),
    (["compare", ""], "no run ''"),
    (["compare", "a\0b"], "no run 'a\\x00b'"),
    (["compare", ESCAPE], "no run '\\x1b[31mred\\x07'"),
    (["compare", "nowhere.csv"], "nowhere.csv: no such file"),
    (["compare", "folder"], "no run 'folder'"),
    (["compare", "folder/"], "folder: no such file"),
    (["compare", "other.csv"], "other.csv:1: must have the columns of schema"),
    (["compare", "binary.csv"], "binary.csv:1: must be text, it has a NUL"),
    (["compare", "file.csv", "1"], "file.csv: no such file"),
    (
        ["compare", "--format", "xml"],
        "--format: must be one of text, json, csv, parquet, markdown, github",
    ),
    (["compare", "--machine", "xeon-3"], "did you mean xeon-2?"),
    (["compare", "--machine", "../folder"], "has no runs of '../folder'"),
    (["compare", "--machine", LONG], "has no runs of 'xxx"),
    (["compare", "--results", "nowhere"], "nowhere: has no runs yet; `convmark run` makes one"),
    (["compare", "--results", "file"], "file: has no runs yet"),
    (["compare", "--across", "tensorflw"], "did you mean tensorflow?"),
    (["compare", "--across", "tensorflow", "--format", "github"], "--format: must be one of"),
    (["compare", "--across", "gpu"], "no measured row has a value for gpu"),
    # comment
    (["comment"], "has no verdicts; `pytest bench --benchmark-compare=git:REF` makes them"),
    (["comment", "nowhere"], "nowhere: no such file or folder"),
    (["comment", "a\0b"], "no such file or folder"),
    (["comment", "--outcome", "sucess"], "--outcome: must be one of success, failure"),
    (["comment", "--badge", "file"], "--badge: must be a new file or a badge, got 'file'"),
    (["comment", "--badge", "a\0b"], "--badge: ab must be a path"),
    # accept
    (["accept"], "the following arguments are required: RUN, --reason"),
    (["accept", "1"], "the following arguments are required: --reason"),
    (["accept", "1", "--reason", " \t"], "--reason: must give the reason"),
    (["accept", "1", "--reason", "\x1b[0m"], "--reason: must give the reason"),
    (["accept", "99", "--reason", "x"], "no run '99'"),
    (["accept", "other.csv", "--reason", "x"], "other.csv: must be a run in"),
    # history
    (["history"], "the following arguments are required: CASE"),
    (["history", ""], "CASE: no run has ''"),
    (["history", "lenet5-train-cpu-b23-float32"], f"did you mean {LENET}?"),
    (["history", ESCAPE], "CASE: no run has '\\x1b[31mred\\x07'"),
    (["history", LONG], "CASE: no run has 'xxx"),
    (["history", LENET, "more"], "unrecognized arguments: more"),
    # report
    (["report", "nowhere"], "nowhere: no such file or folder"),
    (["report", "folder"], "folder: has no runs yet"),
    (["report", "other.csv"], "other.csv:1: must have the columns of schema"),
    (["report", "a\0b"], "no such file or folder"),
    (["report", "x" * 5000], "no such file or folder"),
    (["report", "--format", "pdf"], "--format: must be one of text"),
    (["report", "--format", "html"], "--format html: needs a file"),
    (["report", "-o", "page.pdf"], "--output: must end in .html"),
    (["report", "-o", "folder", "--format", "csv"], "--output: folder must be writable"),
    (["report", "-o", "a\0b.md"], "--output: "),
    (["report", "--style", "fancy"], "--style: must be one of full, applications"),
    (["report", "--prices", "nowhere"], "--prices: nowhere cannot be read: No such file"),
    (["report", "--prices", ""], "--prices: must be the path of a file"),
    (["report", "--reference", ESCAPE], "--reference: no row is from the machine '\\x1b[31mred"),
    (["report", "--reference", " "], "--reference: must be the name of a machine, got ' '"),
    (["report", "--name", "xeon-2"], "--name: must be MACHINE=NAME"),
    (["report", "--name", f"xeon-2={ESCAPE}"], "--name: must be MACHINE=NAME"),
    (["report", "--name=xeon-2=a", "--name=xeon-2=b"], "xeon-2 must have one name, got 'a' and"),
    (["report", "--name", "xeon-9=desk"], "--name: no row is from the machine 'xeon-9'; did you"),
    (["report", "--figures", " "], "--figures: must be the path of a folder"),
    (["report", "--fomat", "csv"], "unrecognized arguments: --fomat; did you mean --format?"),
    (["report", "--per", "x"], "unrecognized arguments: --per; --per is an option of convmark run"),
    (["report", "-o", ""], "--output: must end in .html"),
    (["report", "--figures", "file"], "--figures: file must be writable"),
    (["report", "--figures", "a\0b"], "--figures: "),
    (["report", "--against", "no-such-ref"], "no run 'no-such-ref'"),
    (["report", "--against", "-h"], "argument --against: expected one argument"),
    (["report", "--against", "a\0b"], "no run 'a\\x00b'"),
    # ab
    (["ab", ".", ".", "."], "unrecognized arguments: ."),
    (["ab", ".", "git:"], "B: git: must be followed by a branch"),
    (["ab", ".", "a b =="], "B: must be . (this interpreter), git:REF"),
    (["ab", ".", "./nowhere"], "B: no interpreter './nowhere'"),
    (["ab", ".", "a\0b"], "B: "),
    (["ab", ".", ""], "B: must be . (this interpreter), git:REF"),
    (["ab", "--set-a", "jit"], "--set-a: must be NAME=VALUE"),
    (["ab", "--set-a", "jit=on", "--set-a", "jit=off"], "--set-a: must set jit once"),
    (["ab", "--set-b", "speed=2"], "--set-b: unknown setting 'speed'"),
    (["ab", "--set-b", "jit=maybe", *ONE_CASE], "jit must be one of off, on"),
    (["ab", "--target", "-2"], "--target: must be a number of per cent above 0"),
    (["ab", "--target", "inf"], "--target: must be a number of per cent above 0"),
    (["ab", "--format", "xml"], "--format: must be one of text, json, csv"),
    (["ab", "--backend", "tensorflow,jax"], "--backend: a comparison has one"),
    (["ab", "--processes", "2"], "unrecognized arguments: --processes"),
    (["ab", "--batch-sizes", "auto"], "--batch-sizes: auto is for `convmark run`"),
    # bisect
    (["bisect"], "the following arguments are required: --good, --bad"),
    (["bisect", "--good", "2.1", "--bad", "2.2"], "needs one case, the options name 16"),
    (["bisect", "--good", "2.1", "--bad", "x y ==", *ONE_CASE], "--bad: must be a requirement"),
    (["bisect", "--good", "git:a", "--bad", "2.1", *ONE_CASE], "must both be releases"),
    (["bisect", "--good", "git:no-such", "--bad", "git:HEAD", *ONE_CASE], "no-such"),
    (["bisect", "--good", "git:-x", "--bad", "git:HEAD", *ONE_CASE], "git knows no commit '-x'"),
    (["bisect", "--good", "1", "--bad", "2", "--threshold", "much"], "--threshold: must be"),
    (["bisect", "--good", "1", "--bad", "2", "--package", "", *ONE_CASE], "--package: must be"),
    (["bisect", "--good", "1", "--bad", "2", "--package=-x", *ONE_CASE], "--package: must be"),
    (["bisect", "--good", "1", "--bad", "2", "--with", "x ==", *ONE_CASE], "--with: must be a req"),
    (["bisect", "--good", "1", "--bad", "2", "--versions", "", *ONE_CASE], "--versions: must be"),
    (["bisect", "--good", "1", "--bad", "1", "--versions", "1,2", *ONE_CASE], "--bad: must be"),
    (["bisect", "--good", "3", "--bad", "1", "--versions", "1,2", *ONE_CASE], "no release '3'"),
    # env
    (["env"], "the following arguments are required: ACTION"),
    (["env", "destroy"], "invalid choice: 'destroy'"),
    (["env", "make"], "the following arguments are required: REQUIREMENTS"),
    (["env", "make", "=="], "REQUIREMENTS: must be a requirement"),
    (["env", "make", ""], "REQUIREMENTS: must be a requirement"),
    (["env", "remove"], "NAME: must be the name of an environment, or --all"),
    (["env", "remove", "--all", "x"], "--all: must not be given with names"),
    (["env", "remove", "../.."], "NAME: no environment '../..'"),
    (["env", "remove", ESCAPE], "NAME: no environment '\\x1b[31mred\\x07'"),
    # parts, clusters, digits: the options of `run` that came later
    (["run", "--cluster", "host"], "--cluster: an address must be HOST:PORT"),
    (["run", "--cluster", "a:1,a:1"], "--cluster: must be local, TF_CONFIG or two different"),
    (["run", "--cluster", "a:1,b:2"], "--index"),
    (["run", "--cluster", "a:1,b:2", "--index", "2"], "--index"),
    (["run", "--cluster", ESCAPE], "--cluster: an address must be HOST:PORT"),
    (["run", "--index", "1"], "--index"),
    (["run", "--replicas", "0"], "--replicas: must be a whole number of at least 1"),
    (["run", "--replicas", "1,2", "--backend", "jax"], "replicas"),
    (["run", "--shard", "4/3"], "--shard: must be K/N with K from 1 to N"),
    (["run", "--shard", "1/0"], "--shard: must be K/N with K from 1 to N"),
    (["run", "--shard", LONG], "--shard: must be K/N such as 3/8"),
    (["run", "--shard", ESCAPE], "--shard: must be K/N such as 3/8"),
    (["run", "--shard", "1/2", "--shard-times", "nowhere"], "nowhere: no such file or folder"),
    (["run", "--shard", "1/2", "--shard-times", "a\0b"], "no such file or folder"),
    (["run", "--shard-times", "results"], "--shard-times: must be given with --shard K/N"),
    (["run", "--ray", ""], "--ray: must be an address"),
    (["run", "--ray", "x:1", "--per", "rack"], "--per: must be one of node, machine-kind"),
    (["run", "--ray", "x:1", "--nodes", "rack"], "--nodes: "),
    (["run", "--ray", "x:1", "--shard", "1/2"], "--shard: must not be given with --ray"),
    (["run", "--ray", "x:1", "--describe"], "--describe: must not be given with --ray"),
    (["run", "--per", "node"], "--per: must be given with --ray ADDRESS"),
    (["run", "--per", ""], "--per: must be given with --ray ADDRESS"),
    (["run", "--nodes", "rack=3"], "--nodes: must be given with --ray ADDRESS"),
    (["run", "--seeds", "0,,1"], "--seeds: must be a comma-separated list"),
    (["run", "--seeds", "-1"], "--seeds: must be a whole number of at least 0"),
    (["run", "--fraction", "0"], "--fraction: must be a number above 0 and at most 1"),
    (["run", "--fraction", "nan"], "--fraction: must be a number above 0 and at most 1"),
    (["run", "--target-accuracy", "2"], "--target-accuracy: must be a number above 0"),
    (["run", "--mnist", ""], "--mnist: must be the path of a file"),
    (["run", "--mnist", "a\0b"], "--mnist: must be the path of a file"),
    (["run", "--resume", "99"], "no run '99'"),
    (["run", "--resume", "binary.csv"], "binary.csv:1: must be text"),
    (["run", "--resume", ESCAPE], "no run '\\x1b[31mred\\x07'"),
    # merge and fleet
    (["merge"], "the following arguments are required: DIR"),
    (["merge", "nowhere"], "nowhere: no such file or folder"),
    (["merge", "folder"], "folder: has no runs yet"),
    (["merge", "other.csv"], "other.csv:1: must have the columns of schema"),
    (["merge", "a\0b"], "no such file or folder"),
    (["merge", "results"], "--results: must not be one of the folders to join"),
    (["merge", "results", "--results", "file"], "--results: must be a folder"),
    (["fleet"], "the following arguments are required: ACTION"),
    (["fleet", "doctor"], "the following arguments are required: --ray"),
    (["fleet", "doctor", "--ray", " "], "--ray: must be an address"),
    (["fleet", "nurse"], "invalid choice: 'nurse'"),
    # check-submission
    (["check-submission"], "the following arguments are required: FOLDER"),
    (["check-submission", "nowhere"], "nowhere: must be a folder of results"),
    (["check-submission", "x" * 5000], ": must be a folder of results"),
    (["check-submission", "a\0b"], ": must be a folder of results"),
    (["check-submission", "folder"], "folder: has no runs; name a results or machine folder"),
    (["check-submission", "results", "--against", "nowhere"], "nowhere: no such file or folder"),
    (["check-submission", "results", "--format", "xml"], "--format: must be one of text, json"),
    # publish
    (["publish"], "the following arguments are required: FOLDER, -o/--output"),
    (["publish", "nowhere", "-o", "site"], "nowhere: no such file or folder"),
    (["publish", "results", "-o", "folder"], "--output: must not exist yet, got folder"),
    (["publish", "results", "-o", "results/site"], "--output: must not be a folder that is read"),
    (["publish", "results", "-o", "-"], "--output: must be a path, got '-'"),
    (["publish", "results", "-o", "file/site"], "--output: file/site must be writable"),
    (["publish", "results", "-o", "a\0b"], "--output: "),
    # doctor
    (["doctor", "more"], "unrecognized arguments: more"),
    (["doctor", "--results", ""], "--results: must be the path of a folder"),
]

COMMANDS = (
    *("run", "compare", "accept", "history", "report", "ab", "bisect", "env", "doctor"),
    *("merge", "fleet", "comment", "check-submission", "publish"),
)


def test_there_are_bad_command_lines_of_every_command() -> None:
    for command in COMMANDS:
        assert sum(line[:1] == [command] for line, _ in BAD) >= 2, command
    assert len(BAD) >= 60


def ended(arguments: list[str]) -> int | str | None:
    try:
        return main(arguments)
    except SystemExit as left:
        return left.code


def name(value: object) -> str:
    return " ".join(value)[:60].encode("unicode_escape").decode() if isinstance(value, list) else ""


def test_a_bad_command_line_is_one_line_on_standard_error_and_exit_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path for path in folder.rglob("*") if "cache" not in path.parts)
    lines = []
    for arguments, said in BAD:
        assert ended(arguments) == 2, arguments
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.isprintable()
        assert line.startswith("convmark")
        assert said in line
        named = line.partition("argument ")[2].partition(":")[0]
        assert not line.endswith(f"did you mean {named}?")
        lines.append(f"{line[:300]}\n")
    after = sorted(path for path in folder.rglob("*") if "cache" not in path.parts)
    assert after == before  # nothing is made of what was refused
    check("errors", plain("".join(lines), folder))


GIT_ENDS = ("--good", "git:a", "--bad", "git:b")
TYPE_IT = "overrides it"
FROM_PYPROJECT: list[tuple[str, list[str], str]] = [
    *(
        (
            'isolation = "none"',
            [command, *ends, *ONE_CASE],
            "[tool.convmark] isolation: a comparison needs fresh processes, got none; --isolation "
            f"{TYPE_IT}",
        )
        for command, ends in (("ab", ()), ("noise", ()), ("bisect", GIT_ENDS))
    ),
    (
        'devices = "all"',
        ["bisect", *GIT_ENDS, *ONE_CASE[:-2]],
        "[tool.convmark] devices: bisect needs one device, such as cpu or gpu:0, got all; "
        f"--devices {TYPE_IT}",
    ),
    (
        "replicas = 2",
        ["ab", *ONE_CASE],
        "[tool.convmark] replicas: a comparison takes one; convmark run measures several; take it "
        "out there for this command",
    ),
    (
        'cluster = "local"',
        ["noise", *ONE_CASE],
        "[tool.convmark] cluster: a comparison takes none; convmark run measures over one; take it "
        "out there for this command",
    ),
    (
        'tasks = "accuracy"',
        ["ab", "--models", "lenet5"],
        "[tool.convmark] tasks: convmark ab compares train and infer alone, got 'accuracy'; "
        f"--tasks {TYPE_IT}",
    ),
    (
        'batch-sizes = "auto"',
        ["layers", "lenet5"],
        f"[tool.convmark] batch-sizes: must be numbers, got auto; --batch-sizes {TYPE_IT}",
    ),
    (
        'backend = ["tensorflow", "jax"]',
        ["noise", *ONE_CASE],
        "[tool.convmark] backend: a comparison has one, got tensorflow, jax; convmark run measures "
        f"several; --backend {TYPE_IT}",
    ),
    (
        'isolation = "none"\nthreads = "1,2"',
        ["run", *ONE_CASE],
        "[tool.convmark] threads: one process has one number of threads, got 1,2 and --isolation "
        "none; give one number, or leave --isolation out",
    ),
    (
        'isolation = "none"',
        ["ab", "--isolation", "none", *ONE_CASE],
        "--isolation: a comparison needs fresh processes, got none",
    ),
]


@pytest.mark.parametrize(("setting", "arguments", "said"), FROM_PYPROJECT, ids=name)
def test_a_setting_that_a_command_refuses_is_named_as_it_stands_in_pyproject(
    setting: str,
    arguments: list[str],
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.convmark]\n{setting}\n")
    assert ended(arguments) == 2
    assert capsys.readouterr().err == f"convmark {arguments[0]}: {said}\n"


def test_a_hostile_pyproject_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (
        '[tool.convmark]\nmodels = ["\\u001b[31m"]\n',
        '[tool.convmark]\nenv = "a\\u0000b"\n',
        '[tool.convmark]\n"\\u001b" = 1\n',
        "[tool.convmark]\nmodels = " + "[" * 2_000 + "\n",
        "\0",
        "x = " + "9" * 5_000 + "\n",
    ):
        (folder / "pyproject.toml").write_text(text)
        assert ended(["run"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.isprintable()


# pytest

PYTEST_BAD = [
    (["--model=lenet5"], "unrecognized arguments: --model; did you mean --models?"),
    (
        ["--benchmark-comapre=1"],
        "arguments: --benchmark-comapre; did you mean --benchmark-compare?",
    ),
    (["--resmue"], "unrecognized arguments: --resmue; did you mean --resume?"),
    (["--models=lenet6"], "lenet6: no such model"),
    (["--models="], "--models: must be a comma-separated list"),
    (["--models=\x1b[31m"], "--models: must be one line without control characters"),
    (["--models=a\nb"], "--models: must be one line without control characters"),
    (["--devices=tpu"], "--devices: unknown device 'tpu'"),
    (["--batch-sizes=0"], "--batch-sizes: must be a whole number of at least 1"),
    (["--precisions=float8"], "--precisions: unknown name 'float8'"),
    (["--jit=1"], "--jit: must be one of off, on, both"),
    (["--backend=caffe"], "--backend: unknown name 'caffe'"),
    (["--processes=0"], "--processes: must be a whole number"),
    (["--time-budget=inf"], "--time-budget: must be a number of seconds"),
    (["--isolation=vm"], "--isolation: must be one of"),
    (["--results=file"], "--results: must be a folder"),
    (["--seed=x"], "--seed: must be a whole number"),
    (["--python=./nowhere"], "--python: no interpreter './nowhere'"),
    (["--python=a", "--python=b"], "pytest measures one interpreter, got a, b"),
    (["--env=a b =="], "--env: must be a requirement"),
    (["--margin=5"], "--margin: must be a share from 0.01 to 1"),
    (["--compare-budget=-1"], "--compare-budget: must be a number of seconds from 0"),
    (["--benchmark-compare=0099"], "no run '0099'"),
    (["--benchmark-compare=other.csv"], "other.csv:1: must have the columns of schema"),
    (["--benchmark-compare=\x1b[31m"], "no run '\\x1b[31m'"),
    (["--benchmark-compare=git:"], "git"),
    (
        ["--benchmark-compare=0001", "--batch-sizes=auto"],
        "--benchmark-compare: needs --batch-sizes in numbers, got auto",
    ),
    (["--accuracy", "--batch-sizes=auto"], "--batch-sizes auto searches for train and infer alone"),
    (["--benchmark-compare-fail=median:5%"], "needs --benchmark-compare"),
]


@pytest.fixture
def bench(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., pytest.RunResult]:
    monkeypatch.setattr("convmark.interpreter.Interpreter", fake_worker.FakeInterpreter)
    monkeypatch.setattr("convmark.machine.hardware.load_nvml", lambda: None)
    folder = pytester.mkdir("bench")
    (folder / "test_speed.py").write_text(SUITE)
    (pytester.path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n[tool.convmark]\nshort_options = true\n"
    )
    (pytester.path / "file").write_text("")
    (pytester.path / "other.csv").write_text("a,b\n1,2\n")
    return lambda *options: pytester.runpytest_inprocess("bench", *options)


@pytest.mark.parametrize(("options", "said"), PYTEST_BAD, ids=name)
def test_a_bad_option_of_pytest_is_one_line_and_exit_4(
    bench: Callable[..., pytest.RunResult], pytester: pytest.Pytester, options: list[str], said: str
) -> None:
    result = bench(*options)
    assert result.ret == 4
    (line,) = [line for line in result.errlines if line]
    assert line.isprintable()
    assert line.startswith("ERROR: ")
    assert said in line
    assert not list(pytester.path.glob("results/*/*.csv"))


def test_a_setting_that_pytest_refuses_is_named_as_it_stands_in_pyproject(
    bench: Callable[..., pytest.RunResult], pytester: pytest.Pytester
) -> None:
    path = pytester.path / "pyproject.toml"
    path.write_text(f"{path.read_text()}batch_sizes = 'auto'\nlatency_limit = '10ms'\n")
    result = bench()
    assert result.ret == 4
    (line,) = [line for line in result.errlines if line]
    assert line == (
        "ERROR: [tool.convmark] latency-limit: needs --batch-sizes in numbers, the most requests "
        "that a step answers, got auto; --latency-limit overrides it"
    )


def test_a_machines_folder_is_found_by_its_name_alone(folder: Path) -> None:
    assert ended(["compare", "--machine", MACHINE]) == 0
