"""Parsers of the settings that are seldom set: lists, tables and commands. Each raises ValueError, with what
is wrong as a half sentence about the value.

No import here that takes long: modules of the store need some of these.
"""

from __future__ import annotations

import os


def cpu_mask(value: object) -> int:
    """Return CPUs as bits, of a number or a text such as "0xF0"."""
    try:
        number = value if isinstance(value, int) else int(str(value), 0)
    except ValueError:
        raise ValueError("it must be a number such as 0xF0") from None
    if not 1 <= number <= 0xFF:
        raise ValueError("it must be between 0x01 and 0xFF: a bit for each of CPU 0 to 7")
    return number


def governors(value: object) -> str | None:
    """Return "performance", or None for "off"."""
    text = str(value).lower()
    if text not in ("performance", "off"):
        raise ValueError("it must be performance, or off")
    return None if text == "off" else text


def board_name(value: object) -> str:
    """Return a name as it may stand in a header."""
    name = str(value)
    if not (
        0 < len(name) <= 64 and name.isascii() and all(c.isalnum() or c in "._-" for c in name)
    ):
        raise ValueError("it must be at most 64 letters, digits, dots, hyphens and underscores")
    return name


def aliases(value: object) -> dict[str, str]:
    """Return names and the models that they stand for, of a table or a text "chat=qwen3:4b,code=…"."""
    if isinstance(value, str):
        value = dict(_alias(pair) for pair in value.split(",") if pair.strip())
    if not isinstance(value, dict):
        raise ValueError('it must be a table such as chat = "qwen3:4b"')
    table: dict[str, str] = {}
    for name, target in value.items():
        if not isinstance(target, str) or not target.strip():
            raise ValueError(
                f"the alias {name!r} must stand for the name of a model, in quotes; "
                "other settings come above [aliases]"
            )
        if not 0 < len(name) <= 128 or not name.isprintable() or set(name) & set(" ,=\"'"):
            raise ValueError(f"{name[:100]!r} cannot be the name of an alias: {_ALIAS_NAME}")
        if alias_key(name) in map(alias_key, table):
            raise ValueError(f"it has the alias {name!r} twice, in any case and without :latest")
        table[name] = target.strip()
    _check_no_circle(table)
    return table


_ALIAS_NAME = "it must have at most 128 characters, and no blanks, commas, quotes or ="


def _alias(pair: str) -> tuple[str, str]:
    name, sign, target = pair.partition("=")
    if not sign:
        raise ValueError("it must be written as NAME=MODEL,NAME=MODEL")
    return name.strip(), target


def alias_key(name: str) -> str:
    """Return what all spellings of an alias have in common."""
    return name.strip().lower().removesuffix(":latest")


def _check_no_circle(table: dict[str, str]) -> None:
    """Raise ValueError for aliases that stand for each other."""
    targets = {alias_key(name): alias_key(target) for name, target in table.items()}
    for name in table:
        way = [alias_key(name)]
        while way[-1] in targets:
            way.append(targets[way[-1]])
            if way[-1] in way[:-1]:
                raise ValueError(f"the aliases go round in a circle: {' -> '.join(way)}")


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, list | tuple):
        return tuple(str(item) for item in value)
    return tuple(word for word in str(value).replace(",", " ").split() if word)


def server_command(value: object) -> tuple[str, ...]:
    """Return the words of a llama-server to start: a program and its arguments, quoted as in a shell.

    Raises ValueError for quotes that do not match, and for arguments that are not the user's to set.
    """
    import shlex  # its own imports take as long as all of this module's

    try:
        words = shlex.split(str(value)) if isinstance(value, str) else [*_words(value)]
    except ValueError as error:
        raise ValueError(f"must be a program and its arguments: {str(error).lower()}") from None
    for word in words:
        flag = word.partition("=")[0]
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        if flag in _OWN_FLAGS.split():
            raise ValueError(f"must not contain {flag}, which RKLLama sets itself")
    return tuple(words)


_OWN_FLAGS = (
    "-m --model -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file --models-dir "
    "--models-preset --host --port --reuse-port --api-prefix --api-key --api-key-file --ssl-key-file "
    "--ssl-cert-file -c --ctx-size -np --parallel --embedding --embeddings --rerank --reranking "
    "--tools -ag --agent -h --help --usage --version"
)
"""What decides which model llama-server runs and who may ask it, and what we have to know of it."""


def program(value: object) -> tuple[str, ...]:
    """Return a program, with its whole path where it has one, and its arguments."""
    try:
        words = server_command(value)
    except ValueError as error:
        raise ValueError(f"it {error}") from None
    if not words or words[0].startswith("-"):
        raise ValueError("it must begin with a program")
    if "/" in words[0]:  # else it is looked for in PATH
        words = (os.path.abspath(os.path.expanduser(words[0])), *words[1:])
    return words


def keys(value: object) -> tuple[str, ...]:
    """Return API keys, of a text with commas or spaces between them; @FILE stands for those in a file, one a
    line.
    """
    keys: list[str] = []
    for word in _words(value):
        keys += _keys_in_file(word[1:]) if word.startswith("@") else [word]
    if not keys:
        # An empty list (an unset variable) must not end up as a server that is open to everybody.
        raise ValueError("it contains no key")
    return tuple(keys)


def _keys_in_file(path: str) -> list[str]:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as stream:
            lines = [line.strip() for line in stream]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return [line for line in lines if line and not line.startswith("#")]


def origins(value: object) -> tuple[str, ...]:
    """Return origins as browsers send them: in lower case, with no slash at the end."""
    origins = tuple(word.lower().rstrip("/") for word in _words(value))
    for origin in origins:
        place = origin.partition("://")[2]
        if origin not in ("*", "null") and (not place or "/" in place or "*" in place):
            # It would be compared with what browsers send, and never be the same.
            raise ValueError(f"{origin!r} is not an origin such as https://chat.example.org")
    return origins
