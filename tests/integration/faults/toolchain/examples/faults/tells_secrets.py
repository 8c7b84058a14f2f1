"""Says its token in every way that a careless script may."""

import os
import sys
import time

from engine import parser, write_engine

options = parser()
options.add_argument("--fail", action="store_true")
options.add_argument("--quiet", action="store_true")
options.add_argument("--name", action="store_true")
args = options.parse_args()

token = os.environ["HF_TOKEN"]
if args.name:
    write_engine(args.output_dir / token)
    raise SystemExit(1)
write_engine(args.output_dir)
if not args.quiet:
    print("token:", token, token)
    print(dict(os.environ))
    print(f"https://user:{token}@example.invalid/{token}/x?token={token}")
    sys.stdout.write(token[:7])
    sys.stdout.flush()
    time.sleep(0.5)  # longer than a line without an end is held back
    sys.stdout.write(token[7:] + "\n")
    sys.stdout.write("x" * 8190 + token + "\n")
    sys.stdout.write("\r".join(f"{number} {token}" for number in range(50)) + "\n")
    sys.stdout.flush()
    sys.stderr.write(token)
    sys.stderr.flush()
    for byte in token.encode():
        os.write(1, bytes([byte]))
time.sleep(0.1)
if args.fail:
    raise SystemExit(f"no access with {token}")
