"""What every process of a worker does to itself, says and listens on."""
