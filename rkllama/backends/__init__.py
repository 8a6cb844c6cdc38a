"""What runs a model inside its process."""
