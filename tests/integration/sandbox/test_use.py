"""What builds need works in the sandbox, and what the config or the operator permits is permitted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import TOOLCHAIN
from tests.integration.sandbox.cell import NOTES, TOKEN, Cell
from trt_llm_pipeline.errors import PipelineError
from trt_llm_pipeline.inspection.tokenizer_trial import try_tokenizer
from trt_llm_pipeline.preflight.parser_check import Checked, NotChecked, probe
from trt_llm_pipeline.process import Layers, Policy, capture
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import PROJECT_ROOT

TALK = """
    import socket, sys, threading
    for address in ("127.0.0.1", "::1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.create_server((address, 0), family=family)
        def answer():
            with server.accept()[0] as client:
                client.sendall(client.recv(5))
        threading.Thread(target=answer).start()
        with socket.create_connection(server.getsockname()[:2]) as client:
            client.sendall(b"hello")
            print(address, client.recv(5))
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("pool", pool.map(abs, [-1, -2]))
"""
GLOO = """
    import os, subprocess, sys
    program = "; ".join([
        "import torch, torch.distributed as dist",
        "dist.init_process_group('gloo')",
        "total = torch.tensor([dist.get_rank() + 1])",
        "dist.all_reduce(total)",
        "print(f'sum {int(total)}' + chr(10), end='', flush=True)",
        "dist.destroy_process_group()",
    ])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29555", "WORLD_SIZE": "2"}
    run = lambda rank: subprocess.Popen([sys.executable, "-c", program], env={**shared, "RANK": rank})
    workers = [run("0"), run("1")]
    sys.exit(sum(worker.wait() for worker in workers))
"""
#: CUDA does this for each of its threads, and does not start where it cannot.
NAME_A_THREAD = """
    import subprocess, sys, threading
    def name():
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as file:
            file.write("worker")
    thread = threading.Thread(target=name); thread.start(); thread.join()
    print(subprocess.run(["cat", "/proc/self/comm"], capture_output=True, text=True).stdout, "named")
"""
COMPILE = """
    import torch
    double = torch.compile(lambda x: x * 2 + 1)
    print("compiled", double(torch.ones(3)).tolist())
"""


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


class TestInside:
    def test_processes_speak_over_loopback_and_pipes(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, TALK)
        assert "127.0.0.1 b'hello'" in told, told
        assert "::1 b'hello'" in told
        assert "pool [1, 2]" in told

    def test_threads_are_named_in_proc(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, NAME_A_THREAD)
        assert " named" in told, told

    @pytest.mark.slow
    def test_torchs_processes_add_up_a_tensor(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, GLOO)
        assert told.count("sum 3") == 2, told

    @pytest.mark.slow
    def test_torch_compiles(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, COMPILE)
        assert "compiled [3.0, 3.0, 3.0]" in told, told

    def test_the_users_files_and_the_model_can_be_read(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, "print(open('notes.txt').read(), open('models/m/config.json').read())")
        assert f"{NOTES} secret" in told, told

    def test_a_file_of_the_users_is_named_where_a_script_would_replace_it(
        self, cell: Cell, layers: Layers
    ) -> None:
        told = cell.do(layers, "import os; open('new', 'w').write('x'); os.replace('new', 'notes.txt')")
        assert told[-1].startswith("WorkspaceError: the script wrote where no step may write (notes.txt)")
        assert (cell.workspace.root / "notes.txt").read_text() == NOTES


class TestPermission:
    def test_no_token_and_no_credentials(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, "import os; print(sorted(os.environ))")
        assert "HF_TOKEN" not in told[1]
        assert "AWS" not in told[1]

    def test_token(self, cell: Cell, layers: Layers) -> None:
        told = cell.do(layers, "import os; print(os.environ['HF_TOKEN'])", keys="  token: true\n")
        assert TOKEN in told

    @pytest.mark.parametrize("namespaces", [True, False])
    def test_network(self, cell: Cell, layers: Layers, *, namespaces: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            code = f"""
                import os, socket
                socket.create_connection({server.getsockname()!r}, timeout=20).sendall(b"hello")
                print("offline", os.environ.get("HF_HUB_OFFLINE"))
            """
            chosen = layers if namespaces else replace(layers, namespaces="")
            told = cell.do(chosen, code, keys="  network: true\n")
            assert "offline None" in told, told
            server.settimeout(10)
            with server.accept()[0] as client:
                assert client.recv(5) == b"hello"


class TestAnotherUser:
    @pytest.fixture
    def open_cell(self) -> Iterator[Cell]:
        """In a place that everybody may enter, with an interpreter that everybody may run."""
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        folder.chmod(0o755)
        real = Path(os.path.realpath(sys.executable))
        open_to_all = all(parent.stat().st_mode & 0o001 for parent in real.parents)
        yield Cell(folder, str(real) if open_to_all else "/usr/bin/python3")
        shutil.rmtree(folder)

    @pytest.mark.parametrize("namespaces", [True, False])
    def test_steps_run_as_it_and_their_files_are_the_services(
        self, open_cell: Cell, layers: Layers, *, namespaces: bool
    ) -> None:
        policy = Policy("auto", (54321, 54322))
        chosen = replace(layers, policy=policy, namespaces=layers.namespaces if namespaces else "")
        code = """
            import os, tempfile
            os.makedirs("out/inner")
            open("out/inner/file", "w").write("x")
            tempfile.TemporaryFile().close()
            print("user", os.getuid(), os.getgid(), os.getgroups())
            print(open("notes.txt").read())
        """
        told = open_cell.do(chosen, code)
        assert "user 54321 54322 []" in told, told
        assert NOTES in told
        made = open_cell.workspace.root / "out/inner/file"
        assert (made.stat().st_uid, made.parent.stat().st_uid) == (os.geteuid(), os.geteuid())


class TestRefusal:
    def test_a_layer_that_cannot_be_made_stops_the_program(self, tmp_path: Path) -> None:
        class Impossible:
            def request(self, cwd: Path) -> dict[str, Any]:
                places = {"read": ["/"], "write": ["/no/such/place"], "devices": [], "cwd": str(cwd)}
                layers = {"landlock": 0, "namespaces": "own", "seccomp": False}
                return {**places, **layers, "network": False, "user": None}

        with pytest.raises(PipelineError, match="its sandbox could not be made: SandboxError: namespaces:"):
            capture(
                [sys.executable, "-c", "open('ran', 'w')"],
                cwd=tmp_path,
                env={},
                timeout=30,
                sandbox=Impossible(),
            )
        assert not (tmp_path / "ran").exists()


class TestTheProbe:
    @pytest.mark.parametrize("confined", [True, False])
    def test_reads_no_more_than_its_script(self, tmp_path: Path, layers: Layers, *, confined: bool) -> None:
        secret = tmp_path / "secret"
        secret.write_text("secret")
        script = tmp_path / "toolchain" / "examples" / "asks.py"
        script.parent.mkdir(parents=True)
        script.write_text(
            f"import argparse\nopen({str(secret)!r}).read()\nargparse.ArgumentParser().parse_args()\n"
        )
        answer = probe(
            [sys.executable, str(script)],
            interpreter=sys.executable,
            toolchain_root=tmp_path / "toolchain",
            env={"PATH": os.environ["PATH"]},
            **({"layers": layers} if confined else {}),
        )
        if confined:
            assert isinstance(answer, NotChecked)
            assert "PermissionError" in answer.reason
        else:
            assert isinstance(answer, Checked)


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_the_tokenizers_trial_reads_no_more_than_the_tokenizer(tmp_path: Path, mode: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    python = tmp_path / "own" / "python"
    python.parent.mkdir()
    python.write_text(
        f"#!{sys.executable}\nprint('{{\"error\": \"' + open({str(secret)!r}).read() + '\"}}')\n"
    )
    python.chmod(0o755)
    check = try_tokenizer({"config.json": b"{}"}, str(python), {"TRT_LLM_SANDBOX": mode})
    assert ("secret" in check.message) == (mode == "off")


def test_a_build_requires_the_sandbox_and_says_what_held(
    hub: HubServer, tmp_path: Path, layers: Layers
) -> None:
    env = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "TRTLLM_DIR": str(TOOLCHAIN),
        "TRT_LLM_WORKSPACE": str(tmp_path / "workspace"),
        "TRT_LLM_SANDBOX": "require",
    }
    program = "from trt_llm_pipeline.cli import main; main()"
    config = str(PROJECT_ROOT / "examples/gpt/config.yaml")
    done = subprocess.run(
        [sys.executable, "-c", program, "build", config],
        cwd=PROJECT_ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert replace(layers, policy=Policy("require")).in_words() in done.stderr.splitlines()[1]
    with tarfile.open(tmp_path / "workspace" / "engine.tar.gz") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert manifest["sandbox"] == layers.held()
