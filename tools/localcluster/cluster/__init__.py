"""What one cluster is: its names and addresses, what is remembered of it, its processes."""
