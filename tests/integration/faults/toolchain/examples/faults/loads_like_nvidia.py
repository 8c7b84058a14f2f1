"""Loads a model as NVIDIA's scripts do: with `trust_remote_code=True`, and weights through a plain unpickler.

What transformers and torch do with a repository is done here with the standard library alone, and more
willingly: whatever could be imported or unpickled is.
"""

import importlib.machinery
import importlib.util
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

from engine import parser, write_engine

LOADERS = {
    ".py": importlib.machinery.SourceFileLoader,
    ".pyc": importlib.machinery.SourcelessFileLoader,
}
WEIGHTS = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if module.partition(".")[0] == "torch":
            return dict if name == "FloatStorage" else lambda *_: None
        return super().find_class(module, name)

    def persistent_load(self, pid):
        return pid


def attempt(run, *given):
    try:
        run(*given)
    except Exception as error:
        print(f"{given[0] if isinstance(given[0], Path) else 'a part'}: {type(error).__name__}: {error}")


def execute(path):
    if path.suffix in LOADERS:
        spec = importlib.util.spec_from_loader(path.stem, LOADERS[path.suffix](path.stem, str(path)))
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def unpickle(stream):
    """One pickle after another, as torch reads its older form."""
    while stream.read(1):
        stream.seek(-1, io.SEEK_CUR)
        Unpickler(stream).load()


def load(content):
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                attempt(load, tar.extractfile(member).read())
            return
    except tarfile.TarError:
        pass
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                attempt(load, archive.read(entry))
        return
    unpickle(io.BytesIO(content))


def named_files(folder):
    """What the configs and indexes name."""
    for path in folder.rglob("*.json"):
        described = json.loads(path.read_text())
        targets = list(described.get("auto_map", {}).values()) if isinstance(described, dict) else []
        targets += [each["impl"] for each in described.get("custom_pipelines", {}).values()]
        yield from (folder / f"{target.rpartition('.')[0]}.py" for target in targets)
        yield from (folder / name for name in described.get("weight_map", {}).values())


options = parser()
options.add_argument("--model_dir", type=Path, required=True)
args = options.parse_args()
everything = [path for path in args.model_dir.rglob("*") if path.is_file() and ".cache" not in path.parts]
for path in dict.fromkeys([*named_files(args.model_dir), *everything]):
    if path.suffix in LOADERS:
        attempt(execute, path)
    elif path.suffix in WEIGHTS or path in named_files(args.model_dir):
        attempt(lambda path: load(path.read_bytes()), path)
write_engine(args.output_dir)
