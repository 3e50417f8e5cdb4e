"""Names of the networks of `trained_nets` and `hand_trained`, read without a framework; no test."""

from pathlib import Path

CASE = Path(__file__).parents[2] / "shared" / "cases" / "04-own-train-step"
ANYWHERE = (
    *("uncompiled", "sparse", "categorical", "binary", "regression", "own_loss_of_classes"),
    *("own_loss_of_nothing", "pixels", "two_outputs", "losses_alone", "own_compute_loss", "eager"),
    *("several_at_once", "no_loss", "frozen", "frozen_and_compiled", "compile_of_its_own"),
    *("late", "shared", "says_built", "told", "regularized", "losses_of_samples", "two_heads"),
    *("judged", "two_heads_and_a_label", "activity", "loss_and_activity"),
)
OF_TENSORFLOW = (
    *("gan", "accumulates", "own_train_function", "by_xla", "told_and_compiled", "scored"),
    *("unweighted", "weighted", "two_optimizers"),
)
STOPPING = ("stops", "stops_and_counts", "stops_in_its_graph")
GOING_ON = ("goes_on", "decays", "optimizer_decays", "accumulates", "averages", "head_alone")
