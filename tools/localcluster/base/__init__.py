"""What every wing stands on: errors, paths, files, namespaces, the project and progress."""
