"""The workers of a job, led by the supervisor of worker 0."""
