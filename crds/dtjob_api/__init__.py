"""The API and what processes of ours say to one another: jobs, ledgers, rules, messages."""
