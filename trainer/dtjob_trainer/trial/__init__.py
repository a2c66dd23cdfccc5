"""A data set is tried record by record, for the eyes of its owner."""
