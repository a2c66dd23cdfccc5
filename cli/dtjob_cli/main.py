"""The command line of `dtjob`: its commands, arguments and options.

What a command needs is imported when it runs, so that help and completion answer at once.
"""

from __future__ import annotations

from dtjob_trainer.usercode import library_first

library_first.apply()

import enum  # noqa: E402
import sys  # noqa: E402
from importlib import metadata  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Annotated, Any  # noqa: E402

import typer  # noqa: E402
from typer.core import TyperGroup  # noqa: E402

from dtjob_cli import standard_streams  # noqa: E402
from dtjob_cli.errors import shown  # noqa: E402

EXIT_CODES = (
    "Exit codes: 0 done; 1 the job failed; 2 bad input; 3 refused, goes on after the remedy "
    "that it names; 4 the run ended with a model, but before its last step; 130 interrupted."
)


class Program(TyperGroup):
    """All of `dtjob`, its help and its usage errors too, with streams that don't decide."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command with streams that are prepared, and fail if its output was lost."""
        with standard_streams.prepared():
            try:
                return super().main(*args, **kwargs)
            except SystemExit as end:
                if not end.code:
                    with shown(as_json=False):
                        standard_streams.check_printed_once()
                raise


app = typer.Typer(
    name="dtjob",
    cls=Program,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Output(enum.StrEnum):
    """How a result is printed."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="For people, or one JSON object for programs.")
]
Manifest = Annotated[Path, typer.Argument(metavar="FILE", help="A job's manifest (YAML).")]

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="PATH", help="What stands for spec.storage.data (read only)."),
]


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"dtjob {metadata.version('dtjob')}\n")
        raise typer.Exit


@app.callback()
def dtjob(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Differentially private distributed PyTorch training whose epsilon stays true."""


@app.command(epilog=EXIT_CODES)
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Manifests (YAML).")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Check manifests offline, by the rules of the API server and in its words."""
    from dtjob_cli.commands import validate as command

    with shown(as_json=output is Output.JSON):
        raise typer.Exit(command.validate(files, as_json=output is Output.JSON))


@app.command(epilog=EXIT_CODES)
def plan(file: Manifest, output: OutputOption = Output.TEXT) -> None:
    """Show what a job would cost in privacy and how its steps are made, without running it."""
    from dtjob_cli.commands import plan as command

    with shown(as_json=output is Output.JSON):
        command.plan(file, as_json=output is Output.JSON)


@app.command(
    "check-data",
    epilog="Exit codes: 0 nothing is wrong; 1 records are bad, or training would refuse the data; "
    "2 bad input, or the task fails; 3 the output could not be written; 130 interrupted.",
)
def check_data(
    file: Manifest,
    data: DataOption = None,
    records: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Try N records, evenly spread (default: all)."),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Try a data set record by record, for the eyes of its owner.

    Training says nothing of bad records, which add nothing to it. This says which they are and
    why, by the code that training reads with. None of it is covered by epsilon.
    """
    from dtjob_cli.commands import check_data as command

    with shown(as_json=output is Output.JSON):
        raise typer.Exit(command.check_data(file, data, records, as_json=output is Output.JSON))


@app.command(epilog=EXIT_CODES)
def run(
    file: Manifest,
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="With --resume: the run to go on with (default: the newest)."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an earlier run of this job, its epsilon included."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Workers on this machine (default: spec.workers.replicas)."),
    ] = None,
    runs: Annotated[
        Path, typer.Option("--dir", metavar="PATH", help="Where run directories are made.")
    ] = Path("dtjob-runs"),
    data: DataOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="HTTP port of worker 0 (/report, /metrics, probes), those of the others follow "
            "(default: free ones).",
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Train a job on this machine, without a cluster.

    Ctrl-C stops at a step boundary with a checkpoint; --resume goes on from there, also after a
    crash of everything. A second Ctrl-C kills at once.
    """
    from dtjob_cli.commands import run as command

    with shown(as_json=output is Output.JSON):
        raise typer.Exit(
            command.run(
                command.Request(
                    manifest=file,
                    resume=resume,
                    run_dir=run_dir,
                    workers=workers,
                    runs=runs,
                    data=data,
                    port=port,
                    as_json=output is Output.JSON,
                )
            )
        )


@app.command(epilog=EXIT_CODES)
def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|LEDGER",
            help="Directory of a local run, or a job's PrivacyLedger as JSON (- reads it).",
        ),
    ],
    output: OutputOption = Output.TEXT,
) -> None:
    """Show the privacy report and the public evaluation of a local run or of a job."""
    from dtjob_cli.commands import report as command

    with shown(as_json=output is Output.JSON):
        command.report(source, as_json=output is Output.JSON)


JobName = Annotated[
    str,
    typer.Argument(
        metavar="JOB|DIR", help="A job in the cluster, or the directory of a local run."
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", help="Of the job in the cluster (default: that of kubectl's context)."
    ),
]


@app.command(epilog=EXIT_CODES)
def logs(
    job: JobName,
    rank: Annotated[int, typer.Option(min=0, help="Whose log.")] = 0,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of which attempt (default: the newest).")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the attempt before the newest.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is printed until its end.")
    ] = False,
    namespace: NamespaceOption = None,
) -> None:
    """Show what a rank printed, also after its pod is gone.

    While the pod runs this is the log of its whole worker; of attempts, and afterwards, it is what
    is kept beside the checkpoints (spec.logs), read by a short-lived pod with your rights.
    """
    from dtjob_cli.commands import show_logs as command

    with shown(as_json=False):
        command.show(command.Request(job, namespace, rank, attempt, previous, follow))


@app.command(epilog=EXIT_CODES)
def result(
    job: JobName,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="A folder that is new, or empty.")
    ],
    namespace: NamespaceOption = None,
    format: Annotated[
        Output, typer.Option("--format", help="For people, or one JSON object for programs.")
    ] = Output.TEXT,
) -> None:
    """Fetch the model and the privacy report of a job that has ended.

    What is fetched is compared with the digest in the job's ledger; DIR stays as it was if they
    differ.
    """
    from dtjob_cli.commands import fetch_result as command

    with shown(as_json=format is Output.JSON):
        command.fetch(job, namespace, folder, as_json=format is Output.JSON)


ledgers = typer.Typer(help="Look after privacy ledgers.", no_args_is_help=True)
app.add_typer(ledgers, name="ledger")


@ledgers.command(epilog=EXIT_CODES)
def restore(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|NAME",
            help="Directory of a local run; with --namespace, a PrivacyLedger in the cluster.",
        ),
    ],
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace",
            "-n",
            help="Namespace of the PrivacyLedger, reached by kubectl; takes the ClusterRole "
            "dtjob-ledger-restore.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written, and write nothing.")
    ] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Raise a ledger that is behind its checkpoint volume (PrivacyStateLost).

    What the volume vouches for is charged, and one lease more; the job then goes on. A ledger
    is never lowered.
    """
    from dtjob_cli.commands import ledger_restore as command

    with shown(as_json=output is Output.JSON):
        command.restore(source, namespace, dry_run=dry_run, as_json=output is Output.JSON)


if __name__ == "__main__":
    app()
