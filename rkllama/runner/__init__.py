"""One process per model, and the frames between it and its parent."""
