"""HTTP: protocol limits, bodies, CORS, request ids, problems."""
