"""Models in memory: who may use which, and how they come in and go."""
