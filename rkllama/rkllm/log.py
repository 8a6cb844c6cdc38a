"""What librkllmrt's log says: facts, and complaints as errors with a hint.

The runtime reports what went wrong on stdout and stderr only. Its process writes them to a file, which
is read by that process while it lives and by its parent when it has died. Pure functions of that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..errors import DOCTOR, see_doctor
from ..types import Diagnosis, FailureCause
from .releases import numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the runtime named while it loaded a model; None where it did not."""

    runtime: str | None = None
    driver: str | None = None
    platform: str | None = None
    """The SoC that it runs on."""
    toolkit: str | None = None
    """The version of the toolkit that made the model."""
    max_context_limit: int | None = None
    core_num: int | None = None
    target_platform: str | None = None
    """The SoC that the model was made for."""
    dtype: str | None = None
    wanted_driver: str | None = None
    """The driver version that the runtime asks to upgrade to."""


_FACTS: tuple[tuple[str, str], ...] = (
    ("runtime", r"rkllm-runtime version: (\d[\w.]*)"),
    ("driver", r"rknpu driver version: (\d[\w.]*)"),
    ("platform", r"[, ]platform: (\w+)"),
    ("toolkit", r"rkllm-toolkit version: (\d[\w.]*)"),
    ("max_context_limit", r"max_context_limit(?:: |\[)(\d+)"),
    ("core_num", r"npu_core_num: (\d+)"),
    ("target_platform", r"target_platform: (\w+)"),
    ("dtype", r"model_dtype: (\w+)"),
    ("wanted_driver", r"driver version is too low, please upgrade to (\d[\w.]*\w)"),
)


def read_facts(log: str) -> Facts:
    """Return what `log` tells about runtime, board and model; of several loads the last one's."""
    values: dict[str, str | int] = {}
    for name, pattern in _FACTS:
        if matches := re.findall(pattern, log):
            number = name in ("max_context_limit", "core_num")
            values[name] = int(matches[-1]) if number else matches[-1]
    return Facts(**values)  # type: ignore[arg-type]  # each field has the type of its own


_RECONVERT = (
    "Download it again if that may have broken off; else use a model made for this runtime: its "
    "toolkit must not be newer than the runtime nor much older."
)
_MEMORY = (
    "Unload other models, or use a smaller model, a shorter context or a stronger quantization. The "
    "NPU's memory is not the board's: free RAM does not mean that it fits."
)
_OTHER_SOC = "Use the model's file for this board: its name usually carries the SoC."
_CONTAINER = (
    "In a container give it the device tree (/proc/device-tree) and the NPU's devices: --privileged, or "
    "--device /dev/dri --device /dev/dma_heap."
)
_DRIVER = "Upgrade to the vendor's kernel with rknpu driver 0.9.8 or newer."

_NOT_COMPUTED = r"matmul\([^)]*\) run failed|failed to submit|rknn_matmul_run.*fail"


class _Complaint(NamedTuple):
    pattern: str
    message: str
    hint: str
    fatal: bool = True
    """Whether a load that reports success is none after it; else it only explains a failure."""
    cause: FailureCause = "other"
    board: bool = False
    """Whether the board may be to blame, so that `rkllama doctor` finds more."""


# The first that is found is the cause of those below it.
_COMPLAINTS: tuple[_Complaint, ...] = (
    _Complaint(  # the memory that it fails to get afterwards is not the cause
        r"Too many open files",
        "the process ran out of file descriptors",
        "Raise the limit: LimitNOFILE= in the systemd unit, or `ulimit -n 16384`.",
        board=True,
    ),
    _Complaint(
        r"number of enabled CPUs must be greater",
        "the model's process may use fewer CPUs than the model uses NPU cores",
        "Give it more: look at taskset, CPUAffinity= in the systemd unit, the container's CPUs, and "
        "at RKLLAMA_ENABLED_CPUS_MASK and _NUM.",
        board=True,
    ),
    _Complaint(
        r"n_batch must be between 1 and 100, but got (-?\d+)",
        "the runtime takes 1 to 100 prompts at once, not {0}",
        "Set RKLLAMA_RKLLM_ABI only if the release that it names is the library's own.",
    ),
    _Complaint(
        r"need to insmod rknpu|failed to open rk?n?npu|failed to open rknpu module",
        "the NPU's driver is missing or cannot be accessed",
        "Use the vendor's kernel, and add your user to the groups render and video.",
        board=True,
    ),
    _Complaint(
        r"Get device properties failed|Device is not available|hw_version = -1"
        r"|driver version is unknown|rknpu driver version: unknown",
        "the runtime cannot reach the NPU's driver",
        "Add your user to the groups render and video, and remove a symlink /dev/rknpu if there is one. "
        + _CONTAINER,
        fatal=False,
        board=True,
    ),
    _Complaint(
        r"Your platform is (?:lite|unknown)|Query platform error",
        "the runtime does not recognise this board's SoC",
        "It must be RK3588, RK3576, RK3562 or RV1126B. " + _CONTAINER,
        fatal=False,
        board=True,
    ),
    _Complaint(
        r"can not create weight memory for domain",
        "the model does not fit the NPU's memory domain",
        _MEMORY,
        cause="memory",
        board=True,
    ),
    _Complaint(
        r"failed to malloc npu memory,? size: (\d+)",
        "the NPU does not have enough memory for the model ({0} more bytes were requested)",
        _MEMORY,
        cause="memory",
        board=True,
    ),
    _Complaint(
        r"failed to malloc npu memory|failed to allocate handle|mmap fail.*Cannot allocate memory",
        "the NPU does not have enough memory for the model",
        _MEMORY,
        cause="memory",
        board=True,
    ),
    _Complaint(
        r"ggml_calloc: failed to allocate|^:0: fatal error",
        "the board does not have enough memory for the model",
        "Unload other models or end other programs, or use a smaller model or a shorter context.",
        cause="memory",
        board=True,
    ),
    _Complaint(  # such a model's platform is not read rightly, so this stands before the platforms
        r"model version is too old|reconvert the model",
        "the model was made by a toolkit too old for this runtime",
        _RECONVERT,
        cause="runtime",
        fatal=False,  # models of toolkit 1.1 run on runtime 1.2, more slowly
    ),
    _Complaint(
        r"target_platform does not match|platform (?:mismatch|not match)"
        r"|Platform error: must be either",
        "the model was made for another SoC",
        _OTHER_SOC,
    ),
    _Complaint(
        r"max_context\w*\[(\d+)\] must be less than.*max_context_limit\[(\d+)\]",
        "the context of {0} tokens is above the model's limit of {1}",
        "Use a shorter one: --ctx N, in the chat /set num_ctx N, or RKLLAMA_CONTEXT_LENGTH.",
    ),
    _Complaint(
        r"meet unkown shape, op name",
        "the context is longer than what the model was made for",
        "Use a shorter one: --ctx N, in the chat /set num_ctx N, or RKLLAMA_CONTEXT_LENGTH.",
    ),
    _Complaint(
        r"[Tt]okenizer is unavailable",
        "the model was made without its tokenizer",
        "Convert it again, including its tokenizer.",
    ),
    _Complaint(
        r"invalid (?:rknn llm model magic|magic characters|rkllm model)",
        "this runtime does not know the model's file format",
        _RECONVERT,
        cause="runtime",
    ),
    _Complaint(
        r"load model file error|failed to load model|open model file .* failed|Invalid RKNN model version",
        "the runtime could not read the model's file",
        _RECONVERT,
        cause="runtime",
    ),
    _Complaint(
        _NOT_COMPUTED,
        "the NPU failed to compute",
        _DRIVER,
        board=True,
    ),
    _Complaint(
        r"prompt gather than max context.*?prompt: (\d+) tokens.*?max context: (\d+)",
        "the prompt has {0} tokens, but only {1} fit",
        "Shorten the prompt or use a longer context.",
    ),
    _Complaint(
        r"(GGML_ASSERT[^\n]{0,200})",
        "the runtime stopped itself: {0}",
        "The model and this runtime may be incompatible. " + _RECONVERT,
        cause="runtime",
    ),
    _Complaint(
        r"rknn_init fail",
        "the NPU could not be started with this model",
        _RECONVERT,
        cause="runtime",
    ),
)


def diagnose(log: str) -> Diagnosis | None:
    """The cause of a failure that `log` names, else its last line that looks like an error; None: neither.

    A driver that is too old is named beside either.
    """
    if diagnosis := _known(log, _COMPLAINTS):
        return _beside_driver(diagnosis, log)
    if re.search(r"^[EF] (?:rkllm|RKNN)", log, re.M) and (found := _mismatch(read_facts(log))):
        return found
    if line := _last_error(log):
        said = Diagnosis(message=f'the runtime said "{line}"', hint=_UNKNOWN)
        return _beside_driver(said, log)
    return _old_driver(read_facts(log))


def complaint(log: str) -> Diagnosis | None:
    """Return a complaint after which nothing works, as `diagnose`; also of a load that reports success."""
    return _known(log, [known for known in _COMPLAINTS if known.fatal])


def _known(log: str, complaints: Iterable[_Complaint]) -> Diagnosis | None:
    for known in complaints:
        if match := re.search(known.pattern, log, re.M):
            message = known.message.format(*match.groups())
            hint = see_doctor(known.hint) if known.board else known.hint
            return Diagnosis(message=message, hint=hint, cause=known.cause)
    return None


def failed_to_compute(log: str) -> Diagnosis | None:
    """Return what is wrong with a run that reports success though the NPU computed nothing of use."""
    if re.search(_NOT_COMPUTED, log) is None:
        return None
    return Diagnosis(
        message="the NPU failed to compute, so the answer is worthless", hint=see_doctor(_DRIVER)
    )


_UNKNOWN = "Search the runtime's issues for it, or try another release of librkllmrt."
_QUOTED = 200
"""Characters of a log line that are quoted at most."""


def _last_error(log: str) -> str | None:
    """Return the last line that looks like an error, without what cannot be printed."""
    lines = [
        line
        for line in log.splitlines()
        if re.match(r"[EF] (?:rkllm|RKNN)\b", line) or re.search(r"(?i)\b(?:fatal|error)\b", line)
    ]
    if not lines:
        return None
    text = "".join(c if c.isprintable() else " " for c in lines[-1]).strip()
    return text[:_QUOTED]


def _old_driver(facts: Facts) -> Diagnosis | None:
    if facts.wanted_driver is None:
        return None
    driver = "the rknpu driver" if facts.driver is None else f"the rknpu driver {facts.driver}"
    return Diagnosis(message=f"{driver} is too old", hint=see_doctor(_DRIVER))


def _beside_driver(diagnosis: Diagnosis, log: str) -> Diagnosis:
    """Return a diagnosis that names a driver which is too old as well: that causes many failures."""
    old = _old_driver(read_facts(log))
    if old is None:
        return diagnosis
    hint = diagnosis.hint if _DRIVER in diagnosis.hint else f"{diagnosis.hint} {_DRIVER}"
    hint = see_doctor(hint)
    return replace(diagnosis, message=f"{diagnosis.message}; {old.message}", hint=hint)


def _mismatch(facts: Facts) -> Diagnosis | None:
    """The cause of an error whose words are not known, where the versions alone explain it."""
    if facts.platform and facts.target_platform:
        board, target = facts.platform.upper(), facts.target_platform.upper()
        if board[:6] != target[:6]:
            return Diagnosis(
                message=f"the model was made for {target}, but this is {board}", hint=_OTHER_SOC
            )
    if _toolkit_is_newer(facts):
        return Diagnosis(
            message=f"the model's toolkit {facts.toolkit} is newer than the runtime {facts.runtime}",
            hint=f"Install librkllmrt {facts.toolkit} or newer.",
            cause="runtime",
        )
    return _old_driver(facts)


def _toolkit_is_newer(facts: Facts) -> bool:
    """Whether the model was made by a toolkit newer than the runtime."""
    if not facts.runtime or not facts.toolkit:
        return False
    return numbers(facts.toolkit) > numbers(facts.runtime)


def notices(facts: Facts) -> tuple[str, ...]:
    """Return what a user should know about a successful load."""
    result = []
    if facts.wanted_driver:
        result.append(
            f"The rknpu driver {facts.driver or 'of this kernel'} is older than "
            f"{facts.wanted_driver}, which the runtime requires. {DOCTOR}"
        )
    if _toolkit_is_newer(facts):
        result.append(
            f"The model was made by toolkit {facts.toolkit}, newer than the runtime "
            f"{facts.runtime}: a newer librkllmrt may be needed."
        )
    return tuple(result)


class Overflow(NamedTuple):
    """A prompt that did not fit: its tokens and those that fit, None where the log does not tell."""

    tokens: int | None
    limit: int | None


class CacheMatch(NamedTuple):
    """How many of a prompt's tokens were in the KV cache, and how many it has."""

    cached: int
    prompt: int


def prompt_too_long(log: str) -> Overflow | None:
    """What `log` says of a prompt that did not fit; None where all did."""
    match = re.search(
        r"prompt (?:gather|greater|longer|larger) than max context"
        r"(?:.*?prompt: (\d+) tokens)?(?:.*?max context: (\d+))?",
        log,
    )
    if match is None:
        return None
    tokens, limit = match.groups()
    return Overflow(int(tokens) if tokens else None, int(limit) if limit else None)


def cache_match(log: str) -> CacheMatch | None:
    """The prefix reuse of the last run in `log`; None where it says nothing about it."""
    matches = re.findall(r"kv cache matches (\d+) / (\d+) tokens", log)
    if not matches:
        return None
    cached, prompt = matches[-1]
    return CacheMatch(int(cached), int(prompt))
