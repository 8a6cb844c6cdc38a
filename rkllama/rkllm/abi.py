"""The C interface of librkllmrt, every released header of it, as data.

The tables below follow `rkllm.h` in its order and with its names; each entry quotes its C declaration
and, where it is not in every release, from which release on (`since`) or up to which one (`before`,
exclusive) it stands. `header` picks one release's declarations. There are five
layouts: 1.1.x, 1.2.0, 1.2.1b1, 1.2.1 to 1.2.3, and 1.3.x.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..clib.declarations import Block, C, Header, Struct, declared

RELEASES = (
    "1.1.0",
    "1.1.1",
    "1.1.2",
    "1.1.3",
    "1.1.4",
    "1.2.0",
    "1.2.1b1",
    "1.2.1",
    "1.2.2",
    "1.2.3",
    "1.3.0",
)
"""The releases whose headers are known, oldest first."""


_IMAGE_1_2 = (
    C("size_t n_image", since="1.2.1b1"),
    C("size_t image_width", since="1.2.1b1"),
    C("size_t image_height", since="1.2.1b1"),
)

HEADER: tuple[Block | C, ...] = (
    Block(
        "enum",
        "LLMCallState",
        (
            C("RKLLM_RUN_NORMAL = 0"),
            C("RKLLM_RUN_WAITING = 1"),
            C("RKLLM_RUN_FINISH = 2"),
            C("RKLLM_RUN_ERROR = 3"),
            C("RKLLM_RUN_GET_LAST_HIDDEN_LAYER = 4", before="1.2.0"),
        ),
    ),
    Block(
        "enum",
        "RKLLMInputType",
        (
            C("RKLLM_INPUT_PROMPT = 0"),
            C("RKLLM_INPUT_TOKEN = 1"),
            C("RKLLM_INPUT_EMBED = 2"),
            C("RKLLM_INPUT_MULTIMODAL = 3"),
        ),
    ),
    Block(
        "enum",
        "RKLLMInferMode",
        (
            C("RKLLM_INFER_GENERATE = 0"),
            C("RKLLM_INFER_GET_LAST_HIDDEN_LAYER = 1"),
            C("RKLLM_INFER_GET_LOGITS = 2", since="1.2.0"),
        ),
    ),
    Block(
        "struct",
        "RKLLMExtendParam",
        (
            C("int32_t base_domain_id"),
            C("int8_t embed_flash", since="1.2.0"),
            C("int8_t enabled_cpus_num", since="1.2.0"),
            C("uint32_t enabled_cpus_mask", since="1.2.0"),
            C("uint8_t n_batch", since="1.2.1"),
            C("int8_t use_cross_attn", since="1.2.1"),
            C("uint8_t reserved[112]", before="1.2.0"),
            C("uint8_t reserved[106]", since="1.2.0", before="1.2.1"),
            C("uint8_t reserved[104]", since="1.2.1"),
        ),
    ),
    Block(
        "struct",
        "RKLLMParam",
        (
            C("const char* model_path"),
            C("int32_t max_context_len"),
            C("int32_t max_new_tokens"),
            C("int32_t top_k"),
            C("int32_t n_keep", since="1.2.0"),
            C("float top_p"),
            C("float temperature"),
            C("float repeat_penalty"),
            C("float frequency_penalty"),
            C("float presence_penalty"),
            C("int32_t mirostat"),
            C("float mirostat_tau"),
            C("float mirostat_eta"),
            C("bool skip_special_token"),
            C("bool ignore_eos_token", since="1.3.0"),
            C("bool is_async"),
            C("const char* img_start", before="1.3.0"),
            C("const char* img_end", before="1.3.0"),
            C("const char* img_content", before="1.3.0"),
            C("RKLLMExtendParam extend_param"),
        ),
    ),
    Block(
        "struct",
        "RKLLMLoraAdapter",
        (
            C("const char* lora_adapter_path"),
            C("const char* lora_adapter_name"),
            C("float scale"),
        ),
    ),
    Block("struct", "RKLLMEmbedInput", (C("float* embed"), C("size_t n_tokens"))),
    Block("struct", "RKLLMTokenInput", (C("int32_t* input_ids"), C("size_t n_tokens"))),
    Block(
        "struct",
        "RKLLMMultiModelInput",
        (C("char* prompt"), C("float* image_embed"), C("size_t n_image_tokens"), *_IMAGE_1_2),
        before="1.2.3",
    ),
    Block(
        "struct",
        "RKLLMMultiModalInput",
        (C("char* prompt"), C("float* image_embed"), C("size_t n_image_tokens"), *_IMAGE_1_2),
        since="1.2.3",
        before="1.3.0",
    ),
    Block(
        "struct",
        "RKLLMMultiModalInput",
        (
            C("char* prompt"),
            Block(
                "struct",
                "image",
                (
                    C("float* image_embed"),
                    C("size_t n_image_tokens"),
                    C("size_t n_image"),
                    C("const char* image_start"),
                    C("const char* image_end"),
                    C("const char* image_content"),
                    C("size_t image_width"),
                    C("size_t image_height"),
                ),
            ),
            Block(
                "struct",
                "video",
                (
                    C("float* video_embed"),
                    C("size_t n_frame_tokens"),
                    C("size_t n_frame_per_video"),
                    C("size_t n_video"),
                    C("const char* video_start"),
                    C("const char* video_end"),
                    C("const char* video_content"),
                    C("size_t frame_width"),
                    C("size_t frame_height"),
                ),
            ),
        ),
        since="1.3.0",
    ),
    Block(
        "struct",
        "RKLLMInput",
        (
            C("const char* role", since="1.2.1"),
            C("bool enable_thinking", since="1.2.1"),
            C("RKLLMInputType input_type"),
            Block(
                "union",
                "",
                (
                    C("const char* prompt_input"),
                    C("RKLLMEmbedInput embed_input"),
                    C("RKLLMTokenInput token_input"),
                    C("RKLLMMultiModelInput multimodal_input", before="1.2.3"),
                    C("RKLLMMultiModalInput multimodal_input", since="1.2.3"),
                ),
            ),
        ),
    ),
    Block("struct", "RKLLMLoraParam", (C("const char* lora_adapter_name"),)),
    Block(
        "struct",
        "RKLLMPromptCacheParam",
        (C("int save_prompt_cache"), C("const char* prompt_cache_path")),
    ),
    Block(
        "struct",
        "RKLLMCrossAttnParam",
        (
            C("float* encoder_k_cache"),
            C("float* encoder_v_cache"),
            C("float* encoder_mask"),
            C("int32_t* encoder_pos"),
            C("int num_tokens"),
        ),
        since="1.2.1",
    ),
    Block(
        "struct",
        "RKLLMSamplingParam",
        (
            C("int32_t top_k"),
            C("float top_p"),
            C("float temperature"),
            C("float repeat_penalty"),
            C("float frequency_penalty"),
            C("float presence_penalty"),
            C("int32_t mirostat"),
            C("float mirostat_tau"),
            C("float mirostat_eta"),
        ),
        since="1.3.0",
    ),
    Block(
        "struct",
        "RKLLMInferParam",
        (
            C("RKLLMInferMode mode"),
            C("RKLLMLoraParam* lora_params"),
            C("RKLLMPromptCacheParam* prompt_cache_params"),
            C("RKLLMSamplingParam* sampling_params", since="1.3.0"),
            C("int keep_history", since="1.2.0"),
            C("int32_t max_new_tokens", since="1.3.0"),
        ),
    ),
    Block(
        "struct",
        "RKLLMResultLastHiddenLayer",
        (C("const float* hidden_states"), C("int embd_size"), C("int num_tokens")),
    ),
    Block(
        "struct",
        "RKLLMResultLogits",
        (C("const float* logits"), C("int vocab_size"), C("int num_tokens")),
        since="1.2.0",
    ),
    Block(
        "struct",
        "RKLLMPerfStat",
        (
            C("float prefill_time_ms"),
            C("int prefill_tokens"),
            C("float generate_time_ms"),
            C("int generate_tokens"),
            C("float memory_usage_mb"),
        ),
        since="1.2.1",
    ),
    Block(
        "struct",
        "RKLLMResult",
        (
            C("const char* text"),
            C("int32_t token_id"),
            C("RKLLMResultLastHiddenLayer last_hidden_layer"),
            C("RKLLMResultLogits logits", since="1.2.0"),
            C("RKLLMPerfStat perf", since="1.2.1"),
        ),
    ),
    C(
        "typedef void (*LLMResultCallback)"
        "(RKLLMResult* result, void* userdata, LLMCallState state)",
        before="1.2.1",
    ),
    C(
        "typedef int (*LLMResultCallback)(RKLLMResult* result, void* userdata, LLMCallState state)",
        since="1.2.1",
    ),
    C(
        "typedef int (*LLMTokenizerCallback)(void* userdata, const char* text, int32_t text_len, "
        "int32_t* tokens, int32_t n_tokens_max)",
        since="1.3.0",
    ),
    C(
        "typedef int (*LLMGetEmbedCallback)(void* userdata, int32_t* tokens, uint64_t num_tokens, "
        "void* embed, uint64_t len)",
        since="1.3.0",
    ),
    Block(
        "struct",
        "RKLLMCallback",
        (
            C("LLMResultCallback result_callback"),
            C("void* result_userdata"),
            C("LLMTokenizerCallback tokenizer_callback"),
            C("void* tokenizer_userdata"),
            C("LLMGetEmbedCallback embed_callback"),
            C("void* embed_userdata"),
        ),
        since="1.3.0",
    ),
    C("RKLLMParam rkllm_createDefaultParam()"),
    C(
        "int rkllm_init(LLMHandle* handle, RKLLMParam* param, LLMResultCallback callback)",
        before="1.3.0",
    ),
    C(
        "int rkllm_init(LLMHandle* handle, RKLLMParam* param, RKLLMCallback* callback)",
        since="1.3.0",
    ),
    C("int rkllm_load_lora(LLMHandle handle, RKLLMLoraAdapter* lora_adapter)"),
    C("int rkllm_load_prompt_cache(LLMHandle handle, const char* prompt_cache_path)"),
    C("int rkllm_release_prompt_cache(LLMHandle handle)"),
    C("int rkllm_destroy(LLMHandle handle)"),
    C(
        "int rkllm_run(LLMHandle handle, RKLLMInput* rkllm_input, "
        "RKLLMInferParam* rkllm_infer_params, void* userdata)"
    ),
    C(
        "int rkllm_run_async(LLMHandle handle, RKLLMInput* rkllm_input, "
        "RKLLMInferParam* rkllm_infer_params, void* userdata)"
    ),
    C("int rkllm_abort(LLMHandle handle)"),
    C("int rkllm_is_running(LLMHandle handle)"),
    C(
        "int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt)",
        since="1.2.0",
        before="1.2.1",
    ),
    C(
        "int rkllm_clear_kv_cache(LLMHandle handle, int keep_system_prompt, "
        "int* start_pos, int* end_pos)",
        since="1.2.1",
    ),
    C("int rkllm_get_kv_cache_size(LLMHandle handle, int* cache_sizes)", since="1.2.1"),
    C(
        "int rkllm_set_chat_template(LLMHandle handle, const char* system_prompt, "
        "const char* prompt_prefix, const char* prompt_postfix)",
        since="1.2.0",
    ),
    C(
        "int rkllm_set_function_tools(LLMHandle handle, const char* system_prompt, "
        "const char* tools, const char* tool_response_str)",
        since="1.2.1",
    ),
    C(
        "int rkllm_set_cross_attn_params(LLMHandle handle, RKLLMCrossAttnParam* cross_attn_params)",
        since="1.2.1",
    ),
)


def header(release: str) -> Header:
    """Return the declarations of `release`, one of RELEASES; raises ValueError for another."""
    return declared(HEADER, RELEASES, release)


def names(release: str) -> frozenset[str]:
    """Return what `release` declares: functions, structs, enum values, members with and without "Struct."."""
    one = header(release)
    values = [value for enum in one.enums.values() for value in enum]
    members = [
        name
        for struct in one.structs.values()
        for member in _members(struct)
        for name in (member, f"{struct.name}.{member}")
    ]
    return frozenset([*one.functions, *one.structs, *values, *members])


def first_release(name: str) -> str | None:
    """Return the oldest release among whose `names` is `name`, None where it is in none."""
    return next((release for release in RELEASES if name in names(release)), None)


def _members(struct: Struct) -> Iterator[str]:
    for member in struct.members:
        yield from _members(member.block) if member.block else (member.name,)
