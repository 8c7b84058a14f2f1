"""An archive and the statement about it, read from wherever a build has left or sent them."""

from __future__ import annotations

import http.client
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

from trt_llm_pipeline.artifact.reader import open_file
from trt_llm_pipeline.artifact.statement import LARGEST_STATEMENT, STATEMENT_SUFFIX
from trt_llm_pipeline.delivery.destination import STORES, Destination, parse_destination
from trt_llm_pipeline.delivery.store_client import connect, reason
from trt_llm_pipeline.errors import (
    ArchiveMissing,
    ArchiveUnreachable,
    ArtifactError,
    BadArgument,
    DeliveryError,
)
from trt_llm_pipeline.model_source.hub import endpoint_of
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.addresses import shown as shown_address
from trt_llm_pipeline.net.client import Client, Response
from trt_llm_pipeline.net.failures import BadAddress, HttpStatusError, transient_failure
from trt_llm_pipeline.net.stopping import StopSwitch
from trt_llm_pipeline.redaction import token_of

if TYPE_CHECKING:
    from obstore import BytesStream

_FORMS = "a file, or an https://, s3://, gs://, az:// or hf:// address"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DENIED = (401, 403)
_TIMEOUT_SECONDS = 60.0
_PIECE_BYTES = 4 << 20


@contextmanager
def opened(place: str, reach: Reach, env: Mapping[str, str] = os.environ) -> Iterator[BinaryIO]:
    """What lies at a path, a file://, http(s), s3, gs, az or hf address, as a stream to be read once.

    Args:
        place: the path or address.
        reach: which addresses may be connected to.
        env: which Hub, and a token for it.

    Raises:
        ArchiveMissing: there is nothing.
        ArtifactError: it cannot be read. An address's query, which may be a signature, is not repeated.
        BadArgument, BadDestination: it is an address of another kind, or one that is none.
        DeliveryError: the store, or the Hub, gives none.
    """
    with _found(place, reach, env) as stream:
        if stream is None:
            nothing = "no such file" if local_path(place) else "there is nothing"
            raise ArchiveMissing(f"cannot read {shown(place)}: {nothing}")
        yield stream


@contextmanager
def source(place: str, reach: Reach, env: Mapping[str, str] = os.environ) -> Iterator[str | BinaryIO]:
    """What `read_archive` reads best: a path or an http(s) address as it is, another address as a stream.

    Args, Raises: as for `opened`.
    """
    path = local_path(place)
    if path is not None or urlsplit(place).scheme in ("http", "https"):
        yield place if path is None else str(path)
        return
    with opened(place, reach, env) as stream:
        yield stream


def local_path(place: str) -> Path | None:
    """The file that a path or a file:// address names; None for other addresses."""
    address = _ADDRESS.match(place)
    if address is None:
        return Path(place)
    return Path(unquote(urlsplit(place).path)) if address[1].lower() == "file" else None


def read_statement(
    archive: str, reach: Reach, given: str | None = None, env: Mapping[str, str] = os.environ
) -> bytes | None:
    """The text of the statement about an archive; None where there is none beside it.

    Args:
        archive: where the archive lies.
        reach: which addresses may be connected to.
        given: where the statement lies, if not beside it.
        env: which Hub, and a token for it.

    Raises:
        ArtifactError: it cannot be read; or it is not known where it lies.
        BadArgument, BadDestination, DeliveryError: as for `opened`.
    """
    if given is not None:
        with opened(given, reach, env) as stream:
            return _limited(stream, given)
    place = statement_place(archive)
    if place is None:
        raise ArtifactError(
            f"the address of {shown(archive)} is signed for that file alone; name the statement about it "
            "with --statement"
        )
    with _found(place, reach, env) as found:
        return None if found is None else _limited(found, place)


@contextmanager
def _found(place: str, reach: Reach, env: Mapping[str, str]) -> Iterator[BinaryIO | None]:
    """The stream; None where there is nothing."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_open(place, reach, env))
        except FileNotFoundError:
            stream = None
        yield stream


@contextmanager
def _open(place: str, reach: Reach, env: Mapping[str, str]) -> Iterator[BinaryIO]:
    path = local_path(place)
    if path is not None:
        with open_file(path) as file:
            yield file
        return
    scheme = urlsplit(place).scheme
    if scheme in ("http", "https"):
        with _fetched(place, reach) as response:
            yield response
    elif scheme == "hf":
        with _from_hub(_parsed(place), reach, env) as response:
            yield response
    elif scheme in STORES:
        yield _stored(_parsed(place))
    else:
        raise BadArgument(f"cannot read {place}: {scheme}:// is not supported; use {_FORMS}")


def _parsed(place: str) -> Destination:
    """The address; where it names a folder, its messages say so too, and which file was looked for."""
    found = parse_destination(place, Path("/"), what="the address", forms=_FORMS)
    typed = place.strip()
    if typed.endswith(found.key):
        return found
    return replace(found, address=f"{typed} ({found.key.rpartition('/')[2]} in it)")


@contextmanager
def _from_hub(place: Destination, reach: Reach, env: Mapping[str, str]) -> Iterator[BinaryIO]:
    hub, token = endpoint_of(env), token_of(env)
    address = f"{hub}/{place.root}/resolve/main/{quote(place.key)}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    def denied(status: int) -> DeliveryError:
        whom = "this token" if token else "everybody"
        remedy = "use another HF_TOKEN" if token else "set HF_TOKEN to a token that may"
        return DeliveryError(
            f"cannot read {place.address}: {hub} has no repository {place.root} that {whom} may read "
            f"(HTTP {status}); check its name, or {remedy}"
        )

    with _fetched(address, reach.trusting(hub), headers, denied) as response:
        yield response


def _limited(stream: BinaryIO, place: str) -> bytes:
    data = bytearray()
    try:
        while len(data) <= LARGEST_STATEMENT and (piece := stream.read(_PIECE_BYTES)):
            data += piece
    except (OSError, http.client.HTTPException) as problem:
        raise ArtifactError(f"cannot read {shown(place)}: {type(problem).__name__}") from None
    if len(data) > LARGEST_STATEMENT:
        raise ArtifactError(f"{shown(place)} is larger than {LARGEST_STATEMENT >> 20} MiB: no statement")
    return bytes(data)


def statement_place(archive: str) -> str | None:
    """Where the statement about an archive lies; None for an address that is signed for the archive alone."""
    parts = urlsplit(archive)
    if parts.scheme in ("http", "https"):
        if parts.query:
            return None
        return parts._replace(path=parts.path + STATEMENT_SUFFIX, fragment="").geturl()
    return archive + STATEMENT_SUFFIX


def shown(place: str) -> str:
    """What to call a place: an address without its query."""
    return shown_address(place) if urlsplit(place).scheme in ("http", "https") else place


@contextmanager
def _fetched(
    address: str,
    reach: Reach,
    headers: Mapping[str, str] = MappingProxyType({}),
    denied: Callable[[int], Exception] | None = None,
) -> Iterator[BinaryIO]:
    with Client(StopSwitch(), silence=_TIMEOUT_SECONDS, reach=reach) as client:
        try:
            response = client.open(address, {"Accept-Encoding": "identity", **headers})
        except HttpStatusError as answer:
            if answer.status in (404, 410):
                raise FileNotFoundError(shown(address)) from None
            if denied is not None and answer.status in _DENIED:
                raise denied(answer.status) from None
            raise ArchiveUnreachable(f"cannot fetch {shown(address)}: HTTP {answer.status}") from None
        except (BadAddress, OSError, ValueError, http.client.HTTPException) as problem:
            known = transient_failure(problem)
            why = known.reason if known is not None else str(problem) or type(problem).__name__
            raise ArchiveUnreachable(f"cannot fetch {shown(address)}: {why}; check the address") from None
        with response:
            yield cast(BinaryIO, _Body(response))


class _Body(io.RawIOBase):
    """An answer's body, as a stream."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self._response = response
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """The next bytes. Raises `http.client.IncompleteRead` where fewer come than were announced."""
        memory = memoryview(buffer)
        count = self._response.receive(memory)
        self._received += count
        announced = self._response.length
        if memory and not count and announced is not None and self._received < announced:
            raise http.client.IncompleteRead(b"", announced - self._received)
        return count


def _stored(place: Destination) -> BinaryIO:
    import obstore

    try:
        pieces = obstore.get(connect(place.root), place.key).stream(min_chunk_size=_PIECE_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(place.address) from None
    except Exception as problem:  # noqa: BLE001  a foreign library's errors, which hold addresses and signatures
        raise _unreadable(place, problem) from None
    return cast(BinaryIO, _Pieces(pieces, place))


def _unreadable(place: Destination, problem: BaseException) -> DeliveryError:
    why = reason(problem, place.root.partition(":")[0])
    return DeliveryError(f"cannot read {place.address}: {why}")


class _Pieces(io.RawIOBase):
    """Pieces that come one after the other, as a stream."""

    def __init__(self, pieces: BytesStream, place: Destination) -> None:
        super().__init__()
        self._pieces = pieces
        self._place = place
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; the whole next piece for a size below 0."""
        if not self._rest:
            try:
                self._rest = memoryview(bytes(next(self._pieces, b"")))
            except Exception as problem:  # noqa: BLE001  as above
                raise _unreadable(self._place, problem) from None
        data = bytes(self._rest[: size if size >= 0 else None])
        self._rest = self._rest[len(data) :]
        return data
