"""What the Hub says about a model: the commit, its files, and why it refuses."""

from __future__ import annotations

import errno
import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar
from unicodedata import category
from urllib.parse import quote

from trt_llm_pipeline.errors import (
    ModelAccessDenied,
    ModelNotFound,
    ModelSourceError,
    ModelUnavailable,
    PipelineError,
    TrtLlmPipelineError,
)
from trt_llm_pipeline.model_source.model_types import Kind
from trt_llm_pipeline.model_source.record import RecordedFile, check_path
from trt_llm_pipeline.net.addresses import Reach
from trt_llm_pipeline.net.client import fetch_bytes
from trt_llm_pipeline.net.failures import (
    BadAddress,
    HttpStatusError,
    Transient,
    transient_failure,
    transient_status,
)
from trt_llm_pipeline.net.ranged import UNKNOWN_SIZE
from trt_llm_pipeline.net.retrying import Patience, RetryLimits, nap, retry
from trt_llm_pipeline.net.spelling import checked
from trt_llm_pipeline.net.stopping import run_interruptibly
from trt_llm_pipeline.process import limit
from trt_llm_pipeline.redaction import token_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, RepoSibling

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
# Values that huggingface_hub takes as true, and those that people mean as false.
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
_FALSE = frozenset({"", "0", "OFF", "NO", "FALSE"})
_LARGEST_LISTING = 64 << 20
_DIGESTS = {"sha256:": re.compile("[0-9a-f]{64}"), "git-sha1:": re.compile("[0-9a-f]{40}")}
_COMMIT = re.compile(r"[0-9A-Za-z._-]{1,128}")
_LONGEST_NAME = 255  # what file systems take, in bytes
_MOST_QUOTED = 100
_GIVE_AS = "HF_TOKEN, or the input hf_token of a prediction"


@dataclass(frozen=True)
class Hub:
    """A Hub as seen with one token. Asking it is retried within the limits, and can be interrupted.

    Attributes:
        endpoint: its address without a slash at the end.
        token: None lets huggingface_hub use a saved login, if there is one.
        reach: which addresses may be connected to, its own among them.
        kind: which of its repositories are asked about.
    """

    endpoint: str
    token: str | None
    limits: RetryLimits
    log: Callable[[str], None]
    reach: Reach
    kind: Kind = "model"
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str],
        token: str | None,
        limits: RetryLimits,
        log: Callable[[str], None],
        kind: Kind = "model",
    ) -> Hub:
        """The Hub of an environment, wherever the operator has it; a token given here wins over HF_TOKEN."""
        endpoint = endpoint_of(env)
        reach = Reach.from_env(env).trusting(endpoint)
        return cls(endpoint, token or token_of(env), limits, log, reach, kind)

    def list_files(self, model_id: str, revision: str | None) -> Listing:
        """Resolves the revision and lists every file of that commit.

        Raises:
            ModelNotFound, ModelAccessDenied: as the Hub answers.
            ModelUnavailable: it did not answer in spite of retries.
            ModelSourceError: what it lists makes no sense.
        """
        info = self._ask(lambda: self._info(model_id, revision), model_id, revision, model_id)
        commit = _commit_of(info, self.endpoint, model_id)
        listed = _files_of(info, self.endpoint, model_id)
        files = [file or self.ask_about_file(model_id, commit, path) for path, file in listed.items()]
        if info.gated and files:
            # Names are public, content is not: better to know before anything is planned.
            smallest = min(files, key=lambda file: file.size)
            self.ask_about_file(model_id, commit, smallest.path)
        # A mirror that does not say so may want a token for everything.
        unknown = info.private is None and "Authorization" in self.headers()
        return Listing(commit, tuple(files), restricted=bool(info.gated or info.private or unknown))

    def url_of(self, model_id: str, commit: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(model_id, path, revision=commit, endpoint=self.endpoint, repo_type=self.kind)

    def headers(self) -> dict[str, str]:
        """Authorization and User-Agent."""
        from huggingface_hub.utils._headers import build_hf_headers

        return {name.title(): value for name, value in build_hf_headers(token=self.token).items()}

    def refusal(self, model_id: str, failure: HttpStatusError, path: str) -> TrtLlmPipelineError:
        """The error for an answer to a file's download that no retry can heal."""
        return self._refused(failure.status, failure.error_code, model_id, None, f"{path} of {model_id}")

    def _info(self, model_id: str, revision: str | None) -> ModelInfo | DatasetInfo:
        """As `HfApi.repo_info`, whose own client follows redirects to wherever they lead."""
        from huggingface_hub.hf_api import DatasetInfo, ModelInfo

        make: Callable[..., ModelInfo | DatasetInfo] = ModelInfo if self.kind == "model" else DatasetInfo
        commit = "" if revision is None else f"/revision/{quote(revision, safe='')}"
        answer = fetch_bytes(
            f"{self.endpoint}/api/{self.kind}s/{model_id}{commit}?blobs=True",
            most_bytes=_LARGEST_LISTING,
            silence=self.limits.silence,
            reach=self.reach,
            headers=self.headers(),
        )
        return make(**json.loads(answer))

    def ask_about_file(self, model_id: str, commit: str, path: str) -> RecordedFile:
        """A file's size and digest.

        Raises:
            ModelNotFound, ModelAccessDenied, ModelUnavailable: as `list_files`.
        """
        from huggingface_hub import get_hf_file_metadata

        url = self.url_of(model_id, commit, path)
        # It follows no redirect to another host.
        found = self._ask(
            lambda: run_interruptibly(
                lambda: get_hf_file_metadata(
                    url, token=self.token, timeout=self.limits.silence, endpoint=self.endpoint
                )
            ),
            model_id,
            commit,
            f"{path} of {model_id}",
        )
        if found.size is None:
            raise ModelUnavailable(
                f"{self.endpoint} does not tell the size of {path} of {model_id}, so nothing could be checked"
                "; set HF_ENDPOINT to a Hub that does"
            )
        etag = found.etag or ""
        digest = next((kind + etag for kind, form in _DIGESTS.items() if form.fullmatch(etag)), "")
        return RecordedFile(path, _size(found.size, self.endpoint, f"{path} of {model_id}"), digest)

    def _ask(self, question: Callable[[], T], model_id: str, revision: str | None, about: str) -> T:
        def judge(error: Exception) -> Transient:
            problem = self._sort_out(error, model_id, revision, about)
            if isinstance(problem, TrtLlmPipelineError):
                raise problem from error
            return problem

        return retry(
            question,
            Patience(self.limits, self.clock),
            judge=judge,
            given_up=lambda reason: ModelUnavailable(
                f"{self.endpoint} could not be asked about {about}: {reason}. Check the network and "
                "HF_ENDPOINT, and try again; what was downloaded before is kept. With a complete "
                "model in the workspace, HF_HUB_OFFLINE=1 builds without asking the Hub."
            ),
            say=lambda problem, announcement: self.log(
                f"{about} at {self.endpoint}: {problem.reason}; {announcement}"
            ),
            wait=nap,
        )

    def _sort_out(
        self, error: Exception, model_id: str, revision: str | None, about: str
    ) -> Transient | TrtLlmPipelineError:
        """The one table for what the HTTP client, huggingface_hub and the client below that raise."""
        import httpx2
        from huggingface_hub import errors

        if isinstance(error, TrtLlmPipelineError):
            return error
        if isinstance(error, RuntimeError) and limit.is_reached(error):
            return limit.reached("a thread for a request")
        if isinstance(error, BadAddress):
            return ModelUnavailable(f"{about} could not be obtained: {error}")
        if (failure := transient_failure(error)) is not None:
            return failure
        if isinstance(error, HttpStatusError):
            return self._refused(error.status, error.error_code, model_id, revision, about)
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._untrusted()
        if isinstance(error, errors.OfflineModeIsEnabled):
            return offline_error(model_id)
        if isinstance(error, errors.HFValidationError):
            return ModelSourceError(f"model_id {model_id!r} is no repository's name; it is owner/name")
        if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
            response = error.response
            transient = transient_status(response.status_code, response.headers.get("retry-after"))
            code = response.headers.get("x-error-code", "")
            return transient or self._refused(response.status_code, code, model_id, revision, about)
        if isinstance(error, httpx2.TimeoutException | TimeoutError):
            return Transient("no answer in time", unreachable=isinstance(error, httpx2.ConnectTimeout))
        if isinstance(error, httpx2.TransportError):
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return self._untrusted()
            return Transient(_reason_of(error), unreachable=isinstance(error, httpx2.ConnectError))
        if isinstance(error, OSError) and error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
            return Transient("connection failed", unreachable=error.errno == errno.ECONNREFUSED)
        if isinstance(error, ValueError | KeyError | TypeError | errors.FileMetadataError):
            return ModelUnavailable(
                f"{self.endpoint} answered about {about} with something that is no Hub's answer "
                f"({type(error).__name__}); check HF_ENDPOINT"
            )
        return ModelUnavailable(f"{about} could not be obtained: {type(error).__name__}")

    def _untrusted(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"{self.endpoint} shows a certificate that this machine does not trust; set "
            "SSL_CERT_FILE to the authority's certificate, or correct HF_ENDPOINT"
        )

    def _refused(
        self, status: int, code: str, model_id: str, revision: str | None, about: str
    ) -> TrtLlmPipelineError:
        page = f"{self.endpoint}/{'' if self.kind == 'model' else 'datasets/'}{model_id}"
        if code == "GatedRepo":
            if self.token is None:
                return ModelAccessDenied(
                    f"{model_id} is gated: accept its licence at {page}, then give a token of that account "
                    f"as {_GIVE_AS}"
                )
            return ModelAccessDenied(
                f"{model_id} is gated and the given token has no access: accept its licence at {page} with "
                f"the account that the token belongs to, or give another one as {_GIVE_AS}"
            )
        if code == "RevisionNotFound":
            return ModelNotFound(
                f"{model_id} has no revision {revision!r}: check `revision` in the config against the "
                f"branches and tags at {page}/tree/main",
                part="revision",
            )
        if code == "EntryNotFound":
            return ModelUnavailable(
                f"{self.endpoint} has nothing at the address of {about} (HTTP {status}): check HF_ENDPOINT, "
                "or run the build again if the repository is just being changed"
            )
        if code == "RepoNotFound" or status == 404:
            hint = (
                f"if it is private, give a token with access as {_GIVE_AS}"
                if self.token is None
                else "if it is private, the given token has no access to it"
            )
            key = "model_id" if self.kind == "model" else "its id"
            return ModelNotFound(f"{self.endpoint} has no {self.kind} {model_id}: check {key}; {hint}")
        if status == 401:
            if self.token is None:
                return ModelAccessDenied(f"{about} needs a token: give one as {_GIVE_AS} (see {page})")
            return ModelAccessDenied(
                f"the given token is not valid at {self.endpoint}: make a new one in the account's settings "
                f"and give it as {_GIVE_AS}"
            )
        if status == 403:
            return ModelAccessDenied(
                f"access to {about} is forbidden: accept the licence at {page} and give a token with read "
                f"access as {_GIVE_AS}"
            )
        return ModelSourceError(f"{self.endpoint} refused {about} with HTTP {status}; check the config")


@dataclass(frozen=True)
class Listing:
    """A commit, every file of it with its size and digest, and whether a token is needed for them."""

    commit: str
    files: tuple[RecordedFile, ...]
    restricted: bool


def _nonsense(endpoint: str, about: str, what: str) -> ModelSourceError:
    return ModelSourceError(
        f"{endpoint} lists {about} with {what}, which makes no sense; nothing was written. Check "
        "HF_ENDPOINT, or tell whoever runs that Hub"
    )


def _commit_of(info: ModelInfo | DatasetInfo, endpoint: str, model_id: str) -> str:
    commit: object = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _nonsense(endpoint, model_id, f"the commit {_quoted(commit)}")
    return commit


def _files_of(info: ModelInfo | DatasetInfo, endpoint: str, model_id: str) -> dict[str, RecordedFile | None]:
    """The files of a listing by their paths; None for one of which the Hub tells the name only.

    A file that is listed twice is taken once, if both entries say the same.

    Raises:
        ModelSourceError: the listing makes no sense, or a path leads out of the model's folder.
    """
    files: dict[str, RecordedFile | None] = {}
    for sibling in info.siblings or []:
        path = _path(sibling.rfilename, endpoint, model_id)
        file = _file_of(sibling, path, endpoint, f"{path} of {model_id}")
        if files.setdefault(path, file) != file:
            raise _nonsense(endpoint, f"{path} of {model_id}", "two contents")
    for path in files:
        for folder in PurePosixPath(path).parents:
            if str(folder) in files:
                raise _nonsense(endpoint, f"{folder} of {model_id}", f"a file below it, {path}")
    return files


def _path(path: object, endpoint: str, model_id: str) -> str:
    if not isinstance(path, str):
        raise _nonsense(endpoint, model_id, f"a file named {_quoted(path)}")
    check_path(path)
    # A surrogate is no letter, and git knows no other spelling of a path.
    odd = any(category(letter) in ("Cc", "Cs") for letter in path) or str(PurePosixPath(path)) != path
    if odd or any(len(part.encode()) > _LONGEST_NAME for part in path.split("/")):
        raise _nonsense(endpoint, model_id, f"a file named {_quoted(path)}")
    return path


def _file_of(sibling: RepoSibling, path: str, endpoint: str, about: str) -> RecordedFile | None:
    if sibling.lfs is not None:
        digest = _digest("sha256:", sibling.lfs.sha256, endpoint, about)
        return RecordedFile(path, _size(sibling.lfs.size, endpoint, about), digest)
    if sibling.size is None:  # a mirror that knows names only
        return None
    blob: object = sibling.blob_id
    digest = "" if blob in (None, "") else _digest("git-sha1:", blob, endpoint, about)
    return RecordedFile(path, _size(sibling.size, endpoint, about), digest)


def _size(size: object, endpoint: str, about: str) -> int:
    if type(size) is not int or not 0 <= size < UNKNOWN_SIZE:
        raise _nonsense(endpoint, about, f"the size {_quoted(size)}")
    return size


def _digest(kind: str, digest: object, endpoint: str, about: str) -> str:
    if not isinstance(digest, str) or not _DIGESTS[kind].fullmatch(digest):
        raise _nonsense(endpoint, about, f"the digest {_quoted(digest)}")
    return kind + digest


def _quoted(value: object) -> str:
    """What a Hub has sent, as it can be shown: in ASCII, and not all of it where it is long."""
    text = ascii(value)
    return text if len(text) <= _MOST_QUOTED else f"{text[:_MOST_QUOTED]}..."


def _reason_of(error: Exception) -> str:
    text = str(error).lower()
    for sign, reason in (
        ("refused", "connection refused"),
        ("reset", "connection reset"),
        ("name", "its name could not be looked up"),
        ("disconnected", "connection closed without an answer"),
    ):
        if sign in text:
            return reason
    return f"connection failed ({type(error).__name__})"


def endpoint_of(env: Mapping[str, str]) -> str:
    """The Hub's address: HF_ENDPOINT or the public one.

    Raises:
        PipelineError: it is no http:// or https:// address.
    """
    address = (env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    try:
        checked(address)
    except BadAddress:
        raise PipelineError(
            f"HF_ENDPOINT is {address!r}; set it to the http:// or https:// address of a Hub, or unset it"
        ) from None
    return address


#: What to do about `is_offline`, which the command line's option sets, too.
ALLOW_DOWNLOADS = "Leave out --offline, and unset HF_HUB_OFFLINE"


def is_offline(env: Mapping[str, str]) -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the Hub.

    Raises:
        PipelineError: it is neither yes nor no.
    """
    text = env.get("HF_HUB_OFFLINE", "")
    if text.upper() not in _TRUE | _FALSE:
        raise PipelineError(f"HF_HUB_OFFLINE is {text!r}; set it to 1 or 0, or unset it")
    return text.upper() in _TRUE


def offline_error(model_id: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{model_id} is not on this machine, or not all of it, and may not be downloaded. "
        f"{ALLOW_DOWNLOADS}, or put the model into the workspace's models folder"
    )
