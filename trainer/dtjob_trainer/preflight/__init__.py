"""What is tried on synthetic data before the first private record is read."""
