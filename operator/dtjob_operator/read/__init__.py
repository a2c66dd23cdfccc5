"""What others say, read with mistrust: pods, events, a stored status, the coordinator's report."""
