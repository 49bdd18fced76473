"""A text stream that never ends a run."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class SafeStream:
    """A text stream whose reader may go away and whose encoding may know few characters."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write what the encoding can show; nothing once the reader is gone."""
        if self._stream is not None:
            try:
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except (OSError, ValueError):  # a closed pipe, a closed file: the run goes on unseen
                self._lose()
        return len(text)

    def flush(self) -> None:
        """Flush, if anybody still reads."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._lose()

    def _lose(self) -> None:
        """Nothing more is written; not at the exit either, where what is left in a buffer would change its code."""
        if sys.stderr is self._stream:
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 until the exit
        self._stream = None

    def isatty(self) -> bool:
        """Whether a terminal reads."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Number of the open file; OSError once it is closed."""
        if self._stream is None:
            raise OSError("the stream is closed")
        return self._stream.fileno()

    def can_show(self, text: str) -> bool:
        """Whether the encoding has all characters of `text`."""
        return text.encode(self.encoding, "replace").decode(self.encoding) == text
