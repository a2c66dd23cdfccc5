"""Small models of many kinds, from this project and from other houses, each as a task."""
