"""A bucket, a container or a directory as one thing: records, whole files, and a put that never replaces.

The addresses are those of `destination.py`: `s3://bucket/prefix`, `gs://...`, `az://...`, and
`file:///directory`, which is used as if it were a bucket. Credentials come from the clouds' own variables.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from trt_llm_pipeline.delivery.destination import STORES, Destination, parse_destination
from trt_llm_pipeline.delivery.store_client import connect, reason
from trt_llm_pipeline.delivery.store_upload import StoreUpload
from trt_llm_pipeline.errors import BadDestination, DeliveryError
from trt_llm_pipeline.net.addresses import shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_FORMS = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///DIRECTORY"
#: What S3 copies in one request; a larger object is read and written again.
_COPIED_AT_ONCE = 5 * 1000**3
_CHUNK = 4 << 20
_QUEUED_CHUNKS = 4
_WAIT_SECONDS = 0.1
_READS = ("get", "head", "list", "delete")


@dataclass(frozen=True)
class StoredObject:
    """An object as it is listed: its key below the root's prefix, bytes, and when it was written."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Root:
    """An address below which objects lie.

    Attributes:
        scheme: `s3`, `gs`, `az` or `file`.
        store: the bucket (`s3://bucket`), or `file://` and an absolute directory.
        prefix: what every key begins with, without a `/` at its end; empty for a directory.
    """

    scheme: str
    store: str
    prefix: str

    @property
    def address(self) -> str:
        """The whole address, without a `/` at its end."""
        return f"{self.store}/{self.prefix}" if self.prefix else self.store

    def below(self, name: str) -> Root:
        """The root `name` below this one."""
        return Root(self.scheme, self.store, f"{self.prefix}/{name}" if self.prefix else name)


def parse_root(text: str, what: str) -> Root:
    """Checks an address below which objects are to lie, without reaching for it.

    Args:
        text: as the user gave it.
        what: what it is for, to begin a message with.

    Raises:
        BadDestination: it is no such address; says which are.
    """
    scheme = text.partition(":")[0].lower()
    if scheme == "file":
        path = PurePosixPath(unquote(urlsplit(text).path) or "/")
        if urlsplit(text).netloc not in ("", "localhost") or ".." in path.parts or len(path.parts) < 2:
            message = f"{what} {text} names no directory of this machine; write file:///DIRECTORY"
            raise BadDestination(message)
        return Root("file", f"file://{path}", "")
    if scheme not in STORES:
        place = shown(text) if "://" in text else text
        raise BadDestination(f"{what} {place} is no store of objects; use {_FORMS}")
    found = parse_destination(f"{text.rstrip('/')}/x", Path("/"), archive_name="x", what=what, forms=_FORMS)
    prefix = found.key.removesuffix("x").rstrip("/")
    return Root(found.root.partition(":")[0], found.root, prefix)


class DamagedObjectError(Exception):
    """An object that is not what it should be; the text says which, for whoever wanted it to handle."""


class Bucket:
    """The objects below a `Root`. Keys are relative to it. Making one reaches for nothing.

    Args:
        root: where.
        small: whether requests are short ones that are given up after seconds, not minutes.
    """

    def __init__(self, root: Root, *, small: bool = False) -> None:
        self.root = root
        self._small = small
        self._client: ObjectStore | None = None

    def destination(self, key: str) -> Destination:
        """The object `key` as something that an archive can be sent to."""
        address = f"{self.root.address}/{key}"
        if self.root.scheme == "file":
            return Destination(
                "file", address, path=Path(self.root.store.removeprefix("file://")) / self._full(key)
            )
        return Destination("object store", address, self.root.store, self._full(key))

    def put_new(self, key: str, data: bytes) -> bool:
        """Writes an object unless there is one already, in one step for all who try at once.

        Returns:
            False where there was one already; it has not been touched. One with just these bytes counts as
            written: a request that is sent again because its answer was lost finds what it wrote itself.
        """
        from obstore.exceptions import AlreadyExistsError

        try:
            self._do("put", key, data, mode="create")
        except AlreadyExistsError:
            return self.get(key) == data
        return True

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, in one go; one that is there already is replaced."""
        self._do("put", key, data)

    def get(self, key: str, limit: int = 64 << 20) -> bytes | None:
        """A small object's bytes; None where there is none. Raises `DeliveryError` beyond `limit` bytes."""
        try:
            found = self._do("get", key)
        except FileNotFoundError:
            return None
        if found.meta["size"] > limit:
            raise DeliveryError(f"{self.root.address}/{key} is larger than {limit:,} bytes; it is no record")
        data: bytes = self._translated(lambda: bytes(found.bytes()))
        return data

    def size(self, key: str) -> int | None:
        """An object's size in bytes; None where there is none."""
        found = self.head(key)
        return None if found is None else found.size

    def head(self, key: str) -> StoredObject | None:
        """What is known of an object without reading it; None where there is none."""
        try:
            found = self._do("head", key)
        except FileNotFoundError:
            return None
        return StoredObject(key, int(found["size"]), found["last_modified"])

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key is below `prefix`, which ends at a `/`; in pages of a thousand."""
        full = self._full(prefix).rstrip("/")
        try:
            pages = self._translated(lambda: iter(self._call("list", full or None, chunk_size=1000)))
        except FileNotFoundError:  # a directory that nobody has made yet
            return
        cut = len(self.root.prefix) + 1 if self.root.prefix else 0
        while (page := self._translated(lambda: next(pages, None))) is not None:
            for found in page:
                yield StoredObject(found["path"][cut:], int(found["size"]), found["last_modified"])

    def delete(self, keys: list[str]) -> None:
        """Removes objects; those that are not there do not matter."""
        for key in keys:
            try:
                self._do("delete", key)
            except FileNotFoundError:
                continue

    def move(self, source: str, target: str, size: int, *, at_once: int = _COPIED_AT_ONCE) -> None:
        """Gives an object another key; what has that key is replaced, in one go.

        Args:
            source, target: keys.
            size: of the object, in bytes.
            at_once: up to how many bytes the store is asked to copy it by itself.
        """
        if self.root.scheme == "file":
            there = self.destination(target).path
            if there is not None:
                self._translated(lambda: there.parent.mkdir(parents=True, exist_ok=True))
            self._translated(lambda: self._call("rename", self._full(source), self._full(target)))
            return
        if size <= at_once:
            self._translated(lambda: self._call("copy", self._full(source), self._full(target)))
        else:
            upload = StoreUpload(self.destination(target), size)
            upload.start()
            try:
                for piece in self.read(source):
                    upload.write(piece)
                upload.finish()
            except BaseException:
                upload.abort()
                raise
        self.delete([source])

    def read(self, key: str) -> Iterator[bytes]:
        """An object's bytes, in pieces, by a thread that reads ahead: whoever waits can be interrupted.

        Raises:
            FileNotFoundError: there is none.
            DeliveryError: the store failed.
        """
        pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUED_CHUNKS)
        stopped = threading.Event()

        def hand_over(piece: bytes | BaseException | None) -> None:
            while not stopped.is_set():
                try:
                    pieces.put(piece, timeout=_WAIT_SECONDS)
                    return
                except queue.Full:
                    continue

        def fetch() -> None:
            try:
                for piece in self._call("get", self._full(key)).stream(min_chunk_size=_CHUNK):
                    hand_over(bytes(piece))
                    if stopped.is_set():
                        return
                hand_over(None)
            except BaseException as problem:  # noqa: BLE001  raised again in the reader's thread
                hand_over(problem)

        thread = threading.Thread(target=fetch, name="store-download", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    piece = pieces.get(timeout=_WAIT_SECONDS)
                except queue.Empty:
                    continue
                if piece is None:
                    return
                if isinstance(piece, FileNotFoundError):
                    raise piece
                if isinstance(piece, BaseException):
                    raise self._error(piece) from None
                yield piece
        finally:
            stopped.set()

    def download(
        self, key: str, target: Path, *, size: int, tick: Callable[[int], None] | None = None
    ) -> str:
        """Writes an object to a new file; its SHA-256, for the caller to compare.

        Args:
            key: the object's.
            target: must not exist.
            size: how many bytes are expected; more are not written.
            tick: called with the number of bytes of each piece.

        Raises:
            DamagedObjectError: there is no such object, or it has another size.
            DeliveryError: the store failed.
        """
        digest, done = hashlib.sha256(), 0
        with target.open("xb") as file:
            for piece in self._there(key):
                done += len(piece)
                if done > size:
                    break
                digest.update(piece)
                file.write(piece)
                if tick is not None:
                    tick(len(piece))
        if done != size:
            raise DamagedObjectError(f"{key} has not the {size:,} bytes that it should have")
        return digest.hexdigest()

    def _there(self, key: str) -> Iterator[bytes]:
        try:
            yield from self.read(key)
        except FileNotFoundError:
            raise DamagedObjectError(f"{key} is not there") from None

    def _full(self, key: str) -> str:
        return f"{self.root.prefix}/{key}" if self.root.prefix else key

    def _store(self) -> ObjectStore:
        if self._client is None:
            self._client = self._translated(lambda: connect(self.root.store, small=self._small))
        return self._client

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        import obstore

        if self._client is None and name in _READS and self.root.scheme == "file":
            folder = Path(self.root.store.removeprefix("file://"))
            if not folder.is_dir():  # the client would make it
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        return getattr(obstore, name)(self._store(), *args, **options)

    def _do(self, name: str, key: str, *args: Any, **options: Any) -> Any:
        return self._translated(lambda: self._call(name, self._full(key), *args, **options))

    def _translated(self, action: Callable[[], Any]) -> Any:
        from obstore.exceptions import AlreadyExistsError

        try:
            return action()
        except (AlreadyExistsError, FileNotFoundError, DeliveryError):
            raise
        except Exception as problem:  # noqa: BLE001  a foreign library's errors, translated in one place
            raise self._error(problem) from None

    def _error(self, problem: BaseException) -> DeliveryError:
        if isinstance(problem, DeliveryError):
            return problem
        return DeliveryError(f"{self.root.address} cannot be used: {reason(problem, self.root.scheme)}")
