"""The digits: what a file of them must hold, how they are split, and where they come from."""

from __future__ import annotations

import pickle
import socket
import threading
import zipfile
from pathlib import Path
from typing import Any

import digits
import numpy as np
import pytest

from convmark.worker import mnist
from convmark.worker.failure import CaseFailure

PIXELS = "expected uint8 pixels of shape (60000, 28, 28)"
LABELS = "expected integer labels of shape (60000,)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> mnist.Arrays:
    return mnist.read(str(digits.write(tmp_path_factory.mktemp("digits") / "mnist.npz")))


def refusal(path: Path) -> str:
    with pytest.raises(CaseFailure) as refused:
        mnist.read(str(path))
    text = str(refused.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, f"x_train: {PIXELS}, found only y_train, x_test, y_test"),
        ({"y_train": None}, f"y_train: {LABELS}, found only x_train, x_test, y_test"),
        (
            {"x_train": ("|u1", (59_999, 28, 28))},
            f"x_train: {PIXELS}, found uint8 of shape (59999, 28, 28)",
        ),
        (
            {"x_train": ("|u1", (60_000, 784))},
            f"x_train: {PIXELS}, found uint8 of shape (60000, 784)",
        ),
        (
            {"x_train": ("<f8", (60_000, 28, 28))},
            f"x_train: {PIXELS}, found float64 of shape (60000, 28, 28)",
        ),
        (
            {"x_test": ("|u1", (10_000, 28, 28, 1))},
            "x_test: expected uint8 pixels of shape (10000, 28, 28), "
            "found uint8 of shape (10000, 28, 28, 1)",
        ),
        ({"y_train": ("<f4", (60_000,))}, f"y_train: {LABELS}, found float32 of shape (60000,)"),
        ({"y_train": ("|b1", (60_000,))}, f"y_train: {LABELS}, found bool of shape (60000,)"),
        ({"y_train": ("<U3", (60_000,))}, f"y_train: {LABELS}, found <U3 of shape (60000,)"),
        ({"y_train": ("|u1", ())}, f"y_train: {LABELS}, found uint8 of shape ()"),
        (
            {"y_train": ("|O", (60_000,))},
            f"y_train: {LABELS}, found Python objects of shape (60000,)",
        ),
        (
            {"y_test": ("<i8", (10**15,))},
            "y_test: expected integer labels of shape (10000,), "
            "found int64 of shape (1000000000000000,)",
        ),
    ],
)
def test_an_array_that_is_missing_or_of_another_shape_or_type_is_refused_by_its_header(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert refusal(digits.write_headers(tmp_path / "mnist.npz", **changes)) == message


def test_the_first_axis_of_all_is_at_its_boundary(tmp_path: Path) -> None:
    path = digits.write_headers(tmp_path / "mnist.npz")  # headers alone, and all as they should be
    assert refusal(path).startswith(f"x_train: {PIXELS}, found it damaged: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "found no array: "),
        (b"12345678", "found no array: "),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': '|u1'}", "found no array: "),
        (b"\x93NUMPY\x09\x00\x10\x00", "found no array: "),
        (pickle.dumps([1, 2]), "found no array: "),
    ],
)
def test_an_array_that_is_none_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = digits.write_headers(tmp_path / "mnist.npz", y_train=content)
    assert refusal(path).startswith(f"y_train: {LABELS}, {reason}")


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    trap = np.empty(60_000, dtype=object)
    trap[:] = 0
    trap[0] = Trap(tmp_path / "sprung")
    path = tmp_path / "mnist.npz"
    digits.write_headers(path, y_train=None)
    with zipfile.ZipFile(path, "a") as archive, archive.open("y_train.npy", "w") as member:
        np.lib.format.write_array(member, trap, allow_pickle=True)
    assert refusal(path) == f"y_train: {LABELS}, found Python objects of shape (60000,)"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("low", "high"), [(0, 10), (-1, 9), (250, 255)])
def test_labels_beyond_the_ten_digits_are_refused(low: int, high: int, tmp_path: Path) -> None:
    labels = np.full(60_000, low, np.int16)
    labels[-1] = high
    message = refusal(digits.write(tmp_path / "mnist.npz", y_train=labels))
    assert message == f"y_train: expected labels 0 to 9, found {low} to {high}"


def test_a_file_that_is_not_there_or_no_archive_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.npz") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) == "cannot be read: Is a directory"
    (tmp_path / "text.npz").write_text("no archive")
    assert refusal(tmp_path / "text.npz") == (
        "expected an .npz archive of the arrays x_train, y_train, x_test, y_test, found no archive"
    )


def test_a_damaged_array_is_refused(tmp_path: Path) -> None:
    path = digits.write(tmp_path / "mnist.npz")
    data = bytearray(path.read_bytes())
    data[1_000_000] ^= 0xFF
    path.write_bytes(data)
    assert refusal(path).startswith(f"x_train: {PIXELS}, found it damaged: Bad CRC-32")


def test_the_split_is_of_50_000_and_10_000_by_the_seed(whole: mnist.Arrays) -> None:
    found = mnist.split(whole, seed=3)
    assert found.training.images.shape == (50_000, 28, 28, 1)
    assert found.validation.images.shape == found.test.images.shape == (10_000, 28, 28, 1)
    assert found.training.images.dtype == np.float32
    assert found.training.labels.dtype == np.int64
    assert (found.training.images.min(), found.training.images.max()) == (0.0, 1.0)
    again, other = mnist.split(whole, seed=3), mnist.split(whole, seed=4)
    assert np.array_equal(found.training.labels, again.training.labels)
    assert not np.array_equal(found.training.labels, other.training.labels)
    assert np.array_equal(found.test.labels, other.test.labels)


def test_every_digit_is_in_one_part_with_its_own_label(whole: mnist.Arrays) -> None:
    found = mnist.split(whole, seed=0)
    for part in (found.training, found.validation):
        assert np.array_equal(part.images[:, 4:24:2, 14, 0].argmax(axis=1), part.labels)
    together = np.concatenate([found.training.labels, found.validation.labels])
    assert np.array_equal(np.bincount(together), np.bincount(whole["y_train"]))


def test_a_pixel_of_51_is_a_fifth(whole: mnist.Arrays) -> None:
    pixels = np.full((60_000, 28, 28), 51, np.uint8)
    found = mnist.split({**whole, "x_train": pixels}, seed=0, fraction=0.001)
    assert np.all(found.training.images == np.float32(0.2))


@pytest.mark.parametrize(
    ("fraction", "training", "validation"),
    [(1.0, 50_000, 10_000), (0.1, 5_000, 1_000), (0.00003, 2, 1), (1e-9, 1, 1)],
)
def test_a_fraction_is_of_training_and_validation_and_never_of_the_test(
    fraction: float, training: int, validation: int, whole: mnist.Arrays
) -> None:
    found = mnist.split(whole, seed=0, fraction=fraction)
    assert (len(found.training.labels), len(found.validation.labels)) == (training, validation)
    assert len(found.test.labels) == 10_000
    all_of_it = mnist.split(whole, seed=0)
    assert np.array_equal(found.training.labels, all_of_it.training.labels[:training])


def test_the_name_tells_the_digits_and_not_how_they_are_stored(whole: mnist.Arrays) -> None:
    name = mnist.name_of(whole)
    assert name.startswith("mnist-")
    assert len(name) == len("mnist-") + 12
    assert mnist.name_of({**whole, "y_test": whole["y_test"].astype(">i8")}) == name
    assert mnist.name_of({**whole, "y_test": whole["y_test"][::-1]}) != name


@pytest.mark.skipif(digits.real_digits() is None, reason="no file of the real digits is here")
def test_the_real_digits_are_what_was_published() -> None:
    found = mnist.read(str(digits.real_digits()))
    assert np.bincount(found["y_train"]).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert np.bincount(found["y_test"]).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Keras keeps its files; the folder that it falls back to is looked at too."""
    if Path("/tmp/.keras/datasets/mnist.npz").exists():
        pytest.skip("this machine has digits where Keras falls back to")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def nothing() -> None:
    """Shows no sign of life."""


def test_keras_own_copy_is_taken_as_it_is(home: Path) -> None:
    (home / "datasets").mkdir()
    (home / "datasets" / "mnist.npz").write_bytes(b"not looked at")

    def load_data() -> None:
        raise AssertionError("it would delete a copy whose bytes are not its own")

    assert mnist.located(load_data, nothing) == str(home / "datasets" / "mnist.npz")


def test_without_a_copy_keras_downloads_one(home: Path) -> None:
    def load_data() -> None:
        assert socket.getdefaulttimeout() == mnist.ANSWER_S
        (home / "datasets").mkdir()
        (home / "datasets" / "mnist.npz").touch()

    before = socket.getdefaulttimeout()
    assert mnist.located(load_data, nothing) == str(home / "datasets" / "mnist.npz")
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("URL fetch failure: Name or service not known"), "URL fetch failure: Name or"),
        (SystemExit(), "SystemExit"),
        (None, "Keras has no copy"),
    ],
)
def test_without_data_and_network_one_line_says_both_ways(
    error: BaseException | None, reason: str, home: Path
) -> None:
    def load_data() -> None:
        if error:
            raise error

    with pytest.raises(CaseFailure) as refused:
        mnist.located(load_data, nothing)
    text = str(refused.value)
    assert "--mnist PATH or CONVMARK_MNIST" in text
    assert "network" in text
    assert reason in text
    assert "\n" not in text
    assert len(text) <= 300


def test_a_download_that_hangs_is_given_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "DOWNLOAD_S", 0.1)
    ended = threading.Event()
    signs: list[int] = []
    with pytest.raises(CaseFailure, match=r"no answer within 0\.1 s"):
        mnist.located(ended.wait, lambda: signs.append(1))
    ended.set()
    assert signs
