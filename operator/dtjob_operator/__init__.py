"""The operator: what a job's objects are to be, and what its status says."""
