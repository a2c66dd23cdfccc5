"""From the models to CustomResourceDefinitions, and from a manifest to its errors."""
