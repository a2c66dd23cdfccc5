"""What is watched of a task while it trains: its writes, its questions, and rows that meet."""
