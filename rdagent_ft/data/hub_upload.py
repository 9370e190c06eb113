"""The Hugging Face Hub as a place to publish to: one model repository, weights first, the card last.

A repository is made private unless the person asked otherwise, and one that holds somebody else's files is
left alone. Between looking and writing nothing may change there: every commit names the one before it.
`huggingface_hub` is imported on first use. The token comes from HF_TOKEN, is handed to the client and is
masked in every message; it is stored nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rdagent_ft.errors import PreflightError, RdagentFtError, UserError
from rdagent_ft.llm.redact import redact

CARD = "README.md"
_MADE_BY_HUB = frozenset({".gitattributes"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_CAUSES = 10


class Upload(NamedTuple):
    """What is published.

    Attributes:
        repo_id: `org/name`.
        private: whether a new repository is private.
        folder, files: the folder and the paths in it that are sent first.
        card: text of the README, sent when everything else is there.
        marker: stands in every card of ours; a README without it is somebody else's.
        message: title of the commits.
    """

    repo_id: str
    private: bool
    folder: Path
    files: tuple[str, ...]
    card: str
    marker: str
    message: str


def hub_token(environ: Mapping[str, str] = os.environ) -> str:
    """Return the token in HF_TOKEN. Raises `UserError` when there is none."""
    token = environ.get("HF_TOKEN", "").strip()
    if not token:
        raise UserError(
            "publishing needs a token", hint="set HF_TOKEN to one that may write to the repository"
        )
    return token


def publish_folder(upload: Upload, token: str, notice: Callable[[str], None]) -> str:
    """Upload everything and return the repository's address.

    Raises `UserError` when the hub refuses (no right, foreign files, other visibility), `PreflightError`
    when it cannot be reached or fails. What was sent before an error stays there; the card is last, so a
    repository without a card of ours is not finished. Running it again goes on.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars, logging

    if constants.HF_HUB_OFFLINE:
        raise UserError("the hub is switched off (HF_HUB_OFFLINE)", hint="unset it, or use --dry-run")
    _check_endpoint(constants.ENDPOINT)
    disable_progress_bars()
    logging.set_verbosity_error()
    api: Any = HfApi(token=token, library_name="rdagent-ft")
    stage = "looking at the repository"
    try:
        parent = _open_repository(api, upload, token)
        stage = "sending the weights (the repository has no new card yet)"
        notice(f"sending {len(upload.files)} files to {upload.repo_id}")
        parent = _commit(
            api, upload, parent, {path: upload.folder / path for path in upload.files}, "weights"
        )
        stage = "sending the card (the weights are there)"
        _commit(api, upload, parent, {CARD: upload.card.encode()}, "card")
    except _client_errors() as error:
        raise _as_error(error, upload.repo_id, stage, token) from None
    return f"{constants.ENDPOINT}/{upload.repo_id}"


def _open_repository(api: Any, upload: Upload, token: str) -> str:
    """Make the repository, or look whether an existing one is ours; return its newest commit."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.model_info(upload.repo_id, timeout=20)
    except RepositoryNotFoundError as error:
        if getattr(error.response, "status_code", 404) == 401:
            raise
        api.create_repo(upload.repo_id, repo_type="model", private=upload.private)
        info = api.model_info(upload.repo_id, timeout=20)
    if upload.private and not info.private:
        raise UserError(
            f"the repository {upload.repo_id!r} is public, and this publication is to be private",
            hint="say --public, or name another repository",
        )
    there = {str(item.rfilename) for item in info.siblings or ()} - _MADE_BY_HUB
    if CARD in there:
        _check_card_is_ours(api, upload, str(info.sha))
    elif there - set(upload.files):
        strange = sorted(there - set(upload.files))[0]
        raise UserError(
            f"the repository {upload.repo_id!r} holds {strange!r} and no card of ours: somebody else's files",
            hint="name another repository",
        )
    return str(info.sha)


def _check_card_is_ours(api: Any, upload: Upload, revision: str) -> None:
    import huggingface_hub.utils

    client: Any = huggingface_hub.utils
    address = f"{api.endpoint}/{upload.repo_id}/resolve/{revision}/{CARD}"
    answer = client.get_session().get(address, headers=client.build_hf_headers(token=api.token), timeout=20)
    client.hf_raise_for_status(answer)
    text = str(answer.text)
    if upload.marker not in text:
        raise UserError(
            f"the repository {upload.repo_id!r} has a README.md that this program did not write",
            hint="it is not overwritten; name another repository, or remove it there",
        )


def _commit(api: Any, upload: Upload, parent: str, files: Mapping[str, Path | bytes], what: str) -> str:
    from huggingface_hub import CommitOperationAdd

    operations = [
        CommitOperationAdd(
            path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content)
        )
        for path, content in files.items()
    ]
    done = api.create_commit(
        upload.repo_id,
        operations,
        commit_message=f"{upload.message}: {what}",
        parent_commit=parent,
        num_threads=2,
    )
    return str(done.oid)


def _check_endpoint(endpoint: str) -> None:
    """Refuse to send a token in clear text over a network."""
    parts = urlsplit(endpoint)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise UserError(
            f"HF_ENDPOINT is {endpoint!r}: the token would travel unencrypted", hint="use an https address"
        )


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions by which the client says that it could not do its work."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The client wraps what happened in its upload threads in a RuntimeError.
    return (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError, RuntimeError, ValueError)


def _as_error(error: Exception, repo_id: str, stage: str, token: str) -> RdagentFtError:
    from huggingface_hub.errors import HFValidationError

    status = _status(error)
    if isinstance(error, HFValidationError):
        return UserError(f"{repo_id!r} is no name of a repository", hint="give it as ORG/NAME")
    if status == 401:
        return UserError(
            "the hub does not accept HF_TOKEN (401)", hint="make a new token with the right to write"
        )
    if status == 403:
        return UserError(
            f"HF_TOKEN may not write to {repo_id!r} (403)",
            hint="give the token that right, or name another --repo",
        )
    if status in {409, 412}:
        return UserError(
            f"the repository {repo_id!r} changed while it was written to ({status})",
            hint="look at it, then try again",
        )
    reason = redact((str(error).strip().splitlines() or [type(error).__name__])[0][:200], (token,))
    word = f"failed ({status})" if status is not None else "cannot be reached"
    return PreflightError(
        f"the hub {word} while {stage}: {reason}",
        hint="run the same command again; check the network and HF_ENDPOINT",
    )


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an error or of one that caused it."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return None
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        cause = cause.__cause__ or cause.__context__
    return None
