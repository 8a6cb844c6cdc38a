"""How the server is, for balancers and monitors: liveness, readiness, draining, figures."""
