"""The page's chat in a real Chromium, over the guide and the virtual NPU."""
