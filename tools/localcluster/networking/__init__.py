"""A cluster's network: bridge, link to the machine, NetworkPolicies."""
