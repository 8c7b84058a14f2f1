"""Which parts of a sandbox can be made on this machine, and what the operator wants of it."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.process.tree import capture

_TRIES = Path(__file__).with_name("sandbox.py")
_WITHIN_S = 60.0
_MODES = ("auto", "require", "off")
_FILES_SINCE, _PORTS_SINCE, _SCOPES_SINCE = 3, 4, 6  # versions of Landlock


@dataclass(frozen=True)
class Policy:
    """What the operator wants.

    Attributes:
        mode: `auto` takes what the machine can hold, `require` refuses to build where a layer cannot be
            held, `off` runs steps as the service runs ($TRT_LLM_SANDBOX).
        user: the user and group that steps run as, by number; None for the service's ($TRT_LLM_STEP_USER).
        variables: names of more variables that steps get ($TRT_LLM_STEP_ENV).
    """

    mode: str = "auto"
    user: tuple[int, int] | None = None
    variables: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Policy:
        """Reads it. Raises `PipelineError` where a variable's value makes no sense."""
        mode = env.get("TRT_LLM_SANDBOX") or "auto"
        if mode not in _MODES:
            raise PipelineError(f"TRT_LLM_SANDBOX is {mode!r}; set it to auto, require or off, or unset it")
        names = (env.get("TRT_LLM_STEP_ENV") or "").replace(",", " ").split()
        if wrong := [name for name in names if "=" in name]:
            raise PipelineError(
                f"TRT_LLM_STEP_ENV has {wrong[0]!r}; write the names of variables alone, without values"
            )
        return cls(mode, _user(env.get("TRT_LLM_STEP_USER")), tuple(names))


_USER = {"own": "a user of their own", "service's": "the service's user"}


@dataclass(frozen=True)
class Layers:
    """What holds for a step here. Without arguments: nothing but what needs no kernel's help.

    Attributes:
        policy: what was wanted.
        landlock: the version of Landlock; 0 for none.
        namespaces: `own` made with this process's rights, `user` by way of a user namespace, or "".
        seccomp: whether system calls are filtered.
        why: what each of the three could not be made for.
    """

    policy: Policy = field(default_factory=lambda: Policy(mode="off"))
    landlock: int = 0
    namespaces: str = ""
    seccomp: bool = False
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> bool:
        """Whether a step reads and writes only what is its own."""
        return self.landlock > 0

    def held(self) -> dict[str, str]:
        """Each layer, and what holds it or "no"; the same on every machine of the same kind."""
        network = "no"
        if self.namespaces:
            network = "namespace"
        elif self.landlock >= _PORTS_SINCE:
            network = "landlock"
        off = self.policy.mode == "off"
        return {
            "files": "landlock" if self.landlock >= _FILES_SINCE else "partly" if self.files else "no",
            "processes": "landlock" if self.landlock >= _SCOPES_SINCE else "partly" if self.files else "no",
            "network": network,
            "mounts": "read-only" if self.namespaces else "no",
            "system_calls": "filtered" if self.seccomp else "no",
            "privileges": "no" if off else "none",
            "user": "own" if self.policy.user and not off else "service's",
        }

    def in_words(self) -> str:
        """One line for the log."""
        if self.policy.mode == "off":
            return "sandbox: off (TRT_LLM_SANDBOX=off); steps may do what the service may"
        held = self.held()
        good = [
            _USER.get(how, how) if name == "user" else f"{name.replace('_', ' ')} ({how})"
            for name, how in held.items()
            if how not in ("no", "partly")
        ]
        lacking = [f"{name.replace('_', ' ')} {how}" for name, how in held.items() if how in ("no", "partly")]
        text = f"sandbox: {', '.join(good)}"
        if not lacking:
            return text
        reasons = "; ".join(f"{name}: {why}" for name, why in self.why.items() if why)
        return f"{text}; NOT held: {', '.join(lacking)} ({reasons or f'Landlock {self.landlock}'})"

    def missing(self) -> list[str]:
        """What `require` wants and does not get, in words."""
        told = []
        if self.landlock < _SCOPES_SINCE:
            why = self.why.get("landlock") or f"this kernel has version {self.landlock}"
            told.append(f"Landlock of version {_SCOPES_SINCE} or later, which Linux 6.12 has ({why})")
        if not self.namespaces and not (self.landlock >= _PORTS_SINCE and self.seccomp):
            told.append(f"namespaces, or else Landlock's ports ({self.why.get('namespaces')})")
        if not self.seccomp:
            told.append(f"a filter of system calls ({self.why.get('seccomp')})")
        return told


#: What holds where no sandbox is made.
UNCONFINED = Layers()


def find_layers(policy: Policy) -> Layers:
    """Tries what can be held here, in a process of its own.

    Raises:
        PipelineError: the policy requires more than that.
    """
    if policy.mode == "off":
        return Layers(policy)
    found = _try_here()
    layers = Layers(policy, found["landlock"], found["namespaces"], found["seccomp"], found["why"])
    lacking = layers.missing()
    if policy.mode == "require" and lacking:
        raise PipelineError(
            f"TRT_LLM_SANDBOX=require, and this machine lacks {'; '.join(lacking)}. Use a newer kernel, "
            "allow the container these system calls, or set TRT_LLM_SANDBOX=auto to build with what there is"
        )
    return layers


def _try_here() -> dict[str, Any]:
    argv = [sys.executable, "-I", "-S", str(_TRIES)]
    asked = capture(argv, cwd=Path("/"), env={"PATH": os.defpath}, timeout=_WITHIN_S)
    try:
        found: dict[str, Any] = json.loads(asked.stdout)
    except ValueError:
        reason = asked.stderr.strip().rpartition("\n")[2] or f"it ended with code {asked.exit_code}"
        return {"landlock": 0, "namespaces": "", "seccomp": False, "why": {"all": f"not tried: {reason}"}}
    return found


def _user(text: str | None) -> tuple[int, int] | None:
    if not text:
        return None
    name, _, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        user = entry.pw_uid, int(group) if group else entry.pw_gid
    except (KeyError, ValueError, OverflowError):
        if not (name.isdecimal() and group.isdecimal()):
            message = (
                f"TRT_LLM_STEP_USER is {text!r}, which is no user here; write a name, or numbers: 1000:1000"
            )
            raise PipelineError(message) from None
        user = int(name), int(group)
    if user[0] == 0:
        raise PipelineError("TRT_LLM_STEP_USER is root; name another user, or unset it")
    if os.geteuid() != 0:
        raise PipelineError("TRT_LLM_STEP_USER needs the service to run as root; unset it, or run it as root")
    return user
