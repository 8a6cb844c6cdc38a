"""The chat formats of known model families, as data: used where a model brings no template along.

Each format is a small Jinja text over `messages` (roles system, user, assistant, and what the
family's tool convention adds), `bos_token`, `eos_token` and `add_generation_prompt`. Written so that
a conversation's next turn begins with the text of this one. Formats were checked against the public
model cards and the tokenizers' own files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A chat format. `prefixes` are beginnings of family names without "-", "_" and spaces.

    `stop` are texts that only occur where the answer should have ended. `system` is what the
    models were trained to see where nobody sets a system prompt. `tools` names the convention.
    """

    prefixes: tuple[str, ...]
    template: str
    bos: str = ""
    eos: str = ""
    stop: tuple[str, ...] = ()
    system: str = ""
    tools: str = "hermes"
    thinks: bool = False


_CHATML = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
_CHATML_STOP = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")

# An empty thought stands where none is wanted, in the turns before as well: so the text only grows.
_QWEN3 = """\
{%- set plain = enable_thinking is defined and not enable_thinking %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' and plain %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{{- message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if plain %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}
"""

_LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{%- set text = message.content if message.role == 'assistant' else message.content | trim %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + text + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# The system prompt belongs to the first user turn. An answer's first token carries its own space.
_LLAMA2 = """\
{%- set ns = namespace(system='', open=false) %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- set ns.system = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}
{%- elif message.role == 'user' %}
{{- bos_token + '[INST] ' + ns.system + message.content | trim + ' [/INST]' }}
{%- set ns.system = '' %}
{%- else %}
{{- ' ' + message.content | trim + ' ' + eos_token }}
{%- endif %}
{%- endfor %}
"""

_MISTRAL = """\
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- set ns.system = message.content + '\\n\\n' %}
{%- elif message.role == 'user' %}
{{- '[INST] ' + ns.system + message.content + '[/INST]' }}
{%- set ns.system = '' %}
{%- else %}
{{- ' ' + message.content | trim + eos_token }}
{%- endif %}
{%- endfor %}
"""

_GEMMA = """\
{{- bos_token }}
{%- set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message.role == 'system' %}
{%- set ns.system = message.content | trim + '\\n\\n' %}
{%- elif message.role == 'user' %}
{{- '<start_of_turn>user\\n' + ns.system + message.content | trim + '<end_of_turn>\\n' }}
{%- set ns.system = '' %}
{%- else %}
{{- '<start_of_turn>model\\n' + message.content + '<end_of_turn>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""

_PHI3 = """\
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""

_PHI4 = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '<|im_sep|>' + message.content + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}
"""

_PHI4_MINI = """\
{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""

_PHI2 = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '\\n' }}
{%- elif message.role == 'user' %}{{ 'Instruct: ' + message.content + '\\n' }}
{%- else %}{{ 'Output:' + message.content + '\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Output:' }}{% endif %}
"""

_ZEPHYR = """\
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""

_DEEPSEEK_R1 = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content }}
{%- elif message.role == 'user' %}{{ '<｜User｜>' + message.content }}
{%- else %}{{ '<｜Assistant｜>' + message.content + '<｜end▁of▁sentence｜>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}
"""

_DEEPSEEK_CODER = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content }}
{%- elif message.role == 'user' %}{{ '### Instruction:\\n' + message.content + '\\n' }}
{%- else %}{{ '### Response:\\n' + message.content + '\\n<|EOT|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}
"""

_DEEPSEEK = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' %}{{ 'User: ' + message.content + '\\n\\n' }}
{%- else %}{{ 'Assistant: ' + message.content | trim + eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""

_JANUS = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' %}{{ '<|User|>: ' + message.content + '\\n\\n' }}
{%- else %}{{ '<|Assistant|>: ' + message.content | trim + eos_token }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Assistant|>:' }}{% endif %}
"""

# It knows no roles: a prompt is what is to be done with the picture.
_DEEPSEEK_OCR = """\
{{- bos_token }}
{%- for message in messages %}{{ message.content }}{% endfor %}
"""

_INTERNLM = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ '<|System|>:' + message.content + '\\n' }}
{%- elif message.role == 'user' %}{{ '<|User|>:' + message.content + '\\n' }}
{%- else %}{{ '<|Bot|>:' + message.content + '<eoa>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|Bot|>:' }}{% endif %}
"""

_MINICPM = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ '<用户>' + message.content | trim + '<AI>' }}
{%- else %}{{ message.content | trim }}
{%- endif %}
{%- endfor %}
"""

# The model itself begins its answer with a line break and a space.
_CHATGLM3 = """\
[gMASK]sop
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n ' + message.content | trim }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""

_GLM4 = """\
[gMASK]<sop>
{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content | trim }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}
"""

_GRANITE = """\
{%- for message in messages %}
{{- '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content }}
{{- '<|end_of_text|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}
"""

_SMOLVLM = """\
<|im_start|>
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + '\\n\\n' }}
{%- elif message.role == 'user' %}{{ 'User: ' + message.content + '<end_of_utterance>\\n' }}
{%- else %}{{ 'Assistant: ' + message.content | trim + '<end_of_utterance>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""

_TELECHAT = """\
{%- for message in messages %}
{%- if message.role == 'system' %}{{ '<_system>' + message.content + '<_end>' }}
{%- elif message.role == 'user' %}{{ '<_user>' + message.content }}
{%- else %}{{ '<_bot>' + message.content + '<_end>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<_bot>' }}{% endif %}
"""

_EXAONE = """\
{%- for message in messages %}
{{- '[|' + message.role + '|]' + message.content }}
{{- '\\n' if message.role == 'user' else '[|endofturn|]\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}
"""

_VICUNA = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}{{ message.content + ' ' }}
{%- elif message.role == 'user' %}{{ 'USER: ' + message.content | trim + ' ASSISTANT:' }}
{%- else %}{{ ' ' + message.content | trim + eos_token }}
{%- endif %}
{%- endfor %}
"""

_RWKV = """\
{%- for message in messages %}
{{- message.role | capitalize + ': ' + message.content | trim + '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}
"""

CHATML = Family(
    prefixes=(
        "chatml",
        "yi",
        "smollm",
        "smollm2",
        "internvl",
        "hermes",
        "openhermes",
        "dolphin",
        "lfm2",
        "orca",
    ),
    template=_CHATML,
    eos="<|im_end|>",
    stop=_CHATML_STOP,
)
"""Also what a model of an unknown family gets when there is no other way to write a conversation."""

FAMILIES = (
    CHATML,
    Family(
        # MiniCPM-V 2.6 and 4.5 and MiniCPM-o are made from models of Qwen.
        prefixes=("qwen", "qwen1", "qwen2", "codeqwen", "minicpmv", "minicpmo"),
        template=_CHATML,
        eos="<|im_end|>",
        stop=_CHATML_STOP,
        system="You are a helpful assistant.",
    ),
    Family(
        prefixes=("qwen2.5",),
        template=_CHATML,
        eos="<|im_end|>",
        stop=_CHATML_STOP,
        system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ),
    Family(
        prefixes=("qwen3", "qwq", "smollm3"),
        template=_QWEN3,
        eos="<|im_end|>",
        stop=_CHATML_STOP,
        thinks=True,
    ),
    Family(
        prefixes=("internlm2", "internlm3", "minicpm3", "minicpm4", "minicpmv4"),
        template=_CHATML,
        bos="<s>",
        eos="<|im_end|>",
        stop=(*_CHATML_STOP, "</s>"),
    ),
    Family(
        prefixes=("internlm",),
        template=_INTERNLM,
        bos="<s>",
        eos="</s>",
        stop=("<eoa>", "<|User|>:", "</s>"),
    ),
    Family(
        prefixes=("llama3",),
        template=_LLAMA3,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        stop=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|start_header_id|>"),
        tools="llama3",
    ),
    Family(
        prefixes=("llama2", "codellama"),
        template=_LLAMA2,
        bos="<s>",
        eos="</s>",
        stop=("</s>", "[INST]"),
    ),
    Family(
        prefixes=("mistral", "mixtral", "ministral"),
        template=_MISTRAL,
        bos="<s>",
        eos="</s>",
        stop=("</s>", "[INST]"),
    ),
    Family(
        prefixes=("gemma", "gemma1", "gemma2", "gemma3"),
        template=_GEMMA,
        bos="<bos>",
        eos="<end_of_turn>",
        stop=("<end_of_turn>", "<start_of_turn>", "<eos>"),
    ),
    Family(
        prefixes=("phi3",),
        template=_PHI3,
        eos="<|end|>",
        stop=("<|end|>", "<|endoftext|>", "<|user|>", "<|assistant|>"),
    ),
    Family(
        prefixes=("phi4",),
        template=_PHI4,
        eos="<|im_end|>",
        stop=("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
    ),
    Family(
        prefixes=("phi4mini",),
        template=_PHI4_MINI,
        eos="<|end|>",
        stop=("<|end|>", "<|endoftext|>", "<|user|>", "<|assistant|>"),
    ),
    Family(
        prefixes=("phi2",),
        template=_PHI2,
        eos="<|endoftext|>",
        stop=("<|endoftext|>", "\nInstruct:"),
    ),
    Family(
        prefixes=("tinyllama", "zephyr"),
        template=_ZEPHYR,
        eos="</s>",
        stop=("</s>", "<|user|>", "<|system|>"),
    ),
    Family(
        prefixes=("deepseekr1",),
        template=_DEEPSEEK_R1,
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        stop=("<｜end▁of▁sentence｜>", "<｜User｜>"),
        thinks=True,
    ),
    Family(
        prefixes=("deepseekcoder",),
        template=_DEEPSEEK_CODER,
        bos="<｜begin▁of▁sentence｜>",
        eos="<|EOT|>",
        stop=("<|EOT|>", "<｜end▁of▁sentence｜>", "### Instruction:"),
    ),
    Family(
        prefixes=("deepseekocr",),
        template=_DEEPSEEK_OCR,
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        stop=("<｜end▁of▁sentence｜>",),
    ),
    Family(
        prefixes=("janus",),
        template=_JANUS,
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        stop=("<｜end▁of▁sentence｜>", "<|User|>"),
        system="You are a helpful language and vision assistant. You are able to understand the visual "
        "content that the user provides, and assist the user with a variety of tasks using natural "
        "language.",
    ),
    Family(
        prefixes=("deepseek", "deepseekllm", "deepseekv2"),
        template=_DEEPSEEK,
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        stop=("<｜end▁of▁sentence｜>", "\nUser:"),
    ),
    Family(
        prefixes=("minicpm", "minicpm2"),
        template=_MINICPM,
        bos="<s>",
        eos="</s>",
        stop=("</s>", "<用户>"),
    ),
    Family(
        prefixes=("chatglm3",),
        template=_CHATGLM3,
        eos="</s>",
        stop=("<|user|>", "<|observation|>", "</s>"),
    ),
    Family(
        prefixes=("glm4", "chatglm4", "glmedge"),
        template=_GLM4,
        eos="<|endoftext|>",
        stop=("<|user|>", "<|observation|>", "<|endoftext|>"),
    ),
    Family(
        prefixes=("granite", "granite3"),
        template=_GRANITE,
        eos="<|end_of_text|>",
        stop=("<|end_of_text|>", "<|start_of_role|>"),
    ),
    Family(
        prefixes=("smolvlm",),
        template=_SMOLVLM,
        eos="<end_of_utterance>",
        stop=("<end_of_utterance>", "<|im_end|>"),
    ),
    Family(
        prefixes=("telechat", "telechat2"),
        template=_TELECHAT,
        eos="<_end>",
        stop=("<_end>", "<_user>"),
    ),
    Family(
        prefixes=("exaone", "exaone3"),
        template=_EXAONE,
        eos="[|endofturn|]",
        stop=("[|endofturn|]", "[|user|]"),
    ),
    Family(prefixes=("vicuna",), template=_VICUNA, bos="<s>", eos="</s>", stop=("</s>", "USER:")),
    Family(prefixes=("rwkv",), template=_RWKV, stop=("\n\nUser:", "\nUser:")),
)

_BY_PREFIX = {prefix: family for family in FAMILIES for prefix in family.prefixes}


def find_family(name: str | None) -> Family | None:
    """Return the format of a family such as "qwen2.5-vl", "Llama 3.2" or "deepseek-r1-distill-qwen".

    The longest prefix decides, and a generation's number is never cut: "gemma4" is not "gemma".
    """
    condensed = re.sub(r"[-_ ]+", "", name or "").lower()
    for length in range(len(condensed), 0, -1):
        family = _BY_PREFIX.get(condensed[:length])
        if family is not None and not condensed[length : length + 1].isdigit():
            return family
    return None


THINK_MARKERS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>thought", "<channel|>"),
)
"""How templates mark the thinking; the first pair is also what unknown models use."""


def thinks(template: str, family: Family | None) -> bool:
    """Return whether the models with this chat template think, as far as it tells."""
    if family and family.template == template:
        return family.thinks
    marked = any(marker in template for pair in THINK_MARKERS for marker in pair)
    return marked or "enable_thinking" in template or "reasoning_effort" in template
