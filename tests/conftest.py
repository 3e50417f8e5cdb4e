"""What all tests share: warnings are errors here, though not in a user's benchmark session."""

import os
from collections.abc import Iterator

import pytest

pytest_plugins = ["pytester"]


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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless `-m` names it."""
    if "long" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_configure(config: pytest.Config) -> None:
    # sessions that tests start are not this one's part, though pytest-benchmark takes them for it
    os.environ.pop("PYTEST_XDIST_WORKER", None)
    config.addinivalue_line("filterwarnings", "error")
