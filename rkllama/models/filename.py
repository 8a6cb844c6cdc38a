"""What a model's file name tells, and the name of its repository where the file's is silent.

People name models freely, so every field may be missing and two names may contradict each other:
what the file says wins. Nothing is guessed from a size or family that is not written there.

`rkllama list` imports this module: hence no dataclass, and patterns are compiled when first used
(all of them together take as long as the rest of that command).
"""

from __future__ import annotations

import re
from collections import namedtuple

EXTENSIONS = (".rkllm", ".gguf")


def without_registry(name: str) -> str:
    """Return a name without what Ollama's registry puts before those of its own models: `library/qwen3`
    is `qwen3`.
    """
    lower = name.lower()
    for host in ("", "registry.ollama.ai/", "ollama.com/", "ollama.ai/"):
        if lower.startswith(prefix := f"{host}library/"):
            return name[len(prefix) :]
    return name


class ModelName(
    namedtuple(
        "ModelName",
        [
            "quantization",
            "platform",
            "parameter_size",
            "family",
            "context_length",
            "toolkit",
            "variant",
        ],
        defaults=[None, None, None, None, None, None, None],
    )
):
    """What a name tells; None where it is silent."""

    __slots__ = ()

    quantization: str | None
    """As "w8a8", "w8a8_g128" or "Q4_K_M"."""
    platform: str | None
    """As "rk3588"."""
    parameter_size: str | None
    """As "1.5B", "135M", "E2B", "8x7B" or "35B-A3B"."""
    family: str | None
    """One of FAMILIES."""
    context_length: int | None
    toolkit: str | None
    """The converter's version, as "1.2.3"."""
    variant: str | None
    """One of "instruct", "base", "embedding", "reranker"."""


# --- Families ----------------------------------------------------------------------------------

# A digit after the family's name is its generation, unless it is a size: gemma-2b is the first
# gemma, gemma-2-2b the second.
_GENERATION = r"(?![\d.]*b(?![a-z]))"
# family, a word that its names contain, and the pattern they fit where the word is not enough.
# Names are matched in lower case with "-" between words and "." in numbers; the first row wins.
_FAMILIES: tuple[tuple[str, str, str], ...] = (
    ("deepseek-r1", "deepseek-r1", ""),
    ("deepseek-coder", "deepseek-coder", ""),
    ("deepseek-ocr", "deepseek", r"deepseek-?ocr"),
    ("deepseek", "deepseek", ""),
    ("janus", "janus", ""),
    ("tinyllama", "llama", r"tin+y-?llama"),
    ("codellama", "llama", r"code-?llama"),
    ("llama4", "llama", r"llama-?4" + _GENERATION),
    ("llama3", "llama", r"llama-?3" + _GENERATION),
    ("llama2", "llama", r"llama-?2" + _GENERATION),
    ("qwen3-vl", "qwen", r"qwen-?3(\.\d+)?-?vl"),
    ("qwen3", "qwen", r"qwen-?3" + _GENERATION),
    ("qwen2.5-vl", "qwen", r"qwen-?2\.5-?vl"),
    ("qwen2.5", "qwen", r"qwen-?2\.5" + _GENERATION),
    ("qwen2-vl", "qwen", r"qwen-?2-?vl"),
    ("qwen2", "qwen", r"qwen-?2" + _GENERATION),
    ("qwen1.5", "qwen", r"qwen-?1\.5" + _GENERATION),
    ("qwen", "qwen", ""),
    ("qwen2.5", "qwq", ""),
    ("gemma4", "gemma", r"gemma-?4" + _GENERATION),
    ("gemma3n", "gemma", r"gemma-?3n"),
    ("gemma3", "gemma", r"gemma-?3" + _GENERATION),
    ("gemma2", "gemma", r"gemma-?2" + _GENERATION),
    ("gemma", "gemma", ""),
    ("phi4-mini", "phi", r"(?<![a-z])phi-?4-?mini"),
    ("phi4", "phi", r"(?<![a-z])phi-?4"),
    ("phi3", "phi", r"(?<![a-z])phi-?3"),
    ("phi2", "phi", r"(?<![a-z])phi-?2"),
    ("mistral", "tral", r"(mis|minis|mix)tral"),
    ("internlm3", "internlm", r"internlm-?3"),
    ("internlm2", "internlm", r"internlm-?2"),
    ("internlm", "internlm", ""),
    ("internvl", "internvl", ""),
    ("minicpm-v4", "minicpm", r"minicpm-?v-?4(\.0)?(?![\d.])"),
    ("minicpm-v", "minicpm", r"minicpm-?[vo](?![a-z])"),
    ("minicpm4", "minicpm", r"minicpm-?4" + _GENERATION),
    ("minicpm3", "minicpm", r"minicpm-?3" + _GENERATION),
    ("minicpm", "minicpm", ""),
    ("chatglm3", "chatglm", r"chatglm-?3"),
    ("chatglm2", "chatglm", r"chatglm-?2"),
    ("chatglm", "chatglm", ""),
    ("glm4", "glm", r"glm-?(4|edge)"),
    ("smolvlm", "smolvlm", ""),
    ("smollm3", "smollm", r"smollm-?3"),
    ("smollm2", "smollm", r"smollm-?2"),
    ("smollm", "smollm", ""),
    ("zephyr", "zephyr", ""),
    ("vicuna", "vicuna", ""),
    ("granite", "granite", ""),
    ("falcon", "falcon", ""),
    ("exaone", "exaone", ""),
    ("hunyuan", "hunyuan", ""),
    ("lfm2", "lfm", r"(?<![a-z])lfm-?2"),
    ("olmo", "olmo", ""),
    ("stablelm", "stablelm", ""),
    ("starcoder", "starcoder", ""),
    ("gpt-oss", "oss", r"gpt-?oss"),
    ("rwkv", "rwkv", ""),
    ("bert", "", r"(?<![a-z])(bge|gte|e5|minilm|mpnet|labse|nomic-embed)(?![a-z])"),
    ("llama", "llama", ""),
    ("yi", "yi", r"(?<![a-z])yi(?![a-z])"),
)
FAMILIES = frozenset(family for family, _, _ in _FAMILIES)


def _family(words: str) -> str | None:
    for family, word, pattern in _FAMILIES:
        if word in words and (not pattern or re.search(pattern, words)):
            return family
    return None


# --- The other fields --------------------------------------------------------------------------

# A list of models searches every name: where a pattern begins with a letter, the search skips to it, and
# what stands before the letter is looked at afterwards.
_RKLLM_QUANTIZATION = r"w(?<![a-z0-9]w)(\d{1,2})a(\d{1,2})(?:[_-]?g(\d+))?(?![0-9])"
_GGUF_QUANTIZATION = (
    r"(?<![a-z0-9])(?:ud-)?"
    r"(i?q[1-8](?:_(?:[01k48]|xxs|xs|nl|s|m|l|xl))+|tq[12]_0|mxfp4(?:_moe)?|bf16|fp?(?:16|32))"
    r"(?![a-z0-9])"
)
# What a name must hold for it to be worth while to compile that pattern.
_GGUF_MARKS = (*(f"q{bits}" for bits in range(1, 9)), "mxfp4", "16", "32")
_PLATFORM = r"r(?<![a-z0-9]r)([kv]\d{4}[a-z]?)(?![a-z0-9])"
# A version counts only beside the platform or the converter's name: TinyLlama is at v1.0, too.
_VERSION = r"v?(\d+\.\d+\.\d+(?:b\d+)?)(?![\d.])"
_CONVERTER = r"(?:rkllm|toolkit|(?<![a-z0-9])r[kv]\d{4}[a-z]?)"
_CONVERTER_OPTIONS = r"(?<=[-_])(?:opt[-_]?\d(?!\d)|hybrid[-_]ratio[-_]?\d+(?:\.\d+)?|level\d|grq)"
_SIZE = (
    r"(?<![a-z0-9.])(?:(e?\d+(?:\.\d+)?)|(\d+x\d+(?:\.\d+)?))b"
    r"(?:-?(a\d+(?:\.\d+)?)b)?(?![a-z0-9])"
)
_MILLIONS = r"(?<![a-z0-9.])(\d+(?:\.\d+)?)m(?![a-z0-9])"
_CONTEXT = r"(?<![a-z0-9.])(?:(?:ctx-?)?(\d{1,4})k|(\d)m|ctx-?(\d{3,7}))(?![a-z0-9])"
_VARIANTS = (
    ("reranker", r"(?<![a-z])rerank"),
    ("embedding", r"(?<![a-z])(?:embed|(?:bge|gte|e5|minilm|mpnet|labse|stella)(?![a-z]))"),
    ("instruct", r"(?<![a-z])(?:instruct|chat|it)(?![a-z])"),
    ("base", r"(?<![a-z])base(?![a-z])"),
)


def parse_model_name(file_name: str, *repos: str | None) -> ModelName:
    """Return what `file_name` tells, completed by each of `repos` in turn: a folder's name, or a repository
    as "user/name" or "user/name@revision".
    """
    fields = _parse(strip_extension(file_name.rpartition("/")[2]))
    for repo in repos:
        if repo and None in fields:
            user, _, name = repo.partition("/")
            others = _parse(strip_extension(name or user))
            fields = ModelName(
                *[b if a is None else a for a, b in zip(fields, others, strict=True)]
            )
    return fields


def parse_quantization(name: str) -> str | None:
    """Return the quantisation alone, in the spelling of its format: "w8a8_g128", "Q4_K_M", "F16"."""
    return _take_quantization(name.lower())[0]


def parse_platform(name: str) -> str | None:
    """Return the platform alone: "rk3588" also for its variants, which run the same models: the rk3588s, and
    the rk3582 and rk3583 with fewer cores.
    """
    match = re.search(_PLATFORM, name.lower())
    if match is None:
        return None
    platform = f"r{match[1].removesuffix('s')}"
    return "rk3588" if platform in ("rk3582", "rk3583") else platform


def parse_parameter_size(name: str) -> str | None:
    """Return the number of weights alone: "1.5B", "30B-A3B", "135M"."""
    lowered = name.lower()
    if "b" not in lowered and "m" not in lowered:
        return None
    return _size(lowered) or _size_and_context(_prepared(_take_quantization(lowered)[1])[0])[0]


def least_size(name: str) -> int | None:
    """Return the bytes that a .rkllm file of this name has at least; None where the name does not tell."""
    named = parse_model_name(name)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([BM])", named.parameter_size or "")
    if match is None or named.quantization is None or not name.lower().endswith(".rkllm"):
        return None
    weights = float(match[1]) * (1e9 if match[2] == "B" else 1e6)
    bits = 4 if named.quantization.startswith("w4") else 8
    return int(weights * bits / 8 / 2)  # half of it, as names are rounded


def strip_extension(name: str) -> str:
    """`name` without .rkllm or .gguf, in any case; a repository's id can end in one, too."""
    stem, dot, extension = name.rpartition(".")
    return stem if dot + extension.lower() in EXTENSIONS else name


def is_mmproj(name: str) -> bool:
    """Return whether a file of this name is an image encoder of llama.cpp's kind, and no model."""
    file = name.rpartition("/")[2].lower()
    return "mmproj" in file and file.endswith(EXTENSIONS[1]) and bool(re.search(_MMPROJ, file))


_MMPROJ = r"^mmproj|[-_.]mmproj[-_.]"


def _parse(name: str) -> ModelName:
    # The quantisation goes first: its g128 and a16 look like other things.
    quantization, text = _take_quantization(name.lower())
    words, version = _prepared(text)
    size, context = _size_and_context(words)
    return ModelName(
        quantization=quantization,
        platform=parse_platform(text),
        parameter_size=size,
        family=_family(words),
        context_length=context,
        toolkit=version,
        variant=next((word for word, fits in _VARIANTS if re.search(fits, words)), None),
    )


def _prepared(text: str) -> tuple[str, str | None]:
    """Return the words of `text` without what the converter put into it, and the converter's version."""
    version = _toolkit(text)
    text = re.sub(_CONVERTER_OPTIONS, "", text)
    return plain_words(text.replace(version, "") if version else text), version


def _toolkit(text: str) -> str | None:
    """Return the converter's version in `text`."""
    for match in re.finditer(_VERSION, text):
        before, after = (
            text[max(match.start() - 10, 0) : match.start()],
            text[match.end() : match.end() + 10],
        )
        if re.search(_CONVERTER + "[-_ ]?$", before) or re.match("[-_ ]?" + _CONVERTER, after):
            return match[1]
    return None


def plain_words(text: str) -> str:
    """Return the words of a text in lower case with single "-" between them.

    A "_" between digits is a decimal point (1_8B), but not between a generation and a size (qwen3_0.6b).
    """
    if "_" in text:
        text = re.sub(r"(?<=[a-z]\d)_(?=\d+(?:[._]\d+)?[bm](?![a-z]))", "-", text)
        text = re.sub(r"(?<=\d)(?<!\.\d)_(?=\d)(?!\d+\.)", ".", text)
    return "-".join(re.findall(r"[a-z0-9.]+", text))


def _take_quantization(text: str) -> tuple[str | None, str]:
    """Return the quantisation in `text`, and the text without it."""
    match = re.search(_RKLLM_QUANTIZATION, text)
    if match:
        label = f"w{match[1]}a{match[2]}" + (f"_g{match[3]}" if match[3] else "")
    else:
        if any(mark in text for mark in _GGUF_MARKS):
            match = re.search(_GGUF_QUANTIZATION, text)
        if match is None:
            return None, text
        label = match[1].upper().replace("FP", "F") if match[1][0] == "f" else match[1].upper()
    return label, text[: match.start()] + text[match.end() :]


def _size_and_context(words: str) -> tuple[str | None, int | None]:
    """Billions are a size, millions too; beside billions, a lone "1m" is a context of 1 Mi tokens."""
    size = _size(words)
    context: int | None = None
    for thousands, millions, tokens in re.findall(_CONTEXT, words):
        if thousands:
            context = int(thousands) * 1024
        elif tokens:
            context = int(tokens)
        elif size is not None:
            context = int(millions) << 20
    if size is None and (match := re.search(_MILLIONS, words)):
        size = f"{match[1]}M"
    return size, context


def _size(words: str) -> str | None:
    match = re.search(_SIZE, words)
    if match is None:
        return None
    total = match[1].upper() if match[1] else match[2]
    return f"{total}B-{match[3].upper()}B" if match[3] else f"{total}B"
