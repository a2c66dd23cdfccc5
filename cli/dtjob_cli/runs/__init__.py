"""A run on this machine: its directory, its workers, how it goes on and how it ended."""
