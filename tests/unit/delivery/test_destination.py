"""Destinations: what is taken, what is refused, and that nothing secret is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ANYWHERE
from trt_llm_pipeline.delivery import parse_destination
from trt_llm_pipeline.errors import DeliveryError


@pytest.mark.parametrize(
    ("text", "root", "key"),
    [
        ("s3://bucket/a/engine.tar.gz", "s3://bucket", "a/engine.tar.gz"),
        ("s3://bucket", "s3://bucket", "engine.tar.gz"),
        ("s3://bucket/a/", "s3://bucket", "a/engine.tar.gz"),
        ("gs://bucket/x", "gs://bucket", "x"),
        ("az://container/x", "az://container", "x"),
        ("  s3://bucket/x  ", "s3://bucket", "x"),
    ],
)
def test_object_stores(tmp_path: Path, text: str, root: str, key: str) -> None:
    destination = parse_destination(text, tmp_path)
    assert (destination.kind, destination.root, destination.key) == ("object store", root, key)
    assert destination.address == f"{root}/{key}"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hf://acme/engines", "engine.tar.gz"),
        ("hf://acme/engines/", "engine.tar.gz"),
        ("hf://acme/engines/h100/", "h100/engine.tar.gz"),
        ("hf://acme/engines/h100/x.tar.gz", "h100/x.tar.gz"),
    ],
)
def test_repositories_on_the_hub(tmp_path: Path, text: str, key: str) -> None:
    destination = parse_destination(text, tmp_path)
    assert (destination.kind, destination.root, destination.key) == ("hub", "acme/engines", key)
    there = destination.at_hub("http://hub.example", "hf_s3cret")
    assert "hf_s3cret" not in repr(there)
    beside = there.beside(".intoto.jsonl")
    assert beside is not None
    assert (beside.key, beside.url, beside.token) == (
        f"{key}.intoto.jsonl",
        "http://hub.example",
        "hf_s3cret",
    )


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://acme",
        "hf://acme/",
        "hf://a:b@acme/x/y",
        "hf://acme/x/../y",
        "hf://acme/x//y",
        "hf://acme/x?y",
    ],
)
def test_what_is_no_repository_on_the_hub(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeliveryError, match=r"hf://OWNER/REPO/PATH|name the file plainly"):
        parse_destination(text, tmp_path)


def test_the_query_of_an_address_is_used_but_never_shown(tmp_path: Path) -> None:
    destination = parse_destination("https://store.example:8443/a/b?X-Signature=s3cret#part", tmp_path)
    assert destination.kind == "http"
    assert destination.url == "https://store.example:8443/a/b?X-Signature=s3cret"
    assert destination.address == "https://store.example:8443/a/b"
    assert "s3cret" not in repr(destination)


@pytest.mark.parametrize("host", ["127.0.0.1:8003", "localhost", "[::1]:99", "127.9.9.9"])
def test_plain_http_is_taken_on_this_machine(tmp_path: Path, host: str) -> None:
    assert parse_destination(f"http://{host}/x", tmp_path, reach=ANYWHERE).address == f"http://{host}/x"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("file:///src/out/x.tar.gz", "out/x.tar.gz"),
        ("file:///src/out/", "out/engine.tar.gz"),
        ("file://{workspace}/y.tar", "y.tar"),
        ("file:///src/a%20b.tgz", "a b.tgz"),
    ],
)
def test_files_in_the_workspace(tmp_path: Path, text: str, name: str) -> None:
    destination = parse_destination(text.format(workspace=tmp_path), tmp_path)
    assert (destination.kind, destination.path) == ("file", tmp_path.resolve() / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no scheme"),
        ("engine.tar.gz", "no scheme"),
        ("ftp://host/x", "ftp:// is not supported; use s3://BUCKET/KEY"),
        ("s3:///key", "names no bucket"),
        ("s3://bucket/a//b", "empty, '.' or '..' part"),
        ("s3://bucket/../b", "empty, '.' or '..' part"),
        ("s3://KEY:s3cret@bucket/x", "credentials come from the environment"),
        ("s3://bucket/x?token=s3cret", "nothing but bucket and key"),
        ("http://host.example/x?sig=s3cret", "http://host.example/x is not encrypted"),
        ("http://127.0.0.1.host.example/x", "not encrypted"),
        ("https:///x", "names no host"),
        ("https://user:s3cret@host/x", "https://host/x holds a user name or password"),
        ("https://host/a b?s3cret", "characters that an address must escape"),
        ("https://host/\u00e9?s3cret", "characters that an address must escape"),
        ("https://host:port/x?s3cret", "not a valid address"),
        ("https://[::1/x?s3cret", "not a valid address"),
        ("http://127.0.0.1:8003/x?s3cret", "leads to a loopback address"),
        ("https://localhost/x?s3cret", "leads to a loopback address"),
        ("https://169.254.169.254/x?s3cret", "leads to a link-local address"),
        ("https://0x0a.1/x?s3cret", "leads to a private address"),
        ("https://[fd00:ec2::254]/x?s3cret", "leads to a private address"),
        ("file:///etc/x.tar.gz", "outside the workspace"),
        ("file:///src/../x.tar.gz", "outside the workspace"),
        ("file:///src/a/../../x.tar.gz", "outside the workspace"),
        ("file:///src", "outside the workspace"),
        ("file://elsewhere/src/x.tar.gz", "another machine"),
        ("file:///src/predict.py", "not have the name of an archive"),
        ("file:///src/link/x.tar.gz", "outside the workspace"),
        ("file:///src/folder.tar", "is a directory"),
        ("file:///src/a%00.tar", "not valid"),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(DeliveryError, match=message) as caught:
        parse_destination(text, tmp_path)
    assert "s3cret" not in str(caught.value)


@settings(
    max_examples=200,
)
@given(
    st.sampled_from(["s3", "gs", "az", "http", "https", "file", "", "x"]),
    st.text(max_size=10),
    st.text(max_size=20),
)
def test_any_text_is_a_destination_or_refused(tmp_path: Path, scheme: str, host: str, path: str) -> None:
    try:
        destination = parse_destination(f"{scheme}://{host}/{path}", tmp_path)
    except DeliveryError:
        return
    if destination.path is not None:
        assert destination.path.is_relative_to(tmp_path)
    if destination.kind == "http":
        assert destination.url.isprintable()


class TestBeside:
    """Where a file goes that belongs to another."""

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("s3://bucket/some/engine.tar.gz", "s3://bucket/some/engine.tar.gz.more"),
            ("gs://bucket/folder/", "gs://bucket/folder/engine.tar.gz.more"),
            ("https://example.com/a.tar.gz", "https://example.com/a.tar.gz.more"),
        ],
    )
    def test_its_name_is_the_others_with_more_at_the_end(
        self, tmp_path: Path, text: str, address: str
    ) -> None:
        given = parse_destination(text, tmp_path)
        found = given.beside(".more")
        assert found is not None
        assert found == parse_destination(address, tmp_path)

    def test_a_file(self, tmp_path: Path) -> None:
        found = parse_destination("file:///src/out/a.tar", tmp_path).beside(".more")
        assert found is not None
        assert found.path == tmp_path / "out" / "a.tar.more"
        assert found.address == f"file://{tmp_path}/out/a.tar.more"

    def test_a_signed_address_holds_for_one_file(self, tmp_path: Path) -> None:
        assert parse_destination("https://example.com/a.tar.gz?sig=1", tmp_path).beside(".more") is None
