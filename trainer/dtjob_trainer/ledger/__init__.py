"""What a run may spend and has spent: leases, journal, checkpoints, and where to go on."""
