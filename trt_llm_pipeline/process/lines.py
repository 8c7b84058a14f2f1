"""What a step prints: bytes of any kind in, short clean lines out, in bounded memory."""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable

from trt_llm_pipeline.redaction import Redactor

MAX_LINE_CHARS = 8192
PROGRESS_EVERY_S = 2.0
PARTIAL_AFTER_S = 0.3
TAIL_LINES = 40

_LINE_END = re.compile(r"[\r\n]")


class LineAssembler:
    """Cuts a byte stream into lines for people.

    A line ends at a newline. A carriage return makes a progress bar: of its many states one is shown every
    `PROGRESS_EVERY_S` seconds, and the last. A line without an end is shown after `PARTIAL_AFTER_S` seconds.
    Anything longer than `MAX_LINE_CHARS` is cut, and says so. Invalid UTF-8 becomes U+FFFD.
    """

    def __init__(self, emit: Callable[[str], None], redactor: Redactor, clock: Callable[[], float]) -> None:
        self._emit = emit
        self._redactor = redactor
        self._clock = clock
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = b""
        self._line = ""
        self._dropped = 0
        self._pending_return = False
        self._in_bar = False
        self._shown_without_end = False
        self._last_progress = float("-inf")
        self._last_byte = float("-inf")
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, data: bytes) -> None:
        """Takes the next piece of the stream."""
        self._last_byte = self._clock()
        clean, self._held = self._redactor.bytes(self._held + data, final=False)
        self._take(self._decoder.decode(clean))

    def tick(self) -> None:
        """To be called several times a second: shows a line that has been waiting for its end."""
        now = self._clock()
        if not self._line or now - self._last_byte < PARTIAL_AFTER_S:
            return
        if self._in_bar or self._pending_return:
            if now - self._last_progress < PROGRESS_EVERY_S:
                return
            self._last_progress = now
        self._show()
        self._shown_without_end = True

    def close(self) -> None:
        """The stream has ended: shows what is left."""
        clean, self._held = self._redactor.bytes(self._held, final=True)
        self._take(self._decoder.decode(clean, final=True))
        if self._line:
            self._show()

    def _take(self, text: str) -> None:
        start = 0
        while start < len(text):
            if self._pending_return:
                self._pending_return = False
                if text[start] == "\n":  # "\r\n" ends a line like any other
                    self._end_line()
                    start += 1
                    continue
                self._show_progress()
            end = _LINE_END.search(text, start)
            if end is None:
                self._append(text[start:])
                return
            self._append(text[start : end.start()])
            start = end.end()
            if end[0] == "\n":
                self._end_line()
            else:
                self._pending_return = True
                while text.startswith("\r", start):
                    start += 1

    def _append(self, text: str) -> None:
        if text:
            self._shown_without_end = False
        room = MAX_LINE_CHARS - len(self._line)
        self._line += text[:room]
        self._dropped += max(0, len(text) - room)

    def _end_line(self) -> None:
        # The end of a line that has been shown without one is not a line of its own.
        if self._line or not (self._shown_without_end or self._in_bar):
            self._show()
        self._in_bar = self._shown_without_end = False

    def _show_progress(self) -> None:
        """A carriage return, and more after it: the line so far was one state of a progress bar."""
        self._in_bar = True
        now = self._clock()
        if self._line and now - self._last_progress >= PROGRESS_EVERY_S:
            self._last_progress = now
            self._show()
        self._line, self._dropped = "", 0

    def _show(self) -> None:
        line = self._line if not self._dropped else f"{self._line} [... {self._dropped} more characters]"
        self._line, self._dropped = "", 0
        self.tail.append(line)
        self._emit(line)
