"""The options, once: the same names, rules and defaults for pytest, the command line and pyproject.

Each source gives texts (pyproject may give numbers and lists); `read` turns them into one frozen
`Options`, and every refusal is an `OptionError` that names the option, the value and the rule.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convmark.core.cluster import Cluster, with_index
from convmark.core.errors import OptionError
from convmark.core.option_table import OPTIONS
from convmark.core.option_values import Shapes, nearest

__all__ = ["Options", "pyproject_settings", "read", "wants_short_options"]

SHORT = "short_options"
"""A key of `[tool.convmark]` that is of pytest's option names and of no option."""


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
    compare_budget_s: float
    """Most seconds for all live comparisons; infinite where the user sets no end."""
    margin: float
    """The smallest slowdown that is called a regression, as a share."""
    allow_changes: tuple[str, ...] = ()
    """Patterns of the cases whose changes are meant."""
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
    input_shape: Shapes | None = None
    """None for what each model itself takes."""
    replicas: tuple[int, ...] | None = None
    cluster: Cluster | None = None
    """What the replicas of a case are spread over; None is one process."""
    optimizer: str | None = None
    learning_rate: float | None = None
    loss: str | None = None
    """Of models that bring no training of their own; None is the harness's choice."""
    named: frozenset[str] = frozenset()
    """Which options have a value of the user's own, by the command line or pyproject."""
    wait: bool = False
    """Whether another benchmark run's end is waited for."""
    trust_models: bool = False
    """Whether code that lies in a model's file may run."""
    allow_concurrent: bool = False
    """Whether to measure beside other benchmark runs."""

    @property
    def recipe(self) -> str | None:
        """What is asked for models that bring no training, as a case has it."""
        rate = None if self.learning_rate is None else f"{self.learning_rate:g}"
        asked = {"optimizer": self.optimizer, "learning_rate": rate, "loss": self.loss}
        return " ".join(f"{name}={value}" for name, value in asked.items() if value) or None


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
    table = _table(path)
    if not isinstance(table.pop(SHORT, False), bool):
        raise OptionError(f"{path}: [tool.convmark] {SHORT} must be true or false")
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


def wants_short_options(folder: Path) -> bool:
    """Whether `folder`/pyproject.toml asks for pytest's short option names.

    A file that cannot be read asks for nothing; `pyproject_settings` says what is wrong.
    """
    with contextlib.suppress(OptionError):
        return _table(folder / "pyproject.toml").get(SHORT) is True
    return False


def _table(path: Path) -> dict[str, Any]:
    """Return `[tool.convmark]` of a pyproject.toml, empty where there is none.

    Raises:
        OptionError: the file is not TOML, or holds no table there.
    """
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
    return dict(table)


def read(
    given: Mapping[str, Any], settings: Mapping[str, Any] | None = None, *, prefix: str = "--"
) -> Options:
    """Return the options: `given` by the user first, then `settings`, then the defaults.

    Args:
        given: texts by option key (`batch_sizes`), None or absent where the user gave none.
        settings: the values of `[tool.convmark]`, by the same keys.
        prefix: what the options' names begin with where they were given.

    Raises:
        OptionError: a value breaks its option's rule.
    """
    values: dict[str, Any] = {}
    named = {key for source in (given, settings or {}) for key, one in source.items() if one}
    for option in OPTIONS:
        value: Any = given.get(option.key)
        flag = f"{prefix}{option.name}"
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
    values["compare_budget_s"] = values.pop("compare_budget")
    values["allow_changes"] = values.pop("allow_change")
    return Options(**values, named=frozenset(named))
