"""Several boards behind one address: which they are, how they are, and HAProxy's configuration for them."""
