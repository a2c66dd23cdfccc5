"""What every process of a worker does to itself, what it logs and where it listens."""
