"""The real nginx and HAProxy before a server, with time-outs of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.running import LIMIT, Server, free_port
from tests.waiting import until

NGINX = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location {prefix} {{
      proxy_pass http://{host}:{target}{uri};
      proxy_read_timeout {seconds}s;
      proxy_send_timeout {seconds}s;
    }}
  }}
}}
"""
HAPROXY = """\
global
  maxconn 64
defaults
  mode http
  timeout connect {seconds}s
  timeout client {seconds}s
  timeout server {seconds}s
listen models
  bind 127.0.0.1:{port}
{rewrite}  server board {host}:{target}
"""
Command = Callable[[str], list[str]]
PROXIES: dict[str, tuple[str, Command]] = {
    "nginx": (NGINX, lambda file: ["-c", file, "-e", "stderr"]),
    "haproxy": (HAPROXY, lambda file: ["-db", "-f", file]),
}
"""By name: its configuration, and its arguments with that."""


def program(name: str) -> str | None:
    """Where a proxy is installed: Debian has both where only root looks."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def proxy(
    name: str, server: Server, directory: Path, seconds: int, prefix: str = "/"
) -> Iterator[int]:
    """The proxy `name` before a server, with its files in `directory`; with it comes its port. It gives up
    an answer that is silent for so many seconds. It takes the `prefix` away from paths.
    """
    text, arguments = PROXIES[name]
    path = program(name)
    assert path is not None
    port = free_port()
    file = directory / f"{name}.conf"
    file.write_text(
        text.format(
            directory=directory,
            port=port,
            host=server.host,
            target=server.port,
            seconds=seconds,
            prefix=prefix,
            uri="" if prefix == "/" else "/",
            rewrite="" if prefix == "/" else f"  http-request replace-path {prefix}?(.*) /\\1\n",
        )
    )
    process = subprocess.Popen([path, *arguments(str(file))], stdin=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port) or process.poll() is not None)
        assert process.poll() is None, f"{name} has ended"
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
