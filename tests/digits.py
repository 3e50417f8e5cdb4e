"""Files of digits for tests, right and wrong; not a test itself."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    "x_train": (60_000, 28, 28),
    "y_train": (60_000,),
    "x_test": (10_000, 28, 28),
    "y_test": (10_000,),
}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist.npz"


def real_digits() -> Path | None:
    """Return the file of the real digits, where there is one beside the checkout or named."""
    named = os.environ.get("CONVMARK_MNIST")
    return next((path for path in (Path(named or ""), SHARED) if path.is_file()), None)


def arrays(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return digits that are easily told: the label is a bright row, noise is everywhere."""
    noise = np.random.RandomState(seed)
    found = {}
    for part in ("train", "test"):
        shape = SHAPES[f"x_{part}"]
        labels = noise.randint(0, 10, shape[0]).astype(np.uint8)
        pixels = np.tile(
            noise.randint(0, 60, (1000, 28, 28)).astype(np.uint8), (shape[0] // 1000, 1, 1)
        )
        pixels[np.arange(shape[0]), 4 + 2 * labels.astype(int)] = 255
        found[f"x_{part}"], found[f"y_{part}"] = pixels, labels
    return found


def write(path: Path, **changes: np.ndarray[Any, Any] | None) -> Path:
    """Write the digits with some arrays exchanged, or left out where they are None."""
    found = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    np.savez(path, **found)
    return path


def write_headers(path: Path, **changes: tuple[str, tuple[int, ...]] | bytes | None) -> Path:
    """Write an archive whose arrays end after their headers: enough to be refused by one of them.

    Args:
        changes: type and shape by array, or its bytes, or None where it is left out.
    """
    described: dict[str, Any] = {name: ("|u1", shape) for name, shape in SHAPES.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, what in {**described, **changes}.items():
            if what is None:
                continue
            with archive.open(f"{name}.npy", "w") as member:
                if isinstance(what, bytes):
                    member.write(what)
                    continue
                kind, shape = what
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
    return path
