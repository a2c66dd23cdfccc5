"""Who says a hello: proof that a worker belongs to its job."""
