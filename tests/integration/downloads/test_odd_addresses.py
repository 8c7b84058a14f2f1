"""Models and archives at addresses that are none, given or redirected to: one error in words, at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import ANYWHERE, INSIDE
from tests.integration.downloads.test_odd_listings import FILES, hub_that_lists
from tests.integration.downloads.test_tar_models import model_tar
from tests.unit.net.test_client import says, server
from trt_llm_pipeline.artifact import read_archive
from trt_llm_pipeline.errors import ArchiveUnreachable, ModelSourceError, PipelineError
from trt_llm_pipeline.model_source import ModelRequest, fetch, plan
from trt_llm_pipeline.model_source.peek import peek_config
from trt_llm_pipeline.testing.hub import HubServer

NOWHERE = ["http://[", "http://a..b/x.tar", "http://\u2100.com/x.tar"]
#: With the usual limits, eight attempts take a minute and a half.
SOON_S = 20


def moved(to: str) -> str:
    return f"HTTP/1.1 302 Found\nLocation: {to}\nContent-Length: 0\n\n"


@pytest.mark.parametrize("place", NOWHERE)
def test_a_tar_that_redirects_to_nowhere(tmp_path: Path, place: str) -> None:
    with server(says(moved(place))) as (url, heads):
        request = ModelRequest("owner/model", tar_url=f"{url}/m.tar")
        with pytest.raises(ModelSourceError, match=r"/m\.tar redirects to where nothing can be fetched"):
            fetch(request, tmp_path, token=None, log=print, env=INSIDE)
    assert len(heads) == 1


@pytest.mark.parametrize("path", ["\xfc.tar", "a b.tar"])
def test_a_tar_whose_name_has_any_letters_is_fetched(tmp_path: Path, path: str) -> None:
    with HubServer() as hub:
        url = hub.add_file("plain.tar", model_tar()).replace("plain.tar", path)
        hub.add_file(path, model_tar())
        snapshot = fetch(
            ModelRequest("owner/model", tar_url=url), tmp_path, token=None, log=print, env={**INSIDE}
        )
    assert (snapshot.path / "config.json").is_file()


@pytest.mark.parametrize("url", ["http://[::1/x.tar", "http://a..b/x.tar", "HTTP://host:x/a.tar"])
def test_an_archive_at_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ArchiveUnreachable, match="is not a valid address"):
        read_archive(url, reach=ANYWHERE)


@pytest.mark.parametrize("place", NOWHERE)
def test_a_file_of_the_hub_that_redirects_to_nowhere(tmp_path: Path, place: str) -> None:
    with server(hub_that_lists(FILES, moved(place))) as (url, _):
        env = {"HF_ENDPOINT": url}
        request = ModelRequest("owner/model")
        with pytest.raises(ModelSourceError, match="redirects to where nothing can be fetched"):
            fetch(request, tmp_path, token=None, log=print, env=env)
        with pytest.raises(ModelSourceError, match="redirects to where nothing can be fetched"):
            peek_config(request, tmp_path / "other", token=None, env=env)


def test_a_hub_whose_address_can_never_work_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"^HF_ENDPOINT is 'http://a\.\.b'; set it to"):
        plan(ModelRequest("owner/model"), tmp_path, token=None, env={"HF_ENDPOINT": "http://a..b"})


def test_a_hub_below_a_path_with_a_space_is_asked(tmp_path: Path) -> None:
    started = time.monotonic()
    with server(says("HTTP/1.1 404 Not Found\nContent-Length: 0\n\n")) as (url, heads):
        with pytest.raises(ModelSourceError, match="has no model owner/model"):
            plan(ModelRequest("owner/model"), tmp_path, token=None, env={"HF_ENDPOINT": f"{url}/a b"})
        assert heads[0].startswith(b"GET /a%20b/api/models/owner/model")
    assert time.monotonic() - started < SOON_S
