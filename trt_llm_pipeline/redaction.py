"""What is a secret, and how it is kept out of what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MIN_SECRET_CHARS = 4
#: Where the Hub's token is looked for, in this order.
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")

_MASK = "[secret]"
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|_KEY)$", re.IGNORECASE)
_SECRET_CHARS = 16  # at least; what is shorter may be a word that logs need


def is_secret(name: str, value: str) -> bool:
    """True for a variable that holds a secret itself; a path is where one can be found."""
    return bool(_SECRET_NAME.search(name)) and len(value) >= _SECRET_CHARS and not value.startswith("/")


def secrets_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values of an environment that nobody may see: tokens, keys and passwords, by their names."""
    return tuple(value for name, value in env.items() if is_secret(name, value))


def token_of(env: Mapping[str, str]) -> str | None:
    """The Hub's token of an environment, or None."""
    return next((env[name] for name in TOKEN_VARIABLES if env.get(name)), None)


def without_tokens(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without the Hub's token under any of its names."""
    return {name: value for name, value in env.items() if name not in TOKEN_VARIABLES}


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
        return self._pattern.sub(_MASK.encode(), data).decode("utf-8", "surrogatepass")

    def values(self, value: Any) -> Any:
        """A JSON value with every secret in its texts and keys replaced; numbers stay as they are."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {self(str(key)): self.values(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.values(inner) for inner in value]
        return value

    def bytes(self, data: bytes, *, final: bool) -> tuple[bytes, bytes]:
        """Cleans a piece of a stream.

        Returns:
            The cleaned bytes, and the end of `data` that may be the beginning of a secret: it is to be put
            before the next piece. With `final` nothing is held back.
        """
        if not self._secrets:
            return data, b""
        if final:
            return self._pattern.sub(_MASK.encode(), data), b""
        pieces = []
        at = 0
        held = _start_of_secret(self._secrets, data, 0)
        for match in self._pattern.finditer(data):
            if held <= match.start():
                break  # it may be the beginning of a longer secret
            pieces += [data[at : match.start()], _MASK.encode()]
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
