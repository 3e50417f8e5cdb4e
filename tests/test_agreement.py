"""Whether an exported model computes what the Keras model does: errors, bounds and scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from convmark.core.runtimes import ERROR_BOUNDS
from convmark.worker.failure import CaseFailure
from convmark.worker.learning import score
from convmark.worker.runtimes.agreement import (
    Agreement,
    agreement,
    amplify,
    check,
    check_comparable,
    has_new_norms,
    lost_entries,
)


def test_errors_are_taken_of_all_batches_and_related_to_how_far_the_outputs_spread() -> None:
    wanted = np.array([[11.0, 14.0], [12.0, 11.0]])  # at most 2 from their mean
    other = np.array([[14.5, 14.0], [12.0, 11.0]])
    found = agreement([[wanted], [other]], [[wanted], [wanted]])
    assert found.largest_abs_error == pytest.approx(3.5)
    assert found.largest_rel_error == pytest.approx(3.5 / 2, rel=1e-4)
    assert found.top1_agreement == pytest.approx(3 / 4)


def test_the_largest_error_may_be_that_of_the_first_samples_and_the_others_are_looked_at_too() -> (
    None
):
    wanted = np.random.default_rng(0).normal(0, 1, (64, 10))
    far = wanted.copy()
    far[40, 3] += 2
    first, whole = (agreement([[far]], [[wanted]], most=most) for most in (16, None))
    assert first.largest_rel_error == 0
    assert whole.largest_rel_error > ERROR_BOUNDS["int8"]
    assert first.error_between_samples == whole.error_between_samples > 0
    check(first, "int8", "a", "b")
    rule = (
        "int8 is 0.25; remove b .* if the error stays, .* int8 too coarse .* --precisions float32"
    )
    with pytest.raises(CaseFailure, match=rule):
        check(whole, "int8", "a", "b")
    far[40] = math.nan
    with pytest.raises(CaseFailure, match="computes something else"):
        check(agreement([[far]], [[wanted]], most=16), "int8", "a", "b")


def test_what_float32_itself_rounds_is_no_error() -> None:
    wanted = np.array([[0.5, 0.5 + 1e-6]], np.float32)
    assert agreement([[wanted + np.float32(6e-8)]], [[wanted]]).largest_rel_error == 0
    assert agreement([[wanted + np.float32(2e-6)]], [[wanted]]).largest_rel_error > 1


def test_an_output_of_one_number_for_a_whole_batch_is_compared() -> None:
    wanted = [[np.float32(1.0)], [np.float32(3.0)]]  # 1 from their mean
    check_comparable(wanted, "float32", "a")
    found = agreement([[np.float32(1.0)], [np.float32(3.5)]], wanted)
    assert found.largest_rel_error == pytest.approx(0.5, rel=1e-4)
    assert found.top1_agreement is None


def test_an_output_that_is_not_finite_or_of_another_shape_agrees_never() -> None:
    wanted = np.ones((1, 2))
    assert agreement([[wanted * math.nan]], [[wanted]]).largest_rel_error == math.inf
    assert agreement([[wanted * 2]], [[wanted]]).largest_rel_error == math.inf
    with pytest.raises(CaseFailure, match="its outputs have the shapes"):
        agreement([[np.ones((2, 2))]], [[wanted]])
    rule = r"^a: computes something else: its outputs have the shapes .*; remove b to have it expo"
    with pytest.raises(CaseFailure, match=rule):
        agreement([[wanted, wanted]], [[wanted]], "a:", "b")


@pytest.mark.parametrize("precision", sorted(ERROR_BOUNDS))
def test_the_probabilities_of_a_network_whose_last_layer_is_zero_are_an_error(
    precision: str,
) -> None:
    untrained = np.exp(np.random.default_rng(0).normal(0, 0.1, (16, 10)))
    wanted = untrained / untrained.sum(axis=1, keepdims=True)
    with pytest.raises(CaseFailure, match="computes something else"):
        check(agreement([[np.full((16, 10), 0.1)]], [[wanted]]), precision, "a", "b")


@pytest.mark.parametrize("precision", sorted(ERROR_BOUNDS))
@pytest.mark.parametrize("ignored", ["the samples' mean", "another sample's", "an earlier one's"])
def test_a_file_that_ignores_its_input_is_an_error_though_classes_differ_more_than_samples(
    precision: str, ignored: str
) -> None:
    noise = np.random.default_rng(0)
    classes, samples = noise.normal(0, 1, (1, 1000)), noise.normal(0, 0.01, (16, 1000))
    wanted = np.exp(classes + samples)  # an untrained MobileNetV2 whose activations are amplified
    outputs = {
        "the samples' mean": np.broadcast_to(wanted.mean(0), wanted.shape),
        "another sample's": np.broadcast_to(wanted[0], wanted.shape),
        "an earlier one's": np.roll(wanted, 1, axis=0),
    }
    found = agreement([[outputs[ignored]]], [[wanted]])
    assert found.largest_rel_error < ERROR_BOUNDS["int8"]
    with pytest.raises(CaseFailure, match="between samples its outputs do not differ as the Keras"):
        check(found, precision, "a", "b")


@pytest.mark.parametrize("precision", sorted(ERROR_BOUNDS))
def test_scores_that_are_lost_beside_places_in_the_image_are_an_error(precision: str) -> None:
    """As of a detector's output that int8 keeps in steps of its largest number."""
    noise = np.random.default_rng(0)
    places, scores = noise.uniform(0, 640, (16, 10, 4)), noise.uniform(0, 1, (16, 10, 8))
    wanted = np.concatenate([places, scores], -1)
    found = agreement([[np.concatenate([places, scores * 0], -1)]], [[wanted]])
    assert max(found.error_between_samples, found.largest_rel_error) < ERROR_BOUNDS["float16"]
    with pytest.raises(CaseFailure, match="67 % of an output's entries are no better than a const"):
        check(found, precision, "a", "b")


def test_few_entries_may_be_lost_in_int8_and_small_probabilities_always() -> None:
    noise = np.random.default_rng(0)
    wanted = noise.uniform(0, [640, 640, 640, 640, 1], (16, 5))
    kept = np.array([1, 1, 1, 1, 0])
    found = agreement([[wanted * kept]], [[wanted]])
    check(found, "int8", "a", "b")
    with pytest.raises(CaseFailure, match=r"20 % of an output's .* float32 is 1 %; remove b"):
        check(found, "float32", "a", "b")
    shares = wanted / wanted.sum(1, keepdims=True)
    assert lost_entries(shares * kept, shares) == 0
    assert lost_entries(wanted * math.nan, wanted) == 1


def test_a_network_that_gives_one_class_for_all_samples_has_no_top1_agreement() -> None:
    wanted = np.array([[0.2, 0.8], [0.3, 0.7]])
    assert agreement([[wanted]], [[wanted]]).top1_agreement is None
    assert agreement([[wanted]], [[wanted]]).error_between_samples == 0


@pytest.mark.parametrize(
    ("precision", "spread", "rule"),
    [
        ("float32", 1e-9, "gives nearly the same for all inputs; use trained weights"),
        ("int8", 1e-3, "int8 cannot be compared, because its probabilities are at most 0.001"),
    ],
)
def test_outputs_that_would_hide_a_broken_export_are_refused(
    precision: str, spread: float, rule: str
) -> None:
    outputs = 0.001 + np.array([[0, 2 * spread], [2 * spread, 0]])
    with pytest.raises(CaseFailure, match=rule):
        check_comparable([[outputs]], precision, "a")
    check_comparable([[outputs * 1e-3 + [[0, 0.5], [0.5, 0]]]], precision, "a")
    with pytest.raises(CaseFailure, match=r"between samples 0.001, and int8 has steps of 1/256"):
        check_comparable([[np.array([[0.1, 0.9], [0.102, 0.898]])]], "int8", "a")
    told = np.array([[0.1, 0.9], [0.9, 0.1]])
    for other, why in (
        (np.zeros((2, 1)), "nearly the same for all inputs in its output 2 of 2"),
        (told * math.nan, "NaN or infinite values in its output 2 of 2"),
    ):
        with pytest.raises(CaseFailure, match=why):
            check_comparable([[told, other]], precision, "a")
    with pytest.raises(CaseFailure, match="gives nearly the same for all inputs"):
        check_comparable([[np.array([[0.1, 0.9], [0.1, 0.9]])]], precision, "a")


def test_an_error_at_the_bound_agrees_and_one_beyond_it_does_not() -> None:
    check(Agreement(1e-2, ERROR_BOUNDS["float16"], 1.0, 0.1), "float16", "lenet5", "file")
    with pytest.raises(CaseFailure, match=r"lenet5 computes something else: .* bound .* is 0.0001"):
        check(Agreement(1e-2, 1.01e-4, 1.0, 0.0), "float32", "lenet5", "file")
    with pytest.raises(CaseFailure, match=r"between samples its outputs .* is 1.2 .* int8 is 0.6"):
        check(Agreement(1e-2, 1e-2, 1.0, 1.2), "int8", "lenet5", "file")


def test_a_score_is_of_probabilities_or_of_scores_and_a_zero_costs_what_keras_says() -> None:
    values, labels = np.array([[1.0, 0.0], [0.25, 0.75]]), np.array([1, 1])
    of_probabilities = score(values, labels, probabilities=True)
    assert of_probabilities["accuracy"] == 0.5
    assert of_probabilities["loss"] == pytest.approx((-math.log(1e-7) - math.log(0.75)) / 2)
    of_scores = score(np.log([[0.2, 0.8], [0.4, 0.6]]) + 3, labels, probabilities=False)
    assert of_scores["loss"] == pytest.approx((-math.log(0.8) - math.log(0.6)) / 2)


@dataclass
class Variable:
    """A layer's statistics, as Keras keeps them."""

    values: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.values)

    def numpy(self) -> Any:
        return np.asarray(self.values)

    def assign(self, values: Any) -> None:
        self.values = values


class BatchNormalization:
    """A layer of that name, with statistics or without any."""

    def __init__(self, mean: Any = None, variance: Any = None) -> None:
        self.moving_mean, self.moving_variance = (
            None if one is None else Variable(one) for one in (mean, variance)
        )


class OwnBatchNormalization:
    """A layer of somebody's own, which keeps nothing."""


def test_layers_of_batch_normalisation_that_have_no_statistics_tell_nothing() -> None:
    def is_new(*layers: Any) -> bool:
        return has_new_norms(SimpleNamespace(_flatten_layers=lambda: layers))

    new, trained = BatchNormalization(np.zeros(2), np.ones(2)), BatchNormalization(0.5, 1.0)
    never_called = BatchNormalization()
    assert not is_new(never_called, OwnBatchNormalization())
    assert is_new(new, never_called, OwnBatchNormalization())
    assert not is_new(new, trained)


@pytest.mark.parametrize(
    ("saturates_at", "wanted"),
    [(16**-10.0, 16**-6.5), (16**-4.5, 16**-4.0)],
)
def test_an_untrained_network_is_amplified_until_its_samples_differ_or_as_much_as_they_do(
    saturates_at: float, wanted: float
) -> None:
    """Its samples differ the more the smaller the variances are, until one class has all of it."""
    layers = [BatchNormalization(np.zeros(2), np.ones(2)) for _ in range(2)]

    def spread() -> float:
        variance = float(layers[0].moving_variance.numpy()[0])
        return 0.0 if variance <= saturates_at else 1e-9 / variance

    amplify(SimpleNamespace(_flatten_layers=lambda: layers), spread)
    assert [float(one.moving_variance.numpy()[0]) for one in layers] == pytest.approx([wanted] * 2)
