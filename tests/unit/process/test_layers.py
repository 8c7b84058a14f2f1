"""What the operator wants of a sandbox, what is there, and what is said of both."""

from __future__ import annotations

import dataclasses
import os
import pwd
from collections.abc import Mapping

import pytest

from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.process import Layers, Policy, find_layers, layers

EVERYTHING = Layers(Policy(), landlock=7, namespaces="own", seccomp=True)


class TestPolicy:
    def test_defaults(self) -> None:
        assert Policy.from_env({}) == Policy("auto", None, ())

    def test_more_variables(self) -> None:
        assert Policy.from_env({"TRT_LLM_STEP_ENV": "A, B_*  C"}).variables == ("A", "B_*", "C")

    @pytest.mark.parametrize(
        ("env", "words"),
        [
            ({"TRT_LLM_SANDBOX": "on"}, "set it to auto, require or off"),
            ({"TRT_LLM_STEP_USER": "nobody-has-this-name"}, "which is no user here"),
            ({"TRT_LLM_STEP_USER": "root"}, "is root; name another"),
            ({"TRT_LLM_STEP_USER": "0:0"}, "is root; name another"),
        ],
    )
    def test_mistakes_are_named(self, env: Mapping[str, str], words: str) -> None:
        with pytest.raises(PipelineError, match=words):
            Policy.from_env(env)

    @pytest.mark.parametrize("text", ["nobody", "1234:5678"])
    def test_user(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        nobody = pwd.getpwnam("nobody")
        expected = (nobody.pw_uid, nobody.pw_gid) if text == "nobody" else (1234, 5678)
        assert Policy.from_env({"TRT_LLM_STEP_USER": text}).user == expected

    def test_user_needs_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(PipelineError, match="needs the service to run as root"):
            Policy.from_env({"TRT_LLM_STEP_USER": "nobody"})


class TestWhatIsSaid:
    def test_everything(self) -> None:
        assert EVERYTHING.in_words() == (
            "sandbox: files (landlock), processes (landlock), network (namespace), mounts (read-only), "
            "system calls (filtered), privileges (none), the service's user"
        )
        assert EVERYTHING.missing() == []

    def test_a_container_holds_the_network_by_ports(self) -> None:
        contained = dataclasses.replace(EVERYTHING, namespaces="", why={"namespaces": "not permitted"})
        assert contained.held()["network"] == "landlock"
        assert contained.held()["mounts"] == "no"
        assert contained.in_words().endswith("NOT held: mounts no (namespaces: not permitted)")
        assert contained.missing() == []

    def test_off(self) -> None:
        assert Layers().held()["privileges"] == "no"
        assert "TRT_LLM_SANDBOX=off" in Layers().in_words()

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"landlock": 5},
                "version 6 or later, which Linux 6.12 has .this kernel has version 5",
            ),
            ({"landlock": 0}, "Landlock of version 6"),
            ({"namespaces": "", "landlock": 3}, "namespaces, or else Landlock's ports"),
            ({"namespaces": "", "seccomp": False}, "namespaces, or else Landlock's ports"),
            ({"seccomp": False}, "a filter of system calls"),
        ],
    )
    def test_what_require_lacks_is_named_and_refused(
        self, changes: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lacking = dataclasses.replace(EVERYTHING, **changes)  # type: ignore[arg-type]
        found = {"landlock": lacking.landlock, "namespaces": lacking.namespaces, "seccomp": lacking.seccomp}
        monkeypatch.setattr(layers, "_try_here", lambda: {**found, "why": {}})
        assert find_layers(Policy()).landlock == lacking.landlock
        with pytest.raises(PipelineError, match=words):
            find_layers(Policy("require"))


def test_this_machine_is_asked() -> None:
    found = find_layers(Policy())
    assert found.landlock >= 1
    assert found.seccomp
    assert find_layers(Policy("off")).held()["files"] == "no"
