"""The Hub's way in: files sent by git LFS's batch protocol, and commits, as huggingface_hub asks for them.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md; the rest is what the client sends.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from trt_llm_pipeline.testing.hub.repository import MAIN, Repository, make_blob

_PATHS = re.compile(
    r"/api/models/(?P<id>[^/]+/[^/]+)/"
    r"(?P<what>auth-check(?:/write)?|preupload|commit)(?:/(?P<revision>[^/]+))?$"
)
_BATCH = re.compile(r"/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/(?P<what>batch|verify)$")
_STORED = re.compile(r"/uploads/(?P<id>[^/]+/[^/]+)/(?P<sha256>[0-9a-f]{64})$")
# What the Hub's own .gitattributes has beside weights.
_ARCHIVES = (".gz", ".tar", ".tgz", ".zip")


class RefusedUpload(Exception):
    """An upload that is refused, with the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Uploads:
    """What has been uploaded and is in no commit yet, by repository and SHA-256."""

    received: dict[tuple[str, str], bytes] = field(default_factory=dict)

    @staticmethod
    def repository_of(path: str) -> str | None:
        """The repository that a request is about, where it is about an upload that needs its token."""
        match = _PATHS.match(path) or _BATCH.match(path)
        return unquote(match["id"]) if match else None

    @staticmethod
    def is_storage(path: str) -> bool:
        """Whether a path is where an object is put, with an address instead of a token."""
        return _STORED.match(path) is not None

    def put(self, path: str, body: bytes) -> None:
        """Takes an object. Raises `RefusedUpload` where it is not what its address says."""
        match = _STORED.match(path)
        if match is None or hashlib.sha256(body).hexdigest() != match["sha256"]:
            raise RefusedUpload(400, "the object is not what its address says")
        self.received[unquote(match["id"]), match["sha256"]] = body

    def answer(
        self, path: str, body: bytes, repository: Repository, hub_url: str, storage_url: str
    ) -> dict[str, Any]:
        """What a request with a token that may write is answered."""
        if batch := _BATCH.match(path):
            asked = json.loads(body)
            if batch["what"] == "verify":
                return self._verified(repository, asked)
            objects = [self._object(repository, each, hub_url, storage_url) for each in asked["objects"]]
            return {"transfer": "basic", "objects": objects}
        match = _PATHS.match(path)
        what = match["what"] if match else ""
        revision = unquote(match["revision"] or MAIN) if match else MAIN
        if what == "preupload":
            return {"files": [_mode(repository, revision, each) for each in json.loads(body)["files"]]}
        if what == "commit":
            return self._commit(repository, revision, body, hub_url)
        return {}

    def _object(
        self, repository: Repository, asked: Mapping[str, Any], hub_url: str, storage_url: str
    ) -> dict[str, Any]:
        model = quote(repository.model_id)
        put = {"href": f"{storage_url}/uploads/{model}/{asked['oid']}"}
        verify = {"href": f"{hub_url}/{model}.git/info/lfs/objects/verify"}
        found = {"oid": asked["oid"], "size": asked["size"]}
        if (repository.model_id, asked["oid"]) in self.received:
            return found
        return {**found, "actions": {"upload": put, "verify": verify}}

    def _verified(self, repository: Repository, asked: Mapping[str, Any]) -> dict[str, Any]:
        data = self.received.get((repository.model_id, asked["oid"]))
        if data is None or len(data) != asked["size"]:
            raise RefusedUpload(404, "no such object")
        return {}

    def _commit(self, repository: Repository, revision: str, body: bytes, hub_url: str) -> dict[str, Any]:
        before = repository.resolve(revision)
        files: dict[str, Path | bytes] = (
            {path: blob.source for path, blob in before.files.items()} if before else {}
        )
        for line in body.splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                data = self.received.get((repository.model_id, value["oid"]))
                if data is None:
                    raise RefusedUpload(422, f"{value['path']} was not uploaded")
                files[value["path"]] = data
        sha = repository.commit(files, revision=revision)
        return {
            "success": True,
            "commitOid": sha,
            "commitUrl": f"{hub_url}/{repository.model_id}/commit/{sha}",
        }


def _mode(repository: Repository, revision: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    path = str(asked["path"])
    commit = repository.resolve(revision)
    there = commit.files.get(path) if commit else None
    large = path.endswith(_ARCHIVES) or make_blob(path, b"").sha256 is not None or asked["size"] > 10_000_000
    return {
        "path": path,
        "uploadMode": "lfs" if large else "regular",
        "shouldIgnore": False,
        "oid": there.etag if there else None,
    }
