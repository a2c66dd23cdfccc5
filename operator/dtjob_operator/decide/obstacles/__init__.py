"""What keeps a job from training, one kind after the other, in a user's words."""
