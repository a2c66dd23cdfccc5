"""Which records a draw takes, in which slots they sit, and how they are read."""
