"""How a user may name a model on the Hub, and which of a repository's files that means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from ..errors import AmbiguousName, HubNotFound, InvalidRequest, Unsupported
from .filename import (
    EXTENSIONS,
    is_mmproj,
    parse_quantization,
    strip_extension,
    without_registry,
)

_NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?::[A-Za-z0-9._-]{1,64})?")
_FORM = "Write it as hf/USER/REPO/FILE.rkllm, with @REVISION at the end if needed."
_NAME = re.compile(r"\w(?:[\w.-]{0,94}\w)?", re.ASCII)
_REVISION = re.compile(r"[^\s~^:?*\[\]\\@/][^\s~^:?*\[\]\\@]{0,199}")
_FILE_THEN_REVISION = re.compile(r"(.+?\.(?:rkllm|gguf))@(.+)", re.IGNORECASE)
_FILE_THEN_NAME = re.compile(r"([^@]+\.(?:rkllm|gguf))/([^/@]+)(@.+)?", re.IGNORECASE)
_TAG = re.compile(r"\w[\w.+-]{0,199}", re.ASCII)
_HUB = re.compile(r"^(?:hf|hf\.co|huggingface\.co)/", re.IGNORECASE)
_HUB_PLACES = frozenset(
    (host, port) for host in ("huggingface.co", "www.huggingface.co", "hf.co") for port in (80, 443)
)
_URL = re.compile(r"https?://", re.IGNORECASE)
SPLIT_GGUF = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a user asked for: `repo` is USER/REPO, `file` the path inside it, None = its only model,
    or its only one of the kind that `tag` says.
    """

    repo: str
    file: str | None = None
    revision: str | None = None
    tag: str | None = None
    name: str | None = None
    """What the model shall be called; None for the name of its file."""

    def tagged(self, files: Iterable[str]) -> tuple[str, ...]:
        """Return those of `files` that the tag names, all without a tag."""
        return tuple(path for path in files if self.tag is None or is_tagged(path, self.tag))


def parse_reference(text: str, endpoint: str | None = None) -> Reference:
    """Return the parts of `[hf/]USER/REPO[/FILE[/NAME]][@REVISION]` or of a file's web address on the Hub.

    The revision stands at the end, where it may hold slashes, or after the repository. FILE may lie in
    a subfolder. The Hub's pages tell users of Ollama to write `hf.co/USER/REPO:QUANTIZATION`. Every part
    is safe to become a path or an address. A web address is one of the Hub, or of `endpoint`, its mirror.
    Raises InvalidRequest.
    """
    address = without_registry(text.strip())
    if _URL.match(address):
        return _parse_url(address, endpoint)
    segments = _HUB.sub("", address).split("/")
    if len(segments) < 2:
        raise _malformed(text, "it names no repository")
    user, (repo, at, revision) = segments[0], segments[1].partition("@")
    rest, name = _without_name(text, "/".join(segments[2:]))
    repo, colon, tag = repo.partition(":")
    if colon and (rest or not _TAG.fullmatch(tag)):
        raise _malformed(text, "what follows the colon is not a kind of model")
    if at and rest and not rest.lower().endswith(EXTENSIONS):
        revision, rest = f"{revision}/{rest}", ""
    elif match := _FILE_THEN_REVISION.fullmatch(rest):
        if at:
            raise _malformed(text, "it names two revisions")
        at, rest, revision = "@", match[1], match[2]
    reference = _checked(text, f"{user}/{repo}", rest or None, revision if at else None)
    tagged = colon and tag.lower() != "latest"
    return replace(reference, name=name, tag=tag if tagged else None)


def _without_name(text: str, rest: str) -> tuple[str, str | None]:
    """Return what follows the repository without NAME, and NAME: FILE.rkllm/NAME[@REVISION]."""
    match = _FILE_THEN_NAME.fullmatch(rest)
    if match is None or match[2].lower().endswith(EXTENSIONS):
        return rest, None
    if not is_new_name(match[2]):
        raise _malformed(text, f"{match[2]!r} is not a valid model name")
    return match[1] + (match[3] or ""), match[2]


def is_new_name(name: str) -> bool:
    """Return whether something new may have this name, which becomes a folder's."""
    return bool(_NEW_NAME.fullmatch(name))


def _parse_url(text: str, endpoint: str | None) -> Reference:
    try:
        path, place = urlsplit(text).path, _place(text)
        known = {*_HUB_PLACES, _place(endpoint or "")}
    except ValueError as error:
        raise _malformed(text, str(error)) from None
    if place not in known:
        site = "{0.scheme}://{0.netloc}".format(urlsplit(text))
        raise InvalidRequest(
            f"{text[:300]!r} cannot be pulled: its site is not the Hub",
            param="model",
            hint=f"Set HF_ENDPOINT={site} if it is a mirror of the Hub, or download the file yourself.",
        )
    segments = [unquote(part) for part in path.strip("/").split("/")]
    repo, rest = "/".join(segments[:2]), segments[2:]
    if not rest:
        return _checked(text, repo, None, None)
    if len(rest) < 2 or rest[0] not in ("blob", "resolve", "raw", "tree"):
        raise _malformed(text, "it is not the address of a file on the Hub")
    return _checked(text, repo, "/".join(rest[2:]) or None, rest[1])


def _place(url: str) -> tuple[str, int | None]:
    """Return host and port of an address. Raises ValueError."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    return (parts.hostname or "").lower(), port


def _checked(text: str, repo: str, file: str | None, revision: str | None) -> Reference:
    if not is_repository(repo):
        raise _malformed(text, f"{repo!r} is not a repository's name")
    if file is not None:
        if not _is_safe_path(file):
            raise _malformed(text, "its file has a path that cannot be used")
        if not file.lower().endswith(EXTENSIONS):
            raise _malformed(text, f"{file} is not a .rkllm or .gguf file")
    if revision is not None and not _is_revision(revision):
        raise _malformed(text, f"{revision!r} is not a revision")
    return Reference(repo=repo, file=file, revision=revision)


def is_repository(name: str) -> bool:
    """Return whether `name` is USER/REPO, in the characters that the Hub allows."""
    parts = name.split("/")
    return len(parts) == 2 and all(_NAME.fullmatch(part) and ".." not in part for part in parts)


def _is_revision(name: str) -> bool:
    return bool(_REVISION.fullmatch(name)) and ".." not in name and name.isprintable()


def _is_safe_path(path: str) -> bool:
    """Return whether a path in a repository may become one on disk: no way up, nothing hidden or
    unprintable.
    """
    return path.isprintable() and all(
        part and not part.startswith(".") and "\\" not in part and len(os.fsencode(part)) <= 200
        for part in path.split("/")
    )


def _malformed(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{text[:300]!r} cannot be pulled: {why}", param="model", hint=_FORM)


def choose_file(files: tuple[str, ...], reference: Reference) -> str:
    """Return the path of the model to fetch: the one that was named, else the only one among `files`.

    Without any files, the named one is assumed to exist. Raises HubNotFound with near names, AmbiguousName
    with all candidates, or Unsupported.
    """
    models = tuple(path for path in files if is_model(path))
    path = reference.file
    if path is None:
        path = _only_one(models, reference)
    elif files and path not in files:
        raise HubNotFound(f"{reference.repo} has no file {path}", hint=_near(path, models))
    if SPLIT_GGUF.search(path):
        raise Unsupported(f"{path} is one part of a model that is split over several files")
    return path


def _only_one(models: tuple[str, ...], reference: Reference) -> str:
    tag, matches = reference.tag, reference.tagged(models)
    if len(matches) > 1:
        raise AmbiguousName(reference.repo, tuple(f"{reference.repo}/{name}" for name in matches))
    if not models:
        raise HubNotFound(f"{reference.repo} contains no .rkllm or .gguf file")
    if not matches:
        raise HubNotFound(f"{reference.repo} has no {tag}", hint=_near(tag or "", models))
    return matches[0]


def is_tagged(path: str, tag: str) -> bool:
    """Return whether a model's file is what `tag` names: its quantization, the end of its name, or all
    of it.
    """
    name, tag = path.rpartition("/")[2].lower(), tag.lower()
    plain = strip_extension(name)
    quantization = (parse_quantization(name) or "").lower()
    return tag in (name, plain, quantization) or plain.endswith((f"-{tag}", f".{tag}", f"_{tag}"))


def is_model(path: str) -> bool:
    """Return whether a path in a repository is that of a model that can be pulled."""
    name = path.rpartition("/")[2].lower()
    # The list is the Hub's: it is not to be trusted.
    return name.endswith(EXTENSIONS) and not is_mmproj(name) and _is_safe_path(path)


def _near(path: str, models: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(path, models, n=3, cutoff=0.5) or models[:5]
    return f"It has: {', '.join(near)}." if near else "It contains no .rkllm or .gguf file."
