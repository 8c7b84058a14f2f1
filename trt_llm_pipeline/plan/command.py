"""A step's `args` as command-line arguments."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline.config import ArgValue, texts_of
from trt_llm_pipeline.workspace import Workspace


@dataclass(frozen=True)
class RenderedArgs:
    """Arguments, and which key of the config each of them comes from.

    Attributes:
        argv: the arguments, without the program or the script.
        keys: as long as `argv`; the key that each argument was rendered from.
    """

    argv: tuple[str, ...]
    keys: tuple[str, ...]


def render(args: Mapping[str, ArgValue], text: Callable[[str], str]) -> RenderedArgs:
    """Renders `args` in their order.

    `key: value` becomes `--key value`; a key that already begins with a dash stays as it is. A bare key or
    `true` becomes `--key`, `false` nothing, and a list `--key a b c`. A value that begins with a dash is
    joined to its option with `=`, or the script would take it for another option.

    Args:
        args: what the config says.
        text: maps a scalar to the text that the script is given (references, the workspace's path).
    """
    argv: list[str] = []
    keys: list[str] = []
    for key, value in args.items():
        if value is False:
            continue
        option = key if key.startswith("-") else f"--{key}"
        texts = [text(item) for item in texts_of(value)]
        rendered = [f"{option}={texts[0]}"] if _needs_equals(texts) else [option, *texts]
        argv.extend(rendered)
        keys.extend([key] * len(rendered))
    return RenderedArgs(tuple(argv), tuple(keys))


def argument_paths(workspace: Workspace, argv: Sequence[str]) -> list[Path]:
    """What a step's arguments name if they are read as paths, links followed; most of it does not exist."""
    found = []
    for argument in argv:
        for text in (argument, argument.partition("=")[2]):
            if text and "\0" not in text and len(text) <= 4096:
                found.append(Path(os.path.realpath(workspace.root / text)))
    return [path for path in found if path != workspace.root and path not in workspace.root.parents]


def argument_dirs(workspace: Workspace, argv: Sequence[str]) -> list[Path]:
    """The paths inside the workspace that a step's arguments name, links followed."""
    return [path for path in argument_paths(workspace, argv) if path.is_relative_to(workspace.root)]


def shell_line(argv: Sequence[str]) -> str:
    """The command in a form that can be pasted into a shell."""
    return shlex.join(argv)


def _needs_equals(texts: Sequence[str]) -> bool:
    return len(texts) == 1 and texts[0].startswith("-")
