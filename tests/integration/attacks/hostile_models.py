"""Repositories that try to have code of theirs run: one for each way in."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from trt_llm_pipeline.testing import weight_files

Files = dict[str, bytes]

#: The first of the five pickles of torch's older form, and the one after it.
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)


def statement(canary: Path) -> str:
    """What the attacker wants to be executed."""
    return f"open({str(canary)!r}, 'w').write('here')"


class Runs:
    """Pickled, it executes a statement."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (self.code,)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def torch_archive(program: bytes, **more: bytes) -> bytes:
    """A zip archive as torch writes it, with this data.pkl."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", b"3\n")
        for name, content in more.items():
            archive.writestr(f"archive/{name}", content)
    return output.getvalue()


def good_weights() -> bytes:
    """A `pytorch_model.bin` that only holds a tensor."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pytorch_model.bin")
        weight_files.write_torch_zip(path, {"weight": np.ones(3, np.float32)})
        return path.read_bytes()


def in_a_tar(name: str, content: bytes) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


def polyglot(program: bytes) -> bytes:
    """A tar, which torch tries first, whose first header is also the beginning of harmless pickles."""
    harmless = MAGIC + pickle.dumps({}, 2) + pickle.dumps({}, 2) + pickle.dumps([], 2)
    tar = bytearray(in_a_tar("x" * 60, program))
    tar[: len(harmless)] = harmless
    tar[148:156] = b" " * 8
    tar[148:156] = b"%06o\0 " % sum(tar[:512])
    return bytes(tar)


def pickles(code: str) -> dict[str, bytes]:
    """Files of weights that execute a statement of less than 256 letters, by what is wrong with them."""
    reduce = pickle.dumps({"weight": Runs(code)}, 2)
    ascii_only = pickle.dumps(Runs(code), 0)
    assert max(ascii_only) < 128
    named = b"cbuiltins\nexec\n"
    call = text(code) + b"\x85R"
    # The name is put together from the memo, where no search for `builtins exec` finds it.
    remembered = b"\x80\x04" + short("exec") + b"\x94" + short("builtins") + b"\x94" + b"00"
    remembered += b"h\x01h\x00\x93" + short(code) + b"\x85R."
    # Harmless names are first put under the numbers that are then overwritten.
    overwritten = b"\x80\x02ccollections\nOrderedDict\nq\x00" + named + b"q\x000h\x00" + call + b"."
    inner = torch_archive(reduce)
    with_prefix = b"\x80\x02}." + torch_archive(reduce)
    honest = good_weights()
    return {
        "reduce": torch_archive(reduce),
        "reduce, older form": MAGIC + pickle.dumps({}, 2) + reduce + pickle.dumps([], 2),
        "reduce in the first of five": pickle.dumps(Runs(code), 2) + MAGIC,
        "reduce in the list of storages": MAGIC
        + pickle.dumps({}, 2)
        + pickle.dumps({}, 2)
        + pickle.dumps([Runs(code)], 2),
        "a plain pickle": pickle.dumps(Runs(code)),
        "build": torch_archive(
            # The state goes to the __setstate__ that an earlier state has set.
            b"\x80\x02ctypes\nSimpleNamespace\n)R}"
            + text("__setstate__")
            + named
            + b"sb"
            + text(code)
            + b"b."
        ),
        "memo": torch_archive(remembered),
        "memo, plain": remembered,
        "memo, overwritten": torch_archive(overwritten),
        "seven bits": ascii_only,
        "seven bits, older form": MAGIC + pickle.dumps({}, 2) + ascii_only + pickle.dumps([], 2),
        "inst": b"(S" + repr(code).encode() + b"\nibuiltins\nexec\n.",
        "obj": b"(" + named + text(code) + b"o.",
        "Python 2's names": b"N0" + b"c__builtin__\nexec\n" + call + b".",
        "C's numbers": b"I010\n0g0\x00x\n."[:6] + named + call + b".",
        "buffer": b"C\x01x\x98" + named + call + b".",
        "behind a whole pickle": pickle.dumps({"a": 1}, 2) + pickle.dumps(Runs(code), 2),
        "in a zip in a zip": torch_archive(pickle.dumps({}, 2), **{"data/0": inner, "more.zip": inner}),
        "zip behind a pickle": with_prefix,
        "a tar": in_a_tar("pickle", reduce),
        "a tar that is also pickles": polyglot(reduce),
        "second data.pkl": two_entries(honest, reduce),
        "longer than it says": torch_archive(pickle.dumps({}, 2) + reduce),
    }


def two_entries(honest: bytes, program: bytes) -> bytes:
    """The archive with a second entry of the same name behind the first."""
    output = io.BytesIO(honest)
    with zipfile.ZipFile(output, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        info = zipfile.ZipInfo(name)
        archive.NameToInfo.clear()
        archive.writestr(info, program)
    return output.getvalue()


def compiled(source: str) -> bytes:
    """What Python makes of a source."""
    import marshal

    code = compile(source, "conf.py", "exec")
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def with_code(does: str) -> dict[str, Files]:
    """Repositories with code of their own, which executes a statement: what of them is not weights."""
    code = f"{does}\nclass Evil: pass\n".encode()
    config = {"model_type": "gpt2"}

    def described(**more: object) -> bytes:
        return json.dumps(config | more).encode()

    def mapped(**auto_map: object) -> bytes:
        return described(auto_map=auto_map)

    return {
        "auto_map of the config": {"config.json": mapped(AutoConfig="conf.Evil"), "conf.py": code},
        "auto_map of the model": {
            "config.json": mapped(AutoModelForCausalLM="modeling.Evil"),
            "modeling.py": code,
        },
        "auto_map of the tokenizer": {
            "tokenizer_config.json": mapped(AutoTokenizer="tok.Evil"),
            "tok.py": code,
        },
        "auto_map of a processor": {
            "preprocessor_config.json": mapped(AutoProcessor="proc.Evil"),
            "proc.py": code,
        },
        "custom_pipelines": {
            "config.json": described(custom_pipelines={"text": {"impl": "pipe.Evil"}}),
            "pipe.py": code,
        },
        "a .py beside": {"helper.py": code},
        "a .py in a folder": {"tools/deep/helper.py": code},
        "compiled": {"conf.pyc": compiled(code.decode())},
    }
