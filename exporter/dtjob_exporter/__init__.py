"""GPU figures of the machine, as Prometheus reads them."""
