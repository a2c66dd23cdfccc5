"""Numbers of how draws get their randomness from keys, kept with the draws (Rules 7 and 14).

A change of the code that makes other numbers of the same key changes the number of its format. They
stand in a module of their own because a ledger is also written where no numpy is.
"""

from __future__ import annotations

SAMPLING_FORMAT = 2
"""Which records a key and a draw take, and in which slots: `sampling`, `scatter`, `keys`, `prf`."""
NOISE_FORMAT = 2
"""What noise a key, a draw and a coordinate have: `noise`, `normals`, `prf`."""
