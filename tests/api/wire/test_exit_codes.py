"""What a worker's exit code means, across processes of different versions."""

from dtjob_api.wire.exit_codes import WorkerExit


def test_exit_codes_stay_what_they_are() -> None:
    """An image's trainer may be older or newer than the operator that reads its code."""
    assert {code.name: code.value for code in WorkerExit} == {
        "OK": 0,
        "FAILED": 1,
        "CONFIGURATION": 2,
        "HELD": 3,
        "SUPERSEDED": 4,
    }
