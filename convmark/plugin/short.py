"""The short names of the plugin's options (`--models` for `--convmark-models`), for one project.

A project whose tests are benchmarks asks for them by one line in the `conftest.py` of its root,

    from convmark.plugin.short import pytest_addoption

or by `short_options = true` in `[tool.convmark]` of its pyproject.toml. Elsewhere `--seed` and
`--env` are left to the project's own conftest files and plugins.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.fitting import wrapped
from convmark.core.option import DRY_RUN, RESUME, by_source
from convmark.core.option_values import did_you_mean
from convmark.core.options import OPTIONS, Options
from convmark.core.pyproject import wants_short_options
from convmark.core.text import plain_text

PREFIX = "--convmark-"
_NAME = "convmark-short-options"
OPTIONS_KEY = pytest.StashKey[Options]()
ENVIRON_KEY = pytest.StashKey[Mapping[str, str]]()
"""The variables that pytest was started with."""

ACCURACY = (
    "train the lecture's networks on MNIST as well (bench/test_accuracy.py): an hour or more on "
    "two cores; --fraction 0.1 is quick"
)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the short names, once.

    Raises:
        pytest.UsageError: another plugin or conftest has one of them.
    """
    if pluginmanager.hasplugin(_NAME):
        return
    pluginmanager.register(object(), _NAME)
    try:
        add_options(parser, "--")
    except (ValueError, argparse.ArgumentError) as error:
        raise usage_error(
            f"convmark: {error}; leave out short_options or its line in conftest.py, and use "
            f"{PREFIX}models and so on"
        ) from None


def add_options(parser: pytest.Parser, before: str) -> None:
    """Add every option of the plugin's under a name that begins so."""
    group = parser.getgroup("convmark", "convmark: benchmarks of Keras ConvNets")

    def how(name: str, text: str) -> dict[str, Any]:
        shown = text if before == PREFIX else f"short for {PREFIX}{name}"
        return {"help": shown, "dest": destination(name)}

    for one in OPTIONS:
        if "pytest" in one.commands:
            one.add_to(group.addoption, flag=f"{before}{one.name}", **how(one.name, one.help))
    resume, accuracy = how("resume", RESUME), how("accuracy", ACCURACY)
    group.addoption(f"{before}resume", metavar="RUN", nargs="?", const="", **resume)
    group.addoption(f"{before}accuracy", action="store_true", default=None, **accuracy)
    dry = how("dry-run", DRY_RUN)
    group.addoption(f"{before}dry-run", action="store_true", default=None, **dry)


def usage_error(text: str) -> pytest.UsageError:
    """Return the error with which pytest ends: one line, or as many as the terminal needs."""
    return pytest.UsageError(wrapped(plain_text(text), before="ERROR: "))


def refused(config: pytest.Config, error: ConvmarkError) -> pytest.UsageError:
    """Return the error with which pytest ends; what pyproject.toml has set is named as there."""
    options = config.stash.get(OPTIONS_KEY, Options())
    before = prefix(config)
    flags = {one.name: before + one.name for one in OPTIONS if "pytest" in one.commands}
    return usage_error(by_source(str(error), options.from_file, flags))


def destination(name: str) -> str:
    """Return where an option's value is in pytest's configuration."""
    return f"convmark_{name.replace('-', '_')}"


def prefix(config: pytest.Config) -> str:
    """Return what the names of options begin with in this session's messages."""
    return "--" if config.pluginmanager.hasplugin(_NAME) else PREFIX


def refuse_unknown(config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Refuse options of `convmark run` alone, and those that are spelt much like one of ours.

    Raises:
        pytest.UsageError: one was given, and nobody has added an option of that name.
    """
    _, unknown = parser.parse_known_and_unknown_args(args)
    flags = [arg.partition("=")[0] for arg in unknown if arg.startswith("--")]
    befores = dict.fromkeys((PREFIX, prefix(config)))
    for one in OPTIONS:
        for flag in (before + one.name for before in befores):
            if "pytest" not in one.commands and flag in flags:
                raise usage_error(f"{flag}: {of_run(one.name)}")
    names = [*(one.name for one in OPTIONS), "resume", "dry-run", "accuracy"]
    short = {*names} - {one.name for one in OPTIONS if "pytest" not in one.commands}
    ours = [before + name for before in befores for name in names]
    ours += ["--benchmark-compare", "--benchmark-compare-fail"]
    for flag in flags:
        if (name := flag.removeprefix("--")) in short:
            raise usage_error(
                f"unrecognized arguments: {flag}; here it is {PREFIX}{name}, unless "
                "[tool.convmark] of pyproject.toml has short_options = true"
            )
        near = did_you_mean(flag, ours, most=1, cutoff=0.8) or did_you_mean(
            name, sorted(short), most=1, cutoff=0.8, before=prefix(config)
        )
        if near:
            raise usage_error(f"unrecognized arguments: {flag}; {near}")


def of_run(name: str) -> str:
    """Say what to do in place of giving pytest an option of `convmark run`."""
    if name == "tasks":
        return (
            "is an option of `convmark run`; pytest measures the cases of its suites, "
            "and a file selects among them: pytest bench/test_inference.py"
        )
    if name == "sustain":
        return (
            "is an option of `convmark run`, because pytest measures a burst; use "
            "convmark run --sustain 20m"
        )
    return (
        "is an option of `convmark run`, because pytest measures in one process; use "
        f"convmark run --{name}"
    )


def add_all(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the long names, and the short ones where pyproject.toml asks for them."""
    add_options(parser, PREFIX)
    config = pluginmanager.get_plugin("pytestconfig")
    if config is not None and wants_short_options(config.rootpath):
        pytest_addoption(parser, pluginmanager)


def check_resume(run: str | None, before: str) -> None:
    """Refuse a path of tests that the option has swallowed."""
    path = Path(run or "").expanduser()
    if run and (path.is_dir() or path.suffix == ".py"):
        raise OptionError(
            f"{before}resume: took {run!r} for a run's name; put the path first: pytest {run} "
            f"{before}resume"
        )
