"""What would help with an obstacle, and what its words say."""
