"""Who sent a hello: proof that a worker belongs to its job."""
