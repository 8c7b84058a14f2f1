"""What is a secret, and how it is kept out of what is shown."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from trt_llm_pipeline.errors import BadArgument, notes_of, set_notes

MIN_SECRET_CHARS = 4
_BASE64_BYTES = 8  # at least: what is shorter has too few letters of its own
#: Where the Hub's token is looked for, in this order.
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")

_MASK = "[secret]"
_SECRET_NAME = re.compile(r"(TOKEN|SECRET|_KEY|_PAT|DATABASE_URL|CONNECTION_STRING)$", re.IGNORECASE)
_PASSWORD_NAME = re.compile(r"(PASSWORD|PASSWD|_PASS)$", re.IGNORECASE)
# Wider: what is only kept from programs may be too much, what is hidden in logs may not.
_DOUBTFUL_NAME = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|(API|ACCESS|SIGNING|PRIVATE)_?KEY|_KEY$", re.IGNORECASE
)
_SECRET_CHARS = 16  # at least; what is shorter may be a word that logs need
_PASSWORD_CHARS = 6  # at least, and no word: people choose short ones
_LINE_CHARS = 16  # of a secret of several lines: a shorter line may be anything
_WORD = re.compile(r"[A-Za-z]{1,15}|[0-9]{1,7}")
_HEX = re.compile(rb"%[0-9A-F]{2}")
# What is before the @ of an address, and whether that is one of the web's, where a token may stand alone.
_USER = re.compile(r"(?:(https?))?://([^/?#\s]+)@", re.IGNORECASE)
_USER_OF_PROXY = re.compile(r"([^/?#\s]+)@")  # which may do without `http://`
_PROXY_NAME = re.compile(r"_PROXY$", re.IGNORECASE)


def is_secret(name: str, value: str) -> bool:
    """True for a variable that holds a secret itself; a path is where one can be found."""
    if value.startswith("/") and _is_path(value):
        return False
    if _PASSWORD_NAME.search(name):
        return len(value) >= _PASSWORD_CHARS and not _WORD.fullmatch(value)
    return bool(_SECRET_NAME.search(name)) and len(value) >= _SECRET_CHARS


def may_hold_secret(name: str) -> bool:
    """True for a variable that a program which is not trusted does not get, whatever its value is."""
    return bool(_DOUBTFUL_NAME.search(name))


def _is_path(value: str) -> bool:
    """Whether a text that begins with `/` says where something is; of keys in base64 one in 64 begins so.

    The file need not be there, nor its folder, but the first of the folders on the way to it is.
    """
    first = value.lstrip("/").partition("/")[0]
    return "\0" not in first and os.path.lexists(f"/{first}")


def secrets_of(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values of an environment that nobody may see.

    Tokens, keys and passwords by their names, and what is before the @ of any address, a proxy's for
    instance: the password, or what stands there alone, for that may be a token.
    """
    named = [value for name, value in env.items() if is_secret(name, value)]
    inside = [part for name, value in env.items() for part in _of_user(name, value)]
    return tuple(dict.fromkeys(filter(None, [*named, *inside])))


def _of_user(name: str, value: str) -> Iterator[str]:
    """What is secret of the user information in the addresses that a variable holds."""
    is_proxy = bool(_PROXY_NAME.search(name))
    users = [(is_proxy or bool(match[1]), match[2]) for match in _USER.finditer(value)]
    if is_proxy and (match := _USER_OF_PROXY.match(value)):
        users.append((True, match[1]))
    for may_be_token, user in users:
        token, _, password = user.partition(":")
        told = password or (token if may_be_token else "")
        for text in (told, unquote(told)):
            # A password that is a word is hidden where it is one, and not wherever a log has that word.
            is_word = _WORD.fullmatch(text) or 0 < len(text) < MIN_SECRET_CHARS
            yield f"{':' if password else ''}{text}@" if is_word else text


def check_token(token: str, given_as: str) -> str:
    """A token as it can be sent: without the space around it.

    Args:
        token: the token.
        given_as: the variable or input that holds it, for the message.

    Raises:
        BadArgument: it can be none. The text never shows it.
    """
    if fault := token_fault(token):
        raise BadArgument(f"{given_as} {fault}")
    return token.strip()


def token_fault(token: str) -> str:
    """Why a text can be no token, and what to do, as the rest of a sentence that does not show it; or ""."""
    stripped = token.strip()
    fault = ""
    if not stripped or not all("!" <= letter <= "~" for letter in stripped):
        fault = "holds a space, a line break or a character that is not ASCII"
    elif _WORD.fullmatch(stripped):
        fault = "is a plain word or a short number"
    return fault and f"{fault}, so it cannot be a token; copy it again from the account's settings"


def _spellings(secret: str) -> set[bytes]:
    """A secret as programs may write it: as it is, URL-encoded, escaped as in JSON, in base64."""
    raw = secret.encode("utf-8", "surrogatepass")
    encoded = {quote(raw, safe="").encode(), quote(raw).encode(), quote_plus(raw).encode()}
    found = {raw, *encoded, *(_HEX.sub(lambda code: code[0].lower(), text) for text in encoded)}
    found.add(repr(secret)[1:-1].encode("utf-8", "surrogatepass"))
    for ascii_only in (True, False):
        once = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        twice = json.dumps(once, ensure_ascii=ascii_only)[1:-1]  # JSON in a JSON text
        found |= {text.encode("utf-8", "surrogatepass") for text in (once, twice)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found |= _in_base64(raw, encode)
    return {spelling for spelling in found if len(spelling) >= MIN_SECRET_CHARS}


def _in_base64(raw: bytes, encode: Callable[[bytes], bytes]) -> set[bytes]:
    """The part of a base64 text that depends on nothing but `raw`, wherever in it `raw` begins."""
    if len(raw) < _BASE64_BYTES:
        return set()
    found = set()
    for before in range(3):
        whole = (before + len(raw)) // 3 * 4
        found.add(encode(b"\0" * before + raw)[-(-before * 8 // 6) : whole])
    return found


def token_of(env: Mapping[str, str]) -> str | None:
    """The Hub's token of an environment, or None.

    Raises:
        BadArgument: what is there can be none; the text names the variable.
    """
    return next((check_token(env[name], name) for name in TOKEN_VARIABLES if env.get(name)), None)


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
        # Of a private key each line is one too: programs print it line by line.
        split = [text.splitlines() for text in texts]
        lines = {line.strip() for each in split if len(each) > 1 for line in each}
        parts = {line for line in lines if len(line) >= _LINE_CHARS and not line.startswith("-----")}
        known = {
            spelling
            for text in (*texts, *parts)
            if len(text) >= MIN_SECRET_CHARS
            for spelling in _spellings(text)
        }
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

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Replaces secrets in the error that the block raises, and in its notes: a script may name files so.

        Raises:
            BaseException: what the block raised.
        """
        try:
            yield
        except BaseException as error:
            error.args = tuple(self(part) if isinstance(part, str) else part for part in error.args)
            set_notes(error, map(self, notes_of(error)))
            raise

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
