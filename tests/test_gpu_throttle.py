"""The reasons for a lower clock by name, and which of them forbid a verdict."""

from __future__ import annotations

import pytest

from convmark.machine.gpu.sampler import reason_names, why_not_judged


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0, ()),
        (0x1, ("idle",)),
        (0x4, ("power_cap",)),
        (0x48, ("hardware_slowdown", "hardware_thermal")),
        (0x200, ("bit_0x200",)),
        (0x8000_0000_0000_0020, ("software_thermal", "bit_0x8000000000000000")),
    ],
)
def test_bits_have_names(bits: int, names: tuple[str, ...]) -> None:
    assert reason_names(bits) == names


def test_all_bits_at_once_have_as_many_names() -> None:
    assert len(set(reason_names(2**64 - 1))) == 64


@pytest.mark.parametrize("bit", [0x8, 0x20, 0x40, 0x80])
def test_heat_and_the_hardware_s_brakes_forbid_a_verdict(bit: int) -> None:
    (name,) = reason_names(bit)
    assert why_not_judged((name,), 0) == f"the card was slowed ({name})"


@pytest.mark.parametrize("bit", [0x1, 0x2, 0x4, 0x10, 0x100, 0x200])
def test_a_power_cap_idling_and_set_clocks_do_not(bit: int) -> None:
    assert why_not_judged(reason_names(bit), 0) is None


def test_company_on_the_card_forbids_a_verdict() -> None:
    assert why_not_judged((), 1) == "1 process not the run's own used the card"
    assert why_not_judged(("power_cap",), 2) == "2 processes not the run's own used the card"
    assert why_not_judged((), None) is None


def test_all_that_forbids_it_is_said_in_one_line() -> None:
    names = reason_names(0x48 | 0x4)
    assert why_not_judged(names, 1) == (
        "the card was slowed (hardware_slowdown, hardware_thermal); "
        "1 process not the run's own used the card"
    )
