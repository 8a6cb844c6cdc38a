"""Whether requests would be served: readiness, crashes, and the model that is to stay in memory."""
