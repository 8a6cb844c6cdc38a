"""What each model needs: its SoC, a release of librkllmrt, a template, end tokens, an encoder.

There may be hundreds of models: what their names tell is looked at first, and files only where that is not
enough. A check tells of all of them in one finding.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence

from ...board.soc import has_domains, read_soc
from ...files import gigabytes
from ...models.filename import parse_model_name, parse_platform
from ...models.labels import origins
from ...models.metadata import StoredModel
from ...models.sidecars import stamp_sidecars
from ...rkllm.releases import are_bad_together, wanted_release
from ..finding import Check, Finding, Subject
from .inventory import (
    Use,
    name_some,
    npu_models,
    platform_of,
    read_models,
    read_stored,
    read_uses,
    verb,
)
from .libraries import usable_releases, vendor_machine
from .pictures import check_image_encoders, encoder_of, wants_none

_TEMPLATES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
_DOMAIN = 4 << 30
_SEEING = {
    *("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "internvl", "minicpm-v", "minicpm-v4", "smolvlm"),
    *("janus", "deepseek-ocr"),
}
"""Families of models that are made to see."""


# --- What a model is for -----------------------------------------------------------------------


def check_model_soc(subject: Subject) -> Iterator[Finding]:
    """Was each model made for this SoC?"""
    soc = read_soc()
    models = read_models(subject).of_format("rkllm")
    if soc is None or not models:
        return
    ours = parse_platform(soc)
    platforms = {entry: platform_of(entry) for entry in models}
    foreign = [entry for entry, platform in platforms.items() if platform not in (None, ours)]
    if foreign:
        names = name_some(f"{one.name} ({(platforms[one] or '').upper()})" for one in foreign)
        yield Finding(
            check="model-soc",
            status="broken" if len(foreign) == len(models) else "warning",
            title="Models' SoC",
            found=f"made for another one: {names}",
            good=soc,
            advice="Use the file for this board; its name usually has the SoC in it. "
            f"`rkllama search` shows what there is for the {soc}.",
            source=subject.settings.models,
        )
    elif subject.model is not None and platforms[models[0]] is not None:
        yield Finding(
            check="model-soc",
            status="good",
            title="Made for",
            found=(platforms[models[0]] or "").upper(),
        )


def check_model_runtime(subject: Subject) -> Iterator[Finding]:
    """Is there a release of librkllmrt that can load each model?"""
    installed = usable_releases(subject.settings)
    if not installed:
        return  # which is told already
    uses = read_uses(subject.settings, npu_models(subject), installed)
    for release in dict.fromkeys(use.missing for use in uses if use.missing):
        users = [use.model.name for use in uses if use.missing == release]
        yield Finding(
            check="model-runtime",
            status="broken",
            title="Models' runtime",
            found=f"{name_some(users)} {verb(users, 'is', 'are')} to use librkllmrt {release}, which is "
            "not installed",
            advice="Install it, or leave the choice to RKLLama with `rkllama runtime use auto MODEL`.",
            cure=(f"rkllama runtime install {release}",),
            source=os.path.join(subject.settings.home, "runtimes.json"),
        )
    unfit = [use for use in uses if use.missing is None and not use.fitting]
    for toolkit in dict.fromkeys(use.toolkit for use in unfit):
        yield _too_old([use for use in unfit if use.toolkit == toolkit], toolkit)
    if subject.model is not None and uses and uses[0].fitting:
        yield Finding(
            check="model-runtime",
            status="good",
            title="Runtime",
            found=f"librkllmrt {uses[0].fitting[0].release}"
            + (f"; made by toolkit {uses[0].toolkit}" if uses[0].toolkit else ""),
            source=uses[0].fitting[0].path,
        )


def _too_old(uses: Sequence[Use], toolkit: str | None) -> Finding:
    tried = [one.release for one in uses[0].releases]
    wanted = wanted_release(toolkit, read_soc(), vendor_machine(), tried)
    return Finding(
        check="model-runtime",
        status="broken",
        title="Models' runtime",
        found=f"{name_some(use.model.name for use in uses)}: made by toolkit {toolkit}, which is newer than "
        f"librkllmrt {tried[0]}",
        good=f"librkllmrt {toolkit} or newer",
        advice="A runtime refuses the models of a newer toolkit.",
        cure=(f"rkllama runtime install {wanted}",) if wanted else (),
        source=uses[0].releases[0].path,
    )


# --- What goes with a model --------------------------------------------------------------------


def check_model_template(subject: Subject) -> Iterator[Finding]:
    """Has each model a chat template?"""
    models = npu_models(subject)
    root = os.path.realpath(subject.settings.models)
    if subject.model is not None:
        yield from (_template_of(read_stored(subject, entry)) for entry in models)
        return
    bare = [
        entry
        for entry in models
        if not stamp_sidecars(entry.path, root, _TEMPLATES)
        and parse_model_name(entry.file, *origins(entry)).family is None
        and read_stored(subject, entry).template_guess is not None
    ]
    if bare:
        yield _without_template([entry.name for entry in bare], bare[0].path)


def _template_of(model: StoredModel) -> Finding:
    guess = model.template_guess
    if guess is not None and model.info.family is None:
        return _without_template([model.info.name], model.info.path)
    origin = model.template.origin if model.template is not None else "not needed"
    found = guess.partition(" is guessed (")[2].partition(")")[0] if guess else origin
    return Finding(
        check="model-template",
        status="good",
        title="Chat template",
        found=found,
        source=model.info.path,
    )


def _without_template(names: Sequence[str], source: str) -> Finding:
    return Finding(
        check="model-template",
        status="warning",
        title="Chat templates",
        found=f"{name_some(names)}: no chat template, and the name tells no family",
        good="the model's tokenizer_config.json beside it",
        advice="Without it tools and thinking do not work, and answers may be poor. Copy "
        "tokenizer_config.json from the base model's repository into the model's folder.",
        source=source,
    )


def check_model_context(subject: Subject) -> Iterator[Finding]:
    """How long may a conversation with the model be?"""
    if subject.model is None:
        return
    for entry in read_models(subject).entries:
        if entry.name != subject.model or not entry.format or entry.parent:
            continue
        model = read_stored(subject, entry)
        limit = model.info.context_length
        wanted = model.context_length or subject.settings.context_length
        too_long = limit is not None and wanted > limit
        yield Finding(
            check="model-context",
            status="warning" if too_long and model.context_length else "good",
            title="Context",
            found=f"{min(wanted, limit or wanted)} tokens"
            + (f"; the model's limit is {limit}" if limit else ""),
            good=f"{wanted} tokens, as its Modelfile has it" if too_long else None,
            advice="Set num_ctx in its Modelfile to what the model can have." if too_long else None,
            source=entry.modelfile or entry.path,
        )


def check_model_end_tokens(subject: Subject) -> Iterator[Finding]:
    """Will the answers of each model end?"""
    installed = usable_releases(subject.settings)
    models = npu_models(subject)
    endless = [
        use
        for use in read_uses(subject.settings, models, installed)
        if use.first is not None
        and are_bad_together(use.first.release, use.toolkit)
        and not read_stored(subject, use.model).eos_tokens
    ]
    if endless:
        here = [one.release for one in installed]
        yield Finding(
            check="model-end-tokens",
            status="warning",
            title="End of answers",
            found=f"answers of {name_some(use.model.name for use in endless)} may not end: librkllmrt 1.3.0 "
            f"does not heed the end token that toolkit {endless[0].toolkit} writes",
            good="generation_config.json and tokenizer_config.json beside the model, or librkllmrt 1.2.3",
            advice="Copy both files from the base model's repository, or use the other release.",
            cure=(
                *(() if "1.2.3" in here else ("rkllama runtime install 1.2.3",)),
                *(f"rkllama runtime use 1.2.3 {shlex.quote(use.model.name)}" for use in endless),
            ),
            source=endless[0].model.path,
        )


def check_model_encoder(subject: Subject) -> Iterator[Finding]:
    """Has each model that was made to see its encoder?"""
    blind = [
        entry
        for entry in npu_models(subject)
        if parse_model_name(entry.file, *origins(entry)).family in _SEEING
        and not encoder_of(subject, entry)
        and not wants_none(subject, entry)
    ]
    if blind:
        yield Finding(
            check="model-encoder",
            status="warning",
            title="Image encoders",
            found=f"{name_some(entry.name for entry in blind)}: no encoder for pictures (.rknn) beside it",
            advice="Text works; for pictures, put the .rknn file of the same repository into its folder, or "
            "name it in its Modelfile: VISION_ENCODER FILE, or off for none.",
            source=blind[0].path,
        )


def check_model_domains(subject: Subject) -> Iterator[Finding]:
    """Does each model fit into what the NPU of this SoC can address?"""
    soc = read_soc()
    if soc is None or has_domains(soc):
        return
    large = [one for one in npu_models(subject) if one.size > _DOMAIN]
    if large:
        yield Finding(
            check="model-domains",
            status="warning",
            title="NPU memory",
            found=name_some(f"{entry.name} has {gigabytes(entry.size)}" for entry in large),
            good=f"at most {gigabytes(_DOMAIN)}: the NPU of the {soc} has one memory domain",
            advice="Use a smaller model or a stronger quantization.",
            source=large[0].path,
        )


CHECKS: tuple[Check, ...] = (
    check_model_soc,
    check_model_runtime,
    check_model_template,
    check_model_context,
    check_model_end_tokens,
    check_model_encoder,
    check_image_encoders,
    check_model_domains,
)
