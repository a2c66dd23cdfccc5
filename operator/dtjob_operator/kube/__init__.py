"""The API server: whatever asks it, follows it or writes to it."""
