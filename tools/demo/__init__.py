"""From a checkout to a trained private model on a cluster: what `make demo` shows."""
