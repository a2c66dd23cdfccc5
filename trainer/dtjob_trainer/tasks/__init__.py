"""Built-in tasks on data that comes with scikit-learn: examples, and the demo's work."""
