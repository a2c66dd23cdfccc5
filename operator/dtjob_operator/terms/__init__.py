"""What all speak of: kinds, names, settings, and what is seen of a job and decided about it."""
