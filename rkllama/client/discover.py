"""Where a running server is, and the plainest questions to it.

The server that a command works through is the one at the address of the settings or, where that names
this machine and nobody answers there, the one that owns the NPU.

`rkllama list` imports this module: hence nothing heavy.
"""

from __future__ import annotations

import os

from ..config import Settings, is_every_address, is_this_machine, server_address, server_url
from ..errors import ConfigError, LoadFailed, RKLLamaError, ServerUnreachable, WorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from .http import Response

QUICK = 30.0
"""Seconds to wait for what a server answers at once, whatever its models are doing."""
_LARGEST = 64 << 20
"""Bytes of such an answer; a list of all models is a small part of that."""


def find_server(settings: Settings, *, timeout: float = QUICK) -> ServerAddress | None:
    """The running server; None without one, and then this machine's models are nobody else's.

    It has `timeout` seconds to tell its version.

    Raises ServerUnreachable where the user named a server and it is silent, ConfigError where the server
    asks for a key or the address is unusable.
    """
    server = ServerAddress(settings, settings.host)
    if not is_this_machine(server.host) or _is_chosen(server, settings):
        server.ask_version(timeout)  # the user has named it: its silence is an error
        return server
    if _is_serving(server, timeout):
        return server
    from ..board.lock import holder

    owner = holder(settings.lock)
    if owner and owner.get("url"):
        server = ServerAddress(settings, owner["url"], with_key=False)
        if _is_serving(server, timeout):
            return server
    return None


def unused_settings(server: ServerAddress, settings: Settings) -> str:
    """Return a note on what the user set and a server on this machine does not heed; "" for nothing."""
    names = [name for name in ("RKLLAMA_HOME", "RKLLAMA_MODELS") if os.environ.get(name)]
    if not names or not is_this_machine(server.host) or not has_other_models(server, settings):
        return ""
    theirs = f"its models are in {server.models}" if server.models else "it may have other models"
    return f"{' and '.join(names)} set here: {theirs}; --models DIR reads a directory"


def has_other_models(server: ServerAddress, settings: Settings) -> bool:
    """Return whether a server's models directory is not the one of the settings, as far as it tells."""
    return not server.models or os.path.realpath(server.models) != os.path.realpath(settings.models)


def _is_chosen(server: ServerAddress, settings: Settings) -> bool:
    """Return whether the user named this server; config.toml only says where one would listen.

    Port 0 is any, and 0.0.0.0 is an address to listen on: neither names one.
    """
    named = os.environ.get("RKLLAMA_HOST") == settings.host and server.port != 0
    return named and not is_every_address(server.host)


class ServerAddress:
    """The address of a server of ours, with the key that the settings have for it.

    Without it for an address that the settings do not name: who wrote it there would get the key.
    """

    def __init__(self, settings: Settings, host: str, *, with_key: bool = True) -> None:
        self.host, self.port = server_address(host)
        self.url = server_url(self.host, self.port)
        self.models = self.version = ""
        """Its models directory and its release, once `ask_version` has been told,"""
        self.home = ""
        """and its home, where its logs and settings are."""
        self._headers: dict[str, str] = {}
        self._keeps_key = bool(settings.api_keys) and not with_key
        if settings.api_keys and with_key:
            self._headers["Authorization"] = f"Bearer {settings.api_keys[0]}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
        within: float | None = None,
    ) -> Response:
        """Send a request, with the key; see http.request."""
        from .http import request

        headers = {**self._headers, **(headers or {})}
        return request(
            self.host, self.port, method, path, body, headers, timeout=timeout, within=within
        )

    def get(self, path: str, timeout: float = QUICK) -> dict[str, Any]:
        """The JSON object that a quick GET brings. Raises what the server reports, ServerUnreachable."""
        with self.request("GET", path, timeout=timeout, within=2 * timeout) as response:
            status, data = response.status, response.read(_LARGEST)
        if status != 200:
            raise self.refusal(status, data)
        return self.parse(data)

    def ask_version(self, timeout: float = QUICK) -> dict[str, Any]:
        """Return what `/api/version` says. Raises as `get`."""
        body = self.get("/api/version", timeout)
        if isinstance(body.get("rkllama"), str):
            self.version = body["rkllama"]
        if isinstance(body.get("models"), str):
            self.models = body["models"]
        if isinstance(body.get("home"), str):
            self.home = body["home"]
        return body

    def parse(self, data: bytes) -> dict[str, Any]:
        """The JSON object in a body. Raises ServerUnreachable where there is none."""
        import json

        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise self.stranger()
        return body

    def refusal(self, status: int, data: bytes) -> RKLLamaError:
        """The error that the server reports in a body. Raises ServerUnreachable where it is not ours."""
        body = self.parse(data)
        if status == 401 and self._headers:
            return ConfigError(
                f"the server at {self.url} does not accept this API key",
                hint="Correct RKLLAMA_API_KEY, or api_keys in config.toml: it needs one of its keys.",
            )
        if status == 401 and self._keeps_key:
            return ConfigError(
                f"the server at {self.url} requires an API key, which is not sent to an address that "
                "stands in a public file",
                hint=f"Set RKLLAMA_HOST={self.url} if it is yours.",
            )
        if status == 401:
            return ConfigError(
                f"the server at {self.url} requires an API key",
                hint="Set RKLLAMA_API_KEY to one of its keys.",
            )
        try:
            return _error_from(body, status)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise self.stranger() from None

    def stranger(self) -> ServerUnreachable:
        """The error that what answers there is another kind of server."""
        return ServerUnreachable(self.url, "another program is listening there")


def _is_serving(server: ServerAddress, timeout: float) -> bool:
    """Return whether RKLLama responds there, by its body: proxies put their own name into `Server`."""
    try:
        return _listens(server) and "rkllama" in server.ask_version(timeout)
    except ConfigError:
        raise  # it asks for a key
    except RKLLamaError:
        return False


def _listens(server: ServerAddress) -> bool:
    """Return whether something may be listening there; a cheap "no" saves the imports of a request."""
    if not server.host.startswith("127."):
        return True
    import _socket  # socket takes as long to import as all of `rkllama list` to print

    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        probe.connect((server.host, server.port))
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _error_from(body: Mapping[str, Any], status: int) -> RKLLamaError:
    """Return the exception that the server reported, as if it had been raised here."""
    values = {name: _tuples(value) for name, value in body.items() if name != "error"}
    values["message"] = str(values.get("message") or body.get("error") or f"HTTP {status}")
    error = RKLLamaError.from_dict(values)
    if isinstance(error, LoadFailed | WorkerError):
        error.log = ""  # it stays with the server
    if type(error) is RKLLamaError:
        error.status = status
    return error


def _tuples(value: Any) -> Any:
    """Turn JSON's lists back into tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
