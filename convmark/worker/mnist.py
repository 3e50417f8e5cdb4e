"""The MNIST digits: found or downloaded, read without unpickling, checked, split.

Source:
    LeCun, Bottou, Bengio and Haffner (1998): 60,000 digits to train on and 10,000 to test on, 28x28
    pixels of 0 to 255; the arrays' names are those of `keras.datasets.mnist`.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convmark.worker.failure import CaseFailure
from convmark.worker.protocol import one_line

SAMPLE_SHAPE = (28, 28, 1)
CLASSES = 10
TRAINING, VALIDATION, TEST = 50_000, 10_000, 10_000
"""Samples; the first two share the 60,000 digits of the training arrays."""

Arrays = Mapping[str, npt.NDArray[Any]]

_SHAPES = {
    "x_train": (TRAINING + VALIDATION, 28, 28),
    "y_train": (TRAINING + VALIDATION,),
    "x_test": (TEST, 28, 28),
    "y_test": (TEST,),
}
_DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a member of a damaged or strange archive raises, by the damage."""

ANSWER_S, DOWNLOAD_S = 20.0, 180.0
"""Seconds that a server may be silent, and that all of a download may take."""


@dataclass(frozen=True)
class Digits:
    """Images, float32 (samples, 28, 28, 1) in [0, 1], and labels, int64 (samples,)."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The digits that a model learns from, is watched on after each epoch, and is tested on."""

    training: Digits
    validation: Digits
    test: Digits


def read(path: str) -> Arrays:
    """Return the four arrays of a file; none is read before all are what they should be.

    Raises:
        CaseFailure: the file or an array is not as it should be; one line says what was found.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise CaseFailure(f"{path}: cannot be read: {error.strerror or error}") from None
    except zipfile.BadZipFile:
        raise CaseFailure(
            f"{path}: expected an .npz archive of the arrays {', '.join(_SHAPES)}, found no archive"
        ) from None
    with archive:
        for name in _SHAPES:
            _check_header(path, archive, name)
        arrays = {name: _array(path, archive, name) for name in _SHAPES}
    for name in ("y_train", "y_test"):
        low, high = int(arrays[name].min()), int(arrays[name].max())
        if low < 0 or high >= CLASSES:
            raise CaseFailure(f"{path}: {name}: expected labels 0 to 9, found {low} to {high}")
    return arrays


def _check_header(path: str, archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an array of another shape or type by its header, before any of it is read."""
    expected = _described(_expected_kind(name), _SHAPES[name])
    there = [member.removesuffix(".npy") for member in archive.namelist()]
    if name not in there:
        found = ", ".join(there[:8]) or "no arrays"
        raise CaseFailure(f"{path}: {name}: expected {expected}, found only {one_line(found)}")
    try:
        with archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                header = np.lib.format.read_array_header_2_0
            shape, _, dtype = header(member)
    except (*_DAMAGED, KeyError) as error:
        raise CaseFailure(
            f"{path}: {name}: expected {expected}, found no array: {_reason(error)}"
        ) from None
    right = dtype == np.uint8 if name.startswith("x") else np.issubdtype(dtype, np.integer)
    if not right or shape != _SHAPES[name]:
        kind = "Python objects" if dtype.hasobject else str(dtype)
        raise CaseFailure(f"{path}: {name}: expected {expected}, found {_described(kind, shape)}")


def _expected_kind(name: str) -> str:
    return "uint8 pixels" if name.startswith("x") else "integer labels"


def _described(kind: str, shape: tuple[int, ...]) -> str:
    return f"{one_line(kind, 60)} of shape {one_line(shape, 60)}"


def _array(path: str, archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    try:
        with archive.open(f"{name}.npy") as member:
            array: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array
    except _DAMAGED as error:
        expected = _described(_expected_kind(name), _SHAPES[name])
        raise CaseFailure(
            f"{path}: {name}: expected {expected}, found it damaged: {_reason(error)}"
        ) from None


def _reason(error: BaseException) -> str:
    return one_line(str(error) or type(error).__name__, 120)


def name_of(arrays: Arrays) -> str:
    """Return `mnist-` and the first digits of a hash of what the arrays hold, however stored."""
    digest = hashlib.sha256()
    for name in _SHAPES:
        digest.update(np.ascontiguousarray(arrays[name], dtype=np.uint8).data)
    return f"mnist-{digest.hexdigest()[:12]}"


def split(arrays: Arrays, seed: int, fraction: float = 1.0) -> Split:
    """Return the digits split as the seed says: 50,000 to train on, 10,000 to validate with.

    Args:
        fraction: share of both that is taken; the test digits are always all of them.
    """
    order = np.random.RandomState(seed).permutation(TRAINING + VALIDATION)
    training, validation = order[:TRAINING], order[TRAINING:]
    return Split(
        training=_digits(arrays, "train", training[: _part(TRAINING, fraction)]),
        validation=_digits(arrays, "train", validation[: _part(VALIDATION, fraction)]),
        test=_digits(arrays, "test", np.arange(TEST)),
    )


def _part(samples: int, fraction: float) -> int:
    return max(1, round(samples * fraction))


def _digits(arrays: Arrays, which: str, chosen: npt.NDArray[np.int64]) -> Digits:
    pixels = arrays[f"x_{which}"][chosen]
    images = (pixels.astype(np.float32) / np.float32(255)).reshape(-1, *SAMPLE_SHAPE)
    return Digits(images, arrays[f"y_{which}"][chosen].astype(np.int64))


def located(load_data: Callable[[], Any], alive: Callable[[], None]) -> str:
    """Return the path of Keras's own copy of the digits, downloaded by Keras where there is none.

    A copy that is there is read as it is: Keras would delete one whose bytes are not its own.

    Args:
        load_data: `keras.datasets.mnist.load_data`.
        alive: called every second while it is waited for.

    Raises:
        CaseFailure: there is none and none can be had; the message says both ways to one.
    """
    reason = ""
    for attempt in range(2):
        for folder in _folders():
            path = folder / "datasets" / "mnist.npz"
            if path.is_file():
                return str(path)
        if attempt == 0:
            reason = _downloaded(load_data, alive)
    raise CaseFailure(
        "no MNIST digits to train on: give a file with --mnist PATH or CONVMARK_MNIST, or connect "
        f"to a network from which keras.datasets.mnist can download them ({reason})"
    )


def _folders() -> list[Path]:
    """Return where Keras keeps what it downloads, the second where the home cannot be written."""
    home = os.environ.get("KERAS_HOME")
    return [Path(home) if home else Path.home() / ".keras", Path("/tmp/.keras")]


def _downloaded(load_data: Callable[[], Any], alive: Callable[[], None]) -> str:
    """Have Keras download the digits, and return why it did not; a name server may be silent."""
    reasons: list[str] = []

    def download() -> None:
        try:
            load_data()
        except BaseException as error:
            reasons.append(_reason(error))
        else:
            reasons.append("Keras has no copy")

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_S)
    thread = threading.Thread(target=download, daemon=True)
    deadline = time.monotonic() + DOWNLOAD_S
    thread.start()
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(1.0)
        alive()
    socket.setdefaulttimeout(before)
    return reasons[0] if reasons else f"no answer within {DOWNLOAD_S:g} s"
