"""What is known of a model on disk: put together from its name, its header, its Modelfile and the
small files beside it, and kept until one of them changes.

What the file itself says beats its neighbours, and both beat the names of file, folder and repository.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal, cast

from ..chat.end_tokens import end_tokens
from ..chat.families import find_family, thinks
from ..types import EncoderInfo, Message, ModelInfo, NPUParams, SamplingParams, TemplateSource
from .filename import parse_model_name
from .gguf import GGUFError, GGUFHeader, read_header
from .labels import origins
from .modelfile import (
    PROGRAM,
    SIZE_LIMIT,
    Modelfile,
    ModelfileError,
    is_jinja,
    merge_parameters,
    names_program,
    parse_leniently,
    read_parameters,
    template_family,
    without_program,
)
from .scan import SETTLED_NS, Entry, is_inside, may_follow, open_nonblocking
from .sidecars import CONFIG, Sidecars, SidecarStamp, read_sidecars, stamp_sidecars
from .vision.encoder import OFF, EncoderStamp, find_beside, read_encoder, stamp_encoder

_CACHED = 4096
"""Values that each cache may hold before it starts afresh; far more than there are models."""

_ModelfileStamp = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model with all that is set for it: by its Modelfile, by those it is made from, by its files.

    `max_tokens` and `context_length` are the Modelfile's wishes, None where it has none;
    `info.context_length` is the model's own limit.
    """

    info: ModelInfo
    modelfile: Modelfile
    mtime_ns: int = 0
    """Of the model's file; `info.modified` is the Modelfile's for an alias."""
    template: TemplateSource | None = None
    eos_tokens: tuple[int, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_tokens: int | None = None
    context_length: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    system: str | None = None
    messages: tuple[Message, ...] = ()
    prompt_rules: tuple[str, ...] = ()
    """Names of rules that its Modelfile has."""
    npu: NPUParams = field(default_factory=NPUParams)
    lora: str | None = None
    """The adapter's file."""
    encoder: EncoderInfo | None = None
    """What it sees pictures with; it does only where that has no problem."""
    llama_server: tuple[str, ...] | None = None
    """The words of the Modelfile's llama_server."""
    parent: str | None = None
    """For an alias: the name of what it is made from."""
    capabilities: tuple[str, ...] = ("completion",)
    text_end: str = ""
    """What each text ends with of which a vector is to be made."""
    yes_no_tokens: tuple[int, ...] = ()
    """The ids of a reranker's "yes" and "no", as the Modelfile tells them."""
    notes: tuple[str, ...] = ()
    """What was passed over because it is broken."""

    @property
    def template_guess(self) -> str | None:
        """Say which chat template is used for want of the model's own; None where that is known."""
        if self.template is not None or "completion" not in self.capabilities:
            return None
        family = find_family(self.info.family)
        usual = (
            f"the usual one of {self.info.family} models" if family else "the runtime's or ChatML"
        )
        return f"its chat template is guessed ({usual}): no tokenizer_config.json is beside it"

    def template_from(self, text: str) -> TemplateSource | None:
        """`text` as this model's template; None where it is not Jinja (Ollama's are Go's)."""
        if not is_jinja(text):
            return None
        own = self.template or TemplateSource(source="", origin="")
        return replace(own, source=text, origin="request")


class ModelReader:
    """Reads what is known of the models in the directory `root`, a real path; raises nothing."""

    def __init__(self, root: str, rknn_lib: str | None = None) -> None:
        """`rknn_lib` is the setting."""
        self.root = root
        self._rknn_lib = rknn_lib
        self._infos: dict[Entry, ModelInfo] = {}
        self._headers: dict[tuple[str, int, int, bool], GGUFHeader | str] = {}
        self._modelfiles: dict[_ModelfileStamp, tuple[Modelfile, tuple[str, ...]]] = {}
        self._sidecars: dict[SidecarStamp, Sidecars] = {}
        self._encoders: dict[Entry, str | None] = {}
        """What lies beside models in folders that have not changed lately."""
        self._stored: dict[tuple[object, ...], StoredModel] = {}

    def info(self, entry: Entry) -> ModelInfo:
        """Return the facts for lists; the digest is left open."""
        cached = self._infos.get(entry)
        if cached is None:
            cached = _keep(self._infos, entry, self._new_info(entry))
        return cached

    def header(self, entry: Entry, *, brief: bool = False) -> GGUFHeader | str | None:
        """Return a .gguf file's header, or what is wrong with it; None for a .rkllm."""
        if entry.format != "gguf":
            return None
        key = (entry.path, entry.size, entry.mtime_ns, brief)
        if key in self._headers:
            return self._headers[key]
        try:
            header: GGUFHeader | str = read_header(entry.path, brief=brief)
        except GGUFError as error:
            header = error.message
        _keep(self._headers, key, header)
        return header

    def stored(self, chain: Sequence[Entry]) -> StoredModel:
        """Return the model at the end of `chain`, whose first entry is the one that was named; each of them
        is made from the next.
        """
        entry = chain[0]
        stamps = tuple(_stamp(link.modelfile) for link in chain if link.modelfile)
        beside = stamp_sidecars(entry.path, self.root)
        modelfile = reduce(_merge, (self._modelfile(s)[0] for s in reversed(stamps)), Modelfile())
        encoder = self._encoder(entry, modelfile)
        key = (entry, stamps, beside, encoder)
        cached = self._stored.get(key)
        if cached is None:
            new = self._new_stored(entry, modelfile, stamps, beside, encoder)
            cached = _keep(self._stored, key, new)
        return cached

    def _encoder(self, entry: Entry, modelfile: Modelfile) -> EncoderStamp | None:
        """Return the encoder that the Modelfile names, else the one beside the model."""
        path = modelfile.vision_encoder
        if not entry.format or path == OFF:
            return None
        if path is None:
            path = self._beside(entry)
        return None if path is None else stamp_encoder(path, self._rknn_lib)

    # --- Facts for lists -----------------------------------------------------------------------

    def _new_info(self, entry: Entry) -> ModelInfo:
        labels = parse_model_name(entry.file, *origins(entry))
        info = ModelInfo(
            name=entry.name,
            file=entry.file,
            path=entry.path,
            format=cast("Literal['rkllm', 'gguf']", entry.format),
            size=entry.size,
            modified=entry.modified,
            quantization=labels.quantization,
            platform=labels.platform,
            parameter_size=labels.parameter_size,
            family=labels.family,
            context_length=labels.context_length or self._configured_context(entry),
        )
        return self._with_header(info, entry) if entry.format == "gguf" else info

    def _with_header(self, info: ModelInfo, entry: Entry) -> ModelInfo:
        header = self.header(entry, brief=True)
        if not isinstance(header, GGUFHeader):
            return info
        if not (header.parameter_size or info.parameter_size):
            whole = self.header(entry)  # its weights have to be counted
            header = whole if isinstance(whole, GGUFHeader) else header
        named = parse_model_name(header.name or "").family
        return replace(
            info,
            quantization=header.quantization or info.quantization,
            parameter_size=header.parameter_size or info.parameter_size,
            family=info.family or named or header.architecture,
            context_length=header.context_length or info.context_length,
        )

    def _configured_context(self, entry: Entry) -> int | None:
        stamp = stamp_sidecars(entry.path, self.root, (CONFIG,))
        return self._read_sidecars(stamp).context_length

    def _read_sidecars(self, stamp: SidecarStamp) -> Sidecars:
        cached = self._sidecars.get(stamp)
        if cached is None:
            cached = _keep(self._sidecars, stamp, read_sidecars(stamp, self.root))
        return cached

    # --- All of it -----------------------------------------------------------------------------

    def _beside(self, entry: Entry) -> str | None:
        """Return the encoder beside a model; a folder that is as it was is not listed again."""
        if entry in self._encoders:
            return self._encoders[entry]
        path = find_beside(entry.path, self.root, self.info(entry).platform)
        if 0 < entry.folder_mtime_ns < time.time_ns() - SETTLED_NS:
            _keep(self._encoders, entry, path)
        return path

    def _new_stored(
        self,
        entry: Entry,
        modelfile: Modelfile,
        stamps: Sequence[_ModelfileStamp],
        beside: SidecarStamp,
        encoder: EncoderStamp | None,
    ) -> StoredModel:
        read = [self._modelfile(stamp) for stamp in stamps]
        sidecars = self._read_sidecars(beside)
        header = self.header(entry)
        notes = [note for _, texts in read for note in texts] + list(sidecars.notes)
        if isinstance(header, str):
            notes.append(header)
        good = header if isinstance(header, GGUFHeader) else None
        # Not the one that is kept: a file beside the model may have been edited in place.
        info = self._with_template_family(self._new_info(entry), modelfile)
        template = _template(modelfile, sidecars, good)
        variant = parse_model_name(entry.file, *origins(entry)).variant
        defaults = read_parameters(modelfile.parameters)
        eyes = (
            None
            if encoder is None
            else read_encoder(encoder, info.platform, cpu=entry.format == "gguf")
        )
        if _ranks(info, variant, defaults.rerank, good):
            capabilities: tuple[str, ...] = ("rerank",)
        else:
            capabilities = _capabilities(info, variant, template, good, eyes)
        if "completion" in capabilities and (defaults.npu.n_batch or 1) > 1:
            notes.append("n_batch in the Modelfile is ignored: this model writes text")
        return StoredModel(
            info=info,
            modelfile=modelfile,
            mtime_ns=entry.mtime_ns,
            template=template,
            eos_tokens=_eos_tokens(entry, info, sidecars, good),
            sampling=defaults.sampling,
            max_tokens=defaults.max_tokens,
            context_length=defaults.context_length,
            stop=defaults.stop,
            think=defaults.think,
            system=modelfile.system or None,
            messages=modelfile.messages,
            prompt_rules=defaults.prompt_rules,
            npu=defaults.npu,
            lora=modelfile.adapter,
            encoder=eyes,
            llama_server=defaults.llama_server,
            parent=entry.parent or None,
            capabilities=capabilities,
            text_end=_text_end(info, variant, good),
            yes_no_tokens=defaults.yes_no_tokens,
            notes=tuple(notes),
        )

    @staticmethod
    def _with_template_family(info: ModelInfo, modelfile: Modelfile) -> ModelInfo:
        """Return a TEMPLATE that cannot be executed still tells the family of a model with a bare name."""
        if info.family is not None or modelfile.template is None or is_jinja(modelfile.template):
            return info
        return replace(info, family=template_family(modelfile.template))

    def _modelfile(self, stamp: _ModelfileStamp) -> tuple[Modelfile, tuple[str, ...]]:
        cached = self._modelfiles.get(stamp)
        if cached is None:
            cached = _keep(self._modelfiles, stamp, self._read_modelfile(*stamp))
        return cached

    def _read_modelfile(self, path: str, size: int, _: int) -> tuple[Modelfile, tuple[str, ...]]:
        where = os.path.relpath(path, self.root)
        if not 0 <= size <= SIZE_LIMIT:
            return Modelfile(), (f"{where} is ignored: it cannot be read",)
        try:
            with open(path, encoding="utf-8", errors="replace", opener=open_nonblocking) as stream:
                modelfile, bad = parse_leniently(stream.read(SIZE_LIMIT))
        except (OSError, ModelfileError) as error:
            return Modelfile(), (f"{where} is ignored: {error}",)
        notes = tuple(f"a line of {where} is ignored: {reason}" for reason in bad)
        if names_program(modelfile) and not _is_owners_alone(path):
            modelfile = without_program(modelfile)
            why = "others than this server's user or root may write the file"
            notes = (*notes, f"{PROGRAM} in {where} is ignored: {why}")
        folder = os.path.dirname(path)
        for key in ("adapter", "vision_encoder"):
            named = getattr(modelfile, key)
            if named is None or (key == "vision_encoder" and named == OFF):
                continue
            file = find_adapter(named, folder, self.root)
            changed: dict[str, Any] = {key: file and os.path.realpath(file)}
            modelfile = replace(modelfile, **changed)
            if file is None:
                note = f"the {key.upper()} {named} of {where} is not in the models directory"
                notes = (*notes, note)
        return modelfile, notes


def _keep(cache: dict[Any, Any], key: object, value: Any) -> Any:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value
    return value


def find_adapter(adapter: str, folder: str, root: str) -> str | None:
    """Return the path of a file that a Modelfile in `folder` names; None unless it is a file of the models
    directory `root`, or one to which a link of its owner's leads, no deeper than models lie.
    """
    path = os.path.normpath(os.path.join(folder, adapter))
    if "\0" in path or not os.path.isfile(path):
        return None
    if is_inside(path, root):
        return os.path.realpath(path)
    is_near = root in (os.path.dirname(path), os.path.dirname(os.path.dirname(path)))
    return path if is_near and may_follow(path, root) else None


def _is_owners_alone(path: str) -> bool:
    """Return whether only this process's user and root can have written a file: it names a program."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & stat.S_IWOTH


def _stamp(path: str) -> _ModelfileStamp:
    """Return a size of -1 stands for a file that cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return path, -1, 0
    regular = stat.S_ISREG(status.st_mode)
    return path, status.st_size if regular else -1, status.st_mtime_ns


def _merge(base: Modelfile, over: Modelfile) -> Modelfile:
    """`over` on top of what it is made from."""
    return Modelfile(
        source=over.source or base.source,
        system=base.system if over.system is None else over.system,
        template=base.template if over.template is None else over.template,
        license=base.license if over.license is None else over.license,
        adapter=base.adapter if over.adapter is None else over.adapter,
        vision_encoder=(
            base.vision_encoder if over.vision_encoder is None else over.vision_encoder
        ),
        repository=over.repository or base.repository,
        parameters=merge_parameters(base.parameters, over.parameters),
        messages=over.messages or base.messages,
    )


def _template(
    modelfile: Modelfile, sidecars: Sidecars, header: GGUFHeader | None
) -> TemplateSource | None:
    """Return the Modelfile's, if it can be executed, else the one beside the model, else the header's."""
    own = sidecars.template
    if own is None and header is not None and header.chat_template:
        own = TemplateSource(
            source=header.chat_template,
            origin="gguf",
            bos_token=header.bos_token or "",
            eos_token=header.eos_token or "",
        )
    if modelfile.template is None or not is_jinja(modelfile.template):
        return own
    base = own or TemplateSource(source="", origin="")
    return replace(base, source=modelfile.template, origin="Modelfile")


def _eos_tokens(
    entry: Entry, info: ModelInfo, sidecars: Sidecars, header: GGUFHeader | None
) -> tuple[int, ...]:
    """Return the ids that end an answer: the file's, its neighbours', else those of its family.

    A .gguf says them itself, and llama.cpp heeds them.
    """
    if header is not None and header.eos_tokens:
        return header.eos_tokens
    if sidecars.eos_tokens or info.format != "rkllm":
        return sidecars.eos_tokens
    names = (name.rpartition("/")[2] for name in (info.file, *origins(entry)))
    return end_tokens(info.family, *names)


def _ranks(
    info: ModelInfo, variant: str | None, setting: bool | None, header: GGUFHeader | None
) -> bool:
    """Return whether a model is a reranker. A .gguf needs a head for it; the NPU's are language models that
    say yes or no, known by their name or by the Modelfile's `setting`.
    """
    if info.format == "gguf":
        return header is not None and header.ranks
    return variant == "reranker" if setting is None else setting


def _capabilities(
    info: ModelInfo,
    variant: str | None,
    template: TemplateSource | None,
    header: GGUFHeader | None,
    encoder: EncoderInfo | None,
) -> tuple[str, ...]:
    """In Ollama's words. "vision" only where pictures are seen: clients send some as soon as it is there."""
    if variant == "embedding" or (header is not None and header.only_embeds):
        return ("embedding",)
    if variant == "reranker":  # by its name alone: it can only be asked for yes or no
        return ("completion",)
    family = find_family(info.family)
    if template is not None:
        tools = "tools" in template.source or "tool_call" in template.source
        thinking = thinks(template.source, family)
    else:
        tools, thinking = family is not None, family is not None and family.thinks
    sees = encoder is not None and encoder.problem is None
    wanted = {"vision": sees, "tools": tools, "thinking": thinking}
    return ("completion", *(name for name, has in wanted.items() if has))


def _text_end(info: ModelInfo, variant: str | None, header: GGUFHeader | None) -> str:
    """Return the token at which embedding models made from Qwen expect a text to end, unless llama.cpp
    appends it by itself.
    """
    if variant != "embedding" or not (info.family or "").startswith("qwen"):
        return ""
    appended = header is not None and header.metadata.get("tokenizer.ggml.add_eos_token") is True
    return "" if appended else "<|endoftext|>"


def show_metadata(info: ModelInfo, header: GGUFHeader | None) -> Mapping[str, Any]:
    """Return the metadata of `show`, with the keys that .gguf headers have, for every format."""
    metadata: dict[str, Any] = dict(header.metadata) if header else {}
    architecture = metadata.setdefault("general.architecture", info.family or info.format)
    if header and header.parameters:
        metadata.setdefault("general.parameter_count", header.parameters)
    if info.context_length is not None:
        metadata.setdefault(f"{architecture}.context_length", info.context_length)
    return metadata
