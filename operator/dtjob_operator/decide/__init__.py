"""From what is observed of a job to what is wanted: functions without I/O, clock or randomness."""
