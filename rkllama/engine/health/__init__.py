"""Whether requests would be served: readiness, crashes, a model that is to stay, and the doctor."""
