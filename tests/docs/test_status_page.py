"""docs/reference/status.md explains every word that a status can hold."""

from __future__ import annotations

import pytest

from dtjob_api.reasons import ConditionType, Phase, Reason
from dtjob_api.schema.crd import job_crd
from tests.support.checkout import ROOT

TEXT = (ROOT / "docs" / "reference" / "status.md").read_text()
PHASES_TO_COME = {Phase.SUSPENDED}


@pytest.mark.parametrize(
    "word",
    [
        *Reason,
        *ConditionType,
        *sorted(set(Phase) - PHASES_TO_COME),
    ],
)
def test_a_word_of_the_status_is_explained(word: str) -> None:
    assert f"`{word}`" in TEXT


def test_the_columns_are_explained() -> None:
    (version,) = job_crd()["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        assert column["name"].upper() in TEXT
