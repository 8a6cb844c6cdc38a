"""From a request to the events of its answer: queue, models in memory, generation."""
