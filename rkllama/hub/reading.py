"""What the name of a file, its folders and its repository tell, as far as choosing between models needs it.

models/filename.py reads the fields that lists show. Here the generation is exact (llama 3.2 is not 3.1), and
the words count that make a model another one: a coder, a vision model, a fine-tune. A word that nothing
explains is kept as such: it may name a fine-tune, so nobody gets it without having been asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache, reduce

from ..models.filename import parse_model_name, plain_words, strip_extension

_LONGEST = 300
"""Characters of a name that are looked at; the Hub allows fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a name tells; None where it is silent. `brand` and `version` are "llama" and "3.2"."""

    brand: str | None = None
    version: str | None = None
    size: str | None = None
    words: frozenset[str] = frozenset()
    """What makes it another model than the plain one, of WORDS."""
    rest: frozenset[str] = frozenset()
    """Words that nothing explains."""
    variant: str | None = None
    """"instruct" or "base"."""
    quantization: str | None = None
    platform: str | None = None
    context_length: int | None = None
    toolkit: str | None = None
    opt_level: int | None = None
    hybrid_ratio: float | None = None
    date: str | None = None
    disputed_size: str | None = None
    """Another size, which the repository's name has."""

    @property
    def label(self) -> str:
        """The model in words, as "qwen 3 4B coder"."""
        parts = (self.brand, self.version, self.size, *sorted(self.words), self.variant)
        return " ".join(part for part in parts if part) or "unknown model"

    def wish(self, quantization: str | None = None) -> Reading:
        """Return what asks for just this model, in a quantization or in whatever it comes."""
        return Reading(
            brand=self.brand,
            version=self.version,
            size=self.size,
            words=self.words,
            rest=self.rest,
            variant=self.variant,
            date=self.date,
            quantization=quantization,
        )


_VERSION = r"(?:-?v?(\d+(?:\.\d+)*)(?!\d)(?![\d.]*[bmk](?![a-z])))?"
"""The generation behind a name, unless it is a size or a context."""


def _longest_word(pattern: str) -> str:
    """Return letters that every text has that fits the pattern: most names are passed over by them."""
    plain = re.sub(r"\(.*?\)+\??|\[.*?\]", "-", pattern.replace(_VERSION, ""))
    words: list[str] = re.findall(r"[a-z]+(?![?+a-z])", plain)
    return max(words, key=len)


# Fine-tunes stand before what they are made from, so the first row that fits names the model.
_BRANDS = tuple(
    (brand, _longest_word(pattern), re.compile(r"(?<![a-z])" + pattern))
    for brand, pattern in (
        ("deepseek-r1", r"deepseek-?r1"),
        ("deepseek-coder", r"deepseek-?coder(?:-?v(\d))?"),
        ("deepseek-ocr", r"deepseek-?ocr(?:-?(\d))?"),
        ("deepseek-vl", r"deepseek-?vl(?:-?(\d))?"),
        ("deepseek", r"deepseek(?:-?v(\d(?:\.\d)?))?"),
        ("tinyllama", r"tin+y-?llama"),
        ("codellama", r"code-?llama"),
        ("nextcoder", r"nextcoder"),
        ("opencoder", r"opencoder"),
        ("starcoder", r"starcoder" + _VERSION),
        ("hermes", r"(?:open|nous)?-?hermes" + _VERSION),
        ("dolphin", r"dolphin" + _VERSION),
        ("openchat", r"openchat" + _VERSION),
        ("deepscaler", r"deepscaler"),
        ("medgemma", r"medgemma"),
        ("codegemma", r"codegemma"),
        ("functiongemma", r"functiongemma"),
        ("embeddinggemma", r"embedding-?gemma"),
        ("paligemma", r"paligemma" + _VERSION),
        ("llava", r"llava" + _VERSION),
        ("moondream", r"moondream" + _VERSION),
        ("fastvlm", r"fast-?vlm"),
        ("smolvlm", r"smol-?vlm" + _VERSION),
        ("smollm", r"smol-?lm" + _VERSION),
        ("internvl", r"intern-?vl" + _VERSION),
        ("internlm", r"intern-?lm" + _VERSION),
        ("minicpm-v", r"minicpm-?v" + _VERSION),
        ("minicpm-o", r"minicpm-?o" + _VERSION),
        ("minicpm", r"minicpm" + _VERSION),
        ("janus", r"janus"),
        ("qwq", r"qwq"),
        ("codeqwen", r"code-?qwen" + _VERSION),
        ("qwen", r"qwen" + _VERSION),
        ("gemma", r"gemma-?(3n)"),
        ("gemma", r"gemma" + _VERSION),
        ("llama", r"llama-?3-([123])(?=-\d+b)"),
        ("llama", r"llama" + _VERSION),
        ("phi", r"phi" + _VERSION),
        ("ministral", r"ministral" + _VERSION),
        ("mixtral", r"mixtral"),
        ("mistral", r"mistral"),
        ("chatglm", r"chatglm" + _VERSION),
        ("glm-edge", r"glm-?edge"),
        ("glm", r"glm" + _VERSION),
        ("telechat", r"telechat" + _VERSION),
        ("exaone", r"exaone" + _VERSION),
        ("granite", r"granite" + _VERSION),
        ("falcon", r"falcon" + _VERSION),
        ("hunyuan", r"hunyuan"),
        ("lfm", r"lfm" + _VERSION),
        ("olmo", r"olmo" + _VERSION),
        ("stablelm", r"stablelm" + _VERSION),
        ("zephyr", r"zephyr"),
        ("vicuna", r"vicuna"),
        ("rwkv", r"rwkv" + _VERSION),
        ("gpt-oss", r"gpt-?oss"),
        ("bge", r"bge(?![a-z])"),
        ("gte", r"gte(?![a-z])"),
        ("nomic-embed", r"nomic-?embed"),
        ("yi", r"yi(?![a-z])" + _VERSION),
    )
)
_WORDS = {
    **dict.fromkeys(("thinking", "think", "reasoning", "reasoner"), "thinking"),
    **dict.fromkeys(("coder", "code"), "coder"),
    **dict.fromkeys(("vl", "vision", "vlm"), "vl"),
    **dict.fromkeys(("embedding", "embeddings", "embed"), "embedding"),
    **dict.fromkeys(("reranker", "rerank"), "reranker"),
    **dict.fromkeys(("abliterated", "uncensored", "heretic"), "abliterated"),
    **dict.fromkeys(("distill", "distilled"), "distill"),
    **dict.fromkeys(("asr", "decoder"), "asr"),
    **dict.fromkeys(("tts", "talker"), "tts"),
    **{word: word for word in ("math", "omni", "audio", "ocr", "guard", "lora", "draft")},
}
WORDS = frozenset(_WORDS.values())
_NEUTRAL = re.compile(
    r"instruct|chat|it|base|text|rkllm|rknn|rkllama|llm|npu\d?|gguf|model|models|hf|unsloth|toolkit|qat|"
    r"opt\d?|hybrid\d?|ratio|level\d?|grq|gdq|int8|int4|ctx\d*k?|(?:fp?|bf)(?:16|32)|context|\d{1,4}k|1m|latest|main|"
    r"meta|google|microsoft|ibm|ai|org|v\d+(?:\.\d+)*|[\d.]+|\d+cores?|cores?\d*|e?[\d.]+[bm]|a[\d.]+b|"
    r"language|with|for|on|the|by|s"
)
_SIZE_WORDS = ("mini", "small", "medium")
_SIZES = {
    ("phi", "2", ""): "2.7B",
    ("phi", "3", "mini"): "3.8B",
    ("phi", "3", "small"): "7B",
    ("phi", "3", "medium"): "14B",
    ("phi", "3.5", "mini"): "3.8B",
    ("phi", "4", "mini"): "3.8B",
    ("phi", "4", ""): "14B",
    ("tinyllama", None, ""): "1.1B",
    ("chatglm", "3", ""): "6B",
    ("mistral", None, ""): "7B",
    ("zephyr", None, ""): "7B",
    ("minicpm-v", "2.6", ""): "8B",
    ("deepseek-ocr", None, ""): "3B",
    ("moondream", "2", ""): "1.9B",
}
"""Sizes of models that are known by another word: brand, version, word."""
_OPT = re.compile(r"(?<=[-_])opt[-_]?(\d)(?!\d)")
_RATIO = re.compile(r"(?<=[-_])hybrid(?:[-_]ratio)?[-_]?(\d+(?:\.\d+)?)")
_DATE = re.compile(r"(?<![\d.a-z])(2[3-9](?:0[1-9]|1[0-2])|0528|20\d{6})(?![\d.a-z])")
_NOT_BASE = re.compile(r"(r[kv]\d{4}[a-z]?-v?\d+\.\d+\.\d+(?:b\d+)?)-base$")
"""Behind the toolkit, "base" says that it is the original and not a fine-tune, of a model that chats."""
_PLATFORM = re.compile(r"(?<![a-z0-9])r[kv]\d{4}[a-z]?(?![a-z0-9])")


def read_names(file: str, repo: str | None = None) -> Reading:
    """Return what the path `file` in the repository `repo` ("user/name") tells; the file's name wins."""
    *folders, name = file[-_LONGEST:].split("/")
    parts = [name, *reversed(folders)]
    if repo:
        parts.append(repo.rpartition("/")[2][:_LONGEST])
    readings = [_read(strip_extension(part)) for part in parts]
    # Several files of one model lie in folders that are named for what tells them apart.
    return _sized(reduce(_completed, readings))


def read_words(text: str) -> Reading:
    """Return what a text that somebody typed tells, a name or a few words of one."""
    return _sized(_read(text[:_LONGEST]))


def _completed(near: Reading, far: Reading) -> Reading:
    """Return `near` with what it leaves open taken from `far`; a name alone ("qwen.rkllm") says little."""
    if near.version is None and near.size is None and far.brand and (far.version or far.size):
        near = replace(near, brand=far.brand)
    single = {
        name: getattr(near, name) if getattr(near, name) is not None else getattr(far, name)
        for name in Reading.__dataclass_fields__
        if name not in ("words", "rest", "version", "disputed_size")
    }
    disputed = near.disputed_size
    if near.size and far.size and not same_size(near.size, far.size):
        disputed = far.size
    same = near.brand is None or near.brand == far.brand
    rest = (near.rest if near.brand else frozenset()) | (far.rest if far.brand else frozenset())
    if near.brand is None and far.brand is None:
        rest = near.rest | far.rest
    version = near.version or (far.version if same else None)
    return Reading(
        **single,
        version=version,
        words=near.words | far.words,
        rest=rest,
        disputed_size=disputed,
    )


def _sized(reading: Reading) -> Reading:
    """Return the reading with the size that a word of it stands for."""
    word = next((word for word in _SIZE_WORDS if word in reading.rest), "")
    known = _SIZES.get((reading.brand or "", reading.version, word))
    if known is None:
        return reading
    return replace(reading, size=reading.size or known, rest=reading.rest - {word})


@lru_cache(maxsize=4096)
def _read(name: str) -> Reading:
    lower = _NOT_BASE.sub(r"\1", name.lower())
    fields = parse_model_name(lower + ".rkllm")
    opt, ratio = _OPT.search(lower), _RATIO.search(lower)
    words = _plain_words(lower, fields.quantization, fields.toolkit)
    date = _DATE.search(words)
    if date:
        words = words[: date.start()] + words[date.end() :]
    brand, version, left = _brand(words)
    found = {_WORDS[word] for word in left if word in _WORDS}
    if fields.variant in ("embedding", "reranker"):
        found.add(fields.variant)
    if brand == "deepseek-r1":
        found.discard("distill")
    rest = {word for word in left if word not in _WORDS and not _NEUTRAL.fullmatch(word)}
    variant = fields.variant if fields.variant in ("instruct", "base") else None
    return Reading(
        brand=brand,
        version=version,
        size=fields.parameter_size,
        words=frozenset(found),
        rest=frozenset(rest),
        variant="base" if variant is None and "text" in left else variant,
        quantization=fields.quantization,
        platform=_platform(lower),
        context_length=fields.context_length,
        toolkit=fields.toolkit,
        opt_level=int(opt[1]) if opt else None,
        hybrid_ratio=float(ratio[1]) if ratio else None,
        date=date[1] if date else None,
    )


def _platform(lower: str) -> str | None:
    """Return the one platform that a name names; a name with several tells nothing."""
    found = {match[0].removesuffix("s") for match in _PLATFORM.finditer(lower)}
    return found.pop() if len(found) == 1 else None


def _plain_words(lower: str, quantization: str | None, toolkit: str | None) -> str:
    """Return the words with "-" between them, without what the converter put in."""
    text = _PLATFORM.sub("-", lower)
    if quantization:
        text = re.sub(re.escape(quantization.lower()).replace("_", "[_-]?"), "-", text)
        text = re.sub(r"(?<![a-z0-9])ud(?![a-z0-9])", "-", text)
    if toolkit:
        text = re.sub(rf"(rkllm|toolkit)?[-_]?v?{re.escape(toolkit)}", "-", text)
    text = _RATIO.sub("-", _OPT.sub("-", text))
    words = plain_words(text).split("-")
    return "-".join(word.strip(".") for word in words if word.strip("."))


def _brand(words: str) -> tuple[str | None, str | None, list[str]]:
    """Return the model's name, its generation, and the words that are left."""
    brand = version = None
    for name, word, pattern in _BRANDS:
        matches = list(pattern.finditer(words)) if word in words else []
        if not matches:
            continue
        if brand is None:
            brand = name
            told = [match[1] for match in matches if match.re.groups and match[1]]
            version = told[0].removesuffix(".0") if told else None
            if name == "llama" and pattern.pattern.endswith("b)"):
                version = f"3.{version}"
        words = pattern.sub("-", words)
    return brand, version, [word for word in words.split("-") if word]


def same_size(one: str, other: str) -> bool:
    """Return whether two sizes mean the same: "0.5B" and "500M"; "30B" is also a "30B-A3B"."""
    if one == other or ("-" in one and "-" in other):
        return one == other
    one, other = one.partition("-")[0], other.partition("-")[0]
    left, right = billions(one), billions(other)
    if left is None or right is None or one[:1] == "E" or other[:1] == "E":
        return one == other
    return abs(left - right) <= 0.03 * max(left, right)


def billions(size: str | None) -> float | None:
    """Return a size as a number of billions; None for one that is not plain."""
    match = re.fullmatch(r"E?(\d{1,6}(?:\.\d{1,6})?)([BM])(?:-A.*)?", size or "")
    return float(match[1]) / (1 if match[2] == "B" else 1000) if match else None
