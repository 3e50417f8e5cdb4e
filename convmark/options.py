"""The options, once: the same names, rules and defaults for pytest, the command line and pyproject.

Each source gives texts (pyproject may give numbers and lists); `read` turns them into one frozen
`Options`, and every refusal is an `OptionError` that names the option, the value and the rule.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convmark.case import BACKENDS, ISOLATIONS, PRECISIONS, TASKS
from convmark.cluster import Cluster, parse_cluster, with_index
from convmark.errors import OptionError
from convmark.text import NUMBER, is_plain

__all__ = ["AUTO", "OPTIONS", "Option", "Options", "nearest", "pyproject_settings", "read"]

AUTO: Literal["auto"] = "auto"

MOST_SECONDS = 1_000_000
"""Eleven days; the system's timers overflow far above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked for; None where the suite or the command has its own default."""

    models: tuple[str, ...] | None
    tasks: tuple[str, ...]
    devices: tuple[str, ...]
    batch_sizes: tuple[int, ...] | Literal["auto"] | None
    """Samples per replica per step; `auto` searches for them."""
    precisions: tuple[str, ...]
    jit: tuple[str, ...]
    threads: str
    backends: tuple[str, ...]
    ceilings: str
    """Which ceilings are measured where they are not known: auto, on or off."""
    processes: int
    """Fresh processes per case."""
    time_budget_s: float
    """Seconds of timed rounds per process."""
    time_limit_s: float
    """Seconds that a worker may go without a sign of progress."""
    isolation: str
    results: Path
    seed: int
    confirm: str
    """Which cases a live comparison judges: flagged, all or none."""
    confirm_budget_s: float
    """Most seconds for all live comparisons."""
    pythons: tuple[str, ...] = ()
    """Interpreters to measure in; with `environments` empty too, this one."""
    environments: tuple[str, ...] = ()
    """Requirements of environments to measure in."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the task accuracy: a fresh process for each."""
    target_accuracy: float = 0.97
    fraction: float = 1.0
    """Share of the training and validation samples that the task accuracy uses."""
    mnist: Path | None = None
    """File of the digits; None where the user has named none."""
    replicas: tuple[int, ...] | None = None
    cluster: Cluster | None = None
    """What the replicas of a case are spread over; None is one process."""
    wait: bool = False
    """Whether another benchmark run's end is waited for."""
    allow_concurrent: bool = False
    """Whether to measure beside other benchmark runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its name without dashes, its rule and its line of help."""

    name: str
    metavar: str
    parse: Callable[[str, str], Any]
    """Turns (flag, text) into the value, or raises OptionError."""
    default: str | None
    help: str
    only: str = ""
    """`run` or `pytest` where the other has no such option."""
    repeatable: bool = False
    """Whether it may be given more than once; its value is then a tuple."""
    switch: bool = False
    """Whether it takes no value on a command line, where it means yes."""

    def add_to(self, add: Callable[..., Any], **more: Any) -> None:
        """Add it to a parser by the parser's own function."""
        how: dict[str, Any] = {"action": "append" if self.repeatable else "store"}
        if self.switch:
            how = {"action": "store_const", "const": "yes"}
        else:
            how["metavar"] = self.metavar
        add(self.flag, default=None, help=self.help, **how, **more)

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


def nearest(value: str, known: Iterable[str]) -> str:
    """Say the nearest known names, or all of them where they are few and none is near."""
    names = list(known)
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if len(names) <= 12 else "no known name is near"


def _words(flag: str, text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise OptionError(f"{flag}: must be a comma-separated list without gaps, got {text!r}")
    if not is_plain(text):
        raise OptionError(f"{flag}: must be one line without control characters, got {text!r}")
    return tuple(dict.fromkeys(words))


def _choices(known: Sequence[str]) -> Callable[[str, str], tuple[str, ...]]:
    def parse(flag: str, text: str) -> tuple[str, ...]:
        words = _words(flag, text)
        for word in words:
            if word not in known:
                raise OptionError(f"{flag}: unknown name {word!r}; {nearest(word, known)}")
        return words

    return parse


def _choice(known: Sequence[str]) -> Callable[[str, str], str]:
    def parse(flag: str, text: str) -> str:
        if text not in known:
            raise OptionError(f"{flag}: must be one of {', '.join(known)}, got {text!r}")
        return text

    return parse


def _jit(flag: str, text: str) -> tuple[str, ...]:
    state = _choice(("off", "on", "both"))(flag, text)
    return ("off", "on") if state == "both" else (state,)


def _whole(flag: str, text: str, at_least: int) -> int:
    plain = text.isascii() and text.isdecimal() and len(text) <= 18
    if not plain or int(text) < at_least:
        raise OptionError(f"{flag}: must be a whole number of at least {at_least}, got {text!r}")
    return int(text)


def _batch_sizes(flag: str, text: str) -> tuple[int, ...] | Literal["auto"]:
    if text.strip() == AUTO:
        return AUTO
    return tuple(_whole(flag, word, 1) for word in _words(flag, text))


def _count(flag: str, text: str) -> int:
    return _whole(flag, text, 1)


def _place(flag: str, text: str) -> int:
    return _whole(flag, text, 0)


def _counts(flag: str, text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(flag, word) for word in _words(flag, text)))


def _seed(flag: str, text: str) -> int:
    return _whole(flag, text, 0) % 2**32


def _seconds(flag: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:
        raise OptionError(
            f"{flag}: must be a number of seconds above 0 and at most {MOST_SECONDS:,}, "
            f"got {text!r}"
        )
    return seconds


def _seeds(flag: str, text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_seed(flag, word) for word in _words(flag, text)))


def _share(flag: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise OptionError(f"{flag}: must be a number above 0 and at most 1, got {text!r}")
    return share


def _threads(flag: str, text: str) -> str:
    if text == "default":
        return text
    try:
        return str(_whole(flag, text, 1))
    except OptionError:
        raise OptionError(
            f"{flag}: must be 'default' or a whole number of at least 1, got {text!r}"
        ) from None


def _devices(flag: str, text: str) -> tuple[str, ...]:
    words = _words(flag, text)
    for word in words:
        kind, _, index = word.partition(":")
        if word not in ("cpu", "all") and not (kind == "gpu" and NUMBER.fullmatch(index)):
            raise OptionError(
                f"{flag}: unknown device {word!r}; a device is cpu, gpu:N (such as gpu:0) or all"
            )
    return words


def _folder(flag: str, text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must be the path of a folder, got {text!r}")
    return Path(text)


def _file(flag: str, text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must be the path of a file, got {text!r}")
    return Path(text).expanduser()


def _switch(flag: str, text: str) -> bool:
    return _choice(("yes", "no"))(flag, text) == "yes"


def _text(flag: str, text: str) -> str:
    if not text.strip() or "\0" in text:
        raise OptionError(f"{flag}: must not be empty, got {text!r}")
    if not is_plain(text):
        raise OptionError(f"{flag}: must be one line without control characters, got {text!r}")
    return text.strip()


OPTIONS = (
    Option(
        name="models",
        metavar="NAMES",
        parse=_words,
        default=None,
        help="models by name: the lecture's six, any of keras.applications in lower case, or your "
        "own as package.module:builder (default: the suite's)",
    ),
    Option(
        name="tasks",
        metavar="TASKS",
        parse=_choices(TASKS),
        default="train,infer",
        help="train, infer, accuracy (train on MNIST), waterfall (what Keras and its input "
        "pipeline cost) (default: train,infer)",
        only="run",
    ),
    Option(
        name="devices",
        metavar="DEVICES",
        parse=_devices,
        default="all",
        help="cpu, gpu:0, ... or all that are there (default: all)",
    ),
    Option(
        name="batch-sizes",
        metavar="SIZES",
        parse=_batch_sizes,
        default=None,
        help="samples per replica per step, or auto: find the fastest and the largest that fits "
        "(default: 32 in training, 1 and 32 in inference)",
    ),
    Option(
        name="precisions",
        metavar="PRECISIONS",
        parse=_choices(PRECISIONS),
        default="float32",
        help="float32 (TF32 off), tf32 (GPUs alone), mixed_float16, mixed_bfloat16 "
        "(default: float32)",
    ),
    Option(
        name="jit",
        metavar="STATE",
        parse=_jit,
        default="off",
        help="compile the step: off, on or both; XLA in TensorFlow, torch.compile in PyTorch, "
        "while JAX always compiles (default: off)",
    ),
    Option(
        name="replicas",
        metavar="NUMBERS",
        parse=_counts,
        default=None,
        help="copies of the model, each with a batch of its own: one per GPU, or logical CPUs; "
        "TensorFlow alone (default: 1; bench/test_scaling.py: up to the GPUs that are there)",
    ),
    Option(
        name="cluster",
        metavar="WHERE",
        parse=parse_cluster,
        default=None,
        help="spread replicas over processes: local, one each on this machine; or over machines: "
        "HOST:PORT,HOST:PORT, or TF_CONFIG to read that variable; start the same command on each "
        "(default: one process)",
        only="run",
    ),
    Option(
        name="index",
        metavar="N",
        parse=_place,
        default=None,
        help="which HOST:PORT of --cluster this machine is, from 0; the first keeps the rows (no "
        "default)",
        only="run",
    ),
    Option(
        name="threads",
        metavar="N",
        parse=_threads,
        default="default",
        help="threads of the measured process, or default: the framework's own choice",
    ),
    Option(
        name="backend",
        metavar="NAMES",
        parse=_choices(BACKENDS),
        default="tensorflow",
        help="framework under Keras, or several: tensorflow, jax, torch (default: tensorflow)",
    ),
    Option(
        name="ceilings",
        metavar="WHICH",
        parse=_choice(("auto", "on", "off")),
        default="auto",
        help="measure once what each device can do at most, for the efficiency: auto (of GPUs), on "
        "or off (default: auto)",
    ),
    Option(
        name="processes",
        metavar="N",
        parse=_count,
        default="2",
        help="fresh processes per case (default: 2)",
    ),
    Option(
        name="time-budget",
        metavar="SECONDS",
        parse=_seconds,
        default="1.8",
        help="seconds of timed rounds per process (default: 1.8)",
    ),
    Option(
        name="time-limit",
        metavar="SECONDS",
        parse=_seconds,
        default="600",
        help="seconds a worker may go without a sign of progress before it is ended (default: 600)",
    ),
    Option(
        name="isolation",
        metavar="HOW",
        parse=_choice(ISOLATIONS),
        default="fork" if sys.platform == "linux" else "spawn",
        help="fork: a child of a warm interpreter; spawn: a new interpreter; none: one process for "
        "all, for debuggers and profilers (default: fork on Linux, else spawn)",
    ),
    Option(
        name="results",
        metavar="FOLDER",
        parse=_folder,
        default="results",
        help="folder of the CSV history (default: results)",
    ),
    Option(
        name="seed",
        metavar="N",
        parse=_seed,
        default="0",
        help="seed of the plan's order, the weights and the batches (default: 0)",
    ),
    Option(
        name="seeds",
        metavar="SEEDS",
        parse=_seeds,
        default="0,1,2",
        help="of the task accuracy: a fresh process for each (default: 0,1,2)",
    ),
    Option(
        name="target-accuracy",
        metavar="SHARE",
        parse=_share,
        default="0.97",
        help="validation accuracy that the task accuracy takes the time to (default: 0.97)",
    ),
    Option(
        name="fraction",
        metavar="SHARE",
        parse=_share,
        default="1",
        help="share of the training and validation samples that the task accuracy uses, for quick "
        "checks (default: 1)",
    ),
    Option(
        name="mnist",
        metavar="PATH",
        parse=_file,
        default=None,
        help="file of the MNIST digits, an .npz with the arrays of keras.datasets.mnist (default: "
        "CONVMARK_MNIST, else what Keras downloads)",
    ),
    Option(
        name="python",
        metavar="PATH",
        parse=_text,
        default=None,
        help="interpreter to measure in, or its environment's folder; it needs the framework and "
        "nothing else (default: this one; convmark run takes several, a run for each)",
        repeatable=True,
    ),
    Option(
        name="env",
        metavar="REQUIREMENTS",
        parse=_text,
        default=None,
        help='what to measure in, such as "tensorflow==2.20.*"; made once and kept, see convmark '
        "env list (default: what is installed here)",
        repeatable=True,
    ),
    Option(
        name="wait",
        metavar="",
        parse=_switch,
        default="no",
        help="wait for another benchmark run on this machine to end (default: no, be refused)",
        switch=True,
    ),
    Option(
        name="allow-concurrent",
        metavar="",
        parse=_switch,
        default="no",
        help="measure beside other benchmark runs, which disturb the figures; the rows say so "
        "(default: no)",
        switch=True,
    ),
    Option(
        name="confirm",
        metavar="WHICH",
        parse=_choice(("flagged", "all", "none")),
        default="flagged",
        help="with --benchmark-compare: run the anchor's code beside today's for the cases that "
        "the history flags, for all or for none (default: flagged)",
        only="pytest",
    ),
    Option(
        name="confirm-budget",
        metavar="SECONDS",
        parse=_seconds,
        default="600",
        help="most seconds for all live comparisons (default: 600)",
        only="pytest",
    ),
)


def _as_text(flag: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_as_text(flag, item) for item in value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise OptionError(f"{flag}: must be a text, a number or a list of them, got {value!r}")
    return str(value)


def pyproject_settings(folder: Path) -> dict[str, Any]:
    """Return `[tool.convmark]` of `folder`/pyproject.toml, empty where there is none.

    Raises:
        OptionError: the file is not TOML, or the table has a key that is no option.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("convmark", {})
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(f"{path}: cannot be read as TOML: {reason}") from None
    if not isinstance(table, dict):
        raise OptionError(f"{path}: tool.convmark must be a table, got {table!r}")
    known = [option.name for option in OPTIONS]
    for key in table:
        if "_" in key and key.replace("_", "-") in table:
            raise OptionError(
                f"{path}: [tool.convmark] has the key {key!r} twice, with '-' and '_'"
            )
        if key.replace("_", "-") not in known:
            hint = nearest(key.replace("_", "-"), known)
            raise OptionError(f"{path}: [tool.convmark] has no key {key!r}; {hint}")
    return {key.replace("-", "_"): value for key, value in table.items()}


def read(given: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Options:
    """Return the options: `given` by the user first, then `settings`, then the defaults.

    Args:
        given: texts by option key (`batch_sizes`), None or absent where the user gave none.
        settings: the values of `[tool.convmark]`, by the same keys.

    Raises:
        OptionError: a value breaks its option's rule.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        value: Any = given.get(option.key)
        flag = option.flag
        if value is None and settings and option.key in settings:
            value = settings[option.key]
            flag = f"[tool.convmark] {option.name}"
        if option.repeatable:
            many = isinstance(value, (list, tuple))
            given_each = [] if value is None else value if many else [value]
            texts = [_as_text(flag, each) for each in given_each]
            values[option.key] = tuple(option.parse(flag, text) for text in texts)
            continue
        if value is None:
            value = option.default
        elif option.switch and isinstance(value, bool):
            value = "yes" if value else "no"
        values[option.key] = None if value is None else option.parse(flag, _as_text(flag, value))
    values["pythons"] = values.pop("python")
    values["environments"] = values.pop("env")
    values["backends"] = values.pop("backend")
    values["cluster"] = with_index(values["cluster"], values.pop("index"))
    values["time_budget_s"] = values.pop("time_budget")
    values["time_limit_s"] = values.pop("time_limit")
    values["confirm_budget_s"] = values.pop("confirm_budget")
    return Options(**values)
