"""The operator's command line: what is wrong is refused before anything runs."""

from __future__ import annotations

import pytest

from dtjob_operator.__main__ import _options
from dtjob_operator.terms.settings import Enforcement


def test_what_a_platform_team_may_say() -> None:
    options = _options(
        [
            "--watch-namespace=research",
            "--watch-namespace=clinic",
            "--monitoring-namespace=monitoring",
            "--monitoring-namespace=observability",
            "--api-server-cidr=192.0.2.0/24",
            "--api-server-cidr=FD00::1/128",
            "--network-policy-enforcement=Enforced",
        ]
    )
    assert options.watch_namespace == ["research", "clinic"]
    assert options.monitoring_namespace == ["monitoring", "observability"]
    assert options.api_server_cidr == ["192.0.2.0/24", "fd00::1/128"]
    assert options.network_policy_enforcement == Enforcement.ENFORCED


def test_what_is_said_by_default() -> None:
    options = _options([])
    assert options.watch_namespace == []
    assert options.monitoring_namespace == options.api_server_cidr == []
    assert options.network_policy_enforcement == Enforcement.UNKNOWN


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--api-server-cidr=192.0.2.1/24", "'192.0.2.1/24' is no network such as 10.0.0.0/24"),
        ("--api-server-cidr=api.example.org", "'api.example.org' is no network"),
        ("--watch-namespace=a,b", "'a,b' can't be the name of a namespace"),
        ("--monitoring-namespace=Monitoring", "'Monitoring' can't be the name of a namespace"),
        ("--network-policy-enforcement=Perhaps", "choose from"),
    ],
)
def test_what_is_wrong_is_named(
    argument: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _options([argument])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
