"""The protocol: messages come back equal, and what is no event is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from convmark.core.errors import WorkerError
from convmark.worker.protocol import LINE_BYTES, decode_event, encode, one_line


@pytest.mark.parametrize(
    "message",
    [
        {"event": "ready"},
        {"event": "steps", "times_s": [0.1, 1e-9, 3.0]},
        {"event": "built", "input_shape": [28, 28, 1], "flops_per_sample": None},
        {"event": "error", "message": 'line\nbreak, "quote", \0, Übergröße, \ud800'},
    ],
)
def test_an_event_is_one_line_and_comes_back_equal(message: dict[str, Any]) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_event(line) == message


class _Rounded(float):
    __repr__ = staticmethod(lambda number: format(number, ".2f"))  # type: ignore[assignment]


def test_a_model_that_has_json_round_its_numbers_rounds_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("json.encoder.c_make_encoder", None)
    monkeypatch.setattr("json.encoder.float", _Rounded, raising=False)
    assert json.dumps([0.004]) == "[0.00]"
    assert decode_event(encode({"event": "steps", "times_s": [0.004]}))["times_s"] == [0.004]


def test_a_loss_that_is_not_a_number_comes_through() -> None:
    assert math.isnan(decode_event(encode({"event": "proof", "value": math.nan}))["value"])


def test_a_million_step_times_fit_one_line() -> None:
    step = len(json.dumps(0.123456789)) + 1
    assert 1_000_000 * step < LINE_BYTES


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"2026-01-01: I tensorflow/core",
        b'{"event": "steps", "times_s": [0.1',
        b"[]",
        b"3",
        b"null",
        b"{}",
        b'{"event": null}',
        b'{"event": 3}',
        b'{"phase": "steps"}',
        b'{"event": "\xff"}',
        b"[" * 100_000,
        b'{"event": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_event_is_refused_and_quoted(line: bytes) -> None:
    with pytest.raises(WorkerError) as refused:
        decode_event(line)
    message = str(refused.value)
    assert message.startswith("the worker wrote an invalid event: b'")
    assert len(message) < 400
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("  two\n\tlines \r\n", "two lines"),
        ("bell\a, escape\x1b[31m, nul\0", "bell , escape [31m, nul"),
        ("", ""),
        (ValueError("why"), "why"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 297 + "..."),
    ],
)
def test_a_text_is_folded_to_one_line_and_cut(text: object, line: str) -> None:
    assert one_line(text) == line


def test_the_cut_can_be_set() -> None:
    assert one_line("abcdefgh", limit=6) == "abc..."


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("GET https://bob:hunter22@host/x", "GET https://bob:***@host/x"),
        ("Authorization: Bearer abcd.efgh", "Authorization: Bearer ***"),
        ("{'authorization': 'abcdefgh'}", "{'authorization': '***'}"),
        ("token=abcdef&x=1", "token=***&x=1"),
        ("aws_secret_access_key = abcdefgh", "aws_secret_access_key = ***"),
        ("ASIAABCDEFGHIJKLMNOP is expired", "ASIA*** is expired"),
        ("ghp_abcdefghijklmnopqrstuvwxyz", "ghp_***"),
        (f"hf_{'aB3' * 11}d is no token", "hf_*** is no token"),
        (f"key sk-{'aB3' * 16}, refused", "key sk-***, refused"),
        (f"key sk-proj-{'aB_3-' * 16}x, refused", "key sk-proj-***, refused"),
        ("authorization: abcd1234", "authorization: ***"),
        ("GET /maps?key=abcdefgh", "GET /maps?key=***"),
    ],
)
def test_secrets_are_masked_in_every_text_that_is_folded_to_a_line(text: str, line: str) -> None:
    assert one_line(text) == line
    assert one_line(line) == line
    assert one_line(f"{'x' * 280} {text}").find("hunter") < 0


@pytest.mark.parametrize(
    "text",
    [
        "asia-northeast1-photos-v1",
        "AsianFoodClassifierNetwork",
        "models/hf_transformer_layers.py:build",
        "sk-resnet50-cifar10-pretrained-on-imagenet",
        "The basic convolution has a bearer capability",
        "authorization: not needed",
        "authorization = required",
        "call() got an unknown key=attention_mask",
    ],
)
def test_names_and_words_are_no_secrets(text: str) -> None:
    assert one_line(text) == text
