"""Where a user wants the archive: an address, checked before anything is spent on it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from trt_llm_pipeline.errors import BadDestination
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.failures import BadAddress
from trt_llm_pipeline.workspace import IMAGE_WORKSPACE, SERVICE_FOLDERS

Kind = Literal["object store", "http", "file", "hub"]

_HUB_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
#: The schemes of object stores, by the one that each is written as.
STORES = {
    "s3": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "azure": "az",
}
_FORMS = (
    "s3://BUCKET/KEY, gs://BUCKET/KEY, az://CONTAINER/KEY, hf://OWNER/REPO/PATH, an https:// PUT address, or "
    "file:///src/PATH"
)


@dataclass(frozen=True)
class Destination:
    """A checked destination.

    Attributes:
        kind: which way the archive goes there.
        address: what may be shown and recorded: without a query, which may be a signature.
        root: the store with its bucket or container (`s3://bucket`), or the Hub's `owner/repo`.
        key: the object's name in the store, or the path in the repository.
        url: the full address to PUT to, for http; a secret, as it may be signed. For the Hub its own address.
        token: for the Hub; None for a saved login.
        path: the file, for `file://`.
        reach: which addresses may be connected to, for http.
    """

    kind: Kind
    address: str
    root: str = ""
    key: str = ""
    url: str = field(default="", repr=False)
    path: Path | None = None
    token: str | None = field(default=None, repr=False)
    reach: Reach = field(default_factory=Reach)

    def at_hub(self, endpoint: str, token: str | None) -> Destination:
        """The same with a Hub and a token, where it is on the Hub."""
        return replace(self, url=endpoint, token=token) if self.kind == "hub" else self

    def beside(self, suffix: str) -> Destination | None:
        """Where a file goes that belongs to this one and is named like it, with `suffix` at the end.

        None for an address with a query: the signature in it holds for one file.
        """
        if urlsplit(self.url).query:
            return None
        return replace(
            self,
            address=self.address + suffix,
            key=self.key and self.key + suffix,
            url=self.url + suffix if self.kind == "http" else self.url,
            path=self.path and self.path.with_name(self.path.name + suffix),
        )


def parse_destination(
    text: str,
    workspace: Path,
    *,
    archive_name: str = "engine.tar.gz",
    what: str = "the destination",
    forms: str = _FORMS,
    reach: Reach = Reach(),  # noqa: B008  frozen
) -> Destination:
    """Check a destination, without reaching for it.

    Args:
        text: as the user gave it; one that ends in `/` names a folder, and the archive gets `archive_name`
            in it.
        workspace: where a `file://` path must lie; `/src` stands for it, as in configs.
        what: what to call it in messages.
        forms: what a message says may be given instead.
        reach: which addresses may be connected to.

    Raises:
        BadDestination: it is no address that an archive can be sent to; says which are. Repeats no query.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:
        raise BadDestination(f"{what} is not a valid address; use {forms}") from None
    if parts.scheme in STORES:
        return _in_store(parts, archive_name, what, forms)
    if parts.scheme == "hf":
        return _at_hub(parts, archive_name, what)
    if parts.scheme in ("http", "https"):
        return _by_http(parts, port, reach)
    if parts.scheme == "file":
        return _in_workspace(parts, workspace, archive_name)
    scheme = f"{parts.scheme}:// is not supported" if parts.scheme else f"{what} has no scheme"
    raise BadDestination(f"{scheme}; use {forms}")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine, by name or number, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_store(parts: SplitResult, archive_name: str, what: str, forms: str) -> Destination:
    scheme = STORES[parts.scheme]
    shown = f"{scheme}://{parts.hostname or ''}{parts.path}"
    if parts.username is not None or parts.query or parts.fragment:
        raise BadDestination(
            f"{what} {shown} must hold nothing but bucket and key; credentials come from the environment"
        )
    if not parts.netloc:
        raise BadDestination(f"{what} {shown} names no bucket; use {forms}")
    key = parts.path.lstrip("/")
    if not key or key.endswith("/"):
        key += archive_name
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise BadDestination(
            f"{what} {shown} has an empty, '.' or '..' part in its key; name the object plainly"
        )
    return Destination("object store", f"{scheme}://{parts.netloc}/{key}", f"{scheme}://{parts.netloc}", key)


def _at_hub(parts: SplitResult, archive_name: str, what: str) -> Destination:
    shown = f"hf://{parts.netloc}{parts.path}"
    name, _, path = parts.path.lstrip("/").partition("/")
    if not path or path.endswith("/"):
        path += archive_name
    if parts.query or parts.fragment or "@" in shown or ":" in parts.netloc:
        raise BadDestination(f"{what} {shown} must hold nothing but hf://OWNER/REPO/PATH")
    if not all(map(_HUB_NAME.fullmatch, (parts.netloc, name))):
        raise BadDestination(f"{what} {shown} names no repository; write hf://OWNER/REPO/PATH")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise BadDestination(f"{what} {shown} has an empty, '.' or '..' part; name the file plainly")
    root = f"{parts.netloc}/{name}"
    return Destination("hub", f"hf://{root}/{path}", root, path)


def _by_http(parts: SplitResult, port: int | None, reach: Reach) -> Destination:
    host = parts.hostname or ""
    where = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{where}{f':{port}' if port else ''}{parts.path}"
    if not host:
        raise BadDestination(f"the destination {shown} names no host; use {_FORMS}")
    if parts.username is not None or parts.password is not None:
        raise BadDestination(
            f"the destination {shown} holds a user name or password, which would end up in logs; use a "
            f"signed address"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise BadDestination(
            f"the destination {shown} is not encrypted; use https:// (http:// is for this machine only)"
        )
    try:
        reach.check_spelling(host)
    except BadAddress as refused:
        raise BadDestination(f"the destination {shown} is refused: {refused}") from None
    url = parts._replace(fragment="").geturl()
    if not url.isascii() or not url.isprintable() or " " in url:
        raise BadDestination(f"the destination {shown!a} has characters that an address must escape with %")
    return Destination("http", shown, url=url, reach=reach)


def _in_workspace(parts: SplitResult, workspace: Path, archive_name: str) -> Destination:
    if parts.netloc not in ("", "localhost"):
        raise BadDestination(
            f"file://{parts.netloc}{parts.path} names another machine; write file:///src/PATH"
        )
    named = unquote(parts.path)
    if "\0" in named or not named.startswith("/"):
        raise BadDestination("the destination's file name is not valid; write file:///src/PATH")
    if named.endswith("/"):
        named += archive_name
    pure = PurePosixPath(named)
    path = (
        workspace / pure.relative_to(IMAGE_WORKSPACE) if pure.is_relative_to(IMAGE_WORKSPACE) else Path(named)
    )
    home, real = Path(os.path.realpath(workspace)), Path(os.path.realpath(path))
    if ".." in pure.parts or real == home or not real.is_relative_to(home):
        raise BadDestination(
            f"file://{named} lies outside the workspace {workspace}; write file:///src/PATH for a file in it"
        )
    if real.relative_to(home).parts[0] in SERVICE_FOLDERS:
        folder = real.relative_to(home).parts[0]
        raise BadDestination(f"file://{named} is in {folder}/, which the service keeps for itself")
    if not real.name.endswith(
        (".tar.gz", ".tgz", ".tar")
    ):  # never takes the place of a file that is no archive
        raise BadDestination(
            f"file://{named} does not have the name of an archive; end it in .tar.gz or .tar"
        )
    if real.is_dir():
        raise BadDestination(f"file://{named} is a directory; end it in / to have {archive_name} put there")
    return Destination("file", f"file://{real}", path=real)
