"""The chat on the terminal: what is said, its commands, and the chats that were saved."""
