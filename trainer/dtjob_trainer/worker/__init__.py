"""PID 1 of a worker: starts ranks, watches them and answers for them."""
