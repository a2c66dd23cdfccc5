"""Attacks on the real step: what its releases tell of one record, against what is claimed."""
