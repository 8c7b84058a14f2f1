"""A step's script that tries to get out: every attempt works without the sandbox, and none within.

One script makes all attempts (`breakout.py`), once for each set of layers that machines have: all of them, a
container's default (no namespaces), and kernels whose Landlock is older. Without the sandbox the same script
shows that the attempts are real ones.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.sandbox.cell import NOTES, TOKEN, Cell
from trt_llm_pipeline.process import UNCONFINED, Layers

FILES = [
    "overwrite_the_users_file", "overwrite_it_through_its_link", "overwrite_it_through_a_link_of_its_own",
    "append_to_it", "remove_it", "link_it_to_a_name_of_its_own", "make_a_file_beside_it", "write_outside",
    "read_outside", "read_outside_through_a_link", "list_the_workspace", "read_the_services_state",
    "read_another_model", "change_its_model", "plant_a_model", "read_another_build",
    "read_what_an_earlier_build_made", "read_the_newest_archive", "read_the_passwords",
    "change_the_toolchain", "change_the_kernel", "make_a_device",
]  # fmt: skip
PROCESSES = [
    "read_the_services_variables", "read_the_services_memory", "leave_by_the_services_root",
    "leave_by_the_services_directory", "open_the_supervisors_files", "trace_the_service",
]  # fmt: skip
SCOPES = [
    "signal_the_service", "signal_the_supervisor", "signal_the_service_by_descriptor",
    "reach_an_abstract_socket",
]  # fmt: skip
NETWORK = ["reach_a_server_of_the_machine", "reach_it_by_fast_open", "reach_it_by_another_protocol"]
PRIVILEGES = [
    "become_another_user", "gain_by_a_set_user_id_program", "have_capabilities", "leave_a_core_dump",
]  # fmt: skip
SYSTEM_CALLS = ["make_a_user_namespace", "use_the_kernels_keys", "use_the_kernels_rings"]
MOUNTS = ["change_its_permissions", "change_its_time"]
TRUNCATION = ["truncate_it"]
#: What no machine lets a step do, with the sandbox or without.
NEVER = ["has_more_descriptors_than_it_needs"]
#: What the step may do, and the service undoes.
UNDONE = ["leave_a_set_user_id_file", "live_on", "send_a_datagram"]


@dataclasses.dataclass
class Attack:
    """What came of all attempts.

    Attributes:
        outcomes: attempt -> whether it succeeded, and what it got or was refused with.
        cell: where they were made.
        arrived: what the machine's datagram server received.
        told: what the step logged, and its error last.
        mark: an argument of the process that was left running.
    """

    outcomes: dict[str, tuple[bool, str]]
    cell: Cell
    arrived: bytes
    told: list[str]
    mark: str

    def got_through(self, names: list[str]) -> dict[str, str]:
        return {name: self.outcomes[name][1] for name in names if self.outcomes[name][0]}


def attack(folder: Path, layers: Layers, service: int) -> Attack:
    """Has every attempt made, with the machine's servers at hand."""
    cell = Cell(folder)
    mark = f"left-over-{folder.name}-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0.2)
        abstract.bind(f"\0{mark}")
        abstract.listen()
        facts = {
            "workspace": str(cell.workspace.root),
            "outside": str(cell.outside),
            "service": service,
            "port": server.getsockname()[1],
            "udp_port": datagrams.getsockname()[1],
            "abstract": mark,
            "mark": mark,
            "keyctl": 250 if platform.machine() == "x86_64" else 219,
        }
        told = cell.run(layers, facts=json.dumps(facts))
        try:
            arrived = datagrams.recv(10)
        except TimeoutError:
            arrived = b""
    found = [line for line in told if line.startswith("OUTCOMES ")]
    assert found, told
    outcomes = {name: (won, what) for name, (won, what) in json.loads(found[0][9:]).items()}
    return Attack(outcomes, cell, arrived, told, mark)


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    """A process with a secret in its environment, as the service is one; its number."""
    code = "import time; print('ready', flush=True); time.sleep(600)"
    env = {**os.environ, "HF_TOKEN": TOKEN}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory, service: int) -> Attack:
    """All attempts without a sandbox."""
    return attack(tmp_path_factory.mktemp("free"), UNCONFINED, service)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory, service: int, layers: Layers) -> Attack:
    """All attempts with every layer that this machine has."""
    return attack(tmp_path_factory.mktemp("held"), layers, service)


@pytest.fixture(scope="module")
def contained(tmp_path_factory: pytest.TempPathFactory, service: int, layers: Layers) -> Attack:
    """All attempts in what a container's default permits: Landlock and the filter, no namespaces."""
    return attack(tmp_path_factory.mktemp("contained"), dataclasses.replace(layers, namespaces=""), service)


def test_every_attempt_is_a_real_one(free: Attack) -> None:
    assert set(free.outcomes) == {
        *FILES, *PROCESSES, *SCOPES, *NETWORK, *PRIVILEGES, *SYSTEM_CALLS, *MOUNTS, *TRUNCATION, *NEVER,
        *UNDONE,
    }  # fmt: skip
    failed = {name: what for name, (won, what) in free.outcomes.items() if not won and name not in NEVER}
    assert failed == {}
    assert free.arrived == b"x"


class TestAllLayers:
    @pytest.mark.parametrize(
        "names", [FILES, TRUNCATION, PROCESSES, SCOPES, NETWORK, PRIVILEGES, SYSTEM_CALLS, MOUNTS, NEVER]
    )
    def test_no_attempt_gets_through(self, held: Attack, names: list[str]) -> None:
        assert held.got_through(names) == {}

    def test_the_users_files_are_as_they_were(self, held: Attack) -> None:
        root = held.cell.workspace.root
        assert (root / "notes.txt").read_text() == NOTES
        assert sorted(path.name for path in held.cell.outside.iterdir()) == ["secret"]
        assert not (root / "planted.py").exists()
        assert (root / "models" / "m" / "config.json").read_text() == "secret"

    def test_no_datagram_leaves(self, held: Attack) -> None:
        assert held.arrived == b""

    def test_nothing_lives_on(self, held: Attack) -> None:
        assert [
            p.info for p in psutil.process_iter(["cmdline"]) if held.mark in (p.info["cmdline"] or ())
        ] == []

    def test_what_it_wrote_has_no_privilege(self, held: Attack) -> None:
        assert (held.cell.workspace.root / "out" / "root").stat().st_mode & 0o7000 == 0


class TestInAContainer:
    @pytest.mark.parametrize(
        "names", [FILES, TRUNCATION, PROCESSES, SCOPES, NETWORK, PRIVILEGES, SYSTEM_CALLS, NEVER]
    )
    def test_no_attempt_gets_through(self, contained: Attack, names: list[str]) -> None:
        assert contained.got_through(names) == {}

    def test_no_datagram_leaves(self, contained: Attack) -> None:
        assert contained.arrived == b""

    def test_permissions_are_what_landlock_does_not_hold(self, contained: Attack) -> None:
        assert list(contained.got_through(MOUNTS)) == MOUNTS
        assert (contained.cell.workspace.root / "notes.txt").read_text() == NOTES


@pytest.mark.parametrize(
    ("version", "lacking"), [(5, SCOPES), (3, [*SCOPES, "reach_a_server_of_the_machine"]), (2, TRUNCATION)]
)
def test_older_kernels_hold_what_they_say(
    tmp_path: Path, service: int, layers: Layers, version: int, lacking: list[str]
) -> None:
    older = dataclasses.replace(layers, landlock=version, namespaces="")
    found = attack(tmp_path, older, service)
    assert found.got_through([*PROCESSES, *PRIVILEGES, *SYSTEM_CALLS]) == {}
    assert set(found.got_through(FILES)) <= ({"append_to_it"} if version < 3 else set())
    assert set(lacking) <= set(found.got_through([*SCOPES, *NETWORK, *TRUNCATION]))
    told = older.held()
    assert (told["processes"] == "landlock") == (not found.got_through(SCOPES))
    assert (told["files"] == "landlock") == (not found.got_through(TRUNCATION))
    assert (told["network"] == "landlock") == (not found.got_through(NETWORK))
