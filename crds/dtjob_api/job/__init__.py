"""DistributedTrainingJob: what a user asks for, part by part, and its status."""
