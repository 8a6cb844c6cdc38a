"""From a JSON schema to the shapes that a value may have."""
