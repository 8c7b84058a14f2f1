"""The builder's timing cache: how fast each kernel is on a GPU, measured once and used by the next build.

TensorRT times every kernel that could do a piece of the work, which is most of a build's time. `build.py`
reads `--timing_cache` and `trtllm-build` reads `--input_timing_cache`, where the file exists; both write what
they have measured to `model.cache` in the working directory, where they are told nothing else. The timings
hold for one kind of GPU and one release of TensorRT-LLM.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_llm_pipeline.cache import fingerprint
from trt_llm_pipeline.files import read_regular, replacing
from trt_llm_pipeline.process.gpus import Gpu
from trt_llm_pipeline.toolchain import Toolchain
from trt_llm_pipeline.workspace import Workspace

NAME = "model.cache"
_LARGEST = 1 << 30
_READS_ITS_DEFAULT = "--timing_cache"
_READS_WHAT_IT_IS_TOLD = "--input_timing_cache"
_OPTIONS = frozenset((_READS_ITS_DEFAULT, _READS_WHAT_IT_IS_TOLD, "--output_timing_cache"))


@dataclass(frozen=True)
class TimingCache:
    """The timings that are kept for one kind of GPU and one release.

    Attributes:
        path: where; it need not exist.
        about: the GPUs and the release, in words.
    """

    path: Path
    about: str

    @classmethod
    def of(cls, workspace: Workspace, toolchain: Toolchain, gpus: Sequence[Gpu]) -> TimingCache | None:
        """The one for these GPUs and this toolchain; None without a GPU, where no kernels are timed."""
        if not gpus:
            return None
        names = sorted({f"{gpu.name} {gpu.compute_capability}" for gpu in gpus})
        release = f"{toolchain.name} {toolchain.version}"
        key = fingerprint.combined(gpus=names, release=release)
        return cls(workspace.state / "timing" / f"{key}.cache", f"{', '.join(names)} and {release}")

    def takes_part(self, options: Collection[str], argv: Sequence[str]) -> bool:
        """Whether a script reads timings, and is not told by its config which.

        Args:
            options: what the script's parser accepts.
            argv: the step's arguments.
        """
        own = {text.partition("=")[0].replace("-", "_") for text in argv if text.startswith("--")}
        named = own & {option.replace("-", "_") for option in _OPTIONS}
        return not named and bool({_READS_ITS_DEFAULT, _READS_WHAT_IT_IS_TOLD} & set(options))

    def give(self, folder: Path, options: Collection[str]) -> tuple[str, ...] | None:
        """Puts the timings where a script reads them.

        Args:
            folder: the script's working directory.
            options: what its parser accepts.

        Returns:
            The arguments that it needs besides; None where there are no timings, or a file of that name is
            there already.
        """
        target = folder / NAME
        try:
            content = read_regular(self.path, _LARGEST)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o666)  # the script may run as another user
            file.write(content)
        return (_READS_WHAT_IT_IS_TOLD, NAME) if _READS_WHAT_IT_IS_TOLD in options else ()

    def keep(self, folder: Path) -> bool:
        """Keeps the timings that a script has left in its working directory; False where it left none."""
        try:
            content = read_regular(folder / NAME, _LARGEST)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as partial:
                partial.write_bytes(content)
        except OSError:
            return False
        return True
