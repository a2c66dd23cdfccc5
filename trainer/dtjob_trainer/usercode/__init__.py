"""A task is somebody else's code: how it is found and imported, and what it may raise."""
