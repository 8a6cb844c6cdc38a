"""What a model sees with: the image encoder that belongs to it."""
