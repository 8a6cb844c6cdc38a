"""The C interface of librknnrt as data: what of `rknn_api.h` an image encoder needs.

The tables follow the header in its order and with its names; each entry quotes its C declaration. One
layout is known, that of release 2.3.2. `rknn_context` has 64 bits, on armhf 32.
"""

from __future__ import annotations

from ..clib.declarations import Block, C, Header, declared

RELEASES = ("2.3.2",)
"""The releases whose header is known."""

CODES = {
    -1: "the run failed",
    -2: "the run took too long",
    -3: "the NPU is not available",
    -4: "the NPU's memory does not suffice",
    -5: "an argument is wrong",
    -6: "the file is no encoder that this librknnrt can run",
    -7: "the context is not valid",
    -8: "the input is wrong",
    -9: "the output is wrong",
    -10: "this librknnrt does not fit the NPU's driver",
    -13: "the encoder was made for another SoC",
}
"""What the vendor's return codes mean."""

FLAG_NONE = 0

HEADER: tuple[Block | C, ...] = (
    Block(
        "enum",
        "rknn_query_cmd",
        (
            C("RKNN_QUERY_IN_OUT_NUM = 0"),
            C("RKNN_QUERY_INPUT_ATTR = 1"),
            C("RKNN_QUERY_OUTPUT_ATTR = 2"),
            C("RKNN_QUERY_SDK_VERSION = 5"),
            C("RKNN_QUERY_MEM_SIZE = 6"),
            C("RKNN_QUERY_CUSTOM_STRING = 7"),
        ),
    ),
    Block(
        "enum",
        "rknn_tensor_type",
        (
            C("RKNN_TENSOR_FLOAT32 = 0"),
            C("RKNN_TENSOR_FLOAT16 = 1"),
            C("RKNN_TENSOR_INT8 = 2"),
            C("RKNN_TENSOR_UINT8 = 3"),
            C("RKNN_TENSOR_INT16 = 4"),
            C("RKNN_TENSOR_UINT16 = 5"),
            C("RKNN_TENSOR_INT32 = 6"),
        ),
    ),
    Block("enum", "rknn_tensor_qnt_type", (C("RKNN_TENSOR_QNT_NONE = 0"),)),
    Block(
        "enum",
        "rknn_tensor_format",
        (
            C("RKNN_TENSOR_NCHW = 0"),
            C("RKNN_TENSOR_NHWC = 1"),
            C("RKNN_TENSOR_NC1HWC2 = 2"),
            C("RKNN_TENSOR_UNDEFINED = 3"),
        ),
    ),
    Block(
        "enum",
        "rknn_core_mask",
        (
            C("RKNN_NPU_CORE_AUTO = 0"),
            C("RKNN_NPU_CORE_0 = 1"),
            C("RKNN_NPU_CORE_1 = 2"),
            C("RKNN_NPU_CORE_2 = 4"),
            C("RKNN_NPU_CORE_0_1 = 3"),
            C("RKNN_NPU_CORE_0_1_2 = 7"),
        ),
    ),
    Block("struct", "rknn_input_output_num", (C("uint32_t n_input"), C("uint32_t n_output"))),
    Block(
        "struct",
        "rknn_tensor_attr",
        (
            C("uint32_t index"),
            C("uint32_t n_dims"),
            C("uint32_t dims[16]"),
            C("char name[256]"),
            C("uint32_t n_elems"),
            C("uint32_t size"),
            C("rknn_tensor_format fmt"),
            C("rknn_tensor_type type"),
            C("rknn_tensor_qnt_type qnt_type"),
            C("int8_t fl"),
            C("int32_t zp"),
            C("float scale"),
            C("uint32_t w_stride"),
            C("uint32_t size_with_stride"),
            C("uint8_t pass_through"),
            C("uint32_t h_stride"),
        ),
    ),
    Block("struct", "rknn_sdk_version", (C("char api_version[256]"), C("char drv_version[256]"))),
    Block(
        "struct",
        "rknn_input",
        (
            C("uint32_t index"),
            C("void* buf"),
            C("uint32_t size"),
            C("uint8_t pass_through"),
            C("rknn_tensor_type type"),
            C("rknn_tensor_format fmt"),
        ),
    ),
    Block(
        "struct",
        "rknn_output",
        (
            C("uint8_t want_float"),
            C("uint8_t is_prealloc"),
            C("uint32_t index"),
            C("void* buf"),
            C("uint32_t size"),
        ),
    ),
    C(
        "int rknn_init(rknn_context* context, void* model, uint32_t size, uint32_t flag, "
        "void* extend)"
    ),
    C("int rknn_destroy(rknn_context context)"),
    C("int rknn_query(rknn_context context, rknn_query_cmd cmd, void* info, uint32_t size)"),
    C("int rknn_inputs_set(rknn_context context, uint32_t n_inputs, rknn_input inputs[])"),
    C("int rknn_set_core_mask(rknn_context context, rknn_core_mask core_mask)"),
    C("int rknn_run(rknn_context context, void* extend)"),
    C(
        "int rknn_outputs_get(rknn_context context, uint32_t n_outputs, rknn_output outputs[], "
        "void* extend)"
    ),
    C("int rknn_outputs_release(rknn_context context, uint32_t n_outputs, rknn_output outputs[])"),
)


def header(release: str = RELEASES[-1]) -> Header:
    """Return the declarations of `release`; raises ValueError for one that is not known."""
    return declared(HEADER, RELEASES, release)
