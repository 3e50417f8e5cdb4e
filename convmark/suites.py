"""The default suites: the cases of `pytest bench` and `convmark run` unless options say more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convmark.case import Case, expand
from convmark.options import Options

__all__ = ["INFERENCE", "LAYERS", "SUITES", "TRAINING", "Suite", "cases"]

NETWORKS = ("lenet5", "mini_inception", "mini_resnet", "mini_resnet_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A default grid of cases; options replace its models and batch sizes."""

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    """Samples per replica per step."""
    fixed_models: bool = False
    """Whether `--models` may only choose among the suite's models, not replace them."""

    def cases(self, options: Options, devices: Sequence[str]) -> list[Case]:
        """Return the suite's cases on these devices, as the options shape them."""
        models: Sequence[str] = options.models or self.models
        if self.fixed_models:
            models = [model for model in self.models if model in models]
        return expand(
            models=models,
            tasks=[task for task in self.tasks if task in options.tasks],
            devices=devices,
            batch_sizes=options.batch_sizes or self.batch_sizes,
            precisions=options.precisions,
            jit=options.jit,
            threads=options.threads,
        )


TRAINING = Suite(models=NETWORKS, tasks=("train",), batch_sizes=(32,))
INFERENCE = Suite(models=NETWORKS, tasks=("infer",), batch_sizes=(1, 32))
LAYERS = Suite(
    models=("conv_layer", "separable_layer"),
    tasks=("train", "infer"),
    batch_sizes=(32,),
    fixed_models=True,
)
SUITES = (TRAINING, INFERENCE, LAYERS)


def cases(options: Options, devices: Sequence[str]) -> list[Case]:
    """Return the cases of all default suites, each once."""
    found = [case for suite in SUITES for case in suite.cases(options, devices)]
    return list(dict.fromkeys(found))
