"""What is wrong with this board, its models and its server, and what to do about it."""
