"""The worker: private training in ranks, led by a supervisor."""
