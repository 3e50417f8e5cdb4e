"""What all tests share: warnings are errors here, though not in a user's benchmark session."""

import contextlib
import functools
import gc
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faults
import pytest
from forks import (
    Forks,
    end_started,
    framework,
    load_harness,
    packages_with_plugins,
    warm_interpreters,
)
from workers import BUILDERS, QUICK_XLA, environ
from xdist.scheduler import LoadFileScheduling

from convmark.cli.parsers import parsers
from convmark.core.backends import BACKENDS
from convmark.interpreter import Interpreter
from convmark.interpreter.inspection import zoo_names
from convmark.machine.hardware import System
from convmark.machine.power import Rapl
from convmark.report.figures.figure import drawing_package

pytest_plugins = ["pytester", "gates"]

os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
"""As in an active environment, so that the commands that are printed begin with `convmark`."""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
"""What measured interpreters have. A test that imports TensorFlow here would set another, and no
later interpreter could be forked."""

LONGEST = (
    *("test_benchmark_scripts", "test_launch", "test_backends", "test_sides_run", "test_ray"),
    *("test_replicas", "test_cases_of_code", "test_duet", "test_faults_kill", "test_training"),
    *("test_synchronisation", "test_precisions", "test_inputs", "test_anchor", "test_runtimes"),
    *("test_end_to_end", "test_report_page", "test_auto_batch_worker", "test_builders"),
    *("test_plugin_verdicts", "test_report_browser", "test_homemade_models", "test_gpu_check"),
    *("test_plugin_accepted", "test_plugin_parts"),
    *("test_workflow", "test_accuracy_training", "test_faults_worker", "test_faults_signals"),
    *("test_report_rich", "test_report_command", "test_hostile_csv", "test_hostile_text"),
    *("test_module_tables", "test_worker_is_lean", "test_many", "test_sides_browser"),
    *("test_plugin_guest", "test_waterfall", "test_steadiness", "test_gpu_watch", "test_wheel"),
    *("test_faults_disk", "test_process_state", "test_resume", "test_pull_request"),
)
"""Files that take more than 10 s: none of them is begun when the other processes have ended."""

FRAMEWORKS = frozenset(
    (
        *("test_backends", "test_by_identity", "test_ceilings", "test_cut_models", "test_cuts"),
        *("test_duet", "test_files_of_users", "test_flops", "test_forks", "test_framework_layers"),
        "test_gpu_taken",
        *("test_inputs", "test_jax_identity", "test_layer_mode", "test_models"),
        "test_openvino_order",
        *("test_precisions", "test_process_state", "test_report_describe", "test_runtimes"),
        *("test_stored_precision", "test_synchronisation", "test_torch_export", "test_training"),
        "test_variants",
        *("test_work", "test_work_done"),
    )
)
"""Files that import Keras or runtimes into their own process, or fork JAX's and PyTorch's."""

BROWSER = frozenset(
    (
        *("test_publish", "test_report_browser", "test_report_page", "test_report_rich"),
        "test_sides_browser",
    )
)
"""Files that look at pages in a browser."""

TOGETHER = {
    **dict.fromkeys(FRAMEWORKS, "frameworks"),
    **dict.fromkeys(BROWSER, "browser"),
}
"""Files that one process runs, for each start of what they share takes seconds."""

IMPORTED = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is cached out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' runs from waiting for, or refusing, the benchmark runs of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVMARK_RUNTIME", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _tables_are_not_fitted_to_a_terminal() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def session_environ(
    _cache_of_the_tests: None, own_machine: None, _tables_are_not_fitted_to_a_terminal: None
) -> dict[str, str]:
    """The environment as it is before a module or a test has patched it, for what all share."""
    return dict(os.environ)


@pytest.fixture(autouse=True, scope="module")
def _garbage_is_searched_for_among_new_objects() -> None:
    """Have `gc.collect`, which comes before each timed turn, leave out pytest and its plugins."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _rows_do_not_depend_on_the_machine() -> Iterator[None]:
    """Hide the energy counters and description of the machine that the tests run on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmark.session.facts.find_rapl", Rapl)
        patch.setattr("convmark.session.facts.read_system", System)
        yield


@pytest.fixture(autouse=True, scope="session")
def _the_model_that_fails_is_known() -> Iterator[None]:
    """Let names pass that only the stand-in of an interpreter knows."""
    known = zoo_names()
    with pytest.MonkeyPatch.context() as patch:
        names = known and known | {"broken"}
        patch.setattr("convmark.interpreter.inspection.zoo_names", lambda: names)
        yield


@pytest.fixture(autouse=True, scope="session")
def _disk_is_not_waited_for() -> Iterator[None]:
    """Leave out fsync, which takes a busy disk 50 ms a row; no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _load_is_not_watched() -> Iterator[None]:
    """Leave out the tenth of a second for which each run looks at a busy machine's load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmark.session.expected.LOOK_S", 0.0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _parser_is_built_once() -> Iterator[None]:
    """Keep the parser of the command line, which takes as long to build as a command to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmark.cli.parsers", functools.cache(parsers))
        yield


@pytest.fixture(autouse=True, scope="session")
def _library_that_draws_is_bundled_once() -> Iterator[None]:
    """Keep the page's library for the tests whose cache is a folder of their own."""
    bundle = functools.cache(lambda exposed: drawing_package().javascript_bundle(exposed))

    def package() -> Any:
        drawing_package()  # raises where it is not there
        return SimpleNamespace(javascript_bundle=bundle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convmark.report.page.drawing_package", package)
        yield


@pytest.fixture(autouse=True)
def _no_command_outlives_its_test() -> Iterator[None]:
    yield
    end_started()


@pytest.fixture(scope="session")
def plugins() -> list[importlib.metadata.Distribution]:
    """Import all of the harness once: a session within a test forgets what it first imports.

    Return the packages with plugins.
    """
    load_harness()
    return packages_with_plugins()


@pytest.fixture
def pytester(
    pytester: pytest.Pytester,
    plugins: list[importlib.metadata.Distribution],
    monkeypatch: pytest.MonkeyPatch,
) -> pytest.Pytester:
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: plugins)
    return pytester


@pytest.fixture(scope="session")
def forks_of(
    tmp_path_factory: pytest.TempPathFactory, session_environ: dict[str, str]
) -> Iterator[Callable[[str], Forks]]:
    """Gives for each backend what runs scripts in forks of a process that has imported it."""
    variables = environ(tmp_path_factory.mktemp("forks"), session_environ)
    with (
        tempfile.TemporaryDirectory(prefix="cm-", dir="/tmp") as folder,  # paths of sockets: short
        contextlib.ExitStack() as stack,
    ):

        @functools.cache
        def started(backend: str) -> Forks:
            if importlib.util.find_spec(backend) is None:
                pytest.skip(f"{backend} is not installed")
            made = framework(backend, Path(folder), variables)
            return stack.enter_context(contextlib.closing(made))

        yield started


@pytest.fixture(scope="module")
def warm(forks_of: Callable[[str], Forks]) -> Iterator[None]:
    """Have TensorFlow's interpreters forked, for tests that are not about the start of one."""
    with warm_interpreters(forks_of("tensorflow")):
        yield


@pytest.fixture(scope="session")
def harness() -> Iterator[Forks]:
    """Runs scripts and command lines in forks of a process that has imported all of convmark."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1"}  # so that the forks are safe
    made = Forks(os.environ, "imports", "harness_process", at_start=one_thread)
    with contextlib.closing(made):
        yield made


@pytest.fixture(scope="module")
def forked_commands(harness: Forks) -> Iterator[None]:
    """Have `faults.start` fork the commands that need no process of their own."""
    faults.HARNESS.append(harness)
    yield
    faults.HARNESS.remove(harness)


@pytest.fixture(scope="session")
def interpreter_of(
    tmp_path_factory: pytest.TempPathFactory,
    forks_of: Callable[[str], Forks],
    session_environ: dict[str, str],
) -> Iterator[Callable[[str], Interpreter]]:
    """Gives each backend's interpreter, started once for all tests that need no other settings.

    To import a framework takes seconds, a fork of its interpreter milliseconds.
    """
    variables = environ(tmp_path_factory.mktemp("interpreters"), session_environ, **QUICK_XLA)
    with contextlib.ExitStack() as stack:

        @functools.cache
        def started(backend: str) -> Interpreter:
            with warm_interpreters(forks_of(backend)):
                made = Interpreter(environ=variables, folder=BUILDERS, backend=backend)
                stack.enter_context(made).start()
            return made

        yield started


@pytest.fixture(scope="session")
def built() -> Callable[[str], Any]:
    """Gives a model of the zoo, built once for the tests that only look at it."""
    import models

    return functools.cache(lambda name: models.builder(name)())


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, headless and without a network, for all tests of pages."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(
        options=options,
        service=webdriver.ChromeService(executable_path=shutil.which("chromedriver")),
    )
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


class ByWhatIsShared(LoadFileScheduling):
    """Gives a process a file at a time, and those together that share what is slow to start."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return TOGETHER.get(Path(file).stem, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return ByWhatIsShared(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless `-m` names it; have the longest files begin first."""
    places = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> tuple[bool, int]:
        return item.path.stem not in FRAMEWORKS, places.get(item.path.stem, len(places))

    items.sort(key=place)
    if "long" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[IMPORTED] = sorted({"keras", "ray", *BACKENDS} & sys.modules.keys())


@pytest.fixture(scope="session")
def imported_by_test_files(pytestconfig: pytest.Config) -> list[str]:
    """Frameworks that this process had imported when it knew its tests."""
    return pytestconfig.stash[IMPORTED]


def pytest_configure(config: pytest.Config) -> None:
    # sessions that tests start are not this one's part, though pytest-benchmark takes them for it
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    os.environ.pop("CI", None)  # there pytest shortens no line, and stored texts would differ
    config.addinivalue_line("filterwarnings", "error")
