"""The small files beside a model: its chat template, its end-of-sequence ids, its configuration.

A .rkllm file holds no chat template, and its converter seldom uploads the tokenizer's files along. They
are taken from the model's repository, else from the base model that its card names. All of it is best
effort: a model without them still answers, by the template of its family.
"""

from __future__ import annotations

import logging
import os
import time

from .errors import RKLLamaError
from .hub import Hub, RemoteFile, Repository, lost_connection
from .part import write_file

TEMPLATES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")
COMPANIONS = (*TEMPLATES, "generation_config.json", "config.json")
SIZE_LIMIT = 8 << 20
"""Bytes; tokenizer_config.json lists all added tokens and reaches a few hundred kilobytes."""
TIME_LIMIT = 6.0
"""Seconds that all of them together may delay a pull."""
STEP_LIMIT = 3.0
"""Seconds that one request may stall."""

_log = logging.getLogger(__name__)


def fetch_companions(hub: Hub, repository: Repository, model: RemoteFile, folder: str) -> None:
    """Put the model's small files into `folder`; returns within seconds and raises nothing."""
    if model.path.lower().endswith(".gguf"):
        return  # its header holds the template
    deadline = time.monotonic() + TIME_LIMIT
    subfolder = model.path.rpartition("/")[0]
    try:
        found = _fetch_from(hub, repository, subfolder, COMPANIONS, folder, deadline)
        bases = [] if found & set(TEMPLATES) else repository.base_models
        for name in bases:
            base = hub.repository(name, timeout=_left(deadline))
            missing = tuple(name for name in COMPANIONS if name not in found)
            found |= _fetch_from(hub, base, "", missing, folder, deadline)
            if found & set(TEMPLATES):
                break
    except (RKLLamaError, OSError, TimeoutError, lost_connection()) as error:
        _log.info("no chat template beside %s: %s", model.name, error)


def has_template(folder: str) -> bool:
    """Whether one of the files that hold a chat template lies in `folder`."""
    return any(os.path.exists(os.path.join(folder, name)) for name in TEMPLATES)


def _fetch_from(
    hub: Hub,
    repository: Repository,
    subfolder: str,
    names: tuple[str, ...],
    folder: str,
    deadline: float,
) -> set[str]:
    """The names that `repository` has, beside the model or at its top; they lie in `folder` now."""
    found: set[str] = set()
    for name in names:
        for path in dict.fromkeys((f"{subfolder}/{name}".lstrip("/"), name)):
            if path not in repository.files:
                continue
            content = _read(hub, repository, path, deadline)
            if content is not None:
                write_file(os.path.join(folder, name), content)
                found.add(name)
            break
    return found


def _read(hub: Hub, repository: Repository, path: str, deadline: float) -> bytes | None:
    """The file's bytes; None when it is too large or not to be had."""
    content = bytearray()
    with hub.open_small(repository, path, _left(deadline)) as response:
        if response.status_code != 200:
            return None
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > SIZE_LIMIT:
                return None
            _left(deadline)
    announced = response.headers.get("content-length")
    return None if announced and announced != str(len(content)) else bytes(content)


def _left(deadline: float) -> float:
    """Seconds that the next step may take. Raises TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the Hub is too slow")
    return min(seconds, STEP_LIMIT)
