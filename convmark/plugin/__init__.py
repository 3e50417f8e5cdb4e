"""The pytest plugin: options, collection, measurement before the first test, and reports.

A test marked `@pytest.mark.convmark(SUITE)` that takes the fixture `measured` is collected once per
case of the suite. All selected cases are measured before the first test reports; each test then
replays its steps into pytest-benchmark's `benchmark` fixture. Nothing here acts on other tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import pytest
from _pytest.outcomes import Exit

from convmark.core.case import Case
from convmark.core.errors import ConvmarkError, OptionError
from convmark.core.fitting import terminal_width, unbroken, wrapped
from convmark.core.model_name import TRUST
from convmark.core.option_values import AUTO
from convmark.core.options import OPTIONS, Options, read
from convmark.core.processes import ReceivedSignal, as_interrupts
from convmark.core.pyproject import pyproject_settings
from convmark.core.suites import auto_name, refuse_latency_limit, refuse_untimed
from convmark.core.text import Say, coloured, listed
from convmark.plugin import bridge, short
from convmark.plugin.baseline import Baseline, say_plan
from convmark.plugin.judging import judge
from convmark.plugin.pytest_run import PytestRun
from convmark.plugin.replay import Measured, note_in_junit
from convmark.plugin.selection import Selection, is_skipped, names_other, removed_cases
from convmark.plugin.short import ENVIRON_KEY, OPTIONS_KEY, destination, refused

_ONE_PROCESS = "cases that are measured side by side disturb each other"
_RESUME = destination("resume")
_RUN_KEY = pytest.StashKey[PytestRun]()
_RECEIVED_KEY = pytest.StashKey[ReceivedSignal]()
_EMPTY_KEY = pytest.StashKey[list[str]]()
_NAMES_KEY = pytest.StashKey[set[str]]()
"""What stands in brackets after the collected tests of suites, chosen or not."""
_COMPARISON_KEY = pytest.StashKey[bridge.Comparison]()
_BY_VERDICTS_KEY = pytest.StashKey[list[str]]()
"""The cases that fail by a verdict, where no test has failed."""
_WIDTH_KEY = pytest.StashKey[int | None]()
"""Characters of a line, which a terminal does not tell while pytest captures."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options: their long names, and the short ones where the project asks for them."""
    short.add_all(parser, pluginmanager)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, object, object]:
    """Refuse what nobody knows or misspells, once the project's own options are known."""
    early_config.stash[ENVIRON_KEY] = dict(os.environ)  # before any file of the project runs
    found = yield
    short.refuse_unknown(early_config, parser, args)
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read and check the options, before anything is collected."""
    config.addinivalue_line(
        "markers",
        "convmark(suite): measure the suite's cases, one test each, before the first test",
    )
    config.stash[_WIDTH_KEY] = terminal_width()
    config.stash[_COMPARISON_KEY] = bridge.Comparison.postpone(config)
    given = {
        option.key: config.getoption(destination(option.name), None)
        for option in OPTIONS
        if "pytest" in option.commands
    }
    before = short.prefix(config)
    try:
        options = read(given, pyproject_settings(config.rootpath), prefix=before)
        if options.trust_models:
            os.environ[TRUST] = "1"  # for the workers
        if config.getoption(destination("accuracy"), None):
            tasks = tuple(dict.fromkeys([*options.tasks, "accuracy"]))
            options = dataclasses.replace(options, tasks=tasks)
        config.stash[OPTIONS_KEY] = options
        refuse_latency_limit(options)
        _check_search(options, config.stash[_COMPARISON_KEY], before)
        if given["allow_change"] and not config.stash[_COMPARISON_KEY].asked:
            raise OptionError(f"{before}allow-change: needs --benchmark-compare")
        for name, value in (("cluster", options.cluster), ("sustain", options.sustain_s)):
            if value is not None:
                raise OptionError(f"[tool.convmark] {name}: {short.of_run(name)}")
        short.check_resume(config.getoption(_RESUME), before)
    except ConvmarkError as error:
        raise refused(config, error) from None


def _check_search(options: Options, comparison: bridge.Comparison, before: str) -> None:
    """Refuse what cannot be had of batch sizes that are searched for."""
    if options.batch_sizes != AUTO:
        return
    refuse_untimed(options, f"{before}batch-sizes auto searches for")
    if comparison.asked:
        raise OptionError(
            f"--benchmark-compare: needs {before}batch-sizes in numbers, got auto: a search may "
            "choose other sizes than the baseline has"
        )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove the empty folder that pytest-benchmark has made for its own storage."""
    session.config.stash[_COMPARISON_KEY].remove_stray_folder()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each case of a suite, named as the case."""
    marker = metafunc.definition.get_closest_marker("convmark")
    if marker is None or "measured" not in metafunc.fixturenames:
        return
    (suite,) = marker.args
    config = metafunc.config
    options = config.stash[OPTIONS_KEY]
    try:
        cases = suite.cases(options, _run_of(config).likely_devices())
    except ConvmarkError as error:
        raise refused(config, error) from None
    names = [auto_name(case) if options.batch_sizes == AUTO else case.name for case in cases]
    metafunc.parametrize("measured", cases, indirect=True, ids=names)


def _run_of(config: pytest.Config) -> PytestRun:
    if _RUN_KEY not in config.stash:
        given = config.stash[OPTIONS_KEY], config.rootpath, config.getoption(_RESUME)
        config.stash[_RUN_KEY] = PytestRun(*given, config.stash.get(ENVIRON_KEY, {**os.environ}))
    return config.stash[_RUN_KEY]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note each case that there is, before anything chooses among them."""
    if _is_marked(item) and isinstance(_case_of(item), Case):
        item.config.stash.setdefault(_NAMES_KEY, set()).add(_id_of(item))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the stand-ins that pytest makes of suites for which the options leave no case."""
    empty = [item for item in items if _is_marked(item) and not isinstance(_case_of(item), Case)]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]
        config.stash[_EMPTY_KEY] = [_without_a_case(item) for item in empty]


def _without_a_case(item: pytest.Item) -> str:
    """Say that a suite has nothing to measure, and what would give it something."""
    scaling = (marker := item.get_closest_marker("convmark")) and marker.args[0].scaling
    hint = ": it measures two GPUs or more, or the numbers of --replicas" if scaling else ""
    name = getattr(item, "originalname", None) or item.name
    return f"convmark: {name} has no case here with these options{hint}"


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> list[str]:
    """Say where the rows go, or why nothing is left to measure."""
    found = [] if items else config.stash.get(_EMPTY_KEY, [])
    if any(_is_marked(item) for item in items):
        found = [f"convmark: results in {unbroken(str(config.stash[OPTIONS_KEY].results))}"]
    return [wrapped(line, indent="  ") for line in found]


def _is_marked(item: pytest.Item) -> bool:
    """Whether the item was made of a suite of cases."""
    names = getattr(item, "fixturenames", ())
    return "measured" in names and item.get_closest_marker("convmark") is not None


def _case_of(item: pytest.Item) -> object:
    return getattr(getattr(item, "callspec", None), "params", {}).get("measured")


def _id_of(item: pytest.Item) -> str:
    """Return what stands in brackets after the test of a case: the case's name, most often."""
    return str(getattr(item, "callspec").id)  # noqa: B009 - of a Function alone


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let pytest-benchmark compare by itself where no case is measured."""
    config, comparison = session.config, session.config.stash[_COMPARISON_KEY]
    emptied = not session.items and _NAMES_KEY in config.stash
    comparison.is_ours = emptied or comparison.is_commit or any(map(_is_marked, session.items))
    if not (emptied or _selected(session)):
        comparison.resume_as_it_was(config)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Measure and judge all cases before the first test runs; each test then replays its own."""
    items, config = _selected(session), session.config
    nothing = config.option.collectonly or config.getoption(destination("dry_run"))
    if not items or nothing or _is_one_of_several(config):
        if not config.option.collectonly and config.stash[_COMPARISON_KEY].is_ours:
            _say_nothing_compared(config)
        return (yield)
    if option := bridge.replaced_by(config):
        reason = f"convmark measures in its own processes, where {option} sees nothing"
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))
        return (yield)
    try:
        with as_interrupts() as received:
            config.stash[_RECEIVED_KEY] = received
            if not session.testsfailed or config.option.continue_on_collection_errors:
                foreign = (one for one in session.items if not _is_marked(one))
                others = any("benchmark" in getattr(one, "fixturenames", ()) for one in foreign)
                with _told_in_words(config, items):
                    _measure(session, _run_of(config), items, others=others)
            done = yield
            if (failing := _run_of(config).failing) and not session.testsfailed:
                session.testsfailed += 1  # no test has: skipped, xfail, or never replayed
                config.stash[_BY_VERDICTS_KEY] = failing
            return done
    except ConvmarkError as error:
        raise refused(config, error) from None
    finally:
        _run_of(config).close()


def _say_nothing_compared(config: pytest.Config) -> None:
    """Say that a gate is none where no case of its suites is measured."""
    if config.stash[_COMPARISON_KEY].asked and not config.getoption(destination("dry_run")):
        _say(config, "the gate compared nothing, which is no pass: no case was measured")


@contextlib.contextmanager
def _told_in_words(config: pytest.Config, items: Iterable[pytest.Item]) -> Iterator[None]:
    """Have Ctrl-C end the session with a sentence, in place of the line of ours that it has met."""
    try:
        yield
    except KeyboardInterrupt:
        reason = "interrupted"
        reason += ", the gate has not passed" * bool(config.stash[_COMPARISON_KEY].asked)
        reason += f"; {short.prefix(config)}resume continues" * bool(_run_of(config).records)
        note_in_junit(config, items, reason)
        if config.option.fulltrace:
            raise
        raise _Interrupted(reason) from None  # pytest breaks no line


class _Interrupted(Exit):
    """As `pytest.exit`, which pytest prints with the exception's name before the sentence."""

    __module__, __qualname__ = "builtins", "convmark"


@pytest.hookimpl(specname="pytest_runtestloop", tryfirst=True)
def pytest_show_forecast(session: pytest.Session) -> bool | None:
    """With --dry-run print what would be measured in place of running any test."""
    config, items = session.config, _selected(session)
    if config.option.collectonly or not (items and config.getoption(destination("dry_run"))):
        return None
    from convmark.core.table import plain

    try:
        found = _run_of(config).forecast(list(items.values()))
    except ConvmarkError as error:
        raise refused(config, error) from None
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\n{plain(found.table)}\n")
    _say(config, found.words)
    if config.stash[_COMPARISON_KEY].asked:
        told = f"the live comparison of cases whose code has changed takes {found.comparison}"
        _say(config, f"--benchmark-compare: {told}, if that is of every case")
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Exit with the status of the signal that ended the session, where one did."""
    bridge.hide_table(session.config)
    found = yield
    if (received := session.config.stash.get(_RECEIVED_KEY, None)) and received.number is not None:
        session.exitstatus = received.status
    return found


def _is_one_of_several(config: pytest.Config) -> bool:
    """Whether this is a process of pytest-xdist's."""
    return hasattr(config, "workerinput")


def _selected(session: pytest.Session) -> dict[pytest.Item, Case]:
    """The items that replay a case and will not be skipped."""
    return {
        item: case
        for item in session.items
        if _is_marked(item) and isinstance(case := _case_of(item), Case) and not is_skipped(item)
    }


def _say(config: pytest.Config, line: str) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and line:
        lines = wrapped(line, before="convmark: ", width=config.stash[_WIDTH_KEY])
        reporter.write_line(f"convmark: {lines}")


def _measure(
    session: pytest.Session,
    run: PytestRun,
    cases: dict[pytest.Item, Case],
    *,
    others: bool,
) -> None:
    """Measure the cases and hand each test its own.

    Args:
        others: whether there are benchmarks beside them.
    """
    config = session.config
    say = functools.partial(_say, config)
    if not bridge.is_disabled(config):
        Baseline.refuse(config.stash[_COMPARISON_KEY].asked, run, cases.values())
        run.claim(cases.values(), say)
        run.reopen(say)
    compared = config.stash[_COMPARISON_KEY].asked or bridge.is_disabled(config)
    run.prepare(list(cases.values()), say, only_shown=not compared)
    if bridge.is_disabled(config):
        _say_nothing_compared(config)
        bridge.drop_comparison(config)
    else:
        collected = config.stash[_NAMES_KEY]
        chosen = Selection.of(
            config,
            collected=collected,
            present={_id_of(item) for item in session.items if isinstance(_case_of(item), Case)},
            measured={_id_of(item) for item, case in cases.items() if run.absent(case) is None},
        )
        _measure_and_judge(config, run, chosen, say, others=others)
    for item, case in cases.items():
        if (reason := run.absent(case)) is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        else:
            bridge.prepare_replay(item, case, run)


def _measure_and_judge(
    config: pytest.Config, run: PytestRun, chosen: Selection, say: Say, *, others: bool
) -> None:
    comparison = config.stash[_COMPARISON_KEY]
    baseline = Baseline.check(comparison.asked, run) if comparison.asked else None
    if baseline is not None:
        say_plan(run, baseline, say)
    say(comparison.resume(config, run, others=others))
    run.measure(bridge.progress_stream(config))
    if baseline is not None and run.records:
        collected = config.stash[_NAMES_KEY]
        removed = functools.partial(removed_cases, config, baseline.commits, collected)
        judge(
            *(run, baseline),
            chosen=chosen,
            say=say,
            removed=functools.partial(removed, chosen.measured, say),
            names_other=functools.partial(names_other, config, config.stash[OPTIONS_KEY]),
        )
    elif baseline is not None:
        _say_nothing_compared(config)
    run.measure_layers()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """The records of this test's case; `measured.replay(benchmark)` reports them."""
    config = request.config
    if _is_one_of_several(config):
        pytest.fail(f"{_ONE_PROCESS}: leave out -n", pytrace=False)
    failures = functools.partial(_broken_limits, config, request.param)
    fit = functools.partial(wrapped, indent="  ", width=config.stash[_WIDTH_KEY])
    return dataclasses.replace(_run_of(config).measured(request.param), failures=failures, fit=fit)


def _broken_limits(config: pytest.Config, case: Case, benchmark: Any) -> list[str]:
    """Return which limits of --benchmark-compare-fail a case breaks by a change not meant."""
    broken = config.stash[_COMPARISON_KEY].failures(config, benchmark)
    reason = _run_of(config).meant(case.name) if broken else ""
    if not reason:
        return broken
    for line in broken:
        _say(config, f"{line}; {reason}")
    return []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Print the run's tables and verdicts."""
    config = terminalreporter.config
    if _RUN_KEY not in config.stash:
        return
    run = config.stash[_RUN_KEY]
    in_colour = terminalreporter._tw.hasmarkup  # by --color, NO_COLOR and FORCE_COLOR
    for title, text in run.report():
        terminalreporter.section(title)
        terminalreporter.write_line(coloured(text) if in_colour else text)


@pytest.hookimpl(specname="pytest_terminal_summary", wrapper=True, tryfirst=True)
def pytest_last_words(
    terminalreporter: pytest.TerminalReporter, exitstatus: int
) -> Generator[None, object, object]:
    """Say what it amounts to and the next command, below all that pytest itself has to print."""
    done, config = (yield), terminalreporter.config
    if _RUN_KEY not in config.stash:
        return done
    from convmark.report.advice import say_step

    run, say = config.stash[_RUN_KEY], functools.partial(_say, config)
    if failing := config.stash.get(_BY_VERDICTS_KEY, None):
        say_step(
            f"the session fails by its verdicts, although no test failed: {listed(failing, 1)}; "
            "call measured.replay(benchmark), and accept an intended change by "
            f"{short.prefix(config)}allow-change or a trailer, not by xfail or skip",
            say,
        )
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        failed = exitstatus == pytest.ExitCode.TESTS_FAILED
        say_step(run.next_step(failed=failed, quiet=config.option.verbose < 0), say)
    return done


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any] | None:
    """Describe the machine by what decides comparability, where the storage is convmark's."""
    if _RUN_KEY not in config.stash or not bridge.stores_rows(config):
        return None
    run = config.stash[_RUN_KEY]
    threads = ",".join(sorted(run.options.threads))
    return bridge.comparability(run.machine.name, run.versions(), threads)
