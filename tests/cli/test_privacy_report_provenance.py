"""A report says by what the run made its draws, and apart from it who computes the figures."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from dtjob_api.ledger.privacy_ledger import NO_IMAGE, UNKNOWN_IMAGE, Provenance, Segment
from dtjob_cli import privacy_report, privacy_report_text
from tests.support.builders import IMAGE, PROVENANCE, TASK_DIGEST, VERSIONS, new_ledger, public_plan

NOT_ASKED: Any = None
LATER = PROVENANCE.model_copy(
    update={
        "versions": VERSIONS.model_copy(update={"torch": "2.16.0"}),
        "formats": None,
    }
)
PACKAGES = "peft 0.21.2, timm 1.0.20"
OLD = f"python 3.13.1, dtjob 0.1.0, torch 2.15.0, opacus 1.6.0, numpy 2.4.6, {PACKAGES}"
NEW = OLD.replace("torch 2.15.0", "torch 2.16.0")


def reported(*made: tuple[Provenance, int]) -> tuple[dict[str, Any], dict[str, str]]:
    segments = [Segment(draws=draws, **dict(provenance)) for provenance, draws in made]
    charged = sum(draws for _, draws in made)
    ledger = new_ledger(public_plan(), attempt=1, charged=charged, segments=segments)
    report = privacy_report.build(ledger, NOT_ASKED, None)
    return report, dict(privacy_report_text.rows(report))


@pytest.mark.rule(14, 23)
def test_a_report_has_the_versions_of_the_run_by_segment() -> None:
    """Those of the reader are others: a run is read years after it was made."""
    report, rows = reported((PROVENANCE, 10), (PROVENANCE, 5), (LATER, 7))

    assert [(each["draws"], each["versions"]["torch"]) for each in report["segments"]] == [
        (10, "2.15.0"),
        (5, "2.15.0"),
        (7, "2.16.0"),
    ]
    assert (report["segments"][0]["image"], report["segments"][0]["task"]) == (IMAGE, TASK_DIGEST)
    assert "versions" not in report
    assert rows["versions"] == f"{OLD} for 15 draws, then {NEW} for 7 draws"
    assert (rows["image"], rows["task"]) == (IMAGE, TASK_DIGEST)
    assert f"python {sys.version.split()[0]}" not in rows["computed by"]
    assert rows["computed by"].startswith("dtjob ")


@pytest.mark.rule(7, 14)
def test_a_report_tells_by_which_formats_draws_were_made() -> None:
    _, rows = reported((PROVENANCE, 10), (LATER, 7))
    assert rows["formats"] == "sampling 2, noise 2 for 10 draws, then unknown for 7 draws"


def test_a_report_of_a_machine_names_no_image_but_its_versions() -> None:
    local = PROVENANCE.model_copy(update={"image": NO_IMAGE})
    report, rows = reported((local, 10))
    assert report["segments"][0]["image"] == "none"
    assert rows["image"] == "none: a machine's own processes, of these versions"
    assert rows["versions"] == OLD


def test_what_nobody_knows_of_draws_is_left_out() -> None:
    report, rows = reported((Provenance(image=UNKNOWN_IMAGE), 3))
    assert report["segments"] == [{"draws": 3, "image": UNKNOWN_IMAGE}]
    assert rows["image"] == UNKNOWN_IMAGE
    assert not {"versions", "formats", "task"} & rows.keys()
