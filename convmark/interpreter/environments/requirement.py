"""Requirements of an environment, as pip takes them, in normalised form."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from convmark.core.errors import OptionError

__all__ = ["Wanted", "looks_like_requirement", "wanted"]

_NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requirements of one environment."""

    requirements: tuple[str, ...]
    """Sorted, each as `packaging` spells it."""

    @property
    def name(self) -> str:
        """The name of the environment's folder: readable, and different for different ones."""
        words = re.sub(r"[^a-z0-9.]+", "-", "-".join(self.requirements).lower()).strip("-.")
        digest = hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()[:8]
        return f"{words[:_NAME_CHARS].strip('-.')}-{digest}"

    @property
    def is_fixed(self) -> bool:
        """Whether every requirement names one release, which stays what it is."""
        return all(_names_one_release(Requirement(text)) for text in self.requirements)

    def __str__(self) -> str:
        return " ".join(self.requirements)


def wanted(flag: str, text: str, package: str = "tensorflow") -> Wanted:
    """Return the requirements in a text: one or several, parted by spaces.

    A version alone, such as `2.20.0`, is one of `package`.

    Raises:
        OptionError: a part is no requirement, or none names a package that can be installed.
    """
    if is_version(text.strip()):
        return Wanted((f"{package}=={text.strip()}",))
    found = _requirements(text)
    if not found:
        raise OptionError(
            f'{flag}: must be a requirement such as "tensorflow==2.20.*", or several parted by '
            f"spaces, got {text!r}"
        )
    return Wanted(tuple(sorted(dict.fromkeys(map(str, found)))))


def _names_one_release(requirement: Requirement) -> bool:
    exact = [one for one in requirement.specifier if one.operator in ("==", "===")]
    return requirement.url is None and any("*" not in one.version for one in exact)


def looks_like_requirement(text: str) -> bool:
    """Whether the text can be meant as requirements or a version."""
    return is_version(text.strip()) or bool(_requirements(text))


def is_version(text: str) -> bool:
    """Whether the text is a plain version such as 2.20.0."""
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _requirements(text: str) -> list[Requirement]:
    """Return the requirements of a text; none where it is not made of such alone."""
    for parts in ([text], text.split()):
        try:
            return [Requirement(part) for part in parts if part.strip()]
        except InvalidRequirement:
            continue
    return []
