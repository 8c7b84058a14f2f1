"""The cache that a team shares: results of steps in a bucket, by the same keys as on every machine's disk.

Below `TRT_LLM_CACHE_URL`:

    v1/steps/<key>.json           what `entry.json` says of an entry: its files with their SHA-256, and sizes;
                                  written last, and put if absent
    v1/files/<ab>/<sha256>        a file's content, under its own SHA-256

What is read is hashed while it comes, and nothing of it is used unless every file is what it should be: an
entry that was changed or cut off is a miss, with a warning. A store that cannot be reached is one too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from trt_llm_pipeline.delivery.object_store import Bucket, DamagedObjectError, Root, parse_root
from trt_llm_pipeline.delivery.send import deliver_file
from trt_llm_pipeline.errors import BadDestination, DeliveryError, PipelineError
from trt_llm_pipeline.units import in_words

URL_VARIABLE = "TRT_LLM_CACHE_URL"
WRITE_VARIABLE = "TRT_LLM_CACHE_WRITE"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTS = ("files", "beside")


class RemoteCache:
    """The shared cache. Making one reaches for nothing.

    Args:
        root: where it lies.
        write: whether what is made here is published there.
        warn: is told what could not be read or written; nothing fails because of it.
    """

    def __init__(self, root: Root, *, write: bool, warn: Callable[[str], None]) -> None:
        self._records = Bucket(root.below("v1/steps"), small=True)
        self._files = Bucket(root.below("v1/files"))
        self._warn = warn
        self._known: dict[str, Mapping[str, Any] | None] = {}
        self._damaged: set[str] = set()  # whose files are written again, whatever size they have
        self.writes = write

    def entry(self, key: str) -> Mapping[str, Any] | None:
        """What is known of the entry `key`, or None without a usable one."""
        if key not in self._known:
            self._known[key] = self._read(key)
        return self._known[key]

    def fetch(self, key: str, folder: Path, limit_bytes: int) -> bool:
        """Brings an entry's files into `folder`, which is made, with `files/` and `beside/`.

        Args:
            key: the entry's.
            folder: must not exist.
            limit_bytes: a larger entry is left where it is.

        Returns:
            False where there is no such entry, or it is not what it should be; `folder` is gone then.
        """
        record = self.entry(key)
        if record is None:
            return False
        if record["size"] > limit_bytes:
            self._warn(
                f"the shared cache's {record['step']} is {in_words(record['size'])}, too large to keep"
            )
            return False
        bad = ""
        try:
            for part in _PARTS:
                (folder / part).mkdir(parents=True)
                for name, sha256 in record[part].items():
                    bad = sha256
                    target = folder / part / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    found = self._files.download(_place(sha256), target, size=record["sizes"][sha256])
                    if found != sha256:
                        raise DamagedObjectError(f"{name} is not what it should be")
        except (DamagedObjectError, DeliveryError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._known[key] = None
            self._warn(f"the shared cache's {record['step']} is not used: {error}")
            if isinstance(error, DamagedObjectError):
                self._withdraw(key, bad)
            return False
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return True

    def publish(self, key: str, record: Mapping[str, Any], folder: Path) -> None:
        """Copies an entry to the shared cache, unless it is there.

        Args:
            key: the entry's.
            record: what its `entry.json` says.
            folder: the entry's, with `files/` and `beside/`.
        """
        if not self.writes or self.entry(key) is not None:
            return
        try:
            sizes: dict[str, int] = {}
            for part in _PARTS:
                for name, sha256 in record[part].items():
                    path = folder / part / name
                    sizes[sha256] = path.stat().st_size
                    place = _place(sha256)
                    if key not in self._damaged and self._files.size(place) == sizes[sha256]:
                        continue
                    if deliver_file(path, self._files.destination(place)).sha256 != sha256:
                        self._files.delete([place])
                        raise DeliveryError(f"{path} has changed since it was cached")
            written = {**record, "sizes": sizes}
            self._records.put_new(f"{key}.json", json.dumps(written, sort_keys=True).encode())
        except (PipelineError, OSError) as error:
            self._warn(f"the shared cache does not get this {record['step']}: {error}")

    def _withdraw(self, key: str, sha256: str) -> None:
        """Removes a damaged entry, where this machine may write, so that the next one can be published."""
        if not self.writes:
            return
        self._damaged.add(key)
        try:
            self._records.delete([f"{key}.json"])
            if sha256:
                self._files.delete([_place(sha256)])
        except DeliveryError as error:
            self._warn(f"the damaged entry stays: {error}")

    def _read(self, key: str) -> Mapping[str, Any] | None:
        try:
            data = self._records.get(f"{key}.json")
        except DeliveryError as error:
            self._warn(f"the shared cache is not asked: {error}")
            return None
        if data is None:
            return None
        try:
            record = json.loads(data)
            if _is_sane(record):
                return dict(record)
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        self._warn(f"the shared cache's entry {key[:12]} is not what this version writes; it is not used")
        self._withdraw(key, "")
        return None


def from_env(env: Mapping[str, str] = os.environ, *, warn: Callable[[str], None]) -> RemoteCache | None:
    """The shared cache that the environment names, or None.

    Raises:
        PipelineError: a variable's value makes no sense.
    """
    write = env.get(WRITE_VARIABLE) or "0"
    if write not in ("0", "1"):
        raise PipelineError(
            f"{WRITE_VARIABLE} is {write!r}; set it to 1 to publish what is made here, or unset it"
        )
    url = env.get(URL_VARIABLE)
    if not url:
        return None
    try:
        root = parse_root(url, URL_VARIABLE)
    except BadDestination as error:  # nobody's argument, but how the machine is set up
        raise PipelineError(str(error)) from None
    return RemoteCache(root, write=write == "1", warn=warn)


def _place(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _is_sane(record: Any) -> bool:
    """Whether a record is one that `publish` writes: it may be anybody's."""
    names = [name for part in _PARTS for name in record[part]]
    paths = [PurePosixPath(name) for name in [*names, *record["folders"], record["output_dir"]]]
    hashes = [sha256 for part in _PARTS for sha256 in record[part].values()]
    sizes = record["sizes"]
    return (
        all(isinstance(each, str) and each and "\0" not in each for each in names)
        and not any(path.is_absolute() or ".." in path.parts or not path.parts for path in paths)
        and all(isinstance(each, str) and _SHA256.fullmatch(each) for each in hashes)
        and all(type(sizes[each]) is int and sizes[each] >= 0 for each in hashes)
        and type(record["size"]) is int
        and sum(sizes[each] for each in hashes) == record["size"]
        and all(isinstance(record[name], str) for name in ("step", "model_id"))
    )
