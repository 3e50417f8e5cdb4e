"""A model that stops working after its first steps is refused; one that converges is not."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from convmark.core.case import Case
from convmark.worker.failure import CaseFailure
from convmark.worker.proof import EARLY_STEPS, Progress, Proof, Trained, check_device, check_jit


class Reader:
    """A backend whose results are their own fingerprints."""

    def fingerprint(self, token: float) -> float:
        return token

    def outputs_by_device(self, token: float) -> dict[str, int]:
        return {"cpu": 4}

    def settle(self, model: Any) -> None:
        """Nothing."""

    def rates_are_zero(self, model: Any) -> bool:
        return bool(model)


def proved(
    task: str, values: Iterable[float], timed: int = 100, other: float = 5.0, model: Any = None
) -> list[Any]:
    """Put a case's steps through the proof as a measurement does; return what was reported."""
    emitted: list[Any] = []
    proof = Proof(
        Case(model="mine", task=task, batch_size=1),
        Reader(),
        lambda event, **fields: emitted.append((fields["step"], fields["value"])),
    )
    coming = iter(values)
    proof.report(1, next(coming))
    for number in range(1, 12):
        proof.see_warm_up(number, next(coming))
    for number in range(1, timed + 1):
        proof.see_timed(number, next(coming))
    proof.see_other_batch(other)
    proof.finish(next(coming), model)
    return emitted


@pytest.mark.parametrize("path", ["eager", "train_step, eager"])
def test_a_step_that_was_to_be_compiled_is_or_is_refused(path: str) -> None:
    case = Case(model="mine", task="train", batch_size=1, jit="on")
    for compiled in ("tf.function", "torch.compile, eager in part"):
        check_jit(case, SimpleNamespace(call_path=compiled))
    with pytest.raises(CaseFailure, match="jit on needs a compiled step, but a setting has it"):
        check_jit(case, SimpleNamespace(call_path=path))


@pytest.mark.parametrize(
    ("device", "held"),
    [
        ("gpu:0", {"cpu": 4}),
        ("cpu", {"gpu": 4}),
        ("cpu", {"meta": 8}),
        ("gpu:1", {"gpu": 0, "cpu": 1}),
    ],
)
def test_what_lies_on_another_device_alone_is_refused(device: str, held: dict[str, int]) -> None:
    case = Case(model="mine", task="infer", batch_size=1, device=device)
    with pytest.raises(
        CaseFailure, match=f"^mine: the weights must be on .* {device}, but they are"
    ):
        check_device(case, "weights", held)


@pytest.mark.parametrize("held", [{}, {"gpu": 1}, {"gpu": 1, "cpu": 9}])
def test_what_lies_at_least_in_part_on_its_device_is_taken(held: dict[str, int]) -> None:
    check_device(Case(model="mine", task="infer", batch_size=1, device="gpu:0"), "weights", held)


def test_steps_one_and_ten_are_reported() -> None:
    assert proved("train", (1 / step for step in itertools.count(1))) == [(1, 1.0), (10, 0.1)]


def after(calls: int, value: float, before: Callable[[int], float]) -> Iterable[float]:
    return (before(call) if call <= calls else value for call in itertools.count(1))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (after(12, 0.0, lambda _: 0.3), "was 0.3 at step 1 and 0 at timed step "),
        (after(112, 0.0, lambda _: 0.3), "was 0.3 at step 1 and 0 at the last step"),
        (after(12, 0.31, lambda _: 0.3), "and 0.31 at timed step "),
        (after(12, 0.0, lambda call: 0.3 + call / 10), "and 0 at timed step "),
    ],
    ids=["zero", "zero at the end", "another output", "zero of a model with a state"],
)
def test_inference_that_becomes_something_else_is_refused(
    values: Iterable[float], words: str
) -> None:
    with pytest.raises(CaseFailure, match="the output for one batch must be") as refused:
        proved("infer", values)
    assert words in str(refused.value)


def test_inference_of_a_model_with_a_state_or_with_random_numbers_may_change() -> None:
    proved("infer", (0.3 + call / 1000 for call in itertools.count()))


def test_a_sparse_output_may_be_zero_throughout() -> None:
    proved("infer", itertools.repeat(0.0))


def test_training_whose_loss_stands_still_after_the_proof_is_refused() -> None:
    with pytest.raises(CaseFailure, match=r"exactly 2\.3 at 3 later steps"):
        proved("train", after(12, 2.3, lambda call: 3 - call / 20), timed=60)


def test_a_loss_that_stands_still_because_the_schedule_has_ended_is_training() -> None:
    proved("train", after(12, 2.3, lambda call: 3 - call / 20), timed=60, model="rate of 0")


def test_a_loss_of_nothing_is_that_of_a_trained_model_only_where_other_samples_have_one() -> None:
    trained = [after(12, 0.0, lambda call: 1 / call) for _ in range(2)]
    proved("train", trained[0])
    with pytest.raises(CaseFailure, match="exactly 0 at"):
        proved("train", trained[1], other=0.0)


def test_a_loss_that_never_moved_is_left_alone() -> None:
    """With a small learning rate and float16 outputs that is common."""
    proved("train", itertools.repeat(2.3))


def test_one_of_the_first_30_timed_steps_is_looked_at_and_one_of_each_later_doubling() -> None:
    for seed in range(20):
        proof = Proof(Case(model="m", task="infer", batch_size=1), Reader(), print, seed)
        looked = [number for number in range(1, 1001) if proof.see_timed(number, 1.0)]
        ends = [30, 60, 120, 240, 480, 960]
        assert [
            sum(low < one <= end for one in looked) for low, end in itertools.pairwise([0, *ends])
        ] == [1] * 6


def telling(
    progress: Iterable[Progress], *, rests: bool = False, ended: bool = False
) -> tuple[Trained, Iterator[Progress]]:
    """Return what looks at a model that tells its progress, look by look, and the model.

    Args:
        rests: whether weights that are not watched go on.
        ended: whether the learning rate has come to 0.
    """
    reader, looks = Reader(), itertools.count()
    last: list[Progress] = [None]

    def told(model: Iterator[Progress], *, whole: bool = False) -> Progress:
        if not whole:
            last[0] = next(model)
        elif rests:
            return 0, f"look {next(looks)}"
        return last[0]

    reader.training_progress = told  # type: ignore[attr-defined]
    reader.rates_are_zero = lambda model: ended  # type: ignore[method-assign]
    return Trained(Case(model="mine", task="train", batch_size=1), reader), iter(progress)


def progressed(begun: int, warm: int, now: Progress, *, steps: int = 100) -> None:
    """Put a model through a proof that tells its progress at the begin and at two later looks."""
    trained, model = telling([(begun, "v"), (warm, "w"), now])
    trained.begin(model)
    trained.see(model, 13)
    trained.see(model, steps)


@pytest.mark.parametrize("begun", [1, 4001])
def test_training_that_stops_behind_a_noisy_loss_is_refused(begun: int) -> None:
    with pytest.raises(CaseFailure, match="13 updates were counted in 13 early steps and none in"):
        progressed(begun, begun + 13, (begun + 13, "w"))


@pytest.mark.parametrize(
    ("begun", "warm", "now", "steps"),
    [
        (1, 14, (114, "w"), 100),
        (1, 14, (14, "v"), 100),
        (0, 1, (1, "w"), 100),
        (0, 2, (2, "w"), 20),
        (1, 14, None, 100),
        (4000, 4000, (4000, "w"), 100),
    ],
    ids=["converged", "another optimizer", "one update", "few steps", "nothing told", "saved"],
)
def test_steps_that_may_have_trained_are_not_accused(
    begun: int, warm: int, now: Progress, steps: int
) -> None:
    progressed(begun, warm, now, steps=steps)


SLOW_S, QUICK_S = 1e-2, 1e-3


def by_hand(
    changes: Callable[[int], bool],
    seconds: Callable[[int], float],
    *,
    counted: bool = False,
    rests: bool = False,
    ended: bool = False,
) -> None:
    """Take 9 steps with a look after each, then 6, 60, 40, 40, of weights that change by hand.

    Args:
        changes: whether a step changes them, by its number from 1.
        counted: whether an optimizer counts each step all the same.
        rests: whether weights that are not watched go on.
        ended: whether the learning rate has come to 0.
    """
    ends = [*range(EARLY_STEPS + 1), 15, 75, 115, 155]
    progress = [(end if counted else 0, str(sum(map(changes, range(1, end + 1))))) for end in ends]
    trained, model = telling(progress, rests=rests, ended=ended)
    trained.begin(model)
    for begin, end in itertools.pairwise(ends):
        trained.see(model, end - begin, [seconds(one) for one in range(begin + 1, end + 1)])


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(
    ("last", "every"), [(12, 1), (12, 4), (40, 1)], ids=["warm-up", "every fourth", "timed steps"]
)
def test_a_step_that_changes_no_weight_any_more_and_is_quicker_is_refused(
    last: int, every: int, counted: bool
) -> None:
    with pytest.raises(CaseFailure, match=r"and in none of \d+ later ones, which are 10\.0 times"):
        by_hand(
            lambda step: step <= last and step % every == 0,
            lambda step: SLOW_S if step <= last else QUICK_S,
            counted=counted,
        )


@pytest.mark.parametrize(
    ("changes", "seconds", "counted"),
    [
        (lambda step: step <= 12, lambda step: SLOW_S, False),
        (lambda step: step <= 12, lambda step: SLOW_S * (3 if step < 12 and step % 5 else 1), True),
        (lambda step: step % 4 == 0, lambda step: SLOW_S if step < 12 else QUICK_S, False),
        (lambda step: step % 64 == 0, lambda step: SLOW_S if step < 12 else QUICK_S, False),
        (lambda step: step == 1, lambda step: SLOW_S if step < 12 else QUICK_S, False),
        (lambda step: True, lambda step: SLOW_S if step < 12 else QUICK_S, False),
    ],
    ids=[
        "rate of 0",
        "rate of 0, disturbed",
        "every fourth",
        "every 64th",
        "once",
        "quicker steps",
    ],
)
def test_weights_that_stand_still_or_change_seldom_are_no_proof_by_themselves(
    changes: Callable[[int], bool], seconds: Callable[[int], float], counted: bool
) -> None:
    by_hand(changes, seconds, counted=counted)


def test_a_schedule_that_has_ended_may_be_followed_by_quicker_steps() -> None:
    quicker: Any = (lambda step: step <= 12, lambda step: SLOW_S if step <= 12 else QUICK_S)
    by_hand(*quicker, counted=True, ended=True)
    with pytest.raises(CaseFailure, match="every step must train"):
        by_hand(*quicker, counted=True)


def test_weights_that_rest_while_others_are_trained_are_no_proof_either() -> None:
    """As those of a GAN's discriminator, which its step leaves as it is once it is good."""
    by_hand(
        lambda step: step <= 12,
        lambda step: SLOW_S if step <= 12 else QUICK_S,
        counted=True,
        rests=True,
    )
