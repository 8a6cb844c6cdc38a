"""JSON schemas of the request bodies, by the names that the routes give them, and of errors.

Kept by hand beside the decoders in api/, which are what counts; tests send what these schemas allow and
what they forbid. Only the fields that mean something are named: all others are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_OBJECT: Schema = {"type": "object"}
_NAME: Schema = {"type": "string", "minLength": 1}
_TEXTS: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_NOTHING: Schema = {"type": "array", "maxItems": 0, "description": "No model here supports images."}
_SEED = {"type": "integer", "minimum": -(1 << 63), "maximum": 1 << 64}
_DIGESTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
}
_MODEL = {"$ref": "#/components/schemas/ModelName"}


def _integer(low: int = -(1 << 31), high: int = (1 << 31) - 1) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _list(items: Schema, at_least: int = 0) -> Schema:
    return {"type": "array", "items": items, "minItems": at_least}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _object(required: Mapping[str, Schema] | None = None, /, **optional: Schema) -> Schema:
    """Return an object; for what is optional, null is the same as leaving it out."""
    required = required or {}
    nullable = {name: _either(schema, {"type": "null"}) for name, schema in optional.items()}
    schema: Schema = {"type": "object", "properties": {**required, **nullable}}
    return schema | ({"required": list(required)} if required else {})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _function() -> Schema:
    return _object({"name": _ref("ToolName")}, description=_TEXT, parameters=_OBJECT)


_FUNCTION_TYPE = _one_of("function")
_LIMIT = _either(_integer(1), {"type": "integer", "const": -1})
_KEEP_ALIVE = _either(
    {"type": "number"},
    {"type": "string", "pattern": r"^-?[0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h)?$"},
)
_FORMAT = _either({"enum": ["json", ""]}, _ref("JSONSchema"))
_EFFORT = _one_of("none", "off", "minimal", "low", "medium", "high", "xhigh", "max", "ultra")
_THINK = _either(_FLAG, _EFFORT)
_TEMPLATE_VARIABLES = _object(enable_thinking=_FLAG, reasoning_effort=_EFFORT)

_PARTS = _list(
    _either(
        _object({"type": _one_of("text", "input_text", "output_text"), "text": _TEXT}),
        _object({"type": _one_of("refusal"), "refusal": _TEXT}),
    )
)
_CONTENT = _either(_TEXT, _PARTS)
_ARGUMENTS = _either(_TEXT, _OBJECT)
_TOOL_CALL = _object(
    {"id": _TEXT, "function": _object({"name": _TEXT, "arguments": _ARGUMENTS})},
    type=_FUNCTION_TYPE,
)
_RESULT_BLOCK = _object(
    {"type": _one_of("tool_result"), "tool_use_id": _TEXT}, is_error=_FLAG, content=_TEXT
)
_TEXT_BLOCK = _object({"type": _one_of("text"), "text": _TEXT})
_USE_BLOCK = _object(
    {"type": _one_of("tool_use"), "id": _TEXT, "name": _TEXT, "input": _OBJECT},
)
_THINKING_BLOCK = _object({"type": _one_of("thinking"), "thinking": _TEXT})

COMPONENTS: dict[str, Schema] = {
    "ModelName": {
        "type": "string",
        "pattern": r"\S",
        "description": "A name from the lists, with or without extension, tag or folder.",
    },
    "ToolName": _NAME,
    "JSONSchema": {
        "type": "object",
        "properties": {
            "type": _one_of("object", "array", "string", "integer", "number", "boolean", "null"),
            "properties": {
                "type": "object",
                "additionalProperties": {"type": ["object", "boolean"]},
            },
            "required": {"type": "array", "items": _TEXT, "uniqueItems": True},
        },
    },
    "Options": _object(
        temperature=_number(0, 5),
        top_k=_integer(),
        top_p=_number(0, 1),
        min_p=_number(0, 1),
        repeat_penalty=_number(0, 10),
        frequency_penalty=_number(-2, 2),
        presence_penalty=_number(-2, 2),
        mirostat=_integer(0, 2),
        mirostat_tau=_number(0, 100),
        mirostat_eta=_number(0, 1),
        seed=_SEED,
        stop=_TEXTS,
        num_predict=_integer(-2),
        num_ctx=_integer(1, 1 << 24),
    ),
    "OllamaMessage": _object(
        {"role": _one_of("system", "user", "assistant", "tool")},
        content=_either(_TEXT, _list(_object({"type": _one_of("text"), "text": _TEXT}))),
        thinking=_TEXT,
        images=_NOTHING,
        tool_calls=_list(
            _object({"function": _object({"name": _TEXT}, arguments=_ARGUMENTS)}, id=_TEXT)
        ),
        tool_call_id=_TEXT,
        tool_name=_TEXT,
    ),
    "OllamaTool": _object({"function": _function()}, type=_FUNCTION_TYPE),
    "OpenAIMessage": _either(
        _object({"role": _one_of("system", "developer", "user"), "content": _CONTENT}),
        _object(
            {"role": _one_of("assistant")},
            content=_CONTENT,
            refusal=_TEXT,
            reasoning_content=_TEXT,
            tool_calls=_list(_TOOL_CALL),
        ),
        _object({"role": _one_of("tool"), "tool_call_id": _TEXT}, content=_CONTENT, name=_TEXT),
    ),
    "OpenAITool": _object({"type": _FUNCTION_TYPE, "function": _function()}),
    "ResponsesItem": _either(
        _object(
            {"role": _one_of("user", "assistant", "system", "developer"), "content": _CONTENT},
            type=_one_of("message"),
        ),
        _object(
            {
                "type": _one_of("function_call"),
                "call_id": _TEXT,
                "name": _TEXT,
                "arguments": _ARGUMENTS,
            }
        ),
        _object({"type": _one_of("function_call_output"), "call_id": _TEXT, "output": _CONTENT}),
    ),
    "AnthropicMessage": _either(
        _object(
            {
                "role": _one_of("user"),
                "content": _either(_TEXT, _list(_either(_TEXT_BLOCK, _RESULT_BLOCK))),
            }
        ),
        _object(
            {
                "role": _one_of("assistant"),
                "content": _either(_TEXT, _list(_either(_TEXT_BLOCK, _USE_BLOCK, _THINKING_BLOCK))),
            }
        ),
    ),
    "AnthropicTool": _object(
        {"name": _ref("ToolName"), "input_schema": _OBJECT},
        description=_TEXT,
        type=_one_of("custom"),
    ),
}


def _shape(**fields: Schema) -> Schema:
    return {"type": "object", "properties": fields, "required": list(fields)}


_NULLABLE: Schema = {"type": ["string", "null"]}
COMPONENTS |= {
    "RKLLamaError": _shape(error=_TEXT),
    "OllamaError": _shape(error=_TEXT, code=_TEXT),
    "OpenAIError": _shape(error=_shape(message=_TEXT, type=_TEXT, param=_NULLABLE, code=_NULLABLE)),
    "AnthropicError": _shape(type={"const": "error"}, error=_shape(type=_TEXT, message=_TEXT)),
}
"""Each group's errors, by its name."""

_OLLAMA: dict[str, Schema] = {
    "options": _ref("Options"),
    "keep_alive": _KEEP_ALIVE,
    "format": _FORMAT,
    "think": _THINK,
    "chat_template_kwargs": _TEMPLATE_VARIABLES,
    "stream": _FLAG,
}
_LOGPROBS: dict[str, Schema] = {"logprobs": _FLAG, "top_logprobs": _integer(0, 20)}
_SAMPLING: dict[str, Schema] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "top_k": _integer(0),
    "min_p": _number(0, 1),
    "repeat_penalty": _number(0, 10),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "seed": _SEED,
}
_OPENAI: dict[str, Schema] = {
    **_SAMPLING,
    "stop": _TEXTS,
    "stream": _FLAG,
    "stream_options": _object(include_usage=_FLAG),
    "n": _integer(1, 1),
    "max_tokens": _LIMIT,
}
_OPENAI_CHOICE = _either(
    _one_of("none", "auto", "required"),
    _object({"type": _FUNCTION_TYPE, "function": _object({"name": _ref("ToolName")})}),
    _object(
        {
            "type": _one_of("allowed_tools"),
            "allowed_tools": _object(
                {
                    "tools": _list(
                        _object({"function": _object({"name": _ref("ToolName")})}, type=_TEXT)
                    )
                },
                mode=_one_of("auto", "required"),
            ),
        }
    ),
)
_OPENAI_FORMAT = _either(
    _object({"type": _one_of("text", "json_object")}),
    _object({"type": _one_of("json_schema"), "json_schema": _object(schema=_ref("JSONSchema"))}),
)
_RESPONSES_FORMAT = _either(
    _object({"type": _one_of("text", "json_object")}),
    _object({"type": _one_of("json_schema")}, schema=_ref("JSONSchema")),
)
_ANTHROPIC: dict[str, Schema] = {
    "system": _either(_TEXT, _list(_TEXT_BLOCK)),
    "temperature": _number(0, 2),
    "top_k": _integer(0),
    "top_p": _number(0, 1),
    "stop_sequences": _list(_TEXT),
    "stream": _FLAG,
    "tools": _list(_ref("AnthropicTool")),
    "tool_choice": _either(
        _object({"type": _one_of("auto", "any", "none")}),
        _object({"type": _one_of("tool"), "name": _ref("ToolName")}),
    ),
    "thinking": _object(
        {"type": _one_of("enabled", "disabled", "adaptive")}, budget_tokens=_integer(1)
    ),
    "output_config": _object(
        format=_object({"type": _one_of("json_schema"), "schema": _ref("JSONSchema")})
    ),
}
_MESSAGES = _list(_ref("AnthropicMessage"), 1)

BODIES: dict[str, Schema] = {
    "Drain": _object(
        timeout=_either(_number(0, 86400), {"type": "string", "pattern": "^[0-9]{1,3}(ms|s|m)?$"}),
        wait=_FLAG,
    ),
    "Named": _object({"model": _MODEL}),
    "Load": _object({"model_name": _MODEL}),
    "Generate": _object(
        {
            "messages": _either(
                _NAME,
                _list(
                    _object(
                        {"role": _one_of("system", "user", "assistant", "tool"), "content": _TEXT}
                    ),
                    1,
                ),
            )
        },
        model=_MODEL,
        max_tokens=_integer(-2),
        stop=_TEXTS,
        **_OLLAMA,
    ),
    "OllamaChat": _object(
        {"model": _MODEL},
        messages=_list(_ref("OllamaMessage")),
        tools=_list(_ref("OllamaTool")),
        template=_TEXT,
        truncate=_FLAG,
        **_OLLAMA,
        **_LOGPROBS,
    ),
    "OllamaGenerate": _object(
        {"model": _MODEL},
        prompt=_TEXT,
        suffix=_TEXT,
        system=_TEXT,
        template=_TEXT,
        context=_list({}),
        raw=_FLAG,
        images=_NOTHING,
        **_OLLAMA,
        **_LOGPROBS,
    ),
    "OllamaEmbed": _object(
        {"model": _MODEL},
        input=_TEXTS,
        truncate=_FLAG,
        dimensions=_integer(0, 1 << 20),
        options=_ref("Options"),
        keep_alive=_KEEP_ALIVE,
    ),
    "OllamaEmbeddings": _object(
        {"model": _MODEL}, prompt=_TEXT, options=_ref("Options"), keep_alive=_KEEP_ALIVE
    ),
    "OllamaPull": _object({"model": _MODEL}, stream=_FLAG, insecure=_FLAG),
    "OllamaCopy": _object({"source": _MODEL, "destination": _MODEL}),
    "OllamaCreate": _object(
        {"model": _MODEL, "from": _MODEL},
        stream=_FLAG,
        system=_TEXT,
        template=_TEXT,
        license=_TEXTS,
        parameters={
            "type": "object",
            "additionalProperties": _either(_TEXT, _FLAG, {"type": "number"}, _list(_TEXT)),
        },
        messages=_list(_object({"role": _one_of("system", "user", "assistant"), "content": _TEXT})),
        files=_DIGESTS,
        adapters=_DIGESTS,
    ),
    "OpenAIChat": _object(
        {"model": _MODEL, "messages": _list(_ref("OpenAIMessage"), 1)},
        **_OPENAI,
        **_LOGPROBS,
        max_completion_tokens=_LIMIT,
        tools=_list(_ref("OpenAITool")),
        tool_choice=_OPENAI_CHOICE,
        parallel_tool_calls=_FLAG,
        response_format=_OPENAI_FORMAT,
        reasoning_effort=_EFFORT,
        reasoning=_object(effort=_EFFORT, enabled=_FLAG),
        enable_thinking=_FLAG,
        chat_template_kwargs=_TEMPLATE_VARIABLES,
        modalities=_list(_one_of("text")),
    ),
    "OpenAICompletion": _object(
        {"model": _MODEL, "prompt": _NAME},
        **_OPENAI,
        suffix=_TEXT,
        logprobs=_integer(0, 20),
    ),
    "OpenAIResponse": _object(
        {"model": _MODEL, "input": _either(_TEXT, _list(_ref("ResponsesItem"), 1))},
        **_SAMPLING,
        instructions=_TEXT,
        stream=_FLAG,
        max_output_tokens=_LIMIT,
        tools=_list(
            _object(
                {"type": _FUNCTION_TYPE, "name": _ref("ToolName")},
                description=_TEXT,
                parameters=_OBJECT,
            )
        ),
        tool_choice=_either(
            _one_of("none", "auto", "required"),
            _object({"type": _FUNCTION_TYPE, "name": _ref("ToolName")}),
        ),
        parallel_tool_calls=_FLAG,
        text=_object(format=_RESPONSES_FORMAT),
        reasoning=_object(effort=_EFFORT),
        top_logprobs=_integer(0, 20),
        truncation=_one_of("auto", "disabled"),
        store=_FLAG,
        metadata=_OBJECT,
        user=_TEXT,
    ),
    "OpenAIEmbeddings": _object(
        {"model": _MODEL, "input": _either(_NAME, _list(_NAME, 1))},
        encoding_format=_one_of("float", "base64"),
        dimensions=_integer(1),
    ),
    "Rerank": _object(
        {
            "model": _MODEL,
            "query": _NAME,
            "documents": _list(_either(_TEXT, _object({"text": _TEXT})), 1),
        },
        top_n=_integer(1),
        return_documents=_FLAG,
        truncate=_FLAG,
    ),
    "AnthropicMessages": _object(
        {"model": _MODEL, "messages": _MESSAGES, "max_tokens": _integer(1)}, **_ANTHROPIC
    ),
    "AnthropicCount": _object({"model": _MODEL, "messages": _MESSAGES}, **_ANTHROPIC),
}
