"""A worker without torch, for tests of the operator: the trainer's supervisor, ranks by script.

Hello, attempts, ledger, leases, `/report` and `/metrics` are the trainer's code. What is missing is
the training: a rank is a thread that keeps a pace, and fails where its script says so.
"""
