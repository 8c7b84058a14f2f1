"""What a program that is not trusted may read and write: the machine's libraries, its own places, no more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_llm_pipeline.process.layers import Layers

_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/proc", "/sys", "/nix/store",
    "/var/lib/ca-certificates", "/run/opengl-driver", "/run/nvidia", "/run/nvidia-persistenced",
    "/run/nvidia-fabricmanager", "/run/systemd/resolve",
)  # fmt: skip
#: Of /etc only what programs need to start and to speak with the network: it holds passwords and keys too.
_ETC = (
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "localtime", "timezone", "locale.alias",
    "locale.conf", "passwd", "group", "nsswitch.conf", "host.conf", "hosts", "hostname", "resolv.conf",
    "gai.conf", "protocols", "services", "networks", "rpc", "os-release", "lsb-release", "debian_version",
    "redhat-release", "system-release", "machine-id", "mime.types", "magic", "alternatives", "environment",
    "ssl/certs", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "pki/tls/certs",
    "pki/tls/cert.pem", "pki/ca-trust", "crypto-policies", "python3", "python3.10", "python3.11",
    "python3.12", "openmpi", "openmpi-mca-params.conf", "openmpi-default-hostfile", "prte", "pmix",
    "pmix-mca-params.conf", "hwloc", "ucx", "libibverbs.d", "libnl", "rdma", "OpenCL", "vulkan", "glvnd",
    "nvidia", "nvidia-container-runtime", "fonts", "terminfo", "inputrc", "profile", "bash.bashrc", "gcrypt",
    "numa.conf", "cpufreq-bench.conf", "cuda",
)  # fmt: skip
_DEVICES = (
    "null", "zero", "full", "random", "urandom", "tty", "nvidia*", "dri", "infiniband", "gdrdrv", "dxg",
    "kfd", "nvidia-caps", "nvidia-caps-imex-channels",
)  # fmt: skip
_OF_A_PREFIX = (
    "bin",
    "lib",
    "lib32",
    "lib64",
    "libexec",
    "include",
    "share",
    "etc",
    "ssl",
    "nvvm",
    "targets",
)
_CREDENTIALS = (
    ".cache/huggingface", ".aws", ".azure", ".config", ".docker", ".git-credentials", ".gnupg", ".kube",
    ".local/share/keyrings", ".netrc", ".ssh",
)  # fmt: skip
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
_SEARCHED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")


@dataclass(frozen=True)
class Sandbox:
    """What one program may do.

    Attributes:
        layers: what can be held here.
        read: files and directories that it may read and run.
        write: directories that it may also write; /dev/shm comes to them.
        network: whether it has the network.
    """

    layers: Layers
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: bool = False

    def give(self, *paths: Path) -> None:
        """Makes files the property of the user that the program will run as, where that is another."""
        if self.layers.policy.user is not None:
            for path in paths:
                os.chown(path, *self.layers.policy.user, follow_symlinks=False)

    def request(self, cwd: Path) -> dict[str, Any] | None:
        """The same for the supervisor, see `sandbox.apply`; None where no sandbox is wanted."""
        layers = self.layers
        if layers.policy.mode == "off":
            return None
        write = [*self.write, _SHARED_MEMORY]
        return {
            "read": [*_system(), *(str(path) for path in self.read)],
            "write": [os.path.realpath(path) for path in write if path.is_dir()],
            "devices": [str(path) for path in _devices()],
            "landlock": layers.landlock,
            "namespaces": layers.namespaces,
            "seccomp": layers.seccomp,
            "network": self.network,
            "user": list(layers.policy.user) if layers.policy.user else None,
            "cwd": str(cwd),
        }


def system_places() -> tuple[Path, ...]:
    """What every program may read, whatever it is: the system's libraries and settings, and devices."""
    return (*map(Path, _system()), *_devices(), _SHARED_MEMORY)


def program_places(python: str, env: Mapping[str, str], hidden: Iterable[Path]) -> tuple[Path, ...]:
    """Where an interpreter and the programs that its environment names lie.

    Args:
        python: the interpreter's path; a link to it makes a virtual environment, a script may start it.
        env: its environment.
        hidden: what must not become readable, even where it lies inside of such a place.
    """
    places: list[Path] = []
    programs = [Path(python), *_interpreter(Path(python))]
    forms = [form for program in programs for form in (program, Path(os.path.realpath(program)))]
    for path in dict.fromkeys(forms):
        places.append(path)
        prefix = path.parent.parent
        if (prefix / "pyvenv.cfg").is_file() or (prefix / "conda-meta").is_dir():
            places.append(prefix)
        else:
            places.extend(prefix / name for name in _OF_A_PREFIX)
        places.extend(_editable(prefix))
    for name in _SEARCHED:
        places.extend(Path(part) for part in env.get(name, "").split(os.pathsep) if part.startswith("/"))
    return readable(places, hidden)


def hidden_places(workspace: Path | None, env: Mapping[str, str]) -> list[Path]:
    """What no program that is not trusted may read, even where it lies in a place that it may."""
    home = Path(env.get("HOME") or Path.home())
    homes = [Path(env["HF_HOME"])] if env.get("HF_HOME") else []
    own = [workspace] if workspace else []
    return [*own, *homes, *(home / name for name in _CREDENTIALS)]


def readable(places: Iterable[Path], hidden: Iterable[Path]) -> tuple[Path, ...]:
    """Those of `places` that exist, without what is hidden: a place around it is split into its parts."""
    secret = [Path(os.path.realpath(path)) for path in hidden]
    found: dict[Path, None] = {}
    for place in places:
        found.update(dict.fromkeys(_without(Path(os.path.realpath(place)), secret)))
    return tuple(found)


def toolchain_places(root: Path, hidden: Iterable[Path]) -> tuple[Path, ...]:
    """A toolchain's directory, as `readable` has it; also where it lies inside of what is hidden."""
    real = Path(os.path.realpath(root))
    inside = any(real != path and real.is_relative_to(os.path.realpath(path)) for path in hidden)
    return (real,) if inside else readable([real], hidden)


def _without(place: Path, hidden: list[Path]) -> Iterator[Path]:
    if place == Path("/") or not place.exists():
        return
    if any(place == path or place.is_relative_to(path) for path in hidden):
        return
    inside = [path for path in hidden if path.is_relative_to(place)]
    if not inside:
        yield place
        return
    with suppress(OSError):
        for child in place.iterdir():
            if not child.is_symlink():
                yield from _without(child, inside)


def _interpreter(program: Path) -> Iterator[Path]:
    """What runs a program that is a script."""
    with suppress(OSError):
        with program.open("rb") as file:
            head = file.read(512).partition(b"\n")[0]
        if head.startswith(b"#!") and (words := head[2:].split()):
            yield Path(os.fsdecode(words[0]))


def _editable(prefix: Path) -> Iterator[Path]:
    """Directories that packages installed in place are in (https://docs.python.org/3/library/site.html)."""
    for file in prefix.glob("lib/python3*/*-packages/*.pth"):
        with suppress(OSError):
            for line in file.read_text(errors="replace").splitlines():
                if line.startswith("/") and Path(line.strip()).is_dir():
                    yield Path(line.strip())


def _system() -> list[str]:
    return [os.path.realpath(path) for path in (*_SYSTEM, *(f"/etc/{name}" for name in _ETC))]


def _devices() -> list[Path]:
    return [path for name in _DEVICES for path in sorted(Path("/dev").glob(name))]
