r"""How the operator scales beside a bare client, on nodes that are objects alone (KWOK).

    PYTHONPATH=tools .venv/bin/python benchmarks/operator_scale.py [--jobs 100 300] [--workers 8] \
        [--quick]

A real control plane, with namespaces of the kernel of its own, so nothing has to be installed and
nothing stays. Needs root. For each number of jobs a new one is started. Tables come on standard
output, all figures as one line of JSON on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path

from scale import control_plane, measure

_JOBS_VARIABLE = "DTJOB_BENCHMARK_JOBS"


def main() -> None:
    """Measure each number of jobs in namespaces of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--workers", type=int, default=8, help="of each job, a GPU each")
    parser.add_argument(
        "--quick", action="store_true", help="one bare client, and waits too short for figures"
    )
    options = parser.parse_args()
    if inside := os.environ.get(_JOBS_VARIABLE):
        figures = asyncio.run(measure.measured(int(inside), options.workers, quick=options.quick))
        print("\n".join(figures.lines()), flush=True)
        print(json.dumps(figures.to_json()), file=sys.stderr)
        return
    for jobs in options.jobs:
        load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"load average before {jobs} jobs: {load}", file=sys.stderr)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            argv = [__file__, *sys.argv[1:]]
            code = control_plane.in_own_namespaces(argv, Path(folder), {_JOBS_VARIABLE: str(jobs)})
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
