"""Configs that try to reach something that is not theirs, or to exhaust the service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MODEL_ID
from tests.integration.house import TOOLCHAIN, House, Watch, wait_for
from trt_llm_pipeline.testing.hub import HubServer
from trt_llm_pipeline.testing.servers import CogServer

REFUSED_IN_BYTES = 100_000_000
SECRET = "what a file outside the workspace says"


@pytest.fixture(scope="module")
def house(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A workspace that is also somebody's checkout, beside a folder that is somebody else's."""
    house = House(hub, tmp_path_factory.mktemp("configs"))
    outside = house.folder / "outside"
    for folder in ("examples/gpt", ".git/refs", "TensorRT-LLM/examples", "models", "work"):
        (house.workspace / folder).mkdir(parents=True)
    outside.mkdir()
    for path in (
        house.workspace / "examples" / "gpt" / "mine.yaml",
        house.workspace / ".git" / "HEAD",
        house.workspace / "TensorRT-LLM" / "README.md",
        house.workspace / "notes.txt",
        outside / "secret.py",
    ):
        path.write_text(SECRET)
    (house.workspace / "link").symlink_to(outside)
    (house.workspace / "work" / "link").symlink_to("/")
    return house


@pytest.fixture(autouse=True)
def _nothing_is_touched(house: House) -> Iterator[None]:
    before = contents(house.folder)
    yield
    assert contents(house.folder) == before


def contents(folder: Path) -> dict[str, str]:
    """What somebody owns below the folder: the configs of these tests and the service's own records aside."""
    own = ("workspace/.trt-llm-pipeline", "workspace/builds", "workspace/models", "workspace/engine")
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith(("config-", *own)):
            continue
        found[name] = (
            str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        )
    return found


def quick(house: House, **changed: str) -> str:
    """A good config but for the keys `changed`, as YAML; `script` and `output_dir` are the build step's."""
    keys = {"model_id": MODEL_ID, "example_name": "faults", **changed}
    build = {"script": keys.pop("script", "behaves.py"), "output_dir": keys.pop("output_dir", "./engine")}
    if "executable" in keys:
        build["executable"] = keys.pop("executable")
    lines = [f"{key}: {json.dumps(value)}" for key, value in keys.items()]
    lines += ["build:", *(f"  {key}: {json.dumps(value)}" for key, value in build.items())]
    return house.text("\n".join([*lines, "  args:", "    output_dir: ./engine", ""]))


def refusal(server: CogServer, hub: HubServer, config: str) -> str:
    """The error of a prediction that must be refused before the Hub is asked for anything."""
    asked = len(hub.requests)
    prediction = server.predict(config=config)
    assert prediction["status"] == "failed"
    error = str(prediction["error"])
    assert "Traceback" not in error
    assert SECRET not in error
    assert len(hub.requests) == asked
    return error


class TestOutputDir:
    """A step's directory is emptied before it runs, so it must be the builds' own."""

    @pytest.mark.parametrize(
        ("output_dir", "words"),
        [
            ("..", "is outside the workspace"),
            ("/etc", "is outside the workspace"),
            ("link/engine", "is outside the workspace"),
            (".", "is the workspace itself"),
            ("${model_dir}", "is in models/"),
            ("builds/x", "is in builds/"),
            ("engine.tar.gz", "is where the newest archive is put"),
            ("notes.txt", "is a file"),
            ("work", "holds files that no build made"),
            *(
                pytest.param(*case, marks=pytest.mark.slow)
                for case in [
                    ("/", "is outside the workspace"),
                    ("../outside", "is outside the workspace"),
                    ("/src/..", "is outside the workspace"),
                    ("a/../../outside", "is outside the workspace"),
                    ("link", "is outside the workspace"),
                    ("work/link/tmp", "is outside the workspace"),
                    ("${model_dir}/../../../../outside", "is outside the workspace"),
                    ("/src", "is the workspace itself"),
                    ("work/..", "is the workspace itself"),
                    ("models", "is in models/"),
                    (".trt-llm-pipeline", "is in .trt-llm-pipeline/"),
                    ("examples", "holds files that no build made"),
                    ("examples/", "holds files that no build made"),
                    (".git", "holds files that no build made"),
                    ("TensorRT-LLM", "holds files that no build made"),
                ]
            ),
        ],
    )
    def test_directory_that_is_not_a_builds_own_is_refused(
        self, house: House, server: CogServer, hub: HubServer, output_dir: str, words: str
    ) -> None:
        assert words in refusal(server, hub, quick(house, output_dir=output_dir))


class TestNames:
    """Names that lead out of the toolchain's examples, or out of models/."""

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"example_name": ".."}, "example_name"),
            ({"script": "../../version.txt"}, "leads outside the toolchain's examples/"),
            ({"script": "-c"}, "is not in the example"),
            ({"script": "${model_dir}/evil.py"}, "outside the toolchain's examples/"),
            ({"executable": "bash"}, "is not allowed; choose one of python"),
            ({"model_id": "../outside"}, "is not a valid model id"),
            ({"revision": "../../x"}, "is not a valid branch, tag or commit"),
            ({"model_tar_url": "file:///etc/passwd"}, "must be an http:// or https:// address"),
            *(
                pytest.param(*case, marks=pytest.mark.slow)
                for case in [
                    ({"example_name": "../../../toolchain/examples"}, "example_name"),
                    ({"example_name": "faults/../../.."}, "example_name"),
                    ({"example_name": "/etc"}, "example_name"),
                    ({"script": "../../../../../../etc/passwd"}, "leads outside the toolchain's examples/"),
                    ({"script": "/etc/passwd"}, "must be a name below the toolchain's examples/"),
                    ({"script": "-m"}, "is not in the example"),
                    ({"executable": "/bin/sh"}, "is not allowed"),
                    ({"executable": "python -c pass"}, "is not allowed"),
                    ({"model_id": "/etc/passwd"}, "is not a valid model id"),
                    ({"model_id": "a/../../outside"}, "is not a valid model id"),
                    ({"model_id": ".trt-llm-pipeline/x"}, "is not a valid model id"),
                ]
            ),
        ],
    )
    def test_name_that_leads_elsewhere_is_refused(
        self, house: House, server: CogServer, hub: HubServer, changed: dict[str, str], words: str
    ) -> None:
        assert words in refusal(server, hub, quick(house, **changed))


def _layers(names: str) -> str:
    """Each list holds the one before it nine times: nine to the power of `len(names)`."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("a" + names, names, strict=False):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines) + "\n"


def _references(count: int) -> str:
    """Each option stands for the next one ten times."""
    lines = ["model_id: a/b", "example_name: ${build.args.a0}", "build:", "  script: x.py", "  args:"]
    for n in range(count):
        value = f"${{build.args.a{n + 1}}}" * 10
        lines.append(f"    a{n}: {value}")
    return "\n".join([*lines, f"    a{count}: xxxxxxxxxx", ""])


BOMBS = {
    "aliases": _layers("bcdefghijklmnopqrstu"),
    "merges": "a: &a {k: v}\n" + "".join(f"b{n}: {{<<: [*a, *a], n{n}: *a}}\n" for n in range(9000)),
    "nesting": "a: " + "[" * 50_000 + "]" * 50_000,
    "mappings": "a: " + "{a: " * 50_000 + "}" * 50_000,
    "keys": "".join(f"k{n}: v\n" for n in range(25_000)),
    "object": "a: !!python/object/apply:os.system ['touch {outside}/made']\n",
    "module": "a: !!python/module:subprocess\n",
    "new_object": "!!python/object/new:os.popen ['touch {outside}/made']\n",
    "long": "model_id: " + "x" * 250_000,
    "binary": "a: !!binary " + "A" * 200_000,
    "references": _references(30),
}


class TestYaml:
    """Documents that are small to write and large to read."""

    @pytest.mark.parametrize("name", BOMBS)
    def test_bomb_is_refused_at_once_and_in_little_memory(
        self, house: House, server: CogServer, hub: HubServer, name: str
    ) -> None:
        text = BOMBS[name].replace("{outside}", str(house.folder / "outside"))
        with Watch(server).watching() as watch:
            asked = len(hub.requests)
            server.wait_until_ready()
            prediction = server.predict(config=house.text(text))
        assert prediction["status"] == "failed"
        assert "ConfigError" in prediction["error"]
        assert len(prediction["error"]) < 20_000
        assert watch.grown < REFUSED_IN_BYTES
        assert len(hub.requests) == asked

    def test_gigabyte_as_a_path_is_refused_at_once(self, house: House, server: CogServer) -> None:
        path = Path(house.text(""))
        with path.open("wb") as file:
            file.truncate(1 << 30)
        with Watch(server).watching() as watch:
            prediction = server.predict(config=str(path))
        path.unlink()
        assert "is larger than 256 KiB" in prediction["error"]
        assert watch.grown < REFUSED_IN_BYTES

    @pytest.mark.slow
    def test_gigabyte_at_an_address_stays_out_of_memory(
        self, house: House, server: CogServer, hub: HubServer, tmp_path: Path
    ) -> None:
        path = tmp_path / "huge.yaml"
        with path.open("wb") as file:
            file.truncate(1 << 30)
        with Watch(server).watching() as watch:
            prediction = server.predict(config=hub.add_file("huge.yaml", path), timeout=60)
        assert "is larger than 256 KiB" in prediction["error"]
        assert watch.grown < REFUSED_IN_BYTES


class TestArguments:
    """Values are arguments of the script, and nothing else."""

    VALUES = (
        "; touch {made}",
        "$(touch {made})",
        "`touch {made}`",
        "| tee {made}",
        "> {made}",
        "&& touch {made} &",
        "a 'quoted' \"word\"",
        "line one\nline two",
        "*",
        "~",
        "$HOME",
        "%s {{}} \\",
    )

    def test_values_arrive_as_they_are_written(self, house: House, server: CogServer) -> None:
        made = house.folder / "outside" / "made"
        values = [value.replace("{made}", str(made)) for value in self.VALUES]
        config = house.config(args=f"note: {json.dumps(values)}", cache="false")
        prediction = server.predict(config=config)
        assert prediction["status"] == "succeeded", prediction["error"]
        (line,) = [line for line in prediction["logs"].splitlines() if line.startswith("arguments: ")]
        assert json.loads(line.partition(" ")[2]) == ["--output_dir", "./engine", "--note", *values]
        assert not made.exists()

    @pytest.mark.parametrize("value", ["-c", "-m", "--help", "-", "--output_dir=./x"])
    def test_value_that_looks_like_an_option_stays_a_value(
        self, house: House, server: CogServer, value: str
    ) -> None:
        config = house.config(args=f"note: {json.dumps(value)}", cache="false")
        prediction = server.predict(config=config)
        assert prediction["status"] == "succeeded", prediction["error"]
        assert json.dumps(["--output_dir", "./engine", f"--note={value}"]) in prediction["logs"]

    @pytest.mark.parametrize("key", ["-c; id", "a b", "--", "$(id)", "=", "-X=faulthandler\n"])
    def test_key_that_is_no_option_name_is_refused(
        self, house: House, server: CogServer, hub: HubServer, key: str
    ) -> None:
        config = house.config(args=f"{json.dumps(key)}: x")
        assert "is not a valid option name" in refusal(server, hub, config)


class TestPathsInArguments:
    """What a script would be told to read and write."""

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("output_dir", "/etc/ckpt", "is outside the workspace"),
            ("output_dir", "./models/victim/model", "is where downloads are, and no step may write there"),
            ("note", "${model_dir}/../../victim/model", "is in models/, and is not this build's own model"),
            ("note", "builds", "is in builds/, where the service keeps finished builds"),
            ("note", "/src/.trt-llm-pipeline/made.json", "where the service keeps its records"),
            ("note", "/proc/1/root/etc/shadow", "leads to wherever a process is"),
        ],
    )
    def test_path_that_leads_to_others_is_refused(
        self, house: House, server: CogServer, hub: HubServer, key: str, value: str, words: str
    ) -> None:
        path = Path(house.config(args="" if key == "output_dir" else f"{key}: {json.dumps(value)}"))
        if key == "output_dir":
            path.write_text(path.read_text().replace("    output_dir: ./engine", f"    output_dir: {value}"))
        error = refusal(server, hub, str(path))
        assert words in error
        assert f"build.args.{key}" in error
        line = next(at for at, text in enumerate(path.read_text().splitlines(), 1) if value in text)
        assert f"{path.name}:{line}:" in error


class TestRemoteCode:
    """Code from a model's repository is never run by the service itself."""


def test_server_is_ready_after_all_of_this(house: House, server: CogServer) -> None:
    wait_for(lambda: server.health() == "READY", "READY")
    assert server.predict(config=house.config())["status"] == "succeeded"
    assert not [path for path in TOOLCHAIN.rglob("*") if path.suffix == ".pyc"]
