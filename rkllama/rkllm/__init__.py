"""The binding of librkllmrt.so, the runtime of the NPU."""
