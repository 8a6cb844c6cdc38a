"""A setting's value as text: for the file, for people, and as it can be set again."""

import os
from typing import Any

from ...config import Setting, server_address

SECRET = "api_keys"  # noqa: S105 - its name
RULES = "prompt_rules"
"""Their tables may hold API keys."""


def toml_value(setting: Setting, text: str) -> str:
    """Return a value as TOML that means the same from every directory. Raises ValueError.

    Keys stay as they were written: @FILE is read anew at each start.
    """
    import json

    if not text.isprintable():
        raise ValueError("it has control characters, or is not UTF-8")
    value = setting.parse(text)
    if setting.name == "host":
        server_address(text)  # it says what is wrong with it
    if setting.name == SECRET:
        value = tuple(word for word in text.replace(",", " ").split() if word)
        value = tuple(_absolute(word) for word in value)
    elif setting.name == "llama_server":
        import shlex

        value = shlex.join(value)
    elif setting.name == "aliases":
        pairs = (f"{json.dumps(name)} = {json.dumps(value[name])}" for name in value)
        return f"{{ {', '.join(pairs)} }}"
    elif setting.name == RULES:
        value = tuple(map(str, value))
    elif setting.is_duration:
        value = int(text) if text.strip().lstrip("-").isdecimal() else text.strip()
    elif isinstance(value, int) and not isinstance(value, bool) and text.lower().startswith("0x"):
        return text.lower()
    return json.dumps(value, ensure_ascii=False)


def _absolute(key: str) -> str:
    return f"@{os.path.abspath(os.path.expanduser(key[1:]))}" if key.startswith("@") else key


def shown_text(setting: Setting, value: Any) -> str:
    """Return a value as text, of secrets only how many there are."""
    if setting.name == SECRET and value:
        return "1 key" if len(value) == 1 else f"{len(value)} keys"
    return "not set" if value in (None, (), {}) else without_login(value_text(value, setting))


def json_value(setting: Setting, value: Any, *, valid: bool) -> Any:
    """Return a value, or what stands in its place, as it is told to programs."""
    if setting.name == RULES and not isinstance(value, str):
        return [rule.as_dict() for rule in value] if valid else None
    return without_login(value) if isinstance(value, str) else value


def without_login(text: str) -> str:
    """Return a text without the password of a URL in it, such as a mirror's."""
    from ...runner.environment import LOGIN

    return LOGIN.sub("://…@", text)


def value_text(value: Any, setting: Setting) -> str:
    """Return a value as it can be set again."""
    if isinstance(value, bool):
        return str(value).lower()
    if setting.is_duration:
        return duration_text(value)
    if setting.name == "enabled_cpus_mask":
        return f"0x{value:02X}"
    if setting.name == "llama_server":
        import shlex

        return shlex.join(value)
    if isinstance(value, dict):
        return ",".join(f"{name}={target}" for name, target in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def duration_text(seconds: float) -> str:
    """Return seconds as a setting takes them: "1h30m", "-1" for forever."""
    if seconds < 0:
        return "-1"
    if seconds != int(seconds) or seconds < 1:
        return f"{seconds:g}s"
    hours, rest = divmod(int(seconds), 3600)
    parts = ((hours, "h"), (rest // 60, "m"), (rest % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number)
