"""The commands that fetch: models from the Hub, and releases of the NPU's runtime."""
