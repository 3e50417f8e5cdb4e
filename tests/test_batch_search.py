"""The search for batch sizes, against machines that are functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from convmark.session.auto_batch import Found, search


def machine(holds: int, saturates: float = 1e9) -> Callable[[int], float | None]:
    """Return a machine of this memory, in samples, whose throughput grows up to a batch size."""
    return lambda size: None if size > holds else float(min(size, saturates))


def test_the_largest_is_found_to_an_eighth_and_never_beyond_memory() -> None:
    for holds in (1, 2, 3, 31, 32, 33, 100, 1000, 5000, 65_536):
        found = search(machine(holds))
        assert found.largest is not None
        assert found.largest <= holds <= found.largest + max(1, found.largest // 8)
        assert found.limited


def test_the_sizes_are_doubled_and_then_the_gap_is_halved() -> None:
    found = search(machine(150))
    assert list(found.throughputs) == [32, 64, 128, 256, 192, 160, 144]
    assert [size for size, rate in found.throughputs.items() if rate is None] == [256, 192, 160]
    assert (found.largest, found.best) == (144, 144)


def test_the_first_size_is_halved_where_it_does_not_fit() -> None:
    found = search(machine(5))
    assert list(found.throughputs) == [32, 16, 8, 4, 6, 5]
    assert (found.largest, found.best) == (5, 5)


def test_where_not_one_sample_fits_there_is_no_size() -> None:
    found = search(machine(0))
    assert list(found.throughputs) == [32, 16, 8, 4, 2, 1]
    assert (found.largest, found.best, found.limited) == (None, None, True)


def test_the_best_is_the_fastest_and_the_smaller_of_two_alike() -> None:
    found = search(machine(1000, saturates=128))
    assert found.best == 128
    assert found.largest == 960


def test_smaller_sizes_are_tried_while_the_smallest_is_the_fastest() -> None:
    falling = search(lambda size: None if size > 100 else 1000.0 - abs(size - 8))
    assert falling.best == 8
    assert min(falling.throughputs) == 4
    assert search(lambda size: 1.0 / size, most=64).best == 1


def test_what_is_not_worth_its_time_ends_the_doubling_but_is_no_limit_of_memory() -> None:
    found = search(machine(10_000), lambda size: size <= 256)
    assert list(found.throughputs) == [32, 64, 128, 256]
    assert (found.largest, found.limited) == (256, False)


def test_no_size_is_beyond_the_most() -> None:
    assert search(machine(1 << 30), most=1000).largest == 512


def test_every_size_is_asked_for_once() -> None:
    asked: list[int] = []

    def measure(size: int) -> float | None:
        asked.append(size)
        return None if size > 77 else 1.0

    search(measure)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("throughputs", [{}, {32: None}])
def test_without_a_fitting_size_nothing_is_found(throughputs: dict[int, float | None]) -> None:
    assert Found(throughputs=throughputs).largest is None
    assert Found(throughputs=throughputs).best is None
