"""`python -m benchmarks` measures RKLLama over a virtual NPU, beside a bare ctypes loop. See __main__.py."""
