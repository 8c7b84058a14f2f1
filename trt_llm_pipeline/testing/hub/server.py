"""The loopback Hub: its repositories, what was requested of it, and its two servers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from trt_llm_pipeline.testing.hub.answers import RequestRecord, make_server
from trt_llm_pipeline.testing.hub.faults import FaultBook
from trt_llm_pipeline.testing.hub.link import Link, LinkState
from trt_llm_pipeline.testing.hub.repository import MAIN, Repository, files_of
from trt_llm_pipeline.testing.hub.uploads import Uploads


class HubServer:
    """Serves repositories while it is entered as a context manager.

    Args:
        repositories_root: folder laid out `owner/name/<files>`; a repository is read when it is first asked
            for, and served as revision `main`. None where all are added by hand.
        tokens: tokens that the Hub knows; any other token is answered with 401.
        host, port: where to listen; port 0 picks a free one.
        link: what connections to it are like.
    """

    def __init__(
        self,
        repositories_root: Path | None = None,
        *,
        tokens: Iterable[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        link: Link = Link(),  # noqa: B008  frozen
    ) -> None:
        self.line = LinkState(link)
        self.tokens = frozenset(tokens)
        self.faults = FaultBook()
        self.uploads = Uploads()
        self._root = repositories_root
        self._address = (host, port)
        self._repositories: dict[str, Repository] = {}
        self._blobs_only: dict[str, Path | bytes] = {}
        self._requests: list[RequestRecord] = []
        self.connections_opened = 0
        self._lock = threading.RLock()
        self._servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def __enter__(self) -> HubServer:
        # Large files come from another origin, as on the Hub, so that no token may follow them there.
        for address in (self._address, (self._address[0], 0)):
            server = make_server(self, address)
            thread = threading.Thread(
                target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
            )
            thread.start()
            self._servers.append((server, thread))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._servers:
            server, thread = self._servers.pop()
            server.shutdown()
            thread.join()
            server.server_close()

    @property
    def url(self) -> str:
        """Its address, for `HF_ENDPOINT`."""
        return self._url_of(0)

    @property
    def storage_url(self) -> str:
        """Where it keeps large files."""
        return self._url_of(1)

    def _url_of(self, place: int) -> str:
        if not self._servers:
            raise RuntimeError("the Hub is not running; enter it first: with HubServer(...) as hub")
        host, port = self._servers[place][0].server_address[:2]
        return f"http://{host!s}:{port}"

    def add_repository(
        self,
        model_id: str,
        files: Path | Mapping[str, Path | bytes],
        *,
        revision: str = MAIN,
        gated: bool = False,
        private: bool = False,
        granted: Iterable[str] = (),
    ) -> str:
        """Adds a commit to a repository, which is made if need be.

        Args:
            model_id: `owner/name`; for a dataset `datasets/owner/name`.
            files: a folder, or each file's bytes or place by its path in the repository.
            revision: the branch that points at the commit from now on.
            gated, private: who may have it; only tokens in `granted`, or any known token if that is empty.

        Returns:
            The commit's SHA.
        """
        with self._lock:
            repository = self._repositories.setdefault(model_id, Repository(model_id))
            repository.gated, repository.private = gated, private
            repository.granted = frozenset(granted)
            return repository.commit(files_of(files) if isinstance(files, Path) else files, revision=revision)

    def add_tag(self, model_id: str, tag: str, revision: str) -> None:
        """Names a commit."""
        with self._lock:
            commit = self._repositories[model_id].resolve(revision)
            if commit is None:
                raise KeyError(revision)
            self._repositories[model_id].tags[tag] = commit.sha

    def add_file(self, path: str, source: Path | bytes) -> str:
        """Serves one plain file at `/files/<path>`, outside any repository; returns its URL."""
        with self._lock:
            self._blobs_only[path] = source
        return f"{self.url}/files/{path}"

    def plain_file(self, path: str) -> Path | bytes | None:
        return self._blobs_only.get(path)

    def repository(self, model_id: str) -> Repository | None:
        """The repository of that id, read from `repositories_root` when it is asked for first."""
        with self._lock:
            if model_id not in self._repositories and self._root is not None:
                root = self._root.resolve()
                folder = (root / model_id).resolve()
                if folder.is_dir() and root in folder.parents:
                    self.add_repository(model_id, folder)
            return self._repositories.get(model_id)

    def connected(self) -> None:
        with self._lock:
            self.connections_opened += 1

    def record(self, request: RequestRecord) -> None:
        with self._lock:
            self._requests.append(request)

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """Every request so far, oldest first."""
        with self._lock:
            return tuple(self._requests)

    def clear_requests(self) -> None:
        with self._lock:
            self._requests.clear()
