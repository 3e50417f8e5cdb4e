"""Options: every bad value is refused on one line that names the option, the value and the rule."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from convmark.core.cluster import Cluster
from convmark.core.errors import OptionError
from convmark.core.option import by_source
from convmark.core.option_values import nearest, nearest_case
from convmark.core.options import OPTIONS, read
from convmark.core.pyproject import pyproject_settings, wants_short_options

GAPS = "must be a comma-separated list without empty items"
COUNT = "must be a whole number of at least 1"
SECONDS = "must be a number of seconds above 0 and at most 1,000,000"
DEVICE = "a device is cpu, gpu:N (such as gpu:0) or all"
THREADS = "must be 'default' or a whole number of at least 1"
PLAIN = "must be a text, a number or a list of them"
FOLDER = "must be the path of a folder"
SHARE = "must be a number above 0 and at most 1"

BAD = [
    ("models", "", "''", GAPS),
    ("models", ",", "','", GAPS),
    ("models", "lenet5,", "'lenet5,'", GAPS),
    ("models", "lenet5,,resnet50", "'lenet5,,resnet50'", GAPS),
    ("models", " \t", "' \\t'", GAPS),
    ("tasks", "", "''", GAPS),
    ("tasks", "trian", "'trian'", "did you mean train?"),
    ("tasks", "Train", "'Train'", "did you mean train?"),
    ("tasks", "inference", "'inference'", "did you mean infer?"),
    ("tasks", "train,score", "'score'", "known: train, infer, accuracy, waterfall"),
    ("tasks", "train;infer", "'train;infer'", "did you mean"),
    ("devices", "", "''", GAPS),
    ("cooling", " ", "' '", "must not be empty"),
    ("sustain", "20", "'20'", "with its unit, such as 20m"),
    ("sustain", "10s", "'10s'", "from 30s"),
    ("latency-limit", "10", "'10'", "with its unit, such as 10ms"),
    ("latency-limit", "0ms", "'0ms'", "from 100us"),
    ("devices", "gpu", "'gpu'", DEVICE),
    ("devices", "gpu:", "'gpu:'", DEVICE),
    ("devices", "gpu:x", "'gpu:x'", DEVICE),
    ("devices", "gpu:-1", "'gpu:-1'", DEVICE),
    ("devices", "gpu:0:1", "'gpu:0:1'", DEVICE),
    ("devices", "cpu:0", "'cpu:0'", DEVICE),
    ("devices", "GPU:0", "'GPU:0'", DEVICE),
    ("devices", "cpu,tpu", "'tpu'", DEVICE),
    ("batch-sizes", "", "''", GAPS),
    ("batch-sizes", "0", "'0'", COUNT),
    ("batch-sizes", "-32", "'-32'", COUNT),
    ("batch-sizes", "1,32,x", "'x'", COUNT),
    ("batch-sizes", "32.0", "'32.0'", COUNT),
    ("batch-sizes", "1e3", "'1e3'", COUNT),
    ("batch-sizes", "1,,32", "'1,,32'", GAPS),
    ("batch-sizes", "0x10", "'0x10'", COUNT),
    ("batch-sizes", "9" * 19, "9" * 19, COUNT),
    ("batch-sizes", "9" * 5000, "9" * 19, COUNT),
    ("batch-sizes", "1_000", "'1_000'", COUNT),
    ("batch-sizes", "+1", "'+1'", COUNT),
    ("batch-sizes", "\u0663", "'\u0663'", COUNT),
    ("replicas", "0", "'0'", COUNT),
    ("replicas", "1,x", "'x'", COUNT),
    ("replicas", "1,,2", "'1,,2'", GAPS),
    ("cluster", "remote", "'remote'", "an address must be HOST:PORT"),
    ("index", "-1", "'-1'", "must be a whole number of at least 0"),
    ("index", "0", "0", "needs --cluster HOST:PORT,HOST:PORT"),
    ("precisions", "", "''", GAPS),
    ("precisions", "float15", "'float15'", "did you mean float16"),
    ("precisions", "mixed-float16", "'mixed-float16'", "did you mean mixed_float16"),
    ("precisions", "float32,int7", "'int7'", "did you mean int8"),
    ("jit", "", "''", "must be one of off, on, both"),
    ("jit", "auto", "'auto'", "must be one of off, on, both"),
    ("jit", "off,on", "'off,on'", "must be one of off, on, both"),
    ("jit", "true", "'true'", "must be one of off, on, both"),
    ("optimizer", "adam,sgd", "'adam,sgd'", "must be a name as Keras has it"),
    ("loss", "", "''", "must be a name as Keras has it"),
    ("learning-rate", "0", "'0'", "must be a finite number above 0"),
    ("learning-rate", "inf", "'inf'", "must be a finite number above 0"),
    ("learning-rate", "fast", "'fast'", "must be a finite number above 0"),
    ("threads", "", "''", GAPS),
    ("threads", "0", "'0'", THREADS),
    ("threads", "-1", "'-1'", THREADS),
    ("threads", "all", "'all'", THREADS),
    ("threads", "1.5", "'1.5'", THREADS),
    ("threads", "1,two", "'two'", THREADS),
    ("cpus", "", "''", "as taskset lists them, such as 0-7"),
    ("cpus", "3-1", "'3-1'", "as taskset lists them, such as 0-7"),
    ("numa", "-1", "'-1'", "must be a whole number of at least 0"),
    ("backend", "", "''", GAPS),
    ("backend", "tensorflow,caffe", "'caffe'", "known: tensorflow, jax, torch"),
    ("runtime", "", "''", GAPS),
    ("runtime", "keras,tvm", "'tvm'", "known: keras, savedmodel, litert"),
    ("backend", "pytorch", "'pytorch'", "did you mean torch?"),
    ("ceilings", "", "''", "must be one of auto, on, off"),
    ("ceilings", "yes", "'yes'", "must be one of auto, on, off"),
    ("layers", "maybe", "'maybe'", "must be one of yes, no"),
    ("processes", "", "''", COUNT),
    ("processes", "0", "'0'", COUNT),
    ("processes", "two", "'two'", COUNT),
    ("processes", "2.5", "'2.5'", COUNT),
    ("time-budget", "", "''", SECONDS),
    ("time-budget", "0", "'0'", SECONDS),
    ("time-budget", "-2", "'-2'", SECONDS),
    ("time-budget", "2s", "'2s'", SECONDS),
    ("time-budget", "nan", "'nan'", SECONDS),
    ("time-budget", "inf", "'inf'", SECONDS),
    ("time-budget", "1e999", "'1e999'", SECONDS),
    ("time-budget", "1000000.1", "'1000000.1'", SECONDS),
    ("time-limit", "0", "'0'", SECONDS),
    ("time-limit", "none", "'none'", SECONDS),
    ("time-limit", "1e300", "'1e300'", SECONDS),
    ("time-limit", "10:00", "'10:00'", SECONDS),
    ("wait", "maybe", "'maybe'", "must be one of yes, no"),
    ("allow-concurrent", "", "''", "must be one of yes, no"),
    ("compare-budget", "-1", "'-1'", "from 0, which compares nothing live, to 1,000,000, or unl"),
    ("compare-budget", "ten", "'ten'", "or unlimited"),
    ("margin", "0.005", "'0.005'", "must be a share from 0.01 to 1, such as 0.03 for 3 %"),
    ("margin", "3%", "'3%'", "must be a share from 0.01 to 1"),
    ("allow-change", " ", "' '", "must not be empty"),
    ("trust-models", "1", "'1'", "must be one of yes, no"),
    ("isolation", "", "''", "must be one of fork, spawn, none"),
    ("isolation", "thread", "'thread'", "must be one of fork, spawn, none"),
    ("isolation", "Fork", "'Fork'", "must be one of fork, spawn, none"),
    ("seeds", "", "''", GAPS),
    ("seeds", "0,,1", "'0,,1'", GAPS),
    ("seeds", "-1", "'-1'", "must be a whole number of at least 0"),
    ("seeds", "0,one", "'one'", "must be a whole number of at least 0"),
    ("fraction", "0", "'0'", SHARE),
    ("fraction", "1.0001", "'1.0001'", SHARE),
    ("fraction", "nan", "'nan'", SHARE),
    ("fraction", "10%", "'10%'", SHARE),
    ("fraction", "", "''", SHARE),
    ("target-accuracy", "97", "'97'", SHARE),
    ("target-accuracy", "-0.5", "'-0.5'", SHARE),
    ("target-accuracy", "high", "'high'", SHARE),
    ("input-shape", "", "''", "must be a comma-separated list"),
    ("input-shape", "28x", "'28x'", "must be a shape such as 224x224x3"),
    ("input-shape", "0x3", "'0x3'", "must be a shape such as 224x224x3"),
    ("input-shape", "a=3,a=4", "'a=3,a=4'", "must be a shape such as 224x224x3"),
    ("mnist", " ", "' '", "must be the path of a file"),
    ("mnist", "a\0b", "'a\\x00b'", "must be the path of a file"),
    ("python", " ", "' '", "must not be empty"),
    ("env", "", "''", "must not be empty"),
    ("results", "", "''", FOLDER),
    ("results", "  ", "'  '", FOLDER),
    ("results", "a\0b", "'a\\x00b'", FOLDER),
    ("seed", "", "''", "must be a whole number of at least 0"),
    ("seed", "-1", "'-1'", "must be a whole number of at least 0"),
    ("seed", "0.5", "'0.5'", "must be a whole number of at least 0"),
    ("seed", "random", "'random'", "must be a whole number of at least 0"),
]

BAD_IN_PYPROJECT = [
    ("models = []", "models", "''", GAPS),
    ('models = ["lenet5", ""]', "models", "'lenet5,'", GAPS),
    ("models = [1, true]", "models", "True", PLAIN),
    ("models = { lenet5 = 1 }", "models", "{'lenet5': 1}", PLAIN),
    ('tasks = [["train"], {}]', "tasks", "{}", PLAIN),
    ('tasks = "fit"', "tasks", "'fit'", "known: train, infer"),
    ("devices = 0", "devices", "'0'", DEVICE),
    ("batch-sizes = [1, 32.5]", "batch-sizes", "'32.5'", COUNT),
    ("batch_sizes = 0", "batch-sizes", "'0'", COUNT),
    ("jit = true", "jit", "True", PLAIN),
    ("threads = 0", "threads", "'0'", THREADS),
    ("processes = 2.0", "processes", "'2.0'", COUNT),
    ("processes = false", "processes", "False", PLAIN),
    ("time-budget = nan", "time-budget", "'nan'", SECONDS),
    ("time_limit = inf", "time-limit", "'inf'", SECONDS),
    ("seed = 2026-01-02", "seed", "datetime.date(2026, 1, 2)", PLAIN),
    ('results = ""', "results", "''", FOLDER),
    ("python = true", "python", "True", PLAIN),
    ('env = ["tensorflow==2.20.*", {}]', "env", "{}", PLAIN),
    ("wait = 1", "wait", "'1'", "must be one of yes, no"),
]

BAD_TABLES = [
    ("[tool.convmark]\nbatchsizes = 1", "has no key 'batchsizes'", "did you mean batch-sizes"),
    ("[tool.convmark]\nmodel = 'a'", "has no key 'model'", "did you mean models"),
    ("[tool.convmark]\nzzz = 1", "has no key 'zzz'", "no known name is similar"),
    ("[tool.convmark]\n'a\\nb' = 1", "has no key 'a\\\\nb'", "no known name is similar"),
    ("[tool.convmark.models]\na = 1\n[tool.convmark.more]", "has no key 'more'", ""),
    ("[tool]\nconvmark = 3", "tool.convmark must be a table, got 3", ""),
    ("[[tool.convmark]]\nseed = 1", "tool.convmark must be a table, got [", ""),
    ("tool = 3", "cannot be read as TOML", ""),
    ("[tool.convmark]\nseed = !\n", "cannot be read as TOML", "line 2"),
    ("[tool.convmark]\nseed = 1\nseed = 2", "cannot be read as TOML", "overwrite"),
    ("[tool.convmark]\nbatch-sizes = 1\nbatch_sizes = 2", "'batch_sizes'", "twice"),
]


def refusal(given: dict[str, Any], settings: dict[str, Any] | None = None) -> str:
    with pytest.raises(OptionError) as refused:
        read(given, settings)
    return str(refused.value)


def write_pyproject(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_there_are_bad_values_for_every_option() -> None:
    assert {name for name, *_ in BAD} == {option.name for option in OPTIONS}


@pytest.mark.parametrize(("name", "text", "value", "rule"), BAD)
def test_a_bad_value_is_refused_by_flag_value_and_rule_on_one_line(
    name: str, text: str, value: str, rule: str
) -> None:
    message = refusal({name.replace("-", "_"): text})
    assert message.startswith(f"--{name}: ")
    assert value in message
    assert rule in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("line", "name", "value", "rule"), BAD_IN_PYPROJECT)
def test_a_bad_value_in_pyproject_is_refused_by_table_key_value_and_rule(
    line: str, name: str, value: str, rule: str, tmp_path: Path
) -> None:
    write_pyproject(tmp_path, f"[tool.convmark]\n{line}\n")
    message = refusal({}, pyproject_settings(tmp_path))
    assert message.startswith(f"[tool.convmark] {name}: ")
    assert value in message
    assert rule in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("text", "finding", "advice"), BAD_TABLES)
def test_a_bad_table_is_refused_by_file_and_finding_on_one_line(
    text: str, finding: str, advice: str, tmp_path: Path
) -> None:
    path = write_pyproject(tmp_path, text)
    with pytest.raises(OptionError) as refused:
        pyproject_settings(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert finding in message
    assert advice in message
    assert len(message.splitlines()) == 1


def test_a_pyproject_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b'[tool.convmark]\nmodels = "\xff"\n')
    with pytest.raises(OptionError, match="cannot be read as TOML"):
        pyproject_settings(tmp_path)


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.ruff]\n"])
def test_a_pyproject_without_the_table_sets_nothing(text: str, tmp_path: Path) -> None:
    write_pyproject(tmp_path, text)
    assert pyproject_settings(tmp_path) == {}


def test_no_pyproject_sets_nothing(tmp_path: Path) -> None:
    assert pyproject_settings(tmp_path) == {}
    (tmp_path / "pyproject.toml").mkdir()
    assert pyproject_settings(tmp_path) == {}


GOOD = [
    ("models", "lenet5", ("lenet5",)),
    ("models", " lenet5 , resnet50 ", ("lenet5", "resnet50")),
    ("models", "a.b:c,a.b:c", ("a.b:c",)),
    ("tasks", "infer", ("infer",)),
    ("tasks", "infer,train", ("infer", "train")),
    ("devices", "all", ("all",)),
    ("devices", "cpu, gpu:0,gpu:11", ("cpu", "gpu:0", "gpu:11")),
    ("batch-sizes", "1", (1,)),
    ("batch-sizes", "32,1,32", (32, 1)),
    ("batch-sizes", "auto", "auto"),
    ("batch-sizes", "9" * 18, (999_999_999_999_999_999,)),
    ("precisions", "float32,mixed_bfloat16", ("float32", "mixed_bfloat16")),
    ("jit", "off", ("off",)),
    ("jit", "on", ("on",)),
    ("jit", "both", ("off", "on")),
    ("optimizer", "adam", "adam"),
    ("optimizer", "default", None),
    ("loss", "default", None),
    ("learning-rate", "default", None),
    ("input-shape", "default", None),
    ("loss", "MeanSquaredError", "MeanSquaredError"),
    ("learning-rate", "1e-3", 0.001),
    ("threads", "default", ("default",)),
    ("threads", "1", ("1",)),
    ("threads", "02,default,2,1", ("2", "default", "1")),
    ("cpus", "1,0,4-6", "0-1,4-6"),
    ("cpus", "default", None),
    ("numa", "1", 1),
    ("backend", "torch", ("torch",)),
    ("backend", "tensorflow, jax,torch", ("tensorflow", "jax", "torch")),
    ("ceilings", "on", "on"),
    ("processes", "1", 1),
    ("time-budget", "0.5", 0.5),
    ("time-budget", "1e-3", 0.001),
    ("time-limit", "1000000", 1e6),
    ("compare-budget", "0", 0.0),
    ("compare-budget", "unlimited", math.inf),
    ("margin", "0.1", 0.1),
    ("allow-change", "lenet5-*", ("lenet5-*",)),
    ("isolation", "none", "none"),
    ("tasks", "accuracy,waterfall", ("accuracy", "waterfall")),
    ("seeds", "0", (0,)),
    ("seeds", " 3 ,1,3, 03", (3, 1)),
    ("fraction", "1", 1.0),
    ("fraction", "1e-3", 0.001),
    ("target-accuracy", "0.9", 0.9),
    ("input-shape", "224x224x3", (("", (224, 224, 3)),)),
    ("input-shape", "image=28x28x1, meta=4", (("image", (28, 28, 1)), ("meta", (4,)))),
    ("mnist", "a folder/digits.npz", Path("a folder/digits.npz")),
    ("mnist", "~/digits.npz", Path.home() / "digits.npz"),
    ("results", "a folder/b", Path("a folder/b")),
    ("replicas", "1, 2,4,2", (1, 2, 4)),
    ("cluster", "local", Cluster()),
    ("seed", "0", 0),
    ("seed", "4294967295", 2**32 - 1),
    ("seed", "4294967297", 1),
]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_value_is_taken(name: str, text: str, value: Any) -> None:
    options = read({name.replace("-", "_"): text})
    field = name.replace("-", "_")
    there = {at.name for at in dataclasses.fields(options)}
    known = next(one for one in (field, f"{field}_s", f"{field}s") if one in there)
    assert getattr(options, known) == value


def test_the_defaults_are_those_that_the_help_names() -> None:
    options = read({})
    assert dataclasses.asdict(options) == {
        "models": None,
        "cooling": None,
        "latency_limit_s": None,
        "sustain_s": None,
        "tasks": ("train", "infer"),
        "devices": ("all",),
        "batch_sizes": None,
        "precisions": ("float32",),
        "jit": ("off",),
        "threads": ("default",),
        "cpus": None,
        "numa": None,
        "backends": ("tensorflow",),
        "runtimes": ("keras",),
        "ceilings": "auto",
        "layers": False,
        "processes": 3,
        "time_budget_s": 0.6,
        "time_limit_s": 600.0,
        "isolation": "fork" if sys.platform == "linux" else "spawn",
        "results": Path("results"),
        "compare_budget_s": 600.0,
        "margin": 0.03,
        "allow_changes": (),
        "seed": 0,
        "pythons": (),
        "environments": (),
        "seeds": (0, 1, 2),
        "target_accuracy": 0.97,
        "fraction": 1.0,
        "mnist": None,
        "input_shape": None,
        "replicas": None,
        "cluster": None,
        "index": None,
        "optimizer": None,
        "learning_rate": None,
        "loss": None,
        "wait": False,
        "trust_models": False,
        "given": {},
        "from_file": frozenset(),
        "allow_concurrent": False,
    }
    for option in OPTIONS:
        assert "default" in option.help
        if option.default is not None and option.name not in ("isolation", "tasks"):
            assert option.default in option.help


def test_every_default_keeps_to_its_own_rule() -> None:
    for option in OPTIONS:
        if option.default is not None:
            assert option.parse(option.flag, option.default) is not None


def test_a_list_a_number_and_a_text_of_pyproject_are_all_taken(tmp_path: Path) -> None:
    write_pyproject(
        tmp_path,
        '[tool.convmark]\nmodels = ["lenet5", "resnet50"]\nbatch-sizes = [1, 32]\n'
        'processes = 3\ntime_budget = 0.5\nseed = "7"\ntasks = "train"\n',
    )
    options = read({}, pyproject_settings(tmp_path))
    assert options.models == ("lenet5", "resnet50")
    assert options.batch_sizes == (1, 32)
    assert (options.processes, options.time_budget_s, options.seed) == (3, 0.5, 7)
    assert options.tasks == ("train",)


def test_the_user_goes_before_pyproject_and_pyproject_before_the_default() -> None:
    settings = {"processes": 3, "seed": 5}
    options = read({"processes": "4", "seed": None}, settings)
    assert (options.processes, options.seed, options.time_budget_s) == (4, 5, 0.6)


def test_a_bad_value_of_pyproject_that_the_user_replaces_is_not_looked_at() -> None:
    assert read({"processes": "4"}, {"processes": "many"}).processes == 4


def test_keys_that_are_no_options_are_left_alone() -> None:
    assert read({"command": "run", "version": True}).processes == 3


def test_a_case_of_another_model_is_never_what_was_meant() -> None:
    cases = [
        f"{model}-{task}-cpu-b{size}-float32"
        for model in ("mobilenetv2", "lenet5", "mobilenet")
        for task in ("train", "infer")
        for size in (1, 32)
    ]
    for typed in ("mobilenetv2-infer-cpu-b1-flaot32", "mobilnetv2-*", "mobilenetv2-trian-*"):
        told = nearest_case(typed, cases)
        assert re.findall(r"\w+(?=-(?:train|infer))", told) == ["mobilenetv2"] * 3, typed
    assert nearest_case("vgg16-*", cases) == "known models: mobilenetv2, lenet5, mobilenet"
    assert nearest_case("vgg16-*", ()) == "none is known"


@pytest.mark.parametrize(
    ("value", "known", "advice"),
    [
        ("trian", ["train", "infer"], "did you mean train?"),
        ("x", ["train", "infer"], "known: train, infer"),
        (
            "x",
            [f"name{n}" for n in range(12)],
            "known: " + ", ".join(f"name{n}" for n in range(12)),
        ),
        ("x", [f"name{n}" for n in range(13)], "no known name is similar"),
        ("x", [], "none is known"),
        ("ab1", ["ab2", "ab3", "ab4", "ab5"], "did you mean ab5 or ab4 or ab3?"),
        ("batchsizes", ["backends", "batch_sizes"], "did you mean batch_sizes?"),
    ],
)
def test_advice_names_the_nearest_or_all_where_they_are_few(
    value: str, known: list[str], advice: str
) -> None:
    assert nearest(value, known) == advice


def test_addresses_and_place_become_one_cluster() -> None:
    hosts = ("a:1", "b:1")
    assert read({"cluster": "a:1,b:1", "index": "1"}).cluster == Cluster(addresses=hosts, index=1)
    assert refusal({"cluster": "a:1,b:1"}) == (
        "--index: must be the position of this machine in the cluster (0 for a:1, 1 for b:1), "
        "got nothing"
    )


def test_an_option_that_may_be_repeated_is_a_tuple_from_wherever_it_comes() -> None:
    assert read({"python": ["a", " b "]}).pythons == ("a", "b")
    assert read({}, {"env": "tensorflow==2.20.*"}).environments == ("tensorflow==2.20.*",)
    found = read({}, {"env": ["tensorflow==2.20.*", "2.21.0"]})
    assert found.environments == ("tensorflow==2.20.*", "2.21.0")


def test_a_switch_is_yes_or_no_wherever_it_comes_from(tmp_path: Path) -> None:
    assert read({"wait": "yes"}).wait is True
    assert read({}).wait is False
    for value, wait in (("true", True), ("false", False), ('"yes"', True), ('"no"', False)):
        write_pyproject(tmp_path, f"[tool.convmark]\nwait = {value}\n")
        assert read({}, pyproject_settings(tmp_path)).wait is wait
    assert read({"wait": "yes"}, {"wait": False}).wait is True


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", False),
        ("[tool.convmark]\nshort_options = true\nprocesses = 1\n", True),
        ("[tool.convmark]\nshort_options = false\n", False),
        ("no TOML", False),
    ],
)
def test_short_option_names_are_asked_for_in_pyproject(
    tmp_path: Path, text: str, wanted: bool
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    assert wants_short_options(tmp_path) is wanted
    if text.startswith("["):
        assert "short_options" not in pyproject_settings(tmp_path)


def test_short_options_are_true_or_false(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.convmark]\nshort_options = 1\n")
    with pytest.raises(OptionError, match="short_options must be true or false"):
        pyproject_settings(tmp_path)


def test_an_error_of_several_options_names_those_of_pyproject_as_they_stand_there() -> None:
    text = "--models, --tasks and --batch-sizes: leave no case, got --tasks infer"
    flags = {"models": "--models", "tasks": "--tasks"}
    assert by_source(text, {"tasks", "models", "seed"}, flags) == (
        "[tool.convmark] models, [tool.convmark] tasks and --batch-sizes: leave no case, got "
        "--tasks infer; --models and --tasks override them"
    )
    assert by_source(text, {"seed"}, flags) == text
    assert by_source("lenet9: no such model", {"models"}, flags) == "lenet9: no such model"
