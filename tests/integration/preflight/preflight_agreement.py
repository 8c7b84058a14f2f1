"""Asks argparse and the probe about the same random arguments; prints a JSON line for each disagreement.

usage: preflight_agreement.py PACKAGE SCRATCH COUNT. Runs on every Python from 3.8 on, with nothing installed.
"""

import argparse
import json
import random
import sys

sys.path.insert(0, sys.argv[1])
import probe_attempt
import probe_watch


class Wrong(BaseException):
    """The parser exits: the arguments are not accepted."""


class Done(BaseException):
    """The probe has its report."""


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Wrong(message)

    def exit(self, status=0, message=None):
        raise Wrong(message)

    def print_help(self, file=None):
        pass


def options():
    parser = Parser(prog="options")
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--out-dir", "-o")
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float16")
    parser.add_argument("--max_batch_size", "-b", type=int, default=8)
    parser.add_argument("--max_beam_width", type=int)
    parser.add_argument("--plugin", nargs="?", const=None, choices=["float16", "int8"])
    parser.add_argument("--padding", action="store_true")
    parser.add_argument("-v", action="count")
    parser.add_argument("--shape", type=int, nargs=2)
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--extra", nargs="*")
    parser.add_argument("--tag", action="append", choices=["a", "b"])
    return parser


def positionals():
    parser = Parser(prog="positionals")
    parser.add_argument("mode", choices=["convert", "build"])
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--padding", action="store_true")
    parser.add_argument("--dtype", choices=["float32", "float16"])
    parser.add_argument("--max_batch_size", type=int, required=True)
    return parser


def exclusive():
    parser = Parser(prog="exclusive")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--padding", action="store_true")
    precision.add_argument("--dtype", choices=["float32", "float16"])
    precision.add_argument("--plugin", nargs="?")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model_dir")
    source.add_argument("--max_batch_size", type=int)
    parser.add_argument("--shape", type=int, nargs=2)
    return parser


def subcommands():
    parser = Parser(prog="subcommands")
    parser.add_argument("--dtype", choices=["float32", "float16"])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build")
    build.add_argument("--max_batch_size", type=int, required=True)
    build.add_argument("--padding", action="store_true")
    commands.add_parser("convert").add_argument("mode", type=int)
    return parser


# What each parser accepts, in pieces; a case is some of them, with or without a few words changed.
PIECES = {
    options: (
        *(
            ["--model_dir", "x"],
            ["--mod=x"],
            ["--out-dir", "y"],
            ["-ofile"],
            ["-o", "f"],
            ["--dtype", "float16"],
        ),
        *(["--dt=float32"], ["--max_batch_size", "4"], ["-b4"], ["--max_be", "-5"], ["--plugin"], ["-vv"]),
        *(["--plugin", "int8"], ["--padding"], ["--pad"], ["--shape", "1", "2"], ["--layers", "1", "2", "3"]),
        *(["--extra"], ["--extra", "a", "x y"], ["--tag=b"], ["--out=-x"], ["--model", ""]),
    ),
    positionals: (
        *(
            ["convert"],
            ["build"],
            ["1", "2"],
            ["--padding"],
            ["--dtype", "float32"],
            ["--max_batch_size", "4"],
        ),
        *(["--max=7"], ["--", "3"], ["--pad"]),
    ),
    exclusive: (
        *(
            ["--padding"],
            ["--dtype", "float16"],
            ["--model_dir", "x"],
            ["--max_batch_size", "2"],
            ["--plugin"],
        ),
        *(["--shape", "3", "4"], ["--mod=y"]),
    ),
    subcommands: (
        *(["--dtype", "float16"], ["build", "--max_batch_size", "3"], ["--padding"], ["convert", "2"]),
        *(["build", "--max=1", "--pad"], ["convert", "-5"]),
    ),
}
REQUIRED = {
    options: ["--model_dir", "x"],
    positionals: ["--max_batch_size", "4", "build"],
    exclusive: ["--model_dir", "x"],
}
WORDS = (
    *("--model_dir", "--out_dir", "-o", "--dtype", "--dtype=x", "--max_b", "--max_batchsize", "-b", "-bx"),
    *(
        "--plugin=x",
        "--padding=1",
        "-v",
        "-vb3",
        "-vx",
        "--shape",
        "--layers",
        "--tag",
        "--tag=c",
        "--unknown",
    ),
    *("-x", "--no=1", "--help", "-h", "int8", "a", "1", "-5", "1.5", "x y", "", "-", "build", "bild", "--"),
    *("--max_batch_size=q", "--shape=1", "--padding", "--model_dir=z", "--max_batch_size"),
)


def accepted(make, words):
    try:
        make().parse_args(list(words))
    except Wrong:
        return False
    return True


def probed(make, words, scratch):
    """The probe's mistakes, with argparse as it was put back afterwards."""
    saved = dict(vars(argparse.ArgumentParser))
    opened = argparse.FileType.__call__
    args = [probe_attempt.Arg(word) for word in words]
    for place, arg in enumerate(args):
        arg.place = place
    reports = []

    def finish(report):
        reports.append(report)
        raise Done

    def not_parsed(kind, detail):
        finish({"parsed": {"mistakes": [{"kind": kind, "detail": detail}]}})

    probe_watch.Watch(args, scratch, finish, not_parsed).install()
    try:
        make().parse_args(args)
    except Done:
        pass
    finally:
        for name, value in saved.items():
            if callable(value) and getattr(argparse.ArgumentParser, name) is not value:
                setattr(argparse.ArgumentParser, name, value)
        argparse.FileType.__call__ = opened
    # An abbreviation is refused though argparse takes it.
    return [each for each in reports[0]["parsed"]["mistakes"] if each["kind"] != "abbreviated"]


def main():
    chance = random.Random(7)
    wrong = 0
    for _ in range(int(sys.argv[3])):
        make = chance.choice(list(PIECES))
        pieces = chance.sample(PIECES[make], chance.randint(0, min(6, len(PIECES[make]))))
        if chance.random() < 0.7 and make is not subcommands:
            pieces = [p for p in pieces if p[0] != REQUIRED[make][0]] + [REQUIRED[make]]
        words = [word for piece in pieces for word in piece]
        for _ in range(chance.choice((0, 0, 0, 0, 1, 2))):
            at = chance.randrange(len(words) + 1)
            words[at : at + chance.randint(0, 1)] = chance.choice(([], [chance.choice(WORDS)]))
        fine = accepted(make, words)
        mistakes = probed(make, words, sys.argv[2])
        wrong += not fine
        if fine == bool(mistakes):
            print(
                json.dumps({"parser": make.__name__, "words": words, "accepted": fine, "mistakes": mistakes})
            )
    print(json.dumps({"cases": int(sys.argv[3]), "not_accepted": wrong}))


main()
