"""What processes of ours say to one another."""
