"""Puts together all that is known of one job."""
