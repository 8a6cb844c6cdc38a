"""How a model comes to see: pictures decoded, encoded, and put in their places in the prompt."""
