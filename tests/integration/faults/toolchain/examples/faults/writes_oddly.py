"""Writes what nobody expects of a step: very many files, files without content, names that are no text."""

import os

from engine import parser, write_engine

options = parser()
options.add_argument("--what", choices=["many", "sparse", "names"], required=True)
args = options.parse_args()

write_engine(args.output_dir)
if args.what == "many":
    for number in range(200):
        folder = args.output_dir / f"part{number}"
        folder.mkdir()
        for name in range(1000):
            (folder / f"{name}.bin").touch()
elif args.what == "sparse":
    with (args.output_dir / "rank1.bin").open("wb") as file:
        file.write(b"begin")
        file.truncate(1 << 40)
else:
    descriptor = os.open(os.fsencode(args.output_dir) + b"/bad-\xff.bin", os.O_CREAT | os.O_WRONLY)
    os.close(descriptor)
print("everything is written", flush=True)
