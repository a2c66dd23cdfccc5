"""One process that trains: from its start to the training loop and out again."""
