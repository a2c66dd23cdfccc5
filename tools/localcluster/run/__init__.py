"""The daemon that runs all processes of a cluster, and its launch."""
