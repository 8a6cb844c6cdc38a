"""The settings: a flag beats the environment, which beats `config.toml`, which beats the default. And
the bounds of what a request may set.

No dataclass here: `rkllama list` needs this module, and importing dataclasses alone costs one and a
half bare interpreter starts.
"""

from __future__ import annotations

import os
import sys

from .errors import ConfigError

TYPE_CHECKING = False  # the real one would be an import, too
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from .settings.prompt_rules import PromptRule

NUMBER_BOUNDS: Mapping[str, tuple[float, float]] = {
    "temperature": (0, 5),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "repeat_penalty": (0, 10),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "mirostat_tau": (0, 100),
    "mirostat_eta": (0, 1),
}
"""The smallest and the largest value that an option of a generation may have; an API may take less."""
INTEGER_BOUNDS: Mapping[str, tuple[int, int]] = {
    "top_k": (0, (1 << 31) - 1),
    "mirostat": (0, 2),
    "seed": (-(1 << 63), 1 << 64),
    "num_predict": (-2, (1 << 31) - 1),
    "num_ctx": (1, 1 << 24),
}
"""The same of those that are whole numbers."""
RUNTIME_URL = "https://raw.githubusercontent.com/airockchip/rknn-llm"
"""Where the vendor's repository is served; below it stand a commit and a path."""
SMALLEST_CONTEXT = 4
"""As in Ollama, fewer tokens of context are taken for this many."""

LONGEST_CONFIG = 256 << 10
"""Characters of a configuration file: a thousand times what all settings take."""

LONGEST_WAIT = 86400.0
"""Seconds, a day: nothing is waited for longer. The system's clocks overflow at 24 of them."""

_IMAGE_CHARACTERS = 2000
"""Of a prompt that take as long as a picture: its tokens, and an encoder that is loaded first (18 s)."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: object) -> float:
    """Return seconds of a number (seconds) or a duration such as "5m", "1h30m", "-1"; negative = forever.

    Raises ValueError for anything else, infinities and NaN included.
    """
    if isinstance(value, bool):
        raise ValueError("it is not a duration such as 30s or 5m")
    if isinstance(value, int | float):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _parse_duration_text(value.strip())
    else:
        raise ValueError("it is not a duration such as 30s or 5m")
    if seconds != seconds or abs(seconds) == float("inf"):
        raise ValueError("it is not a duration such as 30s or 5m")
    return seconds


def _parse_duration_text(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    total, number = 0.0, ""
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = next(
            (u for u in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(u)), None
        )
        if unit is None or not number:
            raise ValueError("it is not a duration such as 30s or 5m")
        total, number, rest = total + float(number) * _UNITS[unit], "", rest[len(unit) :]
    if number or not text:
        raise ValueError("it is not a duration such as 30s or 5m")
    return sign * total


def _text(value: object) -> str:
    return str(value)


def _path(value: object) -> str:
    return os.path.abspath(os.path.expanduser(str(value)))


def _integer(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        try:
            number = int(str(value))
        except ValueError:
            raise ValueError("it must be a whole number") from None
        if not low <= number <= high:
            raise ValueError(f"it must be between {low} and {high}")
        return number

    return parse


def _switch(value: object) -> bool:
    text = str(value).lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError("it must be true or false")


def _seconds(value: object) -> float:
    seconds = parse_duration(value)
    if not 0 < seconds <= LONGEST_WAIT:
        raise ValueError(f"it must be more than 0 and at most {LONGEST_WAIT / 3600:g}h")
    return seconds


def _interval(value: object) -> float:
    """Return seconds; 0 is never."""
    seconds = parse_duration(value)
    if seconds != 0 and not 0.1 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"it must be at least 0.1s and at most {LONGEST_WAIT / 3600:g}h, or 0")
    return seconds


def _size(value: object) -> int:
    """Bytes: a number, or one with a unit such as 500M or 4G (of 1024)."""
    text = str(value).strip().upper().removesuffix("B").removesuffix("I")
    shift = {"K": 10, "M": 20, "G": 30, "T": 40}.get(text[-1:], 0)
    try:
        size = int(float(text[:-1] if shift else text) * (1 << shift))
    except (ValueError, OverflowError):
        raise ValueError("it must be a number of bytes such as 500M or 4G") from None
    if not 0 <= size <= 1 << 50:
        raise ValueError("it must be between 0 and 1024T")
    return size


def _idle_time(value: object) -> float | None:
    """Return seconds; None for a negative duration, which is never."""
    seconds = parse_duration(value)
    if seconds < 0:
        return None
    if not 1 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"it must be at least 1s and at most {LONGEST_WAIT / 3600:g}h, or -1")
    return seconds


def _drain_time(value: object) -> float | None:
    """Return seconds; None for 0 and for a negative duration."""
    seconds = parse_duration(value)
    if seconds > LONGEST_WAIT:
        raise ValueError(f"it must be at most {LONGEST_WAIT / 3600:g}h, or 0")
    return seconds if seconds > 0 else None


def _level(value: object) -> str:
    level = str(value).lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("it must be debug, info, warning or error")
    return level


def _prompt_rules(value: object) -> tuple[PromptRule, ...]:
    from .settings.prompt_rules import read_rules
    from .settings.values import keys

    return read_rules(value, keys)


def _by_values(name: str) -> Callable[[object], Any]:
    """Return a parser of settings/values.py, which is imported only where such a setting is set."""

    def parse(value: object) -> Any:
        from .settings import values

        return getattr(values, name)(value)

    return parse


class Settings:
    """One immutable set of settings; every field is documented where it is declared."""

    home: str
    """Where models, logs and the configuration live. RKLLAMA_HOME, default ~/RKLLAMA."""
    models: str
    """The models directory. RKLLAMA_MODELS, default <home>/models."""
    host: str
    """The server's address, HOST, HOST:PORT or a URL. RKLLAMA_HOST, default 127.0.0.1:8080."""
    keep_alive: float
    """Seconds that a model stays loaded after its last use; negative = forever. RKLLAMA_KEEP_ALIVE, 5m."""
    max_loaded: int
    """How many models may be loaded at once. RKLLAMA_MAX_LOADED, 1."""
    max_queue: int
    """How many requests may wait for their turn. RKLLAMA_MAX_QUEUE, 64."""
    context_length: int
    """Tokens of context where neither request nor Modelfile says. RKLLAMA_CONTEXT_LENGTH, 4096."""
    log_level: str
    """debug, info, warning or error. RKLLAMA_LOG_LEVEL, info."""
    rkllm_lib: str | None
    """The file librkllmrt.so. RKLLAMA_RKLLM_LIB; default: searched for."""
    rknn_lib: str | None
    """The file librknnrt.so, for pictures. RKLLAMA_RKNN_LIB; default: searched for."""
    runtime_url: str
    """Where releases of librkllmrt are fetched from. RKLLAMA_RUNTIME_URL; default: RUNTIME_URL."""
    rkllm_abi: str | None
    """The runtime's version, where its file does not tell it. RKLLAMA_RKLLM_ABI."""
    llama_server: tuple[str, ...]
    """A llama-server for .gguf models, program and arguments; none = the CPU backend.
    RKLLAMA_LLAMA_SERVER."""
    lock: str | None
    """The lock file of the NPU's owner. RKLLAMA_LOCK; default: /run/lock/rkllama-npu.lock."""
    load_timeout: float
    """Seconds after which a load counts as hung. RKLLAMA_LOAD_TIMEOUT, 10m."""
    token_timeout: float
    """Seconds without a token after which the runtime counts as hung. RKLLAMA_TOKEN_TIMEOUT, 30s."""
    prefill_timeout: float
    """Seconds added to that per 1000 characters of prompt until the first token.
    RKLLAMA_PREFILL_TIMEOUT, 30s."""
    parallel: int
    """Answers that the CPU backend writes at a time with one model, as far as the memory allows.
    RKLLAMA_PARALLEL, 4."""
    threads: int
    """Threads of the CPU backend; 0 = the physical (big) cores. RKLLAMA_THREADS, 0."""
    base_domain_id: int | None
    """The NPU's memory domain of every model. RKLLAMA_BASE_DOMAIN_ID; default: one for each model."""
    embed_flash: bool | None
    """Whether the NPU's runtime reads embeddings from the file, which saves memory. RKLLAMA_EMBED_FLASH;
    default: as the runtime has it."""
    enabled_cpus_mask: int | None
    """The CPUs that the NPU's runtime uses, as bits. RKLLAMA_ENABLED_CPUS_MASK; default: the big ones."""
    enabled_cpus_num: int | None
    """How many of them. RKLLAMA_ENABLED_CPUS_NUM; default: all in the mask."""
    n_batch: int
    """Texts that the NPU embeds or ranks in one run, with models that do nothing else and runtimes that can
    (from 1.2.1). RKLLAMA_N_BATCH, 1."""
    governors: str | None
    """"performance": the governors of NPU, memory and CPU while a model is in memory. RKLLAMA_GOVERNORS;
    default: they stay as they are."""
    api_keys: tuple[str, ...]
    """Keys of which a client must send one; none = open. RKLLAMA_API_KEY, @FILE for those in a file."""
    origins: tuple[str, ...]
    """Origins of web pages that may call the server (CORS). RKLLAMA_ORIGINS."""
    max_body: int
    """Bytes that a request's body may have. RKLLAMA_MAX_BODY, 32 MiB."""
    send_timeout: float
    """Seconds that a client may keep an answer waiting by not reading it, before it is cut off.
    RKLLAMA_SEND_TIMEOUT, 30s."""
    alive_interval: float
    """Seconds without news after which a streamed answer sends a sign of life; 0 = never.
    RKLLAMA_ALIVE_INTERVAL, 10s."""
    state_budget: int | None
    """Bytes that saved conversations take on the disk, 0 = none is saved; None = a tenth of what is free,
    at most 4G. RKLLAMA_STATE_BUDGET."""
    state_writes: int | None
    """Bytes of them that are written in an hour; None = a hundredth of the disk. RKLLAMA_STATE_WRITES."""
    share_states: bool
    """Whether clients with different API keys use each other's. RKLLAMA_SHARE_STATES, false."""
    prompt_rules: tuple[PromptRule, ...]
    """Lines of system prompts that are moved behind what stays the same. RKLLAMA_PROMPT_RULES."""
    exit_idle: float | None
    """Seconds without a request or a loaded model after which the server ends; None = never.
    RKLLAMA_EXIT_IDLE."""
    aliases: Mapping[str, str]
    """Names that stand for models. RKLLAMA_ALIASES."""
    drain_timeout: float | None
    """Seconds that a first SIGTERM leaves the requests that are here; None = it ends them at once.
    RKLLAMA_DRAIN_TIMEOUT."""
    page: bool
    """Whether browsers get a page at the server's address. RKLLAMA_PAGE, true."""
    board_name: str
    """What the server calls its board in the header x-rkllama-board. RKLLAMA_BOARD_NAME; default: the host's
    name."""

    __slots__ = (
        "aliases",
        "alive_interval",
        "api_keys",
        "base_domain_id",
        "board_name",
        "context_length",
        "drain_timeout",
        "embed_flash",
        "enabled_cpus_mask",
        "enabled_cpus_num",
        "exit_idle",
        "governors",
        "home",
        "host",
        "keep_alive",
        "llama_server",
        "load_timeout",
        "lock",
        "log_level",
        "max_body",
        "max_loaded",
        "max_queue",
        "models",
        "n_batch",
        "origins",
        "page",
        "parallel",
        "prefill_timeout",
        "prompt_rules",
        "rkllm_abi",
        "rkllm_lib",
        "rknn_lib",
        "runtime_url",
        "send_timeout",
        "share_states",
        "state_budget",
        "state_writes",
        "threads",
        "token_timeout",
    )

    def __init__(self, **values: Any) -> None:
        for name in self.__slots__:
            object.__setattr__(self, name, values[name])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("settings are immutable")

    @property
    def logs(self) -> str:
        """The directory of the workers' log files."""
        return os.path.join(self.home, "logs")

    @property
    def cache(self) -> str:
        """Where answers of the Hub are kept for a while."""
        return os.path.join(self.home, "cache")

    @property
    def states(self) -> str:
        """Where conversations are saved."""
        return os.path.join(self.home, "states")

    def prompt_timeout(self, characters: int, images: int = 0) -> float:
        """Seconds that a prompt of so many characters and pictures may take until its first token."""
        characters += images * _IMAGE_CHARACTERS
        return min(LONGEST_WAIT, self.token_timeout + self.prefill_timeout * characters / 1000)


class Setting:
    """How a setting is set: its name in the file, its environment variable, its parser and its default."""

    __slots__ = ("default", "name", "parse", "variable")

    def __init__(
        self, name: str, variable: str, parse: Callable[[object], Any], default: object
    ) -> None:
        self.name = name
        self.variable = variable
        self.parse = parse
        self.default = default

    @property
    def flag(self) -> str:
        """Its option on the command line."""
        return "--" + self.variable.removeprefix("RKLLAMA_").lower().replace("_", "-")

    def refused(self, value: object) -> str:
        """Return that it cannot have a value, which is not shown where API keys may stand in it."""
        secret = self.parse is _prompt_rules and not isinstance(value, str)
        return "cannot be used" if secret else f"cannot be {value!r}"

    @property
    def is_duration(self) -> bool:
        """Whether its value is seconds."""
        return self.parse in (parse_duration, _seconds, _interval, _idle_time, _drain_time)


SETTINGS = (
    Setting("home", "RKLLAMA_HOME", _path, "~/RKLLAMA"),
    Setting("models", "RKLLAMA_MODELS", _path, None),
    Setting("host", "RKLLAMA_HOST", _text, "127.0.0.1:8080"),
    Setting("keep_alive", "RKLLAMA_KEEP_ALIVE", parse_duration, 300.0),
    Setting("max_loaded", "RKLLAMA_MAX_LOADED", _integer(1, 64), 1),
    Setting("max_queue", "RKLLAMA_MAX_QUEUE", _integer(0, 1024), 64),
    Setting("context_length", "RKLLAMA_CONTEXT_LENGTH", _integer(32, 1 << 20), 4096),
    Setting("log_level", "RKLLAMA_LOG_LEVEL", _level, "info"),
    Setting("rkllm_lib", "RKLLAMA_RKLLM_LIB", _path, None),
    Setting("rknn_lib", "RKLLAMA_RKNN_LIB", _path, None),
    Setting("runtime_url", "RKLLAMA_RUNTIME_URL", _text, RUNTIME_URL),
    Setting("rkllm_abi", "RKLLAMA_RKLLM_ABI", _text, None),
    Setting("llama_server", "RKLLAMA_LLAMA_SERVER", _by_values("program"), ()),
    Setting("lock", "RKLLAMA_LOCK", _path, None),
    Setting("load_timeout", "RKLLAMA_LOAD_TIMEOUT", _seconds, 600.0),
    Setting("token_timeout", "RKLLAMA_TOKEN_TIMEOUT", _seconds, 30.0),
    Setting("prefill_timeout", "RKLLAMA_PREFILL_TIMEOUT", _seconds, 30.0),
    Setting("parallel", "RKLLAMA_PARALLEL", _integer(1, 64), 4),
    Setting("threads", "RKLLAMA_THREADS", _integer(0, 256), 0),
    Setting("base_domain_id", "RKLLAMA_BASE_DOMAIN_ID", _integer(0, 15), None),
    Setting("embed_flash", "RKLLAMA_EMBED_FLASH", _switch, None),
    Setting("enabled_cpus_mask", "RKLLAMA_ENABLED_CPUS_MASK", _by_values("cpu_mask"), None),
    Setting("enabled_cpus_num", "RKLLAMA_ENABLED_CPUS_NUM", _integer(1, 8), None),
    Setting("n_batch", "RKLLAMA_N_BATCH", _integer(1, 100), 1),
    Setting("governors", "RKLLAMA_GOVERNORS", _by_values("governors"), None),
    Setting("api_keys", "RKLLAMA_API_KEY", _by_values("keys"), ()),
    Setting("origins", "RKLLAMA_ORIGINS", _by_values("origins"), ()),
    Setting("max_body", "RKLLAMA_MAX_BODY", _integer(1024, 1 << 30), 32 << 20),
    Setting("send_timeout", "RKLLAMA_SEND_TIMEOUT", _seconds, 30.0),
    Setting("alive_interval", "RKLLAMA_ALIVE_INTERVAL", _interval, 10.0),
    Setting("state_budget", "RKLLAMA_STATE_BUDGET", _size, None),
    Setting("state_writes", "RKLLAMA_STATE_WRITES", _size, None),
    Setting("share_states", "RKLLAMA_SHARE_STATES", _switch, False),
    Setting("prompt_rules", "RKLLAMA_PROMPT_RULES", _prompt_rules, ()),
    Setting("exit_idle", "RKLLAMA_EXIT_IDLE", _idle_time, None),
    Setting("aliases", "RKLLAMA_ALIASES", _by_values("aliases"), {}),
    Setting("drain_timeout", "RKLLAMA_DRAIN_TIMEOUT", _drain_time, None),
    Setting("page", "RKLLAMA_PAGE", _switch, True),
    Setting("board_name", "RKLLAMA_BOARD_NAME", _by_values("board_name"), None),
)


CONFIG_FILE = "config.toml"
"""Its name in the home directory."""


def load_settings(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings in force; `flags` holds what the command line set (None = not set).

    Raises ConfigError for a value that cannot be used, naming the setting and where it was set.
    """
    settings, faults = usable_settings(flags, environ)
    if faults:
        raise faults[0]
    return settings


def usable_settings(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[ConfigError]]:
    """Return the settings and what is wrong with them: each that cannot be used has its default."""
    from_flags = {name: value for name, value in (flags or {}).items() if value is not None}
    env = os.environ if environ is None else environ
    home = _path(from_flags.get("home") or home_directory(env))
    file = os.path.join(home, CONFIG_FILE)
    from_file, faults = _read_file(file)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        values[setting.name] = setting.default
        place = find_value(setting, from_flags, env, from_file)
        if place is None:
            continue
        value, where = place
        try:
            where = f"{where} in {file}" if where == setting.name else where
            values[setting.name] = _parse(setting, value, where)
        except ConfigError as fault:
            faults.append(fault)
    values["home"] = home
    values["models"] = values["models"] or os.path.join(values["home"], "models")
    values["board_name"] = values["board_name"] or host_name()
    return Settings(**values), faults


def host_name() -> str:
    """Return this machine's name, as far as it may stand in a header."""
    name = "".join(c for c in os.uname().nodename if c.isascii() and (c.isalnum() or c in "._-"))
    return name[:64] or "board"


def home_directory(environ: Mapping[str, str] | None = None) -> str:
    """Return the directory of models, logs and configuration."""
    return _path((os.environ if environ is None else environ).get("RKLLAMA_HOME") or "~/RKLLAMA")


def find_value(
    setting: Setting,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
) -> tuple[object, str] | None:
    """Return the value that counts for a setting, not parsed, and where it was set: the option, the variable,
    or (in the file) the setting's name. None if it was not set.
    """
    if setting.name in flags:
        return flags[setting.name], setting.flag
    if environ.get(setting.variable):
        return environ[setting.variable], setting.variable
    if setting.name in table:
        return table[setting.name], setting.name
    return None


def _parse(setting: Setting, value: object, where: str) -> Any:
    try:
        return setting.parse(value)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where} {setting.refused(value)}: {error}") from None


def read_config(path: str) -> dict[str, Any]:
    """Return what a configuration file sets, not checked; nothing if it is not there. Raises ConfigError."""
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return parse_toml(stream.read(LONGEST_CONFIG + 1))
    except (OSError, ValueError) as error:  # of TOML, and of UTF-8
        raise ConfigError(f"{path} cannot be read: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that a text holds. Raises ValueError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    if len(text) > LONGEST_CONFIG:
        raise ValueError(f"it has more than {LONGEST_CONFIG >> 10} kB")
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    return table


def check_names(table: Mapping[str, object], path: str) -> None:
    """Raise ConfigError where a configuration file sets what is no setting."""
    names = {setting.name for setting in SETTINGS} - {"home"}
    if unknown := sorted(set(table) - names):
        raise ConfigError(
            f"{path} has unknown settings: {', '.join(unknown)}",
            hint=near_names(unknown[0], names),
        )


def near_names(name: str, names: Iterable[str]) -> str:
    """Return a hint for the name of a setting that is none."""
    from difflib import get_close_matches

    near = get_close_matches(name.lower().replace("-", "_"), names, n=2, cutoff=0.55)
    return f"Did you mean {' or '.join(near)}?" if near else "`rkllama config` lists them."


def _read_file(path: str) -> tuple[dict[str, Any], list[ConfigError]]:
    """Return the settings in the file, and what is wrong with it."""
    table: dict[str, Any] = {}
    try:
        table = read_config(path)
        check_names(table, path)
    except ConfigError as fault:
        names = {setting.name for setting in SETTINGS}
        return {name: value for name, value in table.items() if name in names}, [fault]
    return table, []


def server_address(host: str) -> tuple[str, int]:
    """Host and port of the setting `host`: a name, name:port, [v6]:port or an http:// URL.

    Raises ConfigError for anything else.
    """
    text = host.strip().removeprefix("http://").rstrip("/")
    has_port = text.count(":") == 1 or "]:" in text  # several without brackets are an IPv6 address
    name, _, port = text.rpartition(":") if has_port else (text, "", "")
    try:
        number = int(port or 8080)
        if not 0 <= number <= 65535 or "/" in text or "://" in text or not name.strip("[]"):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"RKLLAMA_HOST cannot be {host!r}",
            hint="Write it as 127.0.0.1:8080 or http://board:8080.",
        ) from None
    return name.strip("[]"), number


def server_url(host: str, port: int) -> str:
    """Return the address as a URL, an IPv6 host in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether a server bound to `host` can be reached from this machine only."""
    if host in ("localhost", "::1"):
        return True
    # A name such as 127.example.org is not one: its owner decides where it leads.
    parts = host.split(".")
    return parts[0] == "127" and len(parts) == 4 and all(map(_is_byte, parts))


def _is_byte(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= 3 and int(digits) < 256


_EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""The addresses that mean every one of a machine, and the one by which it reaches itself there."""


def is_every_address(host: str) -> bool:
    """Return whether a server at `host` listens at all addresses of its machine."""
    return host in _EVERY


def reachable_host(host: str) -> str:
    """Return where a server that listens at `host` is reached from its own machine."""
    return _EVERY.get(host, host)


def outer_host(host: str) -> str:
    """Return where a server that listens at `host` is reached from other machines."""
    return host_name() if is_every_address(host) else host


def is_this_machine(host: str) -> bool:
    """Return whether a server at `host` would run here: loopback, or the address that means every one."""
    return is_loopback(host) or is_every_address(host)
