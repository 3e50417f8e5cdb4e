"""Parses model names: of the zoo, a user's builder or instance, a file, a preset.

The name is a case's key and stands in every table, so it is the same for the same model and holds
no path of the machine: arguments are in one order, files are named from the working folder.

lenet5                                    the zoo's
shop.nets:small                           a builder, a class or an instance in a module
shop.nets:small(depth=16,width=2)         a builder with literal arguments
nets/small.keras, small.h5                a file that Keras saved
exported/                                 a SavedModel's folder
exported/#encode, small.tflite#encode     one of the signatures in it
nets/small.onnx, small.tflite, small.xml  a file of ONNX Runtime, of LiteRT, of OpenVINO
shop.nets:nets/small.keras                a file whose own classes a module registers
keras_hub:resnet_18_imagenet              a preset of keras-hub
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from convmark.core.errors import CaseError
from convmark.core.runtimes import parted_signature

PRESETS = "keras_hub"
"""The module whose attributes are presets; its builders are in keras_hub.models."""
TRUST = "CONVMARK_TRUST_MODELS"
"""The variable by which workers know of `--trust-models`."""
FILES = (".keras", ".h5", ".hdf5", ".onnx", ".tflite", ".xml")
SAVED_MODEL = "saved_model.pb"

_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "'\""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName:
    """A model's name, taken apart."""

    module: str = ""
    """Empty for the zoo's models, and for files that need no module."""
    attribute: str = ""
    """The zoo's own name, or the dotted path in the module, or the preset."""
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    called: bool = False
    """Whether arguments are given, were it none."""
    file: str = ""
    """From the working folder; a folder ends in a slash."""
    signature: str = ""
    """Of a SavedModel or a .tflite file, the one that is asked for."""

    @classmethod
    def of(cls, text: str) -> ModelName:
        """Take a name apart; a file's is taken from the working folder.

        Raises:
            CaseError: it is no such name.
        """
        module, colon, rest = text.partition(":")
        if colon and module.endswith(".py") and os.path.isfile(module):
            raise CaseError(f"{text}: {_instead_of_script(module, rest)}")
        is_module = bool(colon) and all(part.isidentifier() for part in module.split("."))
        if not is_module:
            module, rest = "", text
        path, signature = _signed(rest)
        if _is_file(path, alone=not is_module):
            return cls(module=module, file=_from_here(path), signature=signature)
        if not is_module:
            if colon:
                raise CaseError(f"{text}: write a model of your own as package.module:attribute")
            return cls(attribute=text)
        if not rest.endswith(")"):
            return cls(module=module, attribute=_dotted(text, rest))
        attribute, _, _ = rest.partition("(")
        arguments, keywords = _literals(text, rest[len(attribute) :])
        return cls(
            module=module,
            attribute=_dotted(text, attribute),
            arguments=arguments,
            keywords=keywords,
            called=True,
        )

    def __str__(self) -> str:
        before = f"{self.module}:" if self.module else ""
        if not self.called:
            return before + (self.place or self.attribute)
        texts = [_literal(value) for value in self.arguments]
        texts += [f"{name}={_literal(self.keywords[name])}" for name in sorted(self.keywords)]
        return f"{before}{self.attribute}({','.join(texts)})"

    @property
    def place(self) -> str:
        """The file with the signature that is asked for."""
        return f"{self.file}#{self.signature}" if self.signature else self.file

    @property
    def is_zoo(self) -> bool:
        return not self.module and not self.file

    @property
    def is_preset(self) -> bool:
        return self.module == PRESETS and not self.file

    @property
    def package(self) -> str:
        """The package that is the user's own code, even where it is installed; else empty."""
        return "" if self.is_preset else self.module.partition(".")[0]


def split_names(text: str) -> Iterator[str]:
    """Yield the parts between commas; those in brackets and quotes part nothing."""
    depth, quote, begin = 0, "", 0
    for place, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in _QUOTES and depth:
            quote = char
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
        elif char == "," and depth <= 0:
            yield text[begin:place].strip()
            begin = place + 1
    yield text[begin:].strip()


def _instead_of_script(path: str, attribute: str) -> str:
    """Return what to give in place of a Python file and what is in it."""
    parts = os.path.relpath(path).removesuffix(".py").split(os.sep)
    where = ""
    if parts[0] == os.pardir:
        where = f", and start in {os.path.dirname(os.path.abspath(path))}"
        parts = parts[-1:]
    if odd := [one for one in parts if not one.isidentifier()]:
        return (
            "a model of your own is imported by its module, whose folders and file must have names "
            f"of letters, digits and _, got {odd[0]!r}; rename it"
        )
    return f"give a model of your own by its module: {'.'.join(parts)}:{attribute}{where}"


def _signed(text: str) -> tuple[str, str]:
    """Part a file from the signature that is asked for; a folder may lack its slash."""
    folder, _, signature = text.rpartition("#")
    if os.path.exists(text):
        return text, ""
    if folder and os.path.isfile(os.path.join(folder, SAVED_MODEL)):
        text = f"{folder.rstrip('/')}/#{signature}"
    return parted_signature(text)


def _is_file(text: str, *, alone: bool) -> bool:
    """Whether a name is a file's: by its suffix, by a slash, or as it is a SavedModel's folder.

    Args:
        alone: whether no module stands before it; a builder's arguments may hold slashes.
    """
    if text.endswith((*FILES, "/", os.sep)):
        return True
    if alone and (os.sep in text or text.startswith("~")):
        return True
    return os.path.isfile(os.path.join(text, SAVED_MODEL))


def _from_here(text: str) -> str:
    """Return a file's path from the working folder."""
    path = os.path.abspath(os.path.expanduser(text))
    name = os.path.relpath(path, os.getcwd())
    if name.startswith(os.pardir):
        raise CaseError(
            f"{os.path.basename(path)}: a model file must be in the working folder or a subfolder, "
            f"because results have its relative path; start in {os.path.dirname(path)}, or link it "
            "here"
        )
    is_folder = text.endswith(("/", os.sep)) or os.path.isdir(path)
    return name.replace(os.sep, "/") + ("/" if is_folder else "")


def _dotted(text: str, attribute: str) -> str:
    if not all(part.isidentifier() for part in attribute.split(".")):
        raise CaseError(f"{text}: write a model of your own as package.module:attribute")
    return attribute


def _literals(text: str, call: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        node = ast.parse(f"_{call}", mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise ValueError
        arguments = tuple(ast.literal_eval(value) for value in node.args)
        keywords = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords if one.arg}
        names = [one.arg for one in node.keywords]
        if None in names:
            raise ValueError
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise CaseError(
            f"{text}: a builder's arguments must be literals, as in (width=2, sizes=[1, 2])"
        ) from None
    if len(keywords) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CaseError(f"{text}: give each argument of a builder once, got {twice} twice")
    return arguments, keywords


def _literal(value: Any) -> str:
    """Return a literal without spaces between its parts."""
    if isinstance(value, dict):
        pairs = (f"{_literal(key)}:{_literal(one)}" for key, one in value.items())
        return f"{{{','.join(pairs)}}}"
    if isinstance(value, (list, tuple, set)) and value:
        inside = ",".join(map(_literal, value))
        if isinstance(value, list):
            return f"[{inside}]"
        if isinstance(value, set):
            return f"{{{','.join(sorted(map(_literal, value)))}}}"
        return f"({inside}{',' if len(value) == 1 else ''})"
    return ascii(value)
