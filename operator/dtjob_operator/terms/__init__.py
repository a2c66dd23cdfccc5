"""What all wings share: kinds, names, settings, what is observed of a job and decided about it."""
