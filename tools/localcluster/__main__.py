"""``python -m localcluster``."""

from dtjob_cli import streams
from localcluster.cli import app

with streams.prepared():
    app(prog_name="python -m localcluster")
