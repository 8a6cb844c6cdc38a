"""What the Hugging Face Hub knows about a model, and one connection that brings its bytes.

huggingface_hub provides the metadata (files, sizes, hashes, access) and its own HTTP
session fetches the bytes: it has the user's proxies and certificates, so where the metadata gets
through the file does, too. Its `hf_hub_download` is not used: it neither resumes after a kill nor
notices wrong bytes of the right length. Its exceptions end here; what leaves is a PullError.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urljoin, urlsplit

from .. import __version__
from ..errors import ConfigError, HubGated, HubNotFound, HubUnreachable, InvalidRequest, PullError
from ..models.reference import is_repository
from .partial import is_hash

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_REVISION = "main"
METADATA_TIMEOUT = 10.0
"""Seconds that any step of a metadata request (connect, send, receive) may take."""
STALL_TIMEOUT = 30.0
"""Seconds without a byte after which a download counts as broken off."""
MAX_REDIRECTS = 5
SEARCH_LIMIT = 16 << 20
"""Bytes of an answer to a search; a hundred repositories with their files' names take about one million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository at a revision: its files (none when it tells none), and the base models on its card."""

    id: str
    revision: str
    files: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file as the Hub announces it; `etag` is its sha256, or its git object id when not in LFS.

    Where the Hub tells neither, it is just a mark of the content; see `has_hash`.
    """

    repo: str
    path: str
    revision: str
    commit: str
    size: int
    etag: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def has_hash(self) -> bool:
        """Whether what arrives can be verified."""
        return is_hash(self.etag)

    @property
    def sha256(self) -> str | None:
        return self.etag if re.fullmatch(r"[0-9a-f]{64}", self.etag) else None


class Response(Protocol):
    """The part of an httpx (or httpx2) response that is used here."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def iter_raw(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class Site:
    """A web site and one connection that brings its bytes: through the Hub's session, which has the user's
    proxies and certificates.
    """

    endpoint: str

    def _token(self) -> str | None:
        """Return what the site's own origin is shown."""
        return None

    def _headers(self, url: str) -> dict[str, str]:
        """Return headers with the token only for the site's own origin, wherever a redirect leads."""
        headers = {"user-agent": f"rkllama/{__version__}", "accept-encoding": "identity"}
        if _origin(url) == _origin(self.endpoint) and (token := self._token()):
            headers["authorization"] = f"Bearer {token}"
        return headers

    @contextmanager
    def _get(
        self, url: str, extra: Mapping[str, str], timeout: float
    ) -> Iterator[tuple[str, Response]]:
        """The last address and its response; redirects are followed here for the token's sake."""
        from huggingface_hub import get_session

        session = get_session()
        for _ in range(MAX_REDIRECTS):
            headers = {**self._headers(url), **extra}
            try:
                request = session.build_request("GET", url, headers=headers, timeout=timeout)
            except Exception as error:  # of the classes that httpx, idna and urllib use for it
                raise PullError(f"{url} is not a usable address: {error}") from error
            response = session.send(request, stream=True, follow_redirects=False)
            try:
                if not response.has_redirect_location:
                    yield url, response
                    return
                url = next_hop(url, response.headers["location"])
            finally:
                response.close()
        raise PullError(f"{url} was redirected more than {MAX_REDIRECTS} times")


class Hub(Site):
    """Questions to one Hub. `token` None is whatever huggingface_hub finds (HF_TOKEN, a login)."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        # huggingface_hub reads HF_ENDPOINT when it is imported; a server lives longer than that.
        address = endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        if not is_web_address(address):
            raise ConfigError(
                f"HF_ENDPOINT cannot be '{address}'", hint=f"Write it like {DEFAULT_ENDPOINT}."
            )
        self.endpoint = address.rstrip("/")
        self._given_token = token
        # It would otherwise ask the Hub for a list of programs to name in its user agent.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    def repository(
        self, repo: str, revision: str | None = None, *, timeout: float = METADATA_TIMEOUT
    ) -> Repository:
        """Return what `repo` holds at `revision`. Raises HubNotFound, HubUnreachable, PullError."""
        if is_offline():
            raise _offline()
        with self._explained(repo, revision):
            from huggingface_hub import HfApi

            api = HfApi(endpoint=self.endpoint, token=self._token() or False)
            info = api.model_info(repo, revision=revision, timeout=timeout)
            return Repository(
                id=repo,
                revision=revision or DEFAULT_REVISION,
                files=tuple(sibling.rfilename for sibling in info.siblings or ()),
                base_models=_base_models(info.card_data),
            )

    def list_models(
        self, parameters: Mapping[str, str | list[str]], etag: str | None = None
    ) -> tuple[object, str | None]:
        """Return the answer to a search for repositories, as JSON, and its ETag; nothing of it has been
        checked. The answer is None where it is still the one that has `etag`.

        Raises HubUnreachable, HubGated, PullError.
        """
        if is_offline():
            raise _offline()
        url = f"{self.endpoint}/api/models?{urlencode(parameters, doseq=True)}"
        known = {"if-none-match": etag} if etag else {}
        with self._explained("a search"), self._get(url, known, METADATA_TIMEOUT) as (_, response):
            if etag and response.status_code == 304:
                return None, etag
            if response.status_code != 200:
                _raise_status(response)
            content = bytearray()
            for chunk in response.iter_raw():
                content += chunk
                if len(content) > SEARCH_LIMIT:
                    raise ValueError(f"it has more than {SEARCH_LIMIT} bytes")
            return json.loads(content), response.headers.get("etag")

    def file(self, repository: Repository, path: str) -> RemoteFile:
        """Return size and hash of a file, and proof that it may be read. Raises HubGated, HubNotFound, …"""
        with self._explained(repository.id, repository.revision, path):
            from huggingface_hub import get_hf_file_metadata

            metadata = get_hf_file_metadata(
                self._url(repository.id, repository.revision, path),
                token=self._token() or False,
                timeout=METADATA_TIMEOUT,
                endpoint=self.endpoint,
            )
            if metadata.size is None:
                raise ValueError("the size is missing")
            commit, etag = metadata.commit_hash or "", (metadata.etag or "").lower()
            if not is_hash(etag):
                etag = self._listed_hash(repository, path, commit) or etag or f"commit {commit}"
            return RemoteFile(
                repo=repository.id,
                path=path,
                revision=repository.revision,
                commit=commit,
                size=metadata.size,
                etag=etag,
            )

    def _listed_hash(self, repository: Repository, path: str, commit: str) -> str | None:
        """Return the hash that the repository's own list has for a file; None where there is none.

        Mirrors and proxies put marks of their own into the file's ETag.
        """
        revision = commit or repository.revision
        try:
            with self._explained(repository.id, revision, path):
                from huggingface_hub import HfApi
                from huggingface_hub.hf_api import RepoFile

                api = HfApi(endpoint=self.endpoint, token=self._token() or False)
                for entry in api.get_paths_info(repository.id, [path], revision=revision):
                    if isinstance(entry, RepoFile) and entry.path == path:
                        found = entry.lfs.sha256 if entry.lfs else entry.blob_id
                        return found.lower() if is_hash(found.lower()) else None
        except HubUnreachable:
            raise
        except PullError:  # it serves files only
            pass
        return None

    @contextmanager
    def open(self, file: RemoteFile, offset: int) -> Iterator[Response]:
        """The bytes of `file` from `offset` on, where the server grants that: look at the status.

        Raises what `lost_connection` names when the connection fails, a PullError when the Hub refuses.
        """
        extra = {"range": f"bytes={offset}-"} if offset else {}
        with self._get(self._url(file.repo, file.revision, file.path), extra, STALL_TIMEOUT) as hop:
            url, response = hop
            from_hub = _origin(url) == _origin(self.endpoint)
            if from_hub and response.status_code in (401, 403, 404, 410):
                with self._explained(file.repo, file.revision, file.path):
                    _raise_status(response)
            yield response

    @contextmanager
    def open_small(self, repository: Repository, path: str, timeout: float) -> Iterator[Response]:
        """Return the bytes of one of the repository's small files; errors are not explained."""
        with self._get(self._url(repository.id, repository.revision, path), {}, timeout) as hop:
            yield hop[1]

    def _url(self, repo: str, revision: str, path: str) -> str:
        return f"{self.endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def _token(self) -> str | None:
        from huggingface_hub import constants, get_token

        if self._given_token or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            return self._given_token
        try:
            return get_token()
        except OSError:  # a login file that this user may not read, as left behind by sudo
            return None

    @contextmanager
    def _explained(
        self, repo: str, revision: str | None = None, path: str | None = None
    ) -> Iterator[None]:
        from huggingface_hub import errors

        try:
            yield
        except errors.GatedRepoError as error:  # before its base class RepositoryNotFoundError
            raise HubGated(
                f"{repo} is gated: its author has to grant access",
                hint=f"Accept its terms at {self.endpoint}/{repo}, then set HF_TOKEN to your token.",
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise HubNotFound(
                f"{self.endpoint} has no repository {repo}, or it is private",
                hint="Check the spelling; set HF_TOKEN if it is private.",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise HubNotFound(
                f"{repo} has no revision {revision}",
                hint=f"Its branches are listed at {self.endpoint}/{repo}/tree/main.",
            ) from error
        except errors.EntryNotFoundError as error:
            raise HubNotFound(f"{repo} has no file {path} at {revision}") from error
        except errors.HFValidationError as error:
            raise InvalidRequest(f"{repo!r} cannot be pulled: {error}", param="model") from error
        except errors.OfflineModeIsEnabled:
            raise _offline() from None
        except errors.HfHubHTTPError as error:
            raise self._http_error(repo, error) from error
        except lost_connection() as error:
            raise HubUnreachable(
                f"{self.endpoint} cannot be reached: {error or type(error).__name__}",
                hint="Check the network connection, HF_ENDPOINT and the proxy settings.",
            ) from error
        except (ValueError, KeyError, TypeError, ImportError, RecursionError) as error:
            raise PullError(
                f"{self.endpoint} sent no usable response about {repo}: {error}",
                hint="Check HF_ENDPOINT and the proxy settings.",
            ) from error

    def _http_error(self, repo: str, error: Any) -> PullError:
        status = error.response.status_code
        reason = error.response.headers.get("x-error-message") or f"status {status}"
        if status in (401, 403):
            return HubGated(
                f"{self.endpoint} refuses access to {repo}: {reason}",
                hint="Check that HF_TOKEN is valid and may read this repository.",
            )
        if status == 429 or status >= 500:
            return HubUnreachable(
                f"{self.endpoint} is overloaded or out of order: {reason}", hint="Try again later."
            )
        return PullError(f"{self.endpoint} refuses the request about {repo}: {reason}")


def lost_connection() -> type[Exception]:
    """Return the base class of what the Hub's session raises for a failed connection.

    It belongs to httpx or httpx2, whichever this huggingface_hub is built on; its own error derives
    from it.
    """
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def _raise_status(response: Any) -> None:
    from huggingface_hub import hf_raise_for_status

    response.read()
    hf_raise_for_status(response)


def is_offline() -> bool:
    """Return whether the user has told huggingface_hub to stay offline."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _offline() -> HubUnreachable:
    return HubUnreachable(
        "HF_HUB_OFFLINE is set: nothing can be pulled", hint="Unset it to go online."
    )


def is_web_address(text: str) -> bool:
    """Return whether a text is the address of a site, http or https."""
    try:
        scheme, host, _ = _origin(text)
    except ValueError:
        return False
    return scheme in ("http", "https") and bool(host)


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


def next_hop(url: str, location: str) -> str:
    """Return the address that a redirect from `url` leads to. Raises PullError for an unusable one."""
    try:
        target = urljoin(url, location)
        scheme, host, _ = _origin(target)
    except ValueError:
        scheme = host = ""
    if not host or scheme not in ("https", urlsplit(url).scheme) or not target.isprintable():
        raise PullError(f"{url} redirects to {location!r}, which is not an equally secure address")
    return target


def _base_models(card: object) -> tuple[str, ...]:
    """Return the names under `base_model` in a model card, which is a string or a list and may be
    anything.
    """
    named = getattr(card, "base_model", None)
    names = named if isinstance(named, list) else [named]
    return tuple(name for name in names if isinstance(name, str) and is_repository(name))
