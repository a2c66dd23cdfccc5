"""The ways of getting a cluster, and the choice among them."""
