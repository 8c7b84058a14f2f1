"""What a step prints: bytes of any kind in, short clean lines out, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

MAX_LINE_CHARS = 8192
PROGRESS_EVERY_S = 2.0
PARTIAL_AFTER_S = 0.3
TAIL_LINES = 40

MIN_SECRET_CHARS = 4

_MASK = b"[secret]"
_LINE_END = re.compile(r"[\r\n]")


class Redactor:
    """Replaces secrets. One instance knows a build's secrets and is used on everything it says.

    What is shorter than `MIN_SECRET_CHARS` is no secret: no token is that short, and replacing it would
    blank ordinary words. Space around a secret, such as the newline after it in a file, does not count.
    """

    def __init__(self, secrets: Iterable[str | None] = ()) -> None:
        texts = {secret.strip() for secret in secrets if secret}
        known = {text.encode("utf-8", "surrogateescape") for text in texts if len(text) >= MIN_SECRET_CHARS}
        # The longest first: of two secrets that begin alike the longer one is replaced.
        self._secrets = sorted(known, key=lambda secret: (-len(secret), secret))
        self._pattern = re.compile(b"|".join(map(re.escape, self._secrets)))

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced."""
        if not self._secrets:
            return text
        data = text.encode("utf-8", "surrogatepass")
        return self._pattern.sub(_MASK, data).decode("utf-8", "surrogatepass")

    def values(self, value: Any) -> Any:
        """A JSON value with every secret in it replaced."""
        return json.loads(self(json.dumps(value, ensure_ascii=False)))

    def bytes(self, data: bytes, *, final: bool) -> tuple[bytes, bytes]:
        """Cleans a piece of a stream.

        Returns:
            The cleaned bytes, and the end of `data` that may be the beginning of a secret: it is to be put
            before the next piece. With `final` nothing is held back.
        """
        if not self._secrets:
            return data, b""
        if final:
            return self._pattern.sub(_MASK, data), b""
        pieces = []
        at = 0
        held = _start_of_secret(self._secrets, data, 0)
        for match in self._pattern.finditer(data):
            if held <= match.start():
                break  # it may be the beginning of a longer secret
            pieces += [data[at : match.start()], _MASK]
            at = match.end()
            if held < at:
                held = _start_of_secret(self._secrets, data, at)
        return b"".join([*pieces, data[at:held]]), data[held:]


def _start_of_secret(secrets: Sequence[bytes], data: bytes, start: int) -> int:
    """Where, from `start`, the end of `data` may be the beginning of a secret; its length if nowhere."""
    longest = len(secrets[0]) - 1 if secrets else 0
    for at in range(max(start, len(data) - longest), len(data)):
        end = data[at:]
        if any(len(secret) > len(end) and secret.startswith(end) for secret in secrets):
            return at
    return len(data)


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
