"""One line that follows a comparison: renewed on a terminal, a line each elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.status import Status

__all__ = ["Shown"]


class Shown:
    """Shows the newest line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._status: Status | None = None

    def __enter__(self) -> Shown:
        if self._stream.isatty():
            from rich.console import Console

            self._status = Console(file=self._stream, markup=False, highlight=False).status(
                "the first session", refresh_per_second=2
            )
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def line(self, text: str) -> None:
        """Show a line in place of the last one."""
        if self._status is not None:
            self._status.update(text)
        else:
            self._stream.write(f"{text}\n")
            self._stream.flush()
