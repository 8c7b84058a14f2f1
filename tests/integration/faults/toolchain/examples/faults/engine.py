"""What every script here shares: options, and an engine that passes for one."""

import argparse
import json
import os
import random
from pathlib import Path


def parser():
    made = argparse.ArgumentParser(allow_abbrev=False)
    made.add_argument("--output_dir", type=Path, required=True)
    return made


def write_engine(directory, size=64, seed=None):
    """An engine directory: `size` random bytes, so that packing them takes its time; the same for a seed."""
    directory.mkdir(parents=True, exist_ok=True)
    draw = os.urandom if seed is None else random.Random(seed).randbytes
    with (directory / "rank0.engine").open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(draw(min(1 << 20, size - start)))
    config = {"pretrained_config": {"architecture": "FaultForCausalLM", "dtype": "float16"}}
    (directory / "config.json").write_text(json.dumps(config))
