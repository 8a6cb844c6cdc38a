"""What conversations on disk are worth here, measured with the runtime that writes and reads them."""
