"""What our own processes send one another."""
