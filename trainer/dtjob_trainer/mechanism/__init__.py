"""The private step: sample, clip, sum, noise. It knows no ledger and starts no process."""
