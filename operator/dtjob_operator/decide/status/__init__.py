"""What a job's status says, and when it is worth a write."""
