"""Code that comes with a model: found, and run only with permission.

Three things run code of a repository's on the machine that loads it: Python files (and what is compiled of
them), configs that make `transformers` import them, and pickles. `Permission` says who may allow that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from trt_llm_pipeline.errors import ModelSourceError, RepositoryCodeRefused
from trt_llm_pipeline.files import hash_file, walk
from trt_llm_pipeline.model_source import config_code
from trt_llm_pipeline.model_source.model_types import CodeFile
from trt_llm_pipeline.model_source.pickles import Budget, problem_of
from trt_llm_pipeline.model_source.record import books_of

#: What the operator of a service says: the config decides, nobody may, everybody may.
ServicePolicy = Literal["ask", "refuse", "allow"]
KEY = "allow_repository_code"
VARIABLE = "TRT_LLM_REPOSITORY_CODE"

_CODE = re.compile(r"\.(py|pyc|pyo|pyw|pyd|pyz|egg|whl|dll|dylib|so(\.\d+)*)$", re.IGNORECASE)
_MOST_SHOWN = 12


@dataclass(frozen=True)
class Permission:
    """Who allows that code of a repository's is run.

    Attributes:
        service: the operator's word, which is the last ($TRT_LLM_REPOSITORY_CODE).
        config: whether the config has `allow_repository_code: true`.
    """

    service: ServicePolicy = "ask"
    config: bool = False

    @property
    def granted(self) -> bool:
        return self.service == "allow" or (self.service == "ask" and self.config)

    @property
    def basis(self) -> str:
        """What grants it, as it is written."""
        return f"{VARIABLE}=allow" if self.service == "allow" else f"{KEY}: true"


def code_by_name(path: str) -> CodeFile | None:
    """A file that its name says to be code; other than Python's, libraries that Python can load."""
    if not _CODE.search(path):
        return None
    return CodeFile(path, "Python code" if ".py" in path.casefold()[-4:] else "a program")


def code_in(folder: Path, path: str, budget: Budget | None = None) -> CodeFile | None:
    """What is wrong with one file of a model, found by its name and then by its content.

    Raises:
        OSError: it cannot be read.
    """
    if (found := code_by_name(path)) is not None:
        return found
    place = folder / path
    if config_code.is_config(path) or config_code.is_index(path):
        size = place.stat().st_size
        if size > config_code.MOST_BYTES and config_code.is_config(path):
            return too_large(path)
        what = config_code.asked_for(path, place.read_bytes()) if size <= config_code.MOST_BYTES else None
        if what is not None:
            return CodeFile(path, what)
    problem = problem_of(place, budget)
    return None if problem is None else CodeFile(path, problem)


def too_large(path: str) -> CodeFile:
    """A config that nobody would write."""
    return CodeFile(path, f"a config of more than {config_code.MOST_BYTES >> 20} MiB, too large to be read")


def code_of(folder: Path) -> tuple[CodeFile, ...]:
    """Everything in a model's folder that runs code, sorted by path.

    Raises:
        ModelSourceError: a file cannot be read.
    """
    budget = Budget()
    found = []
    for path in sorted(_files_of(folder)):
        try:
            code = code_in(folder, path, budget)
        except OSError as error:
            raise ModelSourceError(
                f"{folder / path} cannot be looked at before the scripts read it: {error.strerror}"
            ) from error
        if code is not None:
            found.append(code)
    return tuple(found)


def with_digests(folder: Path, found: Sequence[CodeFile], known: Mapping[str, str]) -> tuple[CodeFile, ...]:
    """The same with the SHA-256 of each, read where `known` has none."""
    return tuple(
        replace(code, sha256=known.get(code.path) or hash_file(folder / code.path)) for code in found
    )


#: Of what cannot be looked into, and so may hold code; see `pickles`.
_CUT_OFF = "damaged or cut off"


def refuse(
    model: str, found: Iterable[CodeFile], permission: Permission, kept: str, commit: str = ""
) -> None:
    """Ends the build where code was found and nobody has allowed it.

    Args:
        model: what the user calls it.
        found: what was found.
        permission: see there.
        kept: a sentence on what has been downloaded.
        commit: of the repository, to be pinned; empty where there is none.

    Raises:
        RepositoryCodeRefused: names the files, and the key that allows them.
    """
    files = tuple(found)
    if not files or permission.granted:
        return
    if permission.service == "refuse":
        advice = (
            f"This service allows no such code ({VARIABLE}=refuse); choose a model without it, with its "
            "weights in safetensors"
        )
    else:
        pin = f", and `revision: {commit}` so that only what you have looked at is run" if commit else ""
        advice = f"Look at these files; if you trust them, put `{KEY}: true` into the config{pin}"
        if any(_CUT_OFF in code.what for code in files):
            advice += ". One that is cut off has to be published again, whole; no key mends that"
    raise RepositoryCodeRefused(
        f"{model} comes with code that the scripts would run: {listed(files)}. {kept} {advice}",
        files=[code.path for code in files],
    )


def listed(found: Sequence[CodeFile]) -> str:
    """The files in a sentence."""
    shown = [f"{code.path} ({_facts(code)})" for code in found[:_MOST_SHOWN]]
    more = len(found) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


def _facts(code: CodeFile) -> str:
    return code.what if code.sha256 is None else f"{code.what}; sha256 {code.sha256}"


def _files_of(folder: Path) -> Iterator[str]:
    """Every file below the folder, also behind links to folders, but for this service's own records."""
    seen: set[str] = set()
    for place, folders, names in walk(folder, follow=True):
        real = os.path.realpath(place)
        if real in seen or Path(place) == books_of(folder):
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            path = Path(place, name)
            if path.is_file():
                yield path.relative_to(folder).as_posix()
