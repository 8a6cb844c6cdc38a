"""RKLLama: language models on the NPU of Rockchip boards."""

__version__ = "0.1.0"
