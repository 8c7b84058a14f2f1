"""What a step prints: bytes of any kind in, short clean lines out, in bounded memory."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterable

MAX_LINE_CHARS = 8192
PROGRESS_EVERY_S = 2.0
PARTIAL_AFTER_S = 0.3
TAIL_LINES = 40

_MASK = b"[secret]"


class Redactor:
    """Replaces secrets. One instance knows a build's secrets and is used on everything it says."""

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        # A secret shorter than this would blank ordinary words.
        self._secrets = sorted({s for s in secrets if s and len(s) >= 4}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced."""
        for secret in self._secrets:
            text = text.replace(secret, _MASK.decode())
        return text

    def bytes(self, data: bytes, *, final: bool) -> tuple[bytes, bytes]:
        """Cleans a piece of a stream.

        Returns:
            The cleaned bytes, and the end of `data` that may be the beginning of a secret: it is to be put
            before the next piece. With `final` nothing is held back.
        """
        for secret in self._secrets:
            data = data.replace(secret.encode(), _MASK)
        if final:
            return data, b""
        held = 0
        for secret in self._secrets:
            encoded = secret.encode()
            for length in range(min(len(encoded) - 1, len(data)), held, -1):
                if data.endswith(encoded[:length]):
                    held = length
                    break
        return (data[:-held], data[-held:]) if held else (data, b"")


class LineAssembler:
    """Cuts a byte stream into lines for people.

    A line ends at a newline. A carriage return makes a progress bar: of its many states one is shown every
    `PROGRESS_EVERY_S` seconds. A line without an end is shown after `PARTIAL_AFTER_S` seconds. Anything
    longer than `MAX_LINE_CHARS` is cut, and says so. Invalid UTF-8 becomes U+FFFD.
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
        waiting = self._line and not self._pending_return
        if waiting and self._clock() - self._last_byte >= PARTIAL_AFTER_S:
            self._show()

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
                    self._show()
                    start += 1
                    continue
                self._show_progress()
            stops = [at for at in (text.find("\n", start), text.find("\r", start)) if at >= 0]
            stop = min(stops, default=len(text))
            self._append(text[start:stop])
            if stop == len(text):
                return
            if text[stop] == "\n":
                self._show()
            else:
                self._pending_return = True
            start = stop + 1

    def _append(self, text: str) -> None:
        room = MAX_LINE_CHARS - len(self._line)
        self._line += text[:room]
        self._dropped += max(0, len(text) - room)

    def _show_progress(self) -> None:
        now = self._clock()
        if now - self._last_progress >= PROGRESS_EVERY_S:
            self._last_progress = now
            if self._line:
                self._show()
        self._line, self._dropped = "", 0

    def _show(self) -> None:
        line = self._line if not self._dropped else f"{self._line} [... {self._dropped} more characters]"
        self._line, self._dropped = "", 0
        self.tail.append(line)
        self._emit(line)
