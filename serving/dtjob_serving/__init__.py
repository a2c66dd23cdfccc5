"""HTTP listeners of which a stranger can have little."""
