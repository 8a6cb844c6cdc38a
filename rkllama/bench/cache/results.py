"""The results of `rkllama bench --cache`, as `--json` prints them; see bench/results.py for the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .. import results
from ..results import BoardFacts, ModelFacts, Report, RuntimeFacts, Stat

FORMAT = "rkllama-bench-cache"
VERSION = 1

Sound = Literal["yes", "no", "unclear", "not measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """The disk of the saved conversations, as the state store measures it, in bytes per second."""

    read: float
    write: float
    written: int
    """Bytes that this measurement wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateResult:
    """A conversation whose first prompt had about `size` tokens; `skipped` says why there are no figures."""

    size: int
    skipped: str | None
    failed: bool
    """Whether the runtime died when it saved or loaded a state, or did not take what it had written."""
    state_tokens: int | None
    """Tokens of the prompt that was saved."""
    state_bytes: int | None
    """Of its file."""
    prompt_tokens: int | None
    """Tokens of the next turn's prompt."""
    cold_evaluated: int | None
    loaded_evaluated: int | None
    """Those of them that were evaluated after the state had been loaded."""
    loaded_reused: int | None
    """Those that were not; a state that is used as a whole gives `state_tokens`, give or take two."""
    prefill_seconds: Stat | None
    """To evaluate a token of the prompt."""
    plain_seconds: Stat | None
    """A run that saves nothing, from its request to its end."""
    saving_seconds: Stat | None
    """The same run, and it saves its state."""
    sync_seconds: Stat | None
    """From there until the file is on the disk."""
    check_seconds: Stat | None
    """To read the file from the disk and check it, as it is done once in a process."""
    load_seconds: Stat | None
    """For the runtime to load it."""
    cold_seconds: Stat | None
    """The next turn's first token, without the state."""
    loaded_seconds: Stat | None
    """The same in a new process, with checking and loading the state."""
    answers: int
    """Answers after a load that were compared with the one without."""
    same_answers: int
    cold_repeats: bool | None
    """Whether the model gives the same answer twice without a state; asked only where answers differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from it."""

    sound: Sound
    """Whether a loaded state gives the same answers; "unclear": the model does not repeat itself."""
    used: bool | None
    """Whether what was loaded was reused as a whole. False also where it could not be loaded."""
    figures_agree: bool | None
    """Whether the KV cache's length tells as many tokens for a prompt with a state as without."""
    fast_enough: bool | None
    """Whether the disk reads and writes a token's state sooner than the model evaluates it."""
    from_tokens: int | None
    """The shortest conversation that answers sooner from a state; None: none does."""
    again_after: int | None
    """Tokens by which the longest conversation must have grown to be written again."""
    bytes_per_token: float | None
    expected_bytes_per_token: int | None
    """As others report for this model; None where nobody does."""
    prefill_seconds: float | None
    """To evaluate a token of the longest prompt."""
    keep: bool | None
    """Whether conversations should be kept on this disk; None: that could not be found out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """A measurement of conversations on disk."""

    format: str = FORMAT
    version: int = VERSION
    created: str
    complete: bool
    """False: it was interrupted, and this is what was there."""
    rounds: int
    model: ModelFacts
    runtime: RuntimeFacts
    board: BoardFacts | None
    disk: DiskFacts
    sizes: tuple[StateResult, ...]
    verdict: Verdict
    failures: tuple[str, ...]
    """What broke a round off."""
    notes: tuple[str, ...]


def read_any(path: str) -> Report | CacheReport:
    """Return results of either kind. Raises InvalidRequest for anything else."""
    values = results.read_results(path)
    if isinstance(values, dict) and values.get("format") == FORMAT:
        return results.results_of(CacheReport, values, path, FORMAT, VERSION)
    return results.results_of(Report, values, path, results.FORMAT, results.VERSION)
