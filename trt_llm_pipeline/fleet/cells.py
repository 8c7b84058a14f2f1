"""From a matrix to its cells: each with its own config, checked, its needs and its place in the store."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trt_llm_pipeline.config import examine_node
from trt_llm_pipeline.config.source import read as read_source
from trt_llm_pipeline.config.yaml_reader import MappingNode, parse
from trt_llm_pipeline.config.yaml_text import as_text
from trt_llm_pipeline.delivery.object_store import Root, parse_root
from trt_llm_pipeline.errors import ConfigError, DeliveryError, Mistake
from trt_llm_pipeline.fleet import matrix as matrices
from trt_llm_pipeline.fleet.matrix import Matrix, Values
from trt_llm_pipeline.fleet.node import Node
from trt_llm_pipeline.preflight import Validated, validate_loaded
from trt_llm_pipeline.settings import Settings
from trt_llm_pipeline.units import parse_size
from trt_llm_pipeline.workspace import ARCHIVE_NAMES

FLEETS = "fleet"
_ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")
_SHOWN_CELLS = 3


@dataclass(frozen=True)
class Resources:
    """What a cell needs of its node.

    Attributes:
        gpus: how many of its GPUs.
        gpu_type: Ray's name of the GPU, such as `H100`; None for any.
        memory: bytes of host memory; None where nothing is said.
        cpus: CPU cores.
        trt_llm: the TensorRT-LLM release, where nodes have a label that says theirs.
    """

    gpus: float = 0
    gpu_type: str | None = None
    memory: int | None = None
    cpus: float = 1
    trt_llm: str | None = None


@dataclass(frozen=True)
class Cell:
    """One build of the fleet.

    Attributes:
        name: unlike any other cell's; letters, digits, `.`, `_` and `-`.
        values: of the matrix.
        config: the SHA-256 of its config's text.
        key: where its archive goes, below the fleet's root.
        resources: what it needs.
    """

    name: str
    values: Mapping[str, str]
    config: str
    key: str
    resources: Resources


@dataclass(frozen=True)
class Fleet:
    """Every cell of a matrix, ready to be built.

    Attributes:
        fleet_id: the same for the same cells.
        root: below which all archives and the records lie.
        cells: in the order of the matrix.
        configs: each config's text, by its SHA-256.
        validated: the same configs, checked on this machine, by the same key; empty for a fleet that was
            read from its records.
        max_parallel, attempts: as in the matrix file.
    """

    fleet_id: str
    name: str
    root: Root
    cells: tuple[Cell, ...]
    configs: Mapping[str, str]
    validated: Mapping[str, Validated] = field(default_factory=dict)
    max_parallel: int | None = None
    attempts: int = matrices.ATTEMPTS

    @property
    def records(self) -> Root:
        """Where the fleet's records lie."""
        return self.root.below(f"{FLEETS}/{self.fleet_id}")


def load(source: str, settings: Settings) -> Fleet:
    """Reads a matrix file and checks every cell.

    Args:
        source: a path or an address, as for a config.
        settings: of this machine; its toolchain is what the configs are checked against.

    Raises:
        ConfigError: with every mistake, each once, in the order of the file.
        ToolchainError: there is no usable toolchain to check against.
    """
    text, name = read_source(source, settings.reach, typed=True)
    matrix = matrices.read(text, name)
    folder = Path(source).parent if "://" not in source else Path()
    return _Expansion(matrix, folder, settings).fleet()


class _Expansion:
    def __init__(self, matrix: Matrix, folder: Path, settings: Settings) -> None:
        self._matrix = matrix
        self._folder = folder
        self._settings = settings
        self._planning = Node(settings).planning()
        self._mistakes: dict[Mistake, list[str]] = {}
        self._sources: dict[str, tuple[MappingNode, str] | Mistake] = {}
        self._configs: dict[tuple[str, ...], str | None] = {}
        self._texts: dict[str, str] = {}
        self._validated: dict[str, Validated] = {}
        self._config_mistakes: dict[tuple[str, ...], list[Mistake]] = {}

    def fleet(self) -> Fleet:
        root, start = self._root()
        names: dict[str, str] = {}
        keys: dict[str, str] = {}
        cells = []
        for values in self._matrix.cells:
            name = self._name(values, names)
            config = self._config(values, name)
            resources = self._resources(values, name)
            key = self._key(values, name, start, config)
            if key is not None and key in keys:
                message = f"is the same for the cells {keys[key]} and {name}; name every value that varies"
                self._wrong("destination", name, message, self._matrix.destination.line, alone=True)
            elif config is not None and key is not None and root is not None:
                keys[key] = name
                cells.append(Cell(name, {k: v.text for k, v in values.items()}, config, key, resources))
        if self._mistakes:
            raise ConfigError(self._explained(), self._matrix.name)
        if root is None:
            raise AssertionError("a root without mistakes")
        matrix = self._matrix
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(matrix.name).stem).strip("-") or "fleet"
        fingerprint = json.dumps([root.address, *map(asdict, cells)], sort_keys=True)
        fleet_id = f"{stem[:40]}-{hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}"
        return Fleet(
            fleet_id,
            Path(matrix.name).name,
            root,
            tuple(cells),
            self._texts,
            self._validated,
            matrix.max_parallel,
            matrix.attempts,
        )

    def _root(self) -> tuple[Root | None, str]:
        """Where archives and records lie, and the part of the destination that names it."""
        text = self._matrix.destination.text
        fixed = text.partition("${")[0]
        start = fixed[: fixed.rindex("/") + 1] if "/" in fixed else ""
        try:
            if "://" not in text:
                return parse_root(text, "the destination"), start
            if start.count("/") < 3 or (not start.startswith("file:") and start.endswith("://")):
                message = f"the destination {text} must name the same bucket for every cell, for the records"
                raise DeliveryError(message)
            mapped = start
            if start.startswith("file:///src/"):
                mapped = f"file://{self._settings.workspace.root}/{start.removeprefix('file:///src/')}"
            return parse_root(mapped, "the destination"), start
        except DeliveryError as error:
            self._wrong("destination", "", str(error), self._matrix.destination.line, alone=True)
            return None, start

    def _name(self, values: Values, names: dict[str, str]) -> str:
        parts = [re.sub(r"[^A-Za-z0-9._]+", "-", value.text).strip("-.") for value in values.values()]
        name = "-".join(filter(None, parts))[:120] or "cell"
        base, count = name, 1
        while name in names:
            count += 1
            name = f"{base}-{count}"
        names[name] = name
        return name

    def _config(self, values: Values, cell: str) -> str | None:
        """The SHA-256 of the cell's config; None where it is wrong, which is noted."""
        config = self._matrix.config
        line = self._matrix.lines.get("config", 1)
        if isinstance(config, MappingNode):
            source: tuple[MappingNode, str] | None = (config, self._matrix.name)
            named = ""
        else:
            before = len(self._mistakes)
            report = self._reporter("config", cell)
            named = matrices.substituted(config, values, report).text
            source = self._source(named, cell, line) if len(self._mistakes) == before else None
        if source is None:
            return None
        root, name = source
        used = sorted(set(matrices.references(root)) & set(values))
        memo = (named, *(f"{key}={values[key].plain}{values[key].text}" for key in used), *sorted(values))
        if memo not in self._configs:
            self._configs[memo], self._config_mistakes[memo] = self._checked(root, name, values)
        for mistake in self._config_mistakes[memo]:
            if name == self._matrix.name:
                self._note(mistake, cell)
            else:
                self._note(Mistake(mistake.render(name), line, "config"), cell)
        return self._configs[memo]

    def _source(self, named: str, cell: str, line: int) -> tuple[MappingNode, str] | None:
        """A config file's content, read once."""
        if named not in self._sources:
            try:
                place = named if "://" in named or named.startswith("data:") else str(self._folder / named)
                text, name = read_source(place, self._settings.reach)
                self._sources[named] = parse(text, name), name
            except ConfigError as error:
                self._sources[named] = Mistake(str(error), line, "config")
        found = self._sources[named]
        if isinstance(found, Mistake):
            self._note(found, cell)
            return None
        return found

    def _checked(self, root: MappingNode, name: str, values: Values) -> tuple[str | None, list[Mistake]]:
        """A config with the cell's values in it, checked as every config is."""
        wrong: list[Mistake] = []
        node = matrices.everywhere(root, values, lambda message, line: wrong.append(Mistake(message, line)))
        if wrong or not isinstance(node, MappingNode):
            return None, wrong
        text = as_text(node)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest not in self._validated:
            try:
                loaded = examine_node(node, name)
                if loaded.config is not None and loaded.config.hf_token is not None:
                    message = "a fleet's records would hold it; take it out and set HF_TOKEN on the nodes"
                    return None, [loaded.config.mistake(message, "hf_token")]
                self._validated[digest] = validate_loaded(loaded, name, self._planning)
            except ConfigError as error:
                return None, list(error.mistakes)
            self._texts[digest] = text
        return digest, []

    def _resources(self, values: Values, cell: str) -> Resources:
        found: dict[str, str] = {}
        for key, node in self._matrix.resources.items():
            found[key] = matrices.substituted(node, values, self._reporter(f"resources.{key}", cell)).text

        def number(key: str, default: float) -> float:
            text = found.get(key)
            if text is None:
                return default
            if not re.fullmatch(r"\d{1,6}(\.\d{1,4})?", text):
                line = self._matrix.resources[key].line
                self._wrong(f"resources.{key}", cell, f"{text!r} must be a number of {key}", line)
                return default
            value = float(text)
            return int(value) if value.is_integer() else value

        memory = parse_size(found["memory"]) if "memory" in found else None
        if "memory" in found and memory is None:
            message = f"{found['memory']!r} is no size; write a number of bytes, or one with a unit: 64GB"
            self._wrong("resources.memory", cell, message, self._matrix.resources["memory"].line)
        gpu_type = found.get("gpu_type")
        gpus = number("gpus", 1 if gpu_type else 0)
        return Resources(gpus, gpu_type, memory, number("cpus", 1), found.get("trt_llm"))

    def _key(self, values: Values, cell: str, start: str, config: str | None) -> str | None:
        node = self._matrix.destination
        before = len(self._mistakes)
        text = matrices.substituted(node, values, self._reporter("destination", cell)).text
        if len(self._mistakes) != before:
            return None
        key = text[len(start) :]
        if not key or key.endswith("/"):
            compression = self._validated[config].plan.config.compression if config else "gzip"
            key += ARCHIVE_NAMES[compression]
        if not key.endswith(_ARCHIVE_ENDINGS):
            message = f"{text} has not the name of an archive; end it in .tar.gz, or in / for a folder"
            self._wrong("destination", cell, message, node.line)
            return None
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key or parts[0] == FLEETS:
            message = f"{text} has an empty, '.' or '..' part, or one named {FLEETS!r}, where the records lie"
            self._wrong("destination", cell, message, node.line)
            return None
        return key

    def _reporter(self, key: str, cell: str) -> Callable[[str, int], None]:
        return lambda message, line: self._wrong(key, cell, message, line)

    def _wrong(self, key: str, cell: str, message: str, line: int, *, alone: bool = False) -> None:
        self._note(Mistake(message, line, key), "" if alone else cell)

    def _note(self, mistake: Mistake, cell: str) -> None:
        self._mistakes.setdefault(mistake, []).append(cell)

    def _explained(self) -> list[Mistake]:
        """Each mistake once, with the cells that have it where not all of them do."""
        explained = []
        for mistake, cells in self._mistakes.items():
            named = [cell for cell in cells if cell]
            message = mistake.message
            if named and len(named) < len(self._matrix.cells):
                some = ", ".join(named[:_SHOWN_CELLS])
                more = f" and {len(named) - _SHOWN_CELLS} more" if len(named) > _SHOWN_CELLS else ""
                message += f" (in {'cell' if len(named) == 1 else 'cells'} {some}{more})"
            explained.append(Mistake(message, mistake.line, mistake.key))
        return sorted(explained, key=lambda mistake: mistake.line or 0)


def as_record(fleet: Fleet) -> dict[str, object]:
    """The fleet as `plan.json` holds it."""
    return {
        "schema": 1,
        "id": fleet.fleet_id,
        "name": fleet.name,
        "root": fleet.root.address,
        "max_parallel": fleet.max_parallel,
        "attempts": fleet.attempts,
        "configs": dict(fleet.configs),
        "cells": [asdict(cell) for cell in fleet.cells],
    }


def from_record(record: Mapping[str, object], root: Root) -> Fleet:
    """The fleet that `plan.json` holds.

    Args:
        record: its JSON value.
        root: where it was found; a bucket may be mounted in another place.

    Raises:
        DeliveryError: it is no plan that this version can read.
    """
    try:
        if record["schema"] != 1:
            raise ValueError
        cells = [
            Cell(**{**cell, "resources": Resources(**cell["resources"])})
            for cell in record["cells"]  # type: ignore[attr-defined]
        ]
        configs = {str(key): str(text) for key, text in record["configs"].items()}  # type: ignore[attr-defined]
        parallel, attempts = record["max_parallel"], record["attempts"]
        return Fleet(
            str(record["id"]),
            str(record["name"]),
            root,
            tuple(cells),
            configs,
            {},
            parallel if isinstance(parallel, int) else None,
            attempts if isinstance(attempts, int) else matrices.ATTEMPTS,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DeliveryError(f"{root.address} holds a plan that this version cannot read") from None
