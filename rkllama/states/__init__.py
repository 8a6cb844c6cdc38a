"""KV states of conversations as files: what they belong to, where they lie, and when one is worth it."""
