"""What the contents of messages may hold beside text, in every dialect."""
