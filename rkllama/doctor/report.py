"""`rkllama doctor --report`: one file for a bug report, without keys, prompts and names of users.

rkllama-report/report.txt     what was found, for people
rkllama-report/report.json    the same for programs, with versions, settings and libraries
rkllama-report/sysroot/       what the checks read of the board: RKLLAMA_SYSROOT=… rkllama doctor
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import pwd
import re
import socket
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from .. import __version__
from ..board.snapshot import USER, Piece, is_personal, take, without_personal
from ..board.sysroot import read_user
from ..clib.elf import machine_of, size_of, stand_in
from ..config import SETTINGS, Settings
from ..files import NewFile, not_written, open_regular
from ..rkllm.installed import Runtimes
from ..rkllm.library import read_version
from ..rkllm.log import diagnose, read_facts
from ..runner.environment import LOGIN, is_secret
from .finding import Finding, Subject
from .software.hub import find_token
from .software.inventory import read_models

JSON_VERSION = 1
"""Of the form of report.json."""
_FOLDER = "rkllama-report"
_SHORTEST_KEY, _SHORTEST = 4, 6
"""Characters that a key of ours has, and what another variable may hold: shorter ones are ordinary words."""
_LOG_END = 1 << 18
_HEAD = 512
_RUNTIMES_LINES = ("I rkllm: rkllm-", "W rkllm:", "E rkllm:", "E RKNN:")
_FACT = re.compile(r"(?i)\d[\d.b]{0,15}|r[kv]\d{4}[a-z]?|w\d+a\d+(?:_g\d+)?")
"""A number, a release, a SoC or a type of data: nothing else of a log is passed on."""
_ARGUMENT = re.compile(rb"(?i)(--[\w-]*(?:key|token|secret|password)(?:[= ]|', ?'))[^\s'\"]+")
"""What a program is given as a secret."""
_TOKEN = re.compile(
    rb"(?i)(\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}"
    rb"|(?-i:\b(?:hf_|gh[a-z]_|github_pat_|glpat-|sk-|xox[a-z]-|AKIA))[A-Za-z0-9_-]{6,}"
    rb"|\beyJ[\w-]{10,}\.[\w.-]+"
)
"""Which texts are tokens wherever they stand: those behind the name of a scheme, those that well-known
services make, and JSON web tokens."""
_PARAMETER = re.compile(
    rb"(?i)([?&;][\w.-]*(?:key|token|secret|passw(?:or)?d|auth|sig(?:nature)?|credential)[\w.-]*=)[^&\s'\"#]+"
)
"""A secret in the query of a URL."""
_LOGIN = re.compile(LOGIN.pattern.encode())
_LEFT_OUT = (
    "Keys, tokens, serial numbers, and the names of users and of this machine are left out, and so are "
    "the models' logs, in which prompts may stand: only what they tell of runtime and model is here."
)


def default_name() -> str:
    """Return the name of a report that is made now."""
    return f"{_FOLDER}-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz"


def write_report(
    path: str, subject: Subject, findings: Sequence[Finding], asked: Iterable[str]
) -> None:
    """Write a report to the file `path`, for its owner alone; `asked` is what `recording` collected while
    the checks ran. Raises RKLLamaError.
    """
    mask = Mask(subject.settings)
    content = mask.values(_content(subject, findings))
    pieces = [
        Piece("report.txt", mask.text(_as_text(findings)).encode()),
        Piece("report.json", json.dumps(content, indent=1, ensure_ascii=False).encode()),
        *(
            Piece(f"sysroot/{piece.path}", piece.content and mask.secrets(piece.content))
            for piece in take(asked, _stand_in)
        ),
    ]
    try:
        with NewFile(os.path.dirname(os.path.abspath(path))) as new:
            os.fchmod(new.stream.fileno(), 0o600)
            _write_archive(new.stream, pieces)
            new.place(path)
    except OSError as error:
        raise not_written(error, os.path.abspath(path)) from None


def _write_archive(stream: io.BufferedIOBase | object, pieces: Iterable[Piece]) -> None:
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:  # type: ignore[call-overload]
        for piece in pieces:
            entry = tarfile.TarInfo(f"{_FOLDER}/{piece.path}")
            entry.mtime = int(time.time())
            entry.mode = 0o644
            if piece.content is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size = len(piece.content)
                archive.addfile(entry, io.BytesIO(piece.content))


def _as_text(findings: Iterable[Finding]) -> str:
    lines = [f"RKLLama {__version__}, {time.strftime('%Y-%m-%d %H:%M')}", _LEFT_OUT, ""]
    for finding in findings:
        lines.append(f"[{finding.status}] {finding.title}: {finding.found}")
        if finding.status in ("broken", "warning"):
            lines += [f"    good: {finding.good}"] if finding.good else []
            lines += [f"    {finding.advice}"] if finding.advice else []
            lines += [f"    $ {line}" for line in finding.cure]
        lines += [f"    from {finding.source}"] if finding.source else []
    return "\n".join(lines) + "\n"


def _content(subject: Subject, findings: Iterable[Finding]) -> dict[str, object]:
    settings = subject.settings
    return {
        "version": JSON_VERSION,
        "rkllama": __version__,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "system": {"kernel": platform.release(), "machine": platform.machine()},
        "left_out": _LEFT_OUT,
        "findings": [asdict(finding) for finding in findings],
        "settings": dict(_settings(settings)),
        "models": [
            {"name": one.name, "file": one.file, "size": one.size}
            for one in read_models(subject).entries
        ],
        "libraries": [
            _identity(one.path) for one in Runtimes(settings.home).installed() if one.path
        ],
        "logs": dict(_logs(settings)),
    }


def _settings(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield the settings; of keys their number, and of a program no arguments."""
    for setting in SETTINGS:
        value = getattr(settings, setting.name)
        if setting.name == "api_keys":
            value = len(value)
        elif setting.name == "llama_server":
            value = value[0] if value else None
        yield setting.name, value


def _logs(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield what the models' logs tell of runtime and model; no line of them as it is."""
    try:
        names = sorted(name for name in os.listdir(settings.logs) if name.endswith(".log"))
    except OSError:
        return
    for name in names:
        try:
            with open_regular(os.path.join(settings.logs, name)) as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LOG_END))
                text = stream.read(_LOG_END).decode("utf-8", "replace")
        except OSError:
            continue
        own = "\n".join(line for line in text.splitlines() if line.startswith(_RUNTIMES_LINES))
        complaint = diagnose(own)
        yield (
            name,
            {
                "facts": {
                    key: value
                    for key, value in asdict(read_facts(own)).items()
                    if _FACT.fullmatch(str(value))
                },
                "complaint": complaint.message if complaint else None,
            },
        )


# --- Libraries ---------------------------------------------------------------------------------


def _identity(path: str) -> dict[str, object]:
    try:
        with open_regular(path) as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        about = machine_of(path)
        return {
            "path": path,
            "size": os.path.getsize(path),
            "sha256": digest.hexdigest(),
            "machine": str(about) if about else None,
            "version": read_version(path),
        }
    except OSError as error:
        return {"path": path, "error": error.strerror}


def _stand_in(path: str) -> bytes:
    """Return what stands for a library in the tree: the checks find the same in it."""
    try:
        if machine_of(path) is None:
            with open_regular(path) as stream:
                return stream.read(_HEAD)
        version = read_version(path)
        text = f"RKLLM SDK (version: {version}".encode() if version else b""
        content = stand_in(path, text + b"\0")
        return content if os.path.getsize(path) >= size_of(path) else content[:-1]
    except OSError:
        return b""


# --- What is nobody's business -----------------------------------------------------------------


class Mask:
    """Takes out of texts what must not be in a report."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        keys = {*settings.api_keys, find_token()[0] or ""}
        others = {value for name, value in env.items() if is_secret(name)}
        # A list of keys, or the name of a file with them.
        others |= {part for value in [*others] for part in re.split(r"[\s,]+", value)}
        secrets = {one for one in keys if len(one) >= _SHORTEST_KEY}
        secrets |= {one for one in others if len(one) >= _SHORTEST}
        longest_first = sorted(secrets, key=len)[::-1]
        self._secrets = [secret.encode() for secret in longest_first]
        self._names = [*_names(env)]

    def secrets(self, content: bytes) -> bytes:
        """Return a content without secrets."""
        for secret in self._secrets:
            content = content.replace(secret, b"***")
        content = _ARGUMENT.sub(rb"\1***", content)
        content = _TOKEN.sub(rb"\1***", content)
        content = _PARAMETER.sub(rb"\1***", content)
        return _LOGIN.sub(b"://***@", content)

    def text(self, text: str) -> str:
        """Return a text without secrets and names."""
        content = self.secrets(without_personal(text.encode("utf-8", "surrogateescape")))
        text = content.decode("utf-8", "replace")
        for pattern, replacement in self._names:
            text = pattern.sub(replacement, text)
        return text

    def values(self, value: object) -> object:
        """Return JSON's values with every text in them as `text` has it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.values(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.values(one) for one in value]
        return value


def _names(env: Mapping[str, str]) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield what stands for this user and this machine, and what to write in its place."""
    home = os.path.expanduser("~")
    if home not in ("/", ""):
        yield re.compile(re.escape(home) + r"(?![\w.-])"), "~"
    yield re.compile(r"(?<=/home/)[^/\s:'\"]+"), USER
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = ""
    for name in {user, read_user().name, env.get("SUDO_USER", "")}:
        if is_personal(name):
            yield _word(name), USER
    host = socket.gethostname()
    for name in sorted({host, host.partition(".")[0]} - {"", "localhost"}, key=len)[::-1]:
        yield _word(name), "HOST"


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])")
