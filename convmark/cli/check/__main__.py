"""The command behind scripts/gpu_check."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from convmark.cli.check.device import Plan, check
from convmark.core.backends import BACKENDS, DEFAULT_BACKEND
from convmark.core.case import PRECISIONS
from convmark.core.errors import ConvmarkError
from convmark.core.option_table import OPTIONS
from convmark.core.options import read

__all__ = ["main"]

LIMIT_S = 360.0
SILENCE_S = 120.0
"""The last process begins within six minutes and is ended after two silent ones: eight in all."""

MIB = 2**20
QUICK_SIZES = 2
"""Of the sizes of a ceiling's matrices and copies, the smallest."""

EXIT_OK, EXIT_UNSOUND, EXIT_USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a device and return 0 where all of it is sound, 1 where not, 2 where it cannot be."""
    given = _parser().parse_args(arguments)
    backend = given.backend or installed_backend()
    try:
        options = read(
            {
                "results": given.results,
                "wait": given.wait,
                "allow_concurrent": given.allow_concurrent,
                "processes": "1",
                "time_budget": "0.2" if given.quick else None,
                "time_limit": str(SILENCE_S),
            }
        )
        return EXIT_OK if check(_plan(given, backend), options, _say) else EXIT_UNSOUND
    except ConvmarkError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return EXIT_USAGE


def installed_backend() -> str:
    """Return the first of the frameworks that is installed here, TensorFlow where none is."""
    there = (name for name in BACKENDS if importlib.util.find_spec(name) is not None)
    return next(there, DEFAULT_BACKEND)


def _plan(given: argparse.Namespace, backend: str) -> Plan:
    on_gpu = given.device != "cpu"
    return Plan(
        device=given.device,
        backend=backend,
        models=("lenet5",) if given.quick else ("lenet5", "mini_resnet", "resnet50"),
        precisions=("float32", "mixed_float16") if on_gpu and not given.quick else ("float32",),
        ceiling_precisions=tuple(name for name in PRECISIONS if on_gpu or name != "tf32"),
        ceiling_sizes=QUICK_SIZES if given.quick else None,
        batch_size=32,
        known_bytes=(8 if given.quick else 256) * MIB,
        limit_s=LIMIT_S,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_check",
        description="Check one device: fingerprint, the instruments, and the rows of three models.",
        allow_abbrev=False,
    )
    parser.add_argument("--device", default="gpu:0", help="gpu:N or cpu (default: gpu:0)")
    parser.add_argument("--backend", choices=BACKENDS, help="default: the first that is installed")
    parser.add_argument("--results", default="results", help="folder of the CSV (default: results)")
    for option in OPTIONS:
        if option.name in ("wait", "allow-concurrent"):
            option.add_to(parser.add_argument)
    parser.add_argument(
        "--quick", action="store_true", help="LeNet-5 and small ceilings alone, short"
    )
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
