"""Rules of the privacy contract, each broken on purpose in a copy and told by its tests."""
