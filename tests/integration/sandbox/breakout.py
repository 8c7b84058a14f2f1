"""A script that tries to get out of its sandbox in every way that is known here, and says how it went.

    breakout.py --facts FACTS.json --out DIRECTORY

Each attempt is a function. What it returns is what it got; an `OSError` is a refusal. The outcomes are
printed as one line of JSON: attempt -> [whether it succeeded, what it got or was refused with].
"""

# ruff: noqa: PTH101, PTH110, PTH123, PTH208  the plain calls are what is tried

import argparse
import ctypes
import json
import os
import resource
import signal
import socket
import stat
import sys
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--facts", required=True)
parser.add_argument("--out", type=Path, required=True)
options = parser.parse_args()
FACTS = json.loads(options.facts)
WORKSPACE, SERVICE = Path(FACTS["workspace"]), FACTS["service"]
LIBC = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}


def attempt(function):
    ATTEMPTS[function.__name__] = function
    return function


def check(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def read(path):
    with open(path, "rb") as file:
        return file.read(200).decode(errors="replace")


def write(path):
    with open(path, "wb") as file:
        file.write(b"broken")
    return read(path)


# Files.


@attempt
def has_more_descriptors_than_it_needs():
    found = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    if len(found) <= 3:
        raise OSError(f"only {found}")


@attempt
def overwrite_the_users_file():
    return write(WORKSPACE / "notes.txt")


@attempt
def overwrite_it_through_its_link():
    return write("notes.txt")


@attempt
def overwrite_it_through_a_link_of_its_own():
    Path("mine").symlink_to(WORKSPACE / "notes.txt")
    return write("mine")


@attempt
def append_to_it():
    with open("notes.txt", "ab") as file:
        file.write(b"broken")


@attempt
def truncate_it():
    os.truncate(WORKSPACE / "notes.txt", 0)


@attempt
def link_it_to_a_name_of_its_own():
    os.link(WORKSPACE / "notes.txt", "hard")
    return write("hard")


@attempt
def make_a_file_beside_it():
    return write(WORKSPACE / "planted.py")


@attempt
def change_its_permissions():
    os.chmod(WORKSPACE / "notes.txt", 0o666)


@attempt
def change_its_time():
    os.utime(WORKSPACE / "notes.txt", (1, 1))


@attempt
def remove_it():
    (WORKSPACE / "notes.txt").unlink()


@attempt
def write_outside():
    return write(Path(FACTS["outside"]) / "planted")


@attempt
def read_outside():
    return read(Path(FACTS["outside"]) / "secret")


@attempt
def read_outside_through_a_link():
    Path("away").symlink_to(FACTS["outside"])
    return read("away/secret")


@attempt
def list_the_workspace():
    return os.listdir(WORKSPACE)


@attempt
def read_the_services_state():
    return read(WORKSPACE / ".trt-llm-pipeline" / "made.json")


@attempt
def read_another_model():
    return read(WORKSPACE / "models" / "other" / "weights")


@attempt
def change_its_model():
    return write(WORKSPACE / "models" / "m" / "config.json")


@attempt
def plant_a_model():
    (WORKSPACE / "models" / "victim").mkdir()


@attempt
def read_another_build():
    return read(WORKSPACE / "builds" / "earlier" / "build.json")


@attempt
def read_what_an_earlier_build_made():
    return read(WORKSPACE / "earlier" / "weights")


@attempt
def read_the_newest_archive():
    return read(WORKSPACE / "engine.tar.gz")


@attempt
def read_the_passwords():
    return read("/etc/shadow")


@attempt
def change_the_toolchain():
    return write(Path(__file__).parent / "planted.py")


@attempt
def change_the_kernel():
    with open("/proc/sys/kernel/hostname", "r+") as file:
        file.write(file.read())


@attempt
def make_a_device():
    os.mknod("device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


# The service's processes.


@attempt
def read_the_services_variables():
    return len(Path(f"/proc/{SERVICE}/environ").read_bytes())


@attempt
def read_the_services_memory():
    return os.close(os.open(f"/proc/{SERVICE}/mem", os.O_RDONLY))


@attempt
def leave_by_the_services_root():
    return read(f"/proc/{SERVICE}/root{FACTS['outside']}/secret")


@attempt
def leave_by_the_services_directory():
    return os.listdir(f"/proc/{SERVICE}/cwd")


@attempt
def open_the_supervisors_files():
    return os.open(f"/proc/{os.getppid()}/fd/0", os.O_RDONLY)


@attempt
def signal_the_service():
    os.kill(SERVICE, 0)


@attempt
def signal_the_supervisor():
    os.kill(os.getppid(), 0)


@attempt
def signal_the_service_by_descriptor():
    descriptor = os.pidfd_open(SERVICE)
    try:
        signal.pidfd_send_signal(descriptor, 0)
    finally:
        os.close(descriptor)


@attempt
def trace_the_service():
    attach, detach = 16, 17
    check(LIBC.ptrace(attach, SERVICE, 0, 0))
    os.waitpid(SERVICE, 0x40000000)
    check(LIBC.ptrace(detach, SERVICE, 0, 0))


@attempt
def reach_an_abstract_socket():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + FACTS["abstract"])


# The network.


@attempt
def reach_a_server_of_the_machine():
    with socket.create_connection(("127.0.0.1", FACTS["port"]), timeout=5):
        pass


@attempt
def send_a_datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", FACTS["udp_port"]))
    # Loopback of a namespace of one's own takes it too; the test looks at what arrived.


@attempt
def reach_it_by_fast_open():
    with socket.socket() as client:
        client.sendto(b"x", 0x20000000, ("127.0.0.1", FACTS["port"]))


@attempt
def reach_it_by_another_protocol():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as client:  # MPTCP
        client.settimeout(5)
        client.connect(("127.0.0.1", FACTS["port"]))


# Privileges.


@attempt
def become_another_user():
    child = os.fork()
    if child == 0:
        try:
            os.setuid(12345)
        except OSError:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise PermissionError("not permitted")


@attempt
def gain_by_a_set_user_id_program():
    if int(Path("/proc/self/status").read_text().partition("NoNewPrivs:")[2].split()[0]):
        raise PermissionError("no new privileges")


@attempt
def have_capabilities():
    status = Path("/proc/self/status").read_text()
    held = [int(status.partition(f"{name}:")[2].split()[0], 16) for name in ("CapEff", "CapPrm", "CapAmb")]
    if not any(held):
        raise PermissionError("none")


@attempt
def make_a_user_namespace():
    child = os.fork()
    if child == 0:
        os._exit(1 if LIBC.unshare(0x10000000) else 0)
    if os.waitpid(child, 0)[1]:
        raise PermissionError("not permitted")


@attempt
def use_the_kernels_keys():
    check(LIBC.syscall(ctypes.c_long(FACTS["keyctl"]), 0, -3, 1, 0, 0))


@attempt
def use_the_kernels_rings():
    parameters = ctypes.create_string_buffer(120)
    check(LIBC.syscall(ctypes.c_long(425), 1, parameters))


@attempt
def leave_a_core_dump():
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if 0 <= hard <= 1:
        raise PermissionError("no core dumps")


# What is left behind.


@attempt
def leave_a_set_user_id_file():
    path = options.out / "root"
    path.write_text("x")
    path.chmod(0o6755)


@attempt
def live_on():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)", FACTS["mark"]])
        os._exit(0)


options.out.mkdir(parents=True, exist_ok=True)
(options.out / "result").write_text("x")
outcomes = {}
for name, function in ATTEMPTS.items():
    try:
        outcomes[name] = [True, repr(function())[:200]]
    except (OSError, ValueError) as error:
        outcomes[name] = [False, str(error)]
print("OUTCOMES", json.dumps(outcomes), flush=True)
