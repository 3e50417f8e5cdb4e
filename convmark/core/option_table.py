"""Every option, once: its name, its rule, its default and its line of help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import ISOLATIONS, PRECISIONS
from convmark.core.cluster import parse_cluster
from convmark.core.option_values import (
    choice_of,
    choices_of,
    parse_batch_sizes,
    parse_budget,
    parse_count,
    parse_counts,
    parse_devices,
    parse_file,
    parse_folder,
    parse_jit,
    parse_margin,
    parse_models,
    parse_name,
    parse_place,
    parse_rate,
    parse_seconds,
    parse_seed,
    parse_seeds,
    parse_shapes,
    parse_share,
    parse_switch,
    parse_text,
    parse_threads,
)
from convmark.core.tasks import TASKS, TIMED_TASKS

__all__ = ["OPTIONS", "Option"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its name without dashes, its rule and its line of help."""

    name: str
    metavar: str
    parse: Callable[[str, str], Any]
    """Turns (flag, text) into the value, or raises OptionError."""
    default: str | None
    help: str
    only: str = ""
    """`run` or `pytest` where the other has no such option."""
    repeatable: bool = False
    """Whether it may be given more than once; its value is then a tuple."""
    switch: bool = False
    """Whether it takes no value on a command line, where it means yes."""

    def add_to(self, add: Callable[..., Any], **more: Any) -> None:
        """Add it to a parser by the parser's own function."""
        how: dict[str, Any] = {"action": "append" if self.repeatable else "store"}
        if self.switch:
            how = {"action": "store_const", "const": "yes"}
        else:
            how["metavar"] = self.metavar
        add(self.flag, default=None, help=self.help, **how, **more)

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


OPTIONS = (
    Option(
        name="models",
        metavar="NAMES",
        parse=parse_models,
        default=None,
        help="models by name: the zoo's six, any of keras.applications in lower case, your "
        "own as package.module:builder, package.module:builder(width=2) or package.module:model, "
        "a .keras or .h5 file, a SavedModel's folder, or keras_hub:preset (default: the suite's)",
    ),
    Option(
        name="trust-models",
        metavar="",
        parse=parse_switch,
        default="no",
        help="run code that lies in a model's file, such as a Lambda layer's; whoever made the "
        "file could do anything with it (default: no, be refused)",
        switch=True,
    ),
    Option(
        name="tasks",
        metavar="TASKS",
        parse=choices_of(tuple(TASKS)),
        default=",".join(TIMED_TASKS),
        help=f"{', '.join(one.words for one in TASKS.values())} (default: {','.join(TIMED_TASKS)})",
        only="run",
    ),
    Option(
        name="devices",
        metavar="DEVICES",
        parse=parse_devices,
        default="all",
        help="cpu, gpu:0, ... or all that are there (default: all)",
    ),
    Option(
        name="batch-sizes",
        metavar="SIZES",
        parse=parse_batch_sizes,
        default=None,
        help="samples per replica per step, or auto: find the fastest and the largest that fits "
        "(default: 32 in training, 1 and 32 in inference)",
    ),
    Option(
        name="precisions",
        metavar="PRECISIONS",
        parse=choices_of(PRECISIONS),
        default="float32",
        help="float32 (TF32 off), tf32 (GPUs alone), mixed_float16, mixed_bfloat16 "
        "(default: float32)",
    ),
    Option(
        name="jit",
        metavar="STATE",
        parse=parse_jit,
        default="off",
        help="compile the step: off, on or both; XLA in TensorFlow, torch.compile in PyTorch, "
        "while JAX always compiles (default: off)",
    ),
    Option(
        name="replicas",
        metavar="NUMBERS",
        parse=parse_counts,
        default=None,
        help="copies of the model, each with a batch of its own: one per GPU, or logical CPUs; "
        "TensorFlow alone (default: 1; bench/test_scaling.py: up to the GPUs that are there)",
    ),
    Option(
        name="cluster",
        metavar="WHERE",
        parse=parse_cluster,
        default=None,
        help="spread replicas over processes: local, one each on this machine; or over machines: "
        "HOST:PORT,HOST:PORT, or TF_CONFIG to read that variable; start the same command on each "
        "(default: one process)",
        only="run",
    ),
    Option(
        name="index",
        metavar="N",
        parse=parse_place,
        default=None,
        help="which HOST:PORT of --cluster this machine is, from 0; the first keeps the rows (no "
        "default)",
        only="run",
    ),
    Option(
        name="optimizer",
        metavar="NAME",
        parse=parse_name,
        default=None,
        help="an optimizer of keras.optimizers, such as adam, for models that were not compiled "
        "(default: plain SGD)",
    ),
    Option(
        name="learning-rate",
        metavar="RATE",
        parse=parse_rate,
        default=None,
        help="for models that were not compiled (default: 0.01, or the named optimizer's own)",
    ),
    Option(
        name="loss",
        metavar="NAME",
        parse=parse_name,
        default=None,
        help="a loss of keras.losses, for models that were not compiled; the step is then Keras's "
        "own train_step (default: cross-entropy of scores of classes, else squared error)",
    ),
    Option(
        name="threads",
        metavar="N",
        parse=parse_threads,
        default="default",
        help="threads of the measured process, or default: the framework's own choice",
    ),
    Option(
        name="backend",
        metavar="NAMES",
        parse=choices_of(tuple(BACKENDS)),
        default=DEFAULT_BACKEND,
        help=f"framework under Keras, or several: {', '.join(BACKENDS)} "
        f"(default: {DEFAULT_BACKEND})",
    ),
    Option(
        name="ceilings",
        metavar="WHICH",
        parse=choice_of(("auto", "on", "off")),
        default="auto",
        help="measure once what each device can do at most, for the column efficiency: auto (GPUs "
        "only), on or off (default: auto)",
    ),
    Option(
        name="processes",
        metavar="N",
        parse=parse_count,
        default="3",
        help="fresh processes per case (default: 3)",
    ),
    Option(
        name="time-budget",
        metavar="SECONDS",
        parse=parse_seconds,
        default="0.6",
        help="at most this many seconds of timed steps per process, and half as many of rounds "
        "(default: 0.6)",
    ),
    Option(
        name="time-limit",
        metavar="SECONDS",
        parse=parse_seconds,
        default="600",
        help="seconds a worker may go without a sign of progress before it is ended (default: 600)",
    ),
    Option(
        name="isolation",
        metavar="HOW",
        parse=choice_of(ISOLATIONS),
        default="fork" if sys.platform == "linux" else "spawn",
        help="fork: a child of a warm interpreter; spawn: a new interpreter; none: one process for "
        "all, for debuggers and profilers (default: fork on Linux, else spawn)",
    ),
    Option(
        name="results",
        metavar="FOLDER",
        parse=parse_folder,
        default="results",
        help="folder of the CSV history (default: results)",
    ),
    Option(
        name="seed",
        metavar="N",
        parse=parse_seed,
        default="0",
        help="seed of the plan's order, the weights and the batches (default: 0)",
    ),
    Option(
        name="seeds",
        metavar="SEEDS",
        parse=parse_seeds,
        default="0,1,2",
        help="seeds of the task accuracy, a fresh process for each (default: 0,1,2)",
    ),
    Option(
        name="target-accuracy",
        metavar="SHARE",
        parse=parse_share,
        default="0.97",
        help="validation accuracy at which the task accuracy stops its clock (default: 0.97)",
    ),
    Option(
        name="fraction",
        metavar="SHARE",
        parse=parse_share,
        default="1",
        help="share of the training and validation samples that the task accuracy uses, for quick "
        "checks (default: 1)",
    ),
    Option(
        name="mnist",
        metavar="PATH",
        parse=parse_file,
        default=None,
        help="file of the MNIST digits, an .npz with the arrays of keras.datasets.mnist (default: "
        "CONVMARK_MNIST, else what Keras downloads)",
    ),
    Option(
        name="input-shape",
        metavar="SHAPE",
        parse=parse_shapes,
        default=None,
        help="shape of one sample, such as 224x224x3, or name=28x28x1,other=4 where a model has "
        "several inputs (default: the model's own; open axes 224 of images, 128 of sequences)",
    ),
    Option(
        name="python",
        metavar="PATH",
        parse=parse_text,
        default=None,
        help="interpreter to measure in, or its environment's folder; it needs the framework and "
        "nothing else (default: this one; convmark run takes several, a run for each)",
        repeatable=True,
    ),
    Option(
        name="env",
        metavar="REQUIREMENTS",
        parse=parse_text,
        default=None,
        help='what to measure in, such as "tensorflow==2.20.*"; made once and kept, see convmark '
        "env list (default: what is installed here)",
        repeatable=True,
    ),
    Option(
        name="wait",
        metavar="",
        parse=parse_switch,
        default="no",
        help="wait for another benchmark run on this machine to end (default: no, be refused)",
        switch=True,
    ),
    Option(
        name="allow-concurrent",
        metavar="",
        parse=parse_switch,
        default="no",
        help="measure beside other benchmark runs, which disturb the figures; the rows say so "
        "(default: no)",
        switch=True,
    ),
    Option(
        name="compare-budget",
        metavar="SECONDS",
        parse=parse_budget,
        default="600",
        help="with --benchmark-compare: most seconds for running the old code beside today's, or "
        "unlimited, which also decides changes of 3 % (default: 600)",
        only="pytest",
    ),
    Option(
        name="margin",
        metavar="SHARE",
        parse=parse_margin,
        default="0.03",
        help="with --benchmark-compare: the smallest slowdown that is called a regression, as a "
        "share of the step time (default: 0.03)",
        only="pytest",
    ),
    Option(
        name="allow-change",
        metavar="CASE",
        parse=parse_text,
        default=None,
        help="let a case pass whose change is meant: its name, or a pattern such as 'lenet5-*' "
        "(default: none)",
        only="pytest",
        repeatable=True,
    ),
)
