"""What a build was made from, as in-toto resource descriptors with digests.

https://github.com/in-toto/attestation, `spec/v1/resource_descriptor.md`. A folder's digest is its `dirHash`
(see `artifact.content`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trt_llm_pipeline
from trt_llm_pipeline.artifact import statement
from trt_llm_pipeline.artifact.content import content_sha256
from trt_llm_pipeline.cache import fingerprint
from trt_llm_pipeline.cache.hashes import FileHashes
from trt_llm_pipeline.cache.inputs import Disks, UnhashableError, files_below
from trt_llm_pipeline.model_source.choice import CACHE_FOLDER
from trt_llm_pipeline.model_source.record import Record, matches, read_record
from trt_llm_pipeline.plan import Plan
from trt_llm_pipeline.toolchain import Toolchain

_SERVICE = Path(trt_llm_pipeline.__file__).parent


@dataclass(frozen=True)
class _File:
    name: str
    sha256: str


def resolved_dependencies(
    plan: Plan, manifest: Mapping[str, Any], config: bytes, hashes: FileHashes
) -> list[dict[str, Any]]:
    """The descriptors of what a build was made from.

    Args:
        plan: the build's.
        manifest: what its manifest says.
        config: the YAML that is packed.
        hashes: remembers a model's large files; filled on the way. The toolchain and the service are read
            anew: the memory lies where steps of earlier builds may have written.

    Returns:
        Model, datasets, toolchain and service. One with something among its files that has no content to
        hash, a FIFO or a file of `/proc`, says so (`notHashed`) and has no digest of them.

    Raises:
        OSError: a file cannot be read.
    """
    parameters = statement.external_parameters(config)["config"]
    model = statement.model_reference(manifest, parameters)
    datasets = statement.dataset_references(manifest)
    toolchain = statement.toolchain_reference(manifest)
    disks = Disks()
    folders = [(model, plan.model_dir), *zip(datasets, plan.dataset_dirs.values(), strict=True)]
    return [
        *({**known, **_told(partial(_model, folder, known, hashes, disks))} for known, folder in folders),
        {**toolchain, **_told(lambda: _toolchain(plan.toolchain, disks))},
        _service(disks),
    ]


def _told(describe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return describe()
    except UnhashableError as error:
        return {"annotations": {"notHashed": str(error)}}


def _model(folder: Path, known: Mapping[str, Any], hashes: FileHashes, disks: Disks) -> dict[str, Any]:
    there = files_below(folder, disks, left_out=[folder / CACHE_FOLDER])
    record = read_record(folder)
    if record is None or "digest" not in known:
        return {"digest": {"dirHash": _dir_hash(there.items(), hashes)}}
    annotations = _files(folder, there, record, hashes)
    found: dict[str, Any] = {"annotations": annotations} if annotations else {}
    if record.source == "hub":
        parts = urlsplit(record.origin)
        port = f":{parts.port}" if parts.port else ""
        folder_of = "" if known["name"] == "model" else "datasets/"
        found["downloadLocation"] = f"{parts.scheme}://{parts.hostname}{port}/{folder_of}{record.model_id}"
    return found


def _files(
    folder: Path, there: Mapping[str, Path], record: Record, hashes: FileHashes
) -> dict[str, dict[str, str]]:
    """Digests as the source announced and the download verified them; those of the user's own files apart."""
    announced = {file.path: file for file in record.files}
    listed, own = {}, {}
    for name, path in there.items():
        file = announced.get(name)
        if file is None or matches(folder, file) is None:
            own[name] = f"sha256:{hashes.of(path)}"
        elif file.digest:
            listed[name] = file.digest
    return {key: files for key, files in (("files", listed), ("otherFiles", own)) if files}


def _toolchain(toolchain: Toolchain, disks: Disks) -> dict[str, Any]:
    return {
        "digest": {"dirHash": _dir_hash(fingerprint.sources(toolchain.root, disks), FileHashes())},
        "annotations": {
            "follows": list(toolchain.follows),
            "packages": [
                name.removesuffix(".dist-info") for name in fingerprint.packages(Path(toolchain.python))
            ],
        },
    }


def _service(disks: Disks) -> dict[str, Any]:
    files = files_below(_SERVICE, disks).items()
    own = [(f"{_SERVICE.name}/{name}", path) for name, path in files if name.endswith(".py")]
    return {
        "name": "service",
        "uri": f"pkg:generic/trt-llm-pipeline@{trt_llm_pipeline.__version__}",
        "digest": {"dirHash": _dir_hash(own, FileHashes())},
        "annotations": {"compressor": f"isal {metadata.version('isal')}"},
    }


def _dir_hash(files: Iterable[tuple[str, Path]], hashes: FileHashes) -> str:
    return content_sha256(_File(name, hashes.of(path)) for name, path in files)
