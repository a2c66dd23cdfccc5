"""`python -m localcluster`."""

from dtjob_cli import standard_streams
from localcluster.cli import app

with standard_streams.prepared():
    app(prog_name="python -m localcluster")
