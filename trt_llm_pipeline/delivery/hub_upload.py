"""An archive as a file of a repository on the Hub, through huggingface_hub.

Its length and hash have to be known first, so the archive lies on the disk when it is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from trt_llm_pipeline.delivery.destination import Destination
from trt_llm_pipeline.errors import DeliveryError
from trt_llm_pipeline.net.stopping import run_interruptibly

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")


def check_repository(destination: Destination) -> None:
    """Asks whether the repository is there and may be written with the destination's token.

    Raises:
        DeliveryError: it is not, or the Hub does not answer.
    """
    _translated(destination, lambda api: api.auth_check(destination.root, write=True))


def upload(archive: Path, destination: Destination) -> None:
    """Commits an archive to the repository's main branch.

    Raises:
        DeliveryError: it could not be sent; nothing incomplete is visible there.
    """

    def send(api: HfApi) -> None:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()  # progress is told by the build
        # It warns that an open file is not sent by Xet.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        # An open file is sent by LFS, which every Hub has; by path it would be Xet, where that is installed.
        with archive.open("rb") as file:
            api.upload_file(
                path_or_fileobj=file,
                path_in_repo=destination.key,
                repo_id=destination.root,
                commit_message=f"Add {destination.key.rpartition('/')[2]}",
            )

    _translated(destination, send)


def _translated(destination: Destination, work: Callable[[HfApi], T]) -> T:
    """Asks the Hub, and puts what goes wrong into words."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # Without a token a saved login is used, if there is one.
    api = HfApi(endpoint=destination.url, token=destination.token)
    try:
        return run_interruptibly(lambda: work(api))
    except DeliveryError:
        raise
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        if code in (401, 403, 404):
            why = (
                f"{destination.url} has no repository {destination.root} that this token may write (HTTP "
                f"{code}): create it, or give a token with write access (HF_TOKEN, hf_token)"
            )
        else:
            why = f"{destination.url} answers HTTP {code}; try again later"
    except Exception as error:  # noqa: BLE001  the client's own errors, and those of the one below it
        cause = error.__cause__ or error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        told = f"HTTP {status}" if status else type(cause).__name__
        why = f"{destination.url} could not be reached ({told}); check HF_ENDPOINT and the network"
    raise DeliveryError(f"{destination.address} cannot be written: {why}") from None
