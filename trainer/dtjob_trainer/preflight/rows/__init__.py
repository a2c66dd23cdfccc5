"""Whether each row of a batch is computed from its own record and random numbers alone."""
