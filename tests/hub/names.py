"""Repositories and files as publishers name them: what the tests of reading and choosing share.

The names are real ones or follow a real publisher's way to the letter; the contents are not theirs.
"""

from __future__ import annotations

MANY = "-rk3588-{q}-opt-{o}-hybrid-ratio-{r}.rkllm"
"""How several publishers call the many variants of one repository."""


def variants(model: str, *choices: tuple[str, int, str]) -> tuple[str, ...]:
    """Files of one model: quantization, level of optimization, hybrid ratio."""
    return tuple(model + MANY.format(q=q, o=o, r=r) for q, o, r in choices)


PLAIN = (("w8a8", 0, "0.0"), ("w8a8", 1, "0.0"), ("w8a8", 1, "1.0"), ("w8a8_g128", 1, "0.0"))

REPOSITORIES: dict[str, tuple[int, tuple[str, ...]]] = {
    # The many-variants style.
    "c01zaut/Llama-3.2-1B-Instruct-rk3588-1.1.1": (40, variants("Llama-3.2-1B-Instruct", *PLAIN)),
    "c01zaut/Llama-3.2-3B-Instruct-rk3588-1.1.1": (35, variants("Llama-3.2-3B-Instruct", *PLAIN)),
    "c01zaut/Llama-3.1-8B-Instruct-rk3588-1.1.2": (
        60,
        variants("Llama-3.1-8B-Instruct", *PLAIN, ("w8a8_g512", 0, "0.0")),
    ),
    "c01zaut/Qwen2.5-1.5B-Instruct-rk3588-1.1.1": (90, variants("Qwen2.5-1.5B-Instruct", *PLAIN)),
    "c01zaut/Qwen2.5-1.5B-Instruct-RK3588-1.1.4": (
        150,
        (
            "Qwen2.5-1.5B-Instruct-w8a8-opt1-hybrid-ratio-1.0.rkllm",
            "Qwen2.5-1.5B-Instruct-w8a8-opt1-hybrid-ratio-0.0.rkllm",
        ),
    ),
    "c01zaut/Qwen2.5-3B-Instruct-rk3588-1.1.1": (70, variants("Qwen2.5-3B-Instruct", *PLAIN)),
    "c01zaut/Qwen2.5-3B-Instruct-RK3588-1.1.4": (
        210,
        variants("Qwen2.5-3B-Instruct", ("w8a8", 0, "0.5"), ("w8a8", 1, "0.0"), ("w8a8", 1, "1.0")),
    ),
    "c01zaut/gemma-2-2b-it-RK3588-1.1.4": (30, variants("gemma-2-2b-it", ("w8a8", 0, "0.5"))),
    "c01zaut/dolphin-2.9.2-qwen2-7b-rk3588-1.1.1": (
        9,
        variants("dolphin-2.9.2-qwen2-7b", ("w8a8", 0, "0.0")),
    ),
    "limcheekin/Qwen2.5-0.5B-Instruct-rk3588-1.1.4": (
        25,
        variants("Qwen2.5-0.5B-Instruct", ("w8a8", 0, "0.0"), ("w8a8", 1, "0.0")),
    ),
    "limcheekin/Qwen2.5-14B-Instruct-1M-rk3588-1.1.4": (
        12,
        variants("Qwen2.5-14B-Instruct-1M", ("w8a8_g512", 0, "0.0")),
    ),
    "dulimov/Qwen3-0.6B-rk3588-1.2.1-unsloth": (80, variants("Qwen3-0.6B", *PLAIN)),
    "dulimov/Qwen3-0.6B-rk3588-1.2.1-unsloth-16k": (55, variants("Qwen3-0.6B", *PLAIN)),
    "dulimov/Qwen3-1.7B-rk3588-1.2.1-unsloth-16k": (120, variants("Qwen3-1.7B", *PLAIN)),
    "dulimov/Qwen3-4B-rk3588-1.2.1-base": (300, variants("Qwen3-4B", *PLAIN)),
    "dulimov/Qwen3-4B-rk3588-1.2.1-unsloth-16k": (280, variants("Qwen3-4B", *PLAIN)),
    "dulimov/Qwen3-8B-rk3588-1.2.1-unsloth-16k": (
        90,
        variants("Qwen3-8B", ("w8a8", 1, "0.0"), ("w8a8_g512", 1, "1.0")),
    ),
    "dulimov/Qwen3-4B-Instruct-2507-rk3588-1.2.1-unsloth": (
        65,
        variants("Qwen3-4B-Instruct-2507", *PLAIN),
    ),
    "dulimov/Qwen3-4B-Thinking-2507-rk3588-1.2.1-unsloth": (
        45,
        variants("Qwen3-4B-Thinking-2507", *PLAIN),
    ),
    "dulimov/Qwen3-Embedding-0.6B-rk3588-1.2.1": (50, variants("Qwen3-Embedding-0.6B", *PLAIN)),
    "dulimov/Qwen3-Reranker-0.6B-rk3588-1.2.1": (40, variants("Qwen3-Reranker-0.6B", *PLAIN)),
    "dulimov/Qwen2-VL-7B-Instruct-rk3588-1.2.1": (
        20,
        variants("Qwen2-VL-7B-Instruct", ("w8a8", 1, "0.5")),
    ),
    "dulimov/Qwen2.5-VL-7B-Instruct-rk3588-1.2.1": (
        70,
        (
            *variants("Qwen2.5-VL-7B-Instruct", ("w8a8", 1, "0.5")),
            "Qwen2.5-VL-7B-Instruct-vision_rk3588.rknn",
        ),
    ),
    "datakurre/gemma-3-4b-it-rk3588-1.2.0": (75, variants("gemma-3-4b-it", ("w8a8", 1, "0.0"))),
    "thanhtantran/gemma-3-1b-it-rk3588-1.2.1": (33, variants("gemma-3-1b-it", *PLAIN)),
    "thanhtantran/SmolLM2-360M-Instruct-rk3588-1.2.0": (
        8,
        variants("SmolLM2-360M-Instruct", ("w8a8", 0, "0.0")),
    ),
    "thanhtantran/MiniCPM-V-2_6-rkllm": (30, ("qwen.rkllm", "vision_transformer.rknn")),
    "punchnox/Tinnyllama-1.1B-rk3588-rkllm-1.1.4": (
        400,
        ("TinyLlama-1.1B-Chat-v1.0-rk3588-w8a8-opt-0-hybrid-ratio-0.5.rkllm",),
    ),
    # Repositories that are called like their one file.
    **{
        f"jamescallander/{name}_w8a8_g128_rk3588.rkllm": (
            downloads,
            (f"{name}_w8a8_g128_rk3588.rkllm", "README.md"),
        )
        for name, downloads in (
            ("deepseek-coder-6.7b-instruct", 12),
            ("Llama-3.2-3B-Instruct", 90),
            ("Llama-3.1-8B-Instruct", 55),
            ("gemma-3-4b-it", 564),
            ("medgemma-4b-it", 30),
            ("NextCoder-7B", 8),
            ("Qwen2.5-Coder-3B-Instruct", 44),
            ("Qwen2.5-Coder-7B-Instruct", 25),
            ("MiniCPM3-4B", 6),
            ("Phi-4-mini-instruct", 18),
        )
    },
    "kautism/DeepSeek-R1-Distill-Qwen-1.5B_w8a8_g128_rk3588.rkllm": (
        15,
        ("DeepSeek-R1-Distill-Qwen-1.5B_w8a8_g128_rk3588.rkllm",),
    ),
    "hw33/Qwen2.5-3B-Instruct_W8A8_G256_RK3588.rkllm": (
        5,
        ("Qwen2.5-3B-Instruct_W8A8_G256_RK3588.rkllm",),
    ),
    # Older ones.
    "Pelochus/qwen-1_8B-rk3588": (50, ("qwen-chat-1_8B.rkllm",)),
    "Pelochus/qwen2-1_5B-rk3588": (20, ("qwen2-1.8B-rk3588.rkllm",)),
    "Pelochus/tinyllama-v1-rk3588": (10, ("tinyllama-v1.0-1.1B-rk3588.rkllm",)),
    "FydeOS/Qwen-1_8B-Chat_rkLLM": (14, ("Qwen-1_8B-Chat.rkllm",)),
    "macrae/Llama-3-2-3B-rk3588": (3, ("meta-llama_Llama-3.2-3B-rk3588.rkllm",)),
    "VRxiaojie/Qwen2.5-3B-Instruct-RKLLM1.1.4": (22, ("Qwen2.5-3B-Instruct.rkllm",)),
    "VRxiaojie/deepseek-r1-distill-qwen-7B-RK3588S-RKLLM1.1.4": (
        60,
        ("deepseek-r1-distill-qwen-7B-W8A8-RK3588.rkllm",),
    ),
    "VRxiaojie/DeepSeek-R1-Distill-Qwen-1.5B-RK3588S-RKLLM1.1.4": (
        80,
        ("deepseek-r1-1.5B-rkllm1.1.4.rkllm",),
    ),
    "akmaldira/Qwen2.5-3B-Instruct-RKLLM": (6, ("Qwen2.5-3B-Instruct-w8a8.rkllm",)),
    # The version behind the word RKLLM.
    "GatekeeperZA/Qwen3-1.7B-RKLLM-v1.2.3": (110, ("Qwen3-1.7B-w8a8-rk3588.rkllm",)),
    "GatekeeperZA/Phi-3-mini-4k-instruct-w8a8": (
        20,
        ("Phi-3-Mini-4K-Instruct-w8a8-rk3588.rkllm",),
    ),
    "GatekeeperZA/Qwen3-Embedding-0.6B-RKLLM-v1.2.3": (
        12,
        ("Qwen3-Embedding-0.6B-w8a8-rk3588.rkllm",),
    ),
    "GatekeeperZA/Qwen3-Reranker-0.6B-RKLLM-v1.2.3": (
        9,
        ("Qwen3-Reranker-0.6B-w8a8-rk3588.rkllm",),
    ),
    "GatekeeperZA/Qwen3-VL-2B-Instruct-RKLLM-v1.2.3": (
        85,
        (
            "qwen3-vl-2b-instruct_w8a8_rk3588.rkllm",
            "qwen3-vl-2b_vision_448_rk3588.rknn",
            "qwen3-vl-2b_vision_672_rk3588.rknn",
        ),
    ),
    "ndneighbor/Qwen3-4B-Instruct-2507-RKLLM-RK3588-W8A8-ctx16k": (
        17,
        ("Qwen3-4B-Instruct-2507-w8a8-rk3588-ctx16384.rkllm",),
    ),
    # Vendors and boards' makers, with vision encoders.
    "Qengineering/Qwen3.5-0.8B-rk3588": (
        35,
        ("qwen3.5-0.8b_w8a8_rk3588.rkllm", "qwen3.5-0.8b_vision_rk3588.rknn"),
    ),
    "Qengineering/Qwen3.5-2B-rk3588": (
        40,
        ("qwen3.5-2b_w8a8_rk3588.rkllm", "qwen3.5-2b_vision_rk3588.rknn"),
    ),
    "Qengineering/Qwen3.5-4B-rk3588": (
        50,
        ("qwen3.5-4b_w8a8_rk3588.rkllm", "qwen3.5-4b-vision_rk3588.rknn"),
    ),
    "Qengineering/SmolVLM2-256m-rk3588": (
        22,
        ("smolvlm2-256m-instruct_w8a8_rk3588.rkllm", "smolvlm2-256m_vision_fp16_rk3588.rknn"),
    ),
    "Qengineering/SmolVLM2-2.2b-rk3588": (
        19,
        ("smolvlm2-2.2b-instruct_w8a8_rk3588.rkllm", "smolvlm2-2.2b_vision_fp16_rk3588.rknn"),
    ),
    "t-firefly/qwen3.5-0.8b-rkllm-rk3588": (
        10,
        ("Qwen3.5-0.8B_w8a8_rk3588.rkllm", "Qwen3.5-0.8B_vision_rk3588.rknn"),
    ),
    "happyme531/InternVL3_5-2B-RKLLM": (13, ("language_model_w8a8.rkllm", "vision_encoder.rknn")),
    "3ib0n/Qwen2-VL-2B-rkllm": (
        45,
        ("qwen2-vl-llm_rk3588.rkllm", "qwen2_vl_2b_vision_rk3588.rknn"),
    ),
    "Qengineering/InternVL3-1B-rk3588": (
        11,
        ("internvl3-1b-instruct_w8a8_rk3588.rkllm", "internvl3-1b_vision_fp16_rk3588.rknn"),
    ),
    "radxa/DeepSeek-R1-Distill-Qwen-1.5B_RKLLM": (
        100,
        (
            "DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3588.rkllm",
            "DeepSeek-R1-Distill-Qwen-1.5B_W4A16_RK3576.rkllm",
            "DeepSeek-R1-Distill-Qwen-1.5B_W8A8_RK3576.rkllm",
        ),
    ),
    # RK3576
    "JiahaoLi/DeepSeek-R1-Distill-Qwen-RK3576": (
        21,
        (
            "DeepSeek-R1-Distill-Qwen-1.5B_W4A16_G128_RK3576.rkllm",
            "DeepSeek-R1-Distill-Qwen-7B_W4A16_G128_RK3576.rkllm",
        ),
    ),
    "JiahaoLi/Qwen3-VL-RK3576": (
        16,
        ("qwen3-vl-2b-instruct_w4a16_g128_rk3576.rkllm", "qwen3-vl-2b_vision_rk3576.rknn"),
    ),
    "RKNNAI/RK3576-LLM-Qwen3-1.7B": (14, ("Qwen3-1.7B_w4a16_g128_rk3576.rkllm",)),
    "RKNNAI/RK3576-LLM-Qwen3-4B-Instruct-2507": (
        18,
        ("Qwen3-4B-Instruct-2507_w4a16_g128_rk3576.rkllm",),
    ),
    "peer/Qwen3-4B-Base-rk3576": (2, ("Qwen3-4B-Base-rk3576-w4a16-grq-v1.2.3-RKLLM.rkllm",)),
    "peer/Qwen3-4B-rk3576": (
        7,
        (
            "Qwen3-4B-rk3576-w4a16-grq-v1.2.3-RKLLM.rkllm",
            "Qwen3-4B-rk3576-w8a8-v1.2.3-RKLLM.rkllm",
        ),
    ),
    "peer/Qwen2.5-1.5B-Instruct-rk3576": (9, ("Qwen2.5-1.5B-Instruct_W8A8_RK3576.rkllm",)),
    "peer/LegalOne-4B": (1, ("LegalOne-4B_W8A8_RK3576.rkllm",)),
    "peer/Qwen2.5-VL-3B-RK3576": (
        6,
        ("Qwen2.5-VL-3B-W4A16_LEVEL1_RK3576.rkllm", "Qwen2.5_VL_3B_VISION_RK3576.rknn"),
    ),
    # RK3562 and RV1126B
    "peer/qwen3_0.6b_rk3562": (4, ("qwen3_0.6b_w4a16_g64_rk3562.rkllm",)),
    "peer/Qwen2.5-1.5B-Instruct-RK3562": (5, ("Qwen2.5-1.5B-Instruct_W8A8_RK3562.rkllm",)),
    "peer/Qwen3-0.6B-RV1126B": (3, ("Qwen3-0.6B_W4A16_RV1126B.rkllm",)),
    "peer/MiniCPM4-0.5B-RV1126B": (3, ("MiniCPM4-0.5B_w4a16_RV1126B.rkllm",)),
    "peer/internvl3-1b-rv1126b": (
        2,
        (
            "internvl3-1b-instruct_122_w8a8_rv1126b.rkllm",
            "internvl3-1B-Instruct_vision_rv1126b.rknn",
        ),
    ),
    "peer/fastvlm-rv1126b": (
        2,
        ("fastvlm-0.5B-w8a8_level0.rv1126b.rkllm", "fastvlm-0.5b-fp16.rv1126b.rknn"),
    ),
    # One repository for several boards, in folders.
    "peer/Qwen3-0.6B-RKLLM-v1.2.3": (
        28,
        (
            "rk3588/Qwen3-0.6B-w8a8.rkllm",
            "rk3576/Qwen3-0.6B-w4a16.rkllm",
            "rk3576/Qwen3-0.6B-w8a8.rkllm",
            "rk3562/Qwen3-0.6B-w8a8.rkllm",
        ),
    ),
    # What nobody wants who did not ask for it.
    "peer/Josiefied-Qwen3-4B-abliterated-rk3588-1.2.1": (
        500,
        variants("Josiefied-Qwen3-4B-abliterated", ("w8a8", 1, "0.0")),
    ),
    "peer/vieneu-tts-rk3588": (5, ("vieneu_03b_w8a8_rk3588.rkllm",)),
    "peer/qwen3-asr": (
        4,
        ("decoder_qwen3.w8a8.rk3588.rkllm", "decoder_qwen3.w4a16.rv1126b.rkllm"),
    ),
    "peer/qwen3-tts": (3, ("talker_fullvocab_fixed_w4a16_rk3576.rkllm",)),
    "peer/qwen2.5-lora-rk3588": (2, ("qwen2.5-0.5b-lora_w8a8_rk3588_lora.rkllm",)),
    "peer/Qwen3-4B-rk3588-1.4.0": (900, variants("Qwen3-4B", ("w8a8", 1, "0.0"))),
    "peer/gemma-3-270m": (
        6,
        ("google_gemma-3-270m-w8a8-opt0-hybrid0-npu3-ctx16384-rk3588.rkllm",),
    ),
    "peer/internlm2-1.8b": (4, ("internlm2-chat-1_8b-w8a8-rk3588.rkllm",)),
    "peer/chatglm3-6b-rk3588": (4, ("chatglm3-6b_w8a8_rk3588.rkllm",)),
    # For machines without an NPU.
    "Qwen/Qwen3-4B-GGUF": (
        50_000,
        (
            "Qwen3-4B-Q4_K_M.gguf",
            "Qwen3-4B-Q5_0.gguf",
            "Qwen3-4B-Q5_K_M.gguf",
            "Qwen3-4B-Q6_K.gguf",
            "Qwen3-4B-Q8_0.gguf",
        ),
    ),
    "Qwen/Qwen2.5-0.5B-Instruct-GGUF": (
        80_000,
        (
            "qwen2.5-0.5b-instruct-fp16.gguf",
            "qwen2.5-0.5b-instruct-q2_k.gguf",
            "qwen2.5-0.5b-instruct-q4_k_m.gguf",
            "qwen2.5-0.5b-instruct-q8_0.gguf",
        ),
    ),
    "bartowski/Mistral-7B-Instruct-v0.3-GGUF": (
        20_000,
        ("Mistral-7B-Instruct-v0.3-Q4_K_M.gguf", "Mistral-7B-Instruct-v0.3-Q8_0.gguf"),
    ),
}
FILES = tuple(
    (repo, file)
    for repo, (_, files) in REPOSITORIES.items()
    for file in files
    if file.endswith((".rkllm", ".gguf"))
)
