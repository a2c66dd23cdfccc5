"""The process of `dtjob`: it handles signals before it imports the rest, which takes a second."""

from __future__ import annotations

from dtjob_trainer.usercode import library_first


def main() -> None:
    """Run the command line that this process was started with."""
    library_first.apply()

    from dtjob_trainer.process import stop_at_start

    stop_at_start.exit_on_signal(exit_code=130)

    from dtjob_cli import interrupts
    from dtjob_cli.main import app

    interrupts.raise_all()
    app()


if __name__ == "__main__":
    main()
