"""`trt-llm-pipeline submit`: to this project's own server, and to one that is asked again as Replicate is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import ROOT
from tests.integration.conftest import Service
from tests.integration.house import House, start_until, wait_for
from trt_llm_pipeline.artifact import read_archive
from trt_llm_pipeline.cli import app
from trt_llm_pipeline.errors import BadArgument
from trt_llm_pipeline.submission.api import address_of
from trt_llm_pipeline.submission.failure import failure
from trt_llm_pipeline.submission.webhook import Receiver
from trt_llm_pipeline.testing.servers import CogServer

QUICK_START = str(ROOT / "examples" / "gpt" / "config.yaml")
COMMAND = Path(sys.executable).with_name("trt-llm-pipeline")


def run(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["submit", *arguments], env=env)


class TestCog:
    """Cog's own server has no address to ask about a prediction: it tells by webhook, or in the answer."""

    def test_log_is_followed_and_the_archive_is_saved_and_verified(
        self, service: Service, tmp_path: Path
    ) -> None:
        output = tmp_path / "mine.tar.gz"
        service.cog.wait_until_ready()
        done = run(QUICK_START, "--to", service.cog.url, "--output", str(output), "--json")
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["output"] == str(output)
        assert told["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
        assert not read_archive(str(output)).problems
        assert "step build: done in" in done.stderr
        assert done.stderr.count("step build: done in") == 1
        events = [json.loads(line) for line in done.stderr.splitlines()]
        assert {event["event"] for event in events} == {"log"}
        assert [path.name for path in tmp_path.iterdir()] == ["mine.tar.gz"]

    def test_answer_without_webhooks_is_the_same(self, service: Service, tmp_path: Path) -> None:
        output = tmp_path / "engine.tar.gz"
        service.cog.wait_until_ready()
        address = service.cog.url.replace("127.0.0.1", "[::ffff:127.0.0.1]")  # no name for this machine to it
        done = run(QUICK_START, "--to", address, "--output", str(output))
        assert done.exit_code == 0, done.stderr
        assert done.stdout == f"{output}\n"
        assert "verified: " in done.stderr
        assert "step build: " in done.stderr

    def test_what_a_destination_has_is_said_and_nothing_is_saved(
        self, service: Service, tmp_path: Path
    ) -> None:
        service.cog.wait_until_ready()
        output = ["--output", str(tmp_path / "engine.tar.gz")]
        to = ["--to", service.cog.url, "--input", "destination=file:///src/out/x.tar.gz"]
        done = run(QUICK_START, *to, *output)
        assert done.exit_code == 0, done.stderr
        assert done.stdout.strip() == f"file://{service.workspace.resolve()}/out/x.tar.gz"
        said = "the archive has been sent to its destination, as follows; nothing was written to"
        assert f"{said} {tmp_path / 'engine.tar.gz'}" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_failed_build_says_what_the_server_says(self, service: Service, tmp_path: Path) -> None:
        (tmp_path / "wrong.yaml").write_text("model_id: a\nexample_name: gpt\n")
        service.cog.wait_until_ready()
        done = run(str(tmp_path / "wrong.yaml"), "--to", service.cog.url, "--json")
        assert done.exit_code == 2
        told = json.loads(done.stdout)
        assert (told["type"], told["kind"], told["cause"]) == ("PredictionFailed", "config", "ConfigError")
        assert "wrong.yaml: build: is missing" in told["error"]
        text = Path(QUICK_START).read_text()
        (tmp_path / "gone.yaml").write_text(text.replace("sshleifer/tiny-gpt2", "nobody/nothing"))
        gone = run(str(tmp_path / "gone.yaml"), "--to", service.cog.url)
        assert gone.exit_code == 3
        assert "Prediction failed" not in gone.stderr
        assert "has no model nobody/nothing" in gone.stderr

    def test_an_input_that_the_server_does_not_know_is_refused(
        self, service: Service, tmp_path: Path
    ) -> None:
        service.cog.wait_until_ready()
        options = ["--to", service.cog.url, "--output", str(tmp_path / "engine.tar.gz"), "--json"]
        for given, advice in (("destinaton", "did you mean destination?"), ("xyz", "it takes config, ")):
            done = run(QUICK_START, *options, "--input", f"{given}=file:///src/out/x.tar.gz")
            assert (done.exit_code, done.stderr) == (2, "")
            told = json.loads(done.stdout)
            assert told["type"] == "BadArgument"
            assert told["error"].startswith(f"{given} is no input of {service.cog.url}; {advice}")
        assert list(tmp_path.iterdir()) == []

    def test_an_interruption_cancels_the_prediction(
        self, house: House, server: CogServer, tmp_path: Path
    ) -> None:
        server.wait_until_ready()
        seen = len(server.output())
        argv = [COMMAND, "submit", house.config("will_not_die.py"), "--to", server.url]
        process = subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: "everything is started" in server.output()[seen:], "the step runs")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "the prediction has been cancelled" in err
        wait_for(lambda: not house.alive_below(server), "every process of the step is dead")

    @pytest.mark.slow
    def test_a_busy_server_is_a_reason_to_come_again(
        self, house: House, server: CogServer, tmp_path: Path
    ) -> None:
        prediction = start_until(server, house.config("will_not_die.py"), "everything is started")
        done = run(QUICK_START, "--to", server.url, "--output", str(tmp_path / "x"), "--json")
        server.cancel(prediction)
        assert (done.exit_code, json.loads(done.stdout)["type"]) == (75, "ServerBusy")


@dataclass
class Polled:
    """A service that is asked again, as Replicate's API describes it; it builds nothing."""

    output: str = ""
    status: str = "succeeded"
    port: int = 0
    asked: list[tuple[str, str, str | None, dict[str, Any]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/deployments/acme/builder"


@pytest.fixture
def polled() -> Iterator[Polled]:
    state = Polled()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._answer(201, "starting", "")

        def do_GET(self) -> None:
            count = sum(method == "GET" for method, *_ in state.asked)
            if count == 0:
                self._answer(200, "processing", "one\n")
            else:
                self._answer(200, state.status, "one\ntwo\n")

        def _answer(self, status: int, stands: str, logs: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            authorization = self.headers.get("Authorization")
            state.asked.append((self.command, self.path, authorization, json.loads(body or b"{}")))
            get = f"http://127.0.0.1:{state.port}/v1/predictions/p1"
            told = {"id": "p1", "status": stands, "logs": logs, "urls": {"get": get}, "error": "it broke"}
            data = json.dumps(told | ({"output": state.output} if stands == "succeeded" else {})).encode()
            self.send_response(status if authorization == "Bearer r8_secret" else 401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


class TestPolled:
    """A service that has tokens and says where to ask."""

    @pytest.mark.slow
    def test_it_is_asked_until_it_has_ended_and_the_output_is_fetched(
        self, polled: Polled, service: Service, tmp_path: Path
    ) -> None:
        service.cog.wait_until_ready()
        real = tmp_path / "real.tar.gz"
        assert run(QUICK_START, "--to", service.cog.url, "--output", str(real)).exit_code == 0
        (service.folder / "out.tar.gz").write_bytes(real.read_bytes())
        polled.output = f"{service.configs.url}/out.tar.gz"
        output = tmp_path / "engine.tar.gz"
        to = ["--to", polled.url, "--token-env", "MY_TOKEN", "--model-version", "v7"]
        done = run(QUICK_START, *to, "--output", str(output), MY_TOKEN="r8_secret")
        assert done.exit_code == 0, done.stderr
        assert output.read_bytes() == real.read_bytes()
        assert done.stderr.startswith("one\ntwo\n")
        method, path, _, body = polled.asked[0]
        assert (method, path) == ("POST", "/v1/deployments/acme/builder/predictions")
        assert body["version"] == "v7"
        sent = base64.b64decode(body["input"]["config"].partition(",")[2]).decode()
        assert sent == Path(QUICK_START).read_text()
        assert "r8_secret" not in done.stdout + done.stderr

    @pytest.mark.slow
    def test_an_archive_that_is_not_what_its_manifest_says_is_not_kept(
        self, polled: Polled, tmp_path: Path
    ) -> None:
        polled.output = f"data:application/gzip;base64,{base64.b64encode(b'no archive').decode()}"
        output = tmp_path / "engine.tar.gz"
        to = ["--to", polled.url, "--token-env", "MY_TOKEN"]
        done = run(QUICK_START, *to, "--output", str(output), MY_TOKEN="r8_secret")
        assert done.exit_code == 5
        assert list(tmp_path.iterdir()) == []

    def test_failure_refusal_and_a_token_that_is_not_there(self, polled: Polled) -> None:
        to = ["--to", polled.url, "--token-env", "MY_TOKEN"]
        refused = run(QUICK_START, *to, MY_TOKEN="r8_another")
        assert (refused.exit_code, "answers HTTP 401: it broke" in refused.stderr) == (1, True)
        polled.asked.clear()
        polled.status = "failed"
        failed = run(QUICK_START, *to, MY_TOKEN="r8_secret")
        assert (failed.exit_code, "it broke" in failed.stderr) == (1, True)
        missing = run(QUICK_START, *to, MY_TOKEN="")
        assert (missing.exit_code, "set MY_TOKEN" in missing.stderr) == (2, True)
        assert "r8_secret" not in refused.stderr + failed.stderr


@pytest.mark.parametrize(
    "text",
    [
        "ftp://x",
        "localhost:5000",
        "https://user:pw@host",
        "http://",
        "http://[::1",
        "http://localhost:abc",
        "http://localhost:99999",
        "http://local host:5000",
        "http://local\nhost:5000",
        "http://x\udcff\udcfe:5000",
        "http://x/\u00e9",
        f"http://{'x' * 64}\u00e9:5000",
    ],
)
def test_what_is_no_address_of_a_server(text: str) -> None:
    with pytest.raises(BadArgument, match="is no address of a server") as caught:
        address_of(text)
    assert str(caught.value).isprintable()
    assert run(QUICK_START, "--to", text).exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "http://bob:Sup3rPw99@127.0.0.1:1/x",
        "https://Sup3rPw99@host",
        "bob:Sup3rPw99@host:5000",
        "http://bob:Sup3/rPw99@host:5000",
        "http://bob:Sup3rPw99?x@host",
        "http://bob:Sup3rPw99@[::1",
    ],
)
def test_what_is_before_the_host_is_not_repeated(text: str) -> None:
    done = run(QUICK_START, "--to", text)
    assert done.exit_code == 2
    assert "and nothing with an @ before HOST" in done.stderr
    assert not any(part in done.output for part in ("Sup3", "rPw99", "bob"))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://localhost:5000/predictions/", "http://localhost:5000"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("http://b\u00fccher.example/a", "http://xn--bcher-kva.example/a"),
    ],
)
def test_an_address_as_it_goes_over_the_wire(text: str, address: str) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--input", "hf_token=hf_abc\udcff"], "hf_token holds bytes that are no text (UTF-8)"),
        (["--input", "config=x"], "config is given as the argument CONFIG"),
        (["--token-env", "NO_SUCH_TOKEN"], "NO_SUCH_TOKEN is not set; set NO_SUCH_TOKEN"),
        (
            ["--model-version", "abc"],
            "--model-version is for Replicate and services like it, which take a token",
        ),
    ],
)
def test_what_cannot_be_sent_or_would_be_left_out_is_refused_before(given: list[str], words: str) -> None:
    done = run(QUICK_START, "--to", "http://127.0.0.1:9", *given)  # nobody answers there
    assert (done.exit_code, done.stdout) == (2, "")
    assert words in " ".join(done.stderr.split())
    assert "hf_abc" not in done.stderr


def test_a_server_that_is_not_there_and_a_token_in_the_clear() -> None:
    gone = run(QUICK_START, "--to", "http://127.0.0.1:9")
    assert (gone.exit_code, "cannot be reached: Connection refused" in gone.stderr) == (1, True)
    clear = run(QUICK_START, "--to", "http://example.invalid", "--token-env", "MY_TOKEN", MY_TOKEN="x")
    assert (clear.exit_code, "no token is sent there" in clear.stderr) == (2, True)
    assert run(QUICK_START, "--to", "localhost:5000").exit_code == 2
    assert os.environ.get("MY_TOKEN") is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("Worker crashed", "Worker crashed; the log of the server says more"),
        ("Prediction failed: ValueError: odd", "ValueError: odd"),
        ("Prediction failed: DiskFull: no room", "no room"),
    ],
)
def test_what_the_server_says_itself_leads_to_its_log(error: str, said: str) -> None:
    assert str(failure({"status": "failed", "error": error})) == said


def test_a_server_of_another_kind() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = run(QUICK_START, "--to", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert (done.exit_code, "answers HTTP 501; check that --to names a pred" in done.stderr) == (1, True)


def test_a_server_that_knows_no_predictions_says_so_in_words_of_its_own() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = b'{"detail": "Not Found."}'
            self.send_response(404)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        done = run(QUICK_START, "--to", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert done.exit_code == 1
    assert "answers HTTP 404: Not Found; check that --to names a prediction server" in done.stderr


@pytest.mark.parametrize("host", ["203.0.113.9", "no-such-host.invalid", "::1"])
def test_an_address_that_is_not_this_machines_cannot_be_listened_at(host: str) -> None:
    with pytest.raises(BadArgument, match=f"--listen: {host} is no IPv4 address of this machine"):
        Receiver(host).__enter__()
