"""What a tar may hold: bounded before anything is done with it, linear work on paths, links that stay in."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from trt_llm_pipeline.errors import ModelSourceError
from trt_llm_pipeline.model_source import tar_extract
from trt_llm_pipeline.model_source.tar_extract import DEEPEST_PATH, LONGEST_PATH, Unpacked, unpack

_MIB = 1 << 20


def tar_of(*entries: tuple[str, bytes, str]) -> bytes:
    """A tar of entries: name, type, and what a link leads to; a regular file holds one byte."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 1 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"x"))
    return output.getvalue()


def unpacked(content: bytes, folder: Path) -> Unpacked:
    folder.mkdir()
    return unpack(iter([content]), folder, "the tar", most_bytes=1000, tick=lambda: None)


def deep(parts: int) -> str:
    return "/".join(["a"] * parts)


@pytest.mark.parametrize("parts", [20_000, 500_000])
@pytest.mark.parametrize(
    "entry",
    [
        lambda name: (name, tarfile.REGTYPE, ""),
        lambda name: (name, tarfile.DIRTYPE, ""),
        lambda name: ("link", tarfile.SYMTYPE, name),
        lambda name: ("link", tarfile.LNKTYPE, name),
    ],
    ids=["file", "folder", "symlink", "hard link"],
)
def test_path_of_very_many_parts_is_refused_in_no_time_and_no_memory(
    tmp_path: Path, entry: Callable[[str], tuple[str, bytes, str]], parts: int
) -> None:
    content = tar_of(entry(deep(parts)))
    before, started = psutil.Process().memory_info().rss, time.process_time()
    with pytest.raises(ModelSourceError, match=r"path of .* bytes; at most 1,024") as refused:
        unpacked(content, tmp_path / "model")
    assert time.process_time() - started < 2
    assert psutil.Process().memory_info().rss - before < 100 * _MIB
    assert len(str(refused.value)) < 500
    assert list((tmp_path / "model").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("b" * (LONGEST_PATH + 1), "path of 1,025 bytes"),
        (deep(DEEPEST_PATH + 2), "33 folders deep; at most 32"),
        ("folder/" + "c" * 256, "more than 255 bytes"),
    ],
)
def test_bounds_are_named(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(ModelSourceError, match=sentence):
        unpacked(tar_of((name, tarfile.REGTYPE, "")), tmp_path / "model")


def test_what_is_just_within_the_bounds_is_unpacked(tmp_path: Path) -> None:
    long = "/".join(["d" * 250] * 4)
    result = unpacked(
        tar_of((deep(DEEPEST_PATH + 1), tarfile.REGTYPE, ""), (long, tarfile.REGTYPE, "")), tmp_path / "m"
    )
    assert result.files == (deep(DEEPEST_PATH + 1), long)
    assert all((result.root / name).read_bytes() == b"x" for name in result.files)


def test_folders_are_counted_wherever_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_extract, "MOST_FOLDERS", 100)
    names = [f"{number}/{deep(9)}" for number in range(20)]
    with pytest.raises(ModelSourceError, match="more than 100 folders"):
        unpacked(tar_of(*((name, tarfile.REGTYPE, "") for name in names)), tmp_path / "model")


@pytest.mark.parametrize(
    "entries",
    [
        [("a/b", tarfile.REGTYPE, ""), ("a", tarfile.REGTYPE, "")],
        [("a", tarfile.REGTYPE, ""), ("a/b", tarfile.REGTYPE, "")],
        [("a", tarfile.REGTYPE, ""), ("a", tarfile.DIRTYPE, "")],
    ],
)
def test_file_and_folder_of_one_name_are_refused(
    tmp_path: Path, entries: list[tuple[str, bytes, str]]
) -> None:
    with pytest.raises(ModelSourceError, match="a is a file and a folder"):
        unpacked(tar_of(*entries), tmp_path / "model")


def test_link_in_the_way_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="a/b lies behind the link a"):
        unpacked(
            tar_of(("c", tarfile.REGTYPE, ""), ("a", tarfile.SYMTYPE, "c"), ("a/b", tarfile.REGTYPE, "")),
            tmp_path / "model",
        )


CONFIG = ("w/config.json", tarfile.REGTYPE, "")


@pytest.mark.parametrize(
    "links",
    [
        [("w/sub/l", "../../w/config.json")],
        [("w/sub/l", "../../w/nothing")],
        [("w/l", "../w")],
        [("w/here", "a/b/c"), ("w/a/b/c/up", "../../.."), ("w/l", "a/b/c/up/../w/config.json")],
        [("w/up", "."), ("w/l", "up/up/a/../../w")],
    ],
    ids=["back in", "to nothing", "to the wrapper", "through another link", "to what is not there"],
)
def test_link_out_of_the_wrapper_and_back_in_is_refused(tmp_path: Path, links: list[tuple[str, str]]) -> None:
    """Without the wrapper it leads into the folder of another model."""
    entries = [(path, tarfile.SYMTYPE, target) for path, target in links]
    with pytest.raises(ModelSourceError, match=f"the link {links[-1][0]} leads out of the archive"):
        unpacked(tar_of(CONFIG, *entries), tmp_path / "model")


def test_links_that_stay_inside_the_wrapper_are_kept(tmp_path: Path) -> None:
    result = unpacked(
        tar_of(
            CONFIG,
            ("w/sub/deep/x", tarfile.REGTYPE, ""),
            ("w/l", tarfile.SYMTYPE, "sub/back/config.json"),
            ("w/sub/back", tarfile.SYMTYPE, ".."),
            ("w/m", tarfile.SYMTYPE, "l"),
        ),
        tmp_path / "model",
    )
    assert result.links == ("l", "m", "sub/back")
    assert all((result.root / name).resolve() == result.root / "config.json" for name in ("l", "m"))


@pytest.mark.parametrize(
    "links",
    [
        {"w/a": "b", "w/b": "a"},
        {"w/a": "a"},
        {"w/a": "a/x"},
        {f"w/{n}": f"{n + 1}" for n in range(41)},
        {f"w/{n}": f"{n + 1}" for n in reversed(range(41))},
    ],
    ids=["two", "itself", "below itself", "long", "long, backwards"],
)
def test_links_that_cannot_be_followed_are_refused(tmp_path: Path, links: dict[str, str]) -> None:
    entries = [(path, tarfile.SYMTYPE, target) for path, target in links.items()]
    with pytest.raises(ModelSourceError, match=r"the link w/\w+ leads in a circle, or through more than 40"):
        unpacked(tar_of(CONFIG, *entries), tmp_path / "model")


def test_as_many_links_in_a_row_as_the_system_follows_are_kept(tmp_path: Path) -> None:
    names = [f"w/{n}" for n in range(40)]
    entries = [(name, tarfile.SYMTYPE, f"{n + 1}") for n, name in enumerate(names)]
    result = unpacked(tar_of(*entries, ("w/40", tarfile.REGTYPE, "")), tmp_path / "model")
    assert (result.root / "0").read_bytes() == b"x"


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_control_characters_of_a_name_are_not_shown_raw(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ModelSourceError, match="refused") as refused:
        unpacked(tar_of(("m/\x1b]0;pwned\x07", kind, "../../\x1b[2J")), tmp_path / "model")
    assert str(refused.value).isprintable()


def header(name: str, kind: bytes, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(kind: bytes, values: dict[str, str]) -> bytes:
    """An extended header, or a global one."""
    return tarfile.TarInfo._create_pax_generic_header(values, kind, "utf-8")


def global_headers(count: int, size: int) -> bytes:
    return b"".join(
        pax(tarfile.XGLTYPE, {f"key{n}": "v" * size}) + header(f"f{n}", tarfile.REGTYPE) for n in range(count)
    )


@pytest.mark.parametrize(("count", "size"), [(30, 900_000), (101, 1)], ids=["long", "many"])
def test_global_headers_are_bounded_in_all(tmp_path: Path, count: int, size: int) -> None:
    """Each is kept for all entries that follow."""
    before = psutil.Process().memory_info().rss
    with pytest.raises(ModelSourceError, match=r"global headers of .* in all; at most 100 of"):
        unpacked(global_headers(count, size) + bytes(1024), tmp_path / "model")
    assert psutil.Process().memory_info().rss - before < 60 * _MIB


def test_a_few_global_headers_are_read(tmp_path: Path) -> None:
    assert unpacked(global_headers(100, 1) + bytes(1024), tmp_path / "m").files


def test_headers_before_one_entry_are_bounded_in_all(tmp_path: Path) -> None:
    content = pax(tarfile.XHDTYPE, {"comment": "v" * 900_000}) * 30
    with pytest.raises(ModelSourceError, match="the headers of one entry hold more than"):
        unpacked(content + tar_of(CONFIG), tmp_path / "model")


@pytest.mark.parametrize("digit", ["0", "7"])
def test_row_of_digits_that_takes_minutes_to_search_is_refused(tmp_path: Path, digit: str) -> None:
    content = pax(tarfile.XHDTYPE, {"comment": digit * 30_000})
    with pytest.raises(ModelSourceError, match="a header with more than 300 digits in a row"):
        unpacked(content + tar_of(CONFIG), tmp_path / "model")


def sparse_map() -> bytes:
    """More of a map of holes than anybody should read."""
    return b"9999999999\n" + b"1\n" * (8 * _MIB)


def old_sparse_file() -> bytes:
    """The format that has its own type: the rest of the map follows the header, in blocks."""
    head = bytearray(header("w/holes", tarfile.GNUTYPE_SPARSE, 512))
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + (bytes(504) + b"\1" + bytes(7)) * 20_000


NEW_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "w/holes"}


@pytest.mark.parametrize(
    "content",
    [
        pax(tarfile.XHDTYPE, NEW_SPARSE) + header("w/holes", tarfile.REGTYPE, 1 << 30) + sparse_map(),
        pax(tarfile.XGLTYPE, NEW_SPARSE) + header("w/holes", tarfile.REGTYPE, 1 << 30) + sparse_map(),
        pax(tarfile.XHDTYPE, {"GNU.sparse.map": "1,2" * 200_000}) + header("w/holes", tarfile.REGTYPE),
        pax(tarfile.XHDTYPE, {"GNU.sparse.size": "9"}) + header("w/holes", tarfile.REGTYPE),
        old_sparse_file(),
    ],
    ids=["1.0", "1.0, global", "0.1", "0.0", "old"],
)
def test_sparse_file_is_refused_before_its_map_is_read(tmp_path: Path, content: bytes) -> None:
    (folder := tmp_path / "model").mkdir()
    blocks = (content[place : place + 512] for place in range(0, len(content), 512))
    with pytest.raises(ModelSourceError, match="w/holes is a sparse file; pack it plain"):
        unpack(blocks, folder, "the tar", most_bytes=1000, tick=lambda: None)
    heads = 1200 if b"GNU.sparse.map" in content else 8
    assert len(content) // 512 - sum(1 for _ in blocks) <= heads


def test_entries_behind_a_header_that_was_zeroed_are_missed(tmp_path: Path) -> None:
    content = bytearray(tar_of(*((f"w/{n}", tarfile.REGTYPE, "") for n in range(3))))
    content[2048:2560] = bytes(512)
    with pytest.raises(ModelSourceError, match="damaged: at byte 2,048 there is an end-of-archive mark, and"):
        unpacked(bytes(content), tmp_path / "model")


@pytest.mark.parametrize("end", [512, 700, 1024, 10_240, 3 * _MIB])
def test_end_mark_may_be_short_or_padded_with_zeros(tmp_path: Path, end: int) -> None:
    entry = header("w/x", tarfile.REGTYPE)
    assert unpacked(entry + bytes(end), tmp_path / "model").files == ("x",)


@pytest.mark.parametrize("end", [513, 1024, 3 * _MIB])
def test_anything_else_after_the_end_mark_is_refused(tmp_path: Path, end: int) -> None:
    with pytest.raises(ModelSourceError, match="damaged: at byte 512 there is an end-of-archive mark"):
        unpacked(header("w/x", tarfile.REGTYPE) + bytes(end) + b"x", tmp_path / "model")
