"""YAML as text with lines: what is kept as written, and the limits that hold while reading."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PRINT_PEAK_KIB
from trt_llm_pipeline.config.yaml_reader import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    MappingNode,
    Scalar,
    Sequence,
    SourceMap,
    parse,
    read_text,
)
from trt_llm_pipeline.errors import ConfigError, Mistake


def message(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, "c.yaml")
    return str(caught.value)


class TestScalars:
    @pytest.mark.parametrize(
        "text",
        ["0.50", "1e-3", "0", "007", "0x10", "on", "yes", "true", "null", "~", "2001-01-01", "1_000", ".5"],
    )
    def test_stay_as_written(self, text: str) -> None:
        node = parse(f"key: {text}", "c")
        assert node.items["key"] == Scalar(text, plain=True, line=1)

    @pytest.mark.parametrize(
        "written", ["'true'", '"true"', "!!str true", "! true", "|-\n  true", ">-\n  true"]
    )
    def test_quoted_ones_are_not_plain(self, written: str) -> None:
        value = parse(f"key: {written}", "c").items["key"]
        assert isinstance(value, Scalar)
        assert (value.text, value.plain) == ("true", False)

    def test_know_their_lines(self) -> None:
        node = parse("# comment\na: 1\n\nb:\n  - 2\n  - c: 3\n", "c")
        assert node.key_lines == {"a": 2, "b": 4}
        inner = node.items["b"]
        assert isinstance(inner, Sequence)
        assert isinstance(inner.items[1], MappingNode)
        assert inner.items[1].key_lines == {"c": 6}

    def test_keys_are_text_too(self) -> None:
        assert list(parse("1: a\ntrue: b\nnull: c\n1.0: d\n", "c").items) == ["1", "true", "null", "1.0"]


class TestAliasesAndMerges:
    def test_an_alias_is_what_it_stands_for(self) -> None:
        node = parse("a: &x [1, 2]\nb: *x\n", "c")
        assert node.items["a"] == node.items["b"]

    def test_an_anchor_can_be_used_again(self) -> None:
        node = parse("a: &x 1\nb: *x\nc: &x 2\nd: *x\n", "c")
        assert [value.text for value in node.items.values() if isinstance(value, Scalar)] == [
            "1",
            "1",
            "2",
            "2",
        ]

    def test_a_merge_adds_what_is_not_there(self) -> None:
        node = parse("base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nuse:\n  y: 5\n  <<: [*b, *o]\n", "c")
        use = node.items["use"]
        assert isinstance(use, MappingNode)
        assert {key: value.text for key, value in use.items.items() if isinstance(value, Scalar)} == {
            "y": "5",
            "x": "1",
            "z": "4",
        }
        assert use.key_lines == {"y": 4, "x": 1, "z": 2}


class TestMistakes:
    def test_all_duplicate_keys_are_named(self) -> None:
        assert message("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n") == (
            "2 mistakes in c.yaml:\n"
            "c.yaml:4: the key 'c' is already on line 3; keep one of the two\n"
            "c.yaml:5: the key 'a' is already on line 1; keep one of the two"
        )

    def test_duplicate_keys_can_be_collected_with_other_mistakes(self) -> None:
        found: list[Mistake] = []
        node = parse("a: 1\na: 2\n", "c", found)
        assert node.items["a"] == Scalar("1", plain=True, line=1)
        assert [mistake.line for mistake in found] == [2]

    def test_half_a_character_is_refused(self) -> None:
        assert "an unpaired surrogate" in message("a: \ud800")

    @pytest.mark.parametrize("tag", ["!!python/name:os.system", "!!int", "!!binary", "!x", "!!set", "!<x>"])
    def test_tags_are_refused(self, tag: str) -> None:
        assert "is not allowed; write plain values" in message(f"a: {tag} 1")


class TestLimits:
    def test_depth_counts_through_aliases(self) -> None:
        deepest = "[" * (MAX_DEPTH - 1) + "x" + "]" * (MAX_DEPTH - 1)
        parse(f"a: {deepest}", "c")
        assert f"more than {MAX_DEPTH} levels" in message(f"a: [{deepest}]")
        parse(f"a: &a {deepest}\nb: *a", "c")
        assert f"c.yaml:2: is nested more than {MAX_DEPTH} levels" in message(f"a: &a {deepest}\nb: [*a]")
        assert "c.yaml:3" in message(f"a: &a {deepest[1:-1]}\nb: &b [*a]\nc: [*b]")

    def test_an_alias_counts_for_what_it_stands_for(self) -> None:
        thousand = f"a: &a [{'x, ' * 998}x]\n"
        copies = MAX_NODES // 1000 - 2
        parse(thousand + "b: [" + "*a, " * copies + "]", "c")
        assert f"more than {MAX_NODES:,} values" in message(thousand + "b: [" + "*a, " * (copies + 2) + "]")

    def test_size(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("a: " + "x" * (MAX_BYTES - 4) + "\n")
        assert len(read_text(path)) == MAX_BYTES
        path.write_text("a: " + "x" * (MAX_BYTES - 3) + "\n")
        with pytest.raises(ConfigError, match=r"c\.yaml: is larger than 256 KiB"):
            read_text(path)

    MEASURE = """
import sys
from pathlib import Path
from trt_llm_pipeline import config
from trt_llm_pipeline.errors import ConfigError
try:
    config.load(Path(sys.argv[1]))
except ConfigError as error:
    assert len(str(error)) < 20_000, len(str(error))
else:
    raise SystemExit("accepted")
"""

    @pytest.mark.parametrize(
        "attack",
        [
            "a gigabyte",
            "an endless file",
            "aliases that explode",
            "aliases that nest",
            "brackets without end",
            "dashes without end",
            "keys without end",
            "unknown keys",
            "one long value",
        ],
    )
    def test_attacks_are_refused_in_little_memory(self, tmp_path: Path, attack: str) -> None:
        path = tmp_path / "config.yaml"
        head = "model_id: a/b\nexample_name: gpt\nbuild:\n  script: build.py\n"
        texts = {
            "aliases that explode": "a: &a [x, x]\n"
            + "".join(f"b{n}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(20)),
            "aliases that nest": "a0: &a0 [x]\n"
            + "".join(f"a{n + 1}: &a{n + 1} [*a{n}]\n" for n in range(9000)),
            "brackets without end": "a: " + "[" * (MAX_BYTES - 10),
            "dashes without end": "- " * (MAX_BYTES // 2 - 10),
            "keys without end": "? " * (MAX_BYTES // 2 - 10),
            "unknown keys": head + "".join(f"k{n}: x\n" for n in range(9000)),
            "one long value": head.replace("a/b", "x" * (MAX_BYTES - 100)),
        }
        if attack == "a gigabyte":
            with path.open("wb") as file:
                file.truncate(1 << 30)
        elif attack == "an endless file":
            path = Path("/dev/zero")
        else:
            path.write_text(texts[attack])
        done = subprocess.run(
            [sys.executable, "-c", self.MEASURE + PRINT_PEAK_KIB, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert int(done.stdout) < 100 * 1024


class TestReadText:
    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_bytes(b"\xef\xbb\xbfa: 1\n")
        assert read_text(path) == "a: 1\n"

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("missing.yaml", "cannot be read: No such file or directory"),
            ("", "is a directory; name a config file in it"),
            ("x" * 300, "cannot be read: File name too long"),
            ("a\0b", "cannot be read: is not a valid file name"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, name: str, reason: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_text(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {reason}"


def test_a_source_map_knows_the_closest_line_above() -> None:
    source = SourceMap("c", {("build",): 3, ("build", "args"): 5})
    assert source.line("build", "args", "dtype") == 5
    assert source.line("build", "script") == 3
    assert source.line("model_id") is None
    assert source.line() is None
