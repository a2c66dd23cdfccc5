"""The process: jobs that wait for work, their reconciliation, probes, figures and logs."""
