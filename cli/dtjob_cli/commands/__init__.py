"""One module for each command of `dtjob`."""
