"""Rule 21: what is refused is refused by name, with a remedy."""

import pytest

from dtjob_trainer.preflight.task_validation import preflight
from dtjob_trainer.task import TaskError
from tests.support.zoo.everything import ACCEPTED, NOT_YET, REFUSED, ZOO

pytestmark = pytest.mark.models


def a_case(entry):
    marks = [pytest.mark.xfail(reason="not told yet")] if entry.name in NOT_YET else []
    return pytest.param(entry, marks=marks, id=entry.name)


@pytest.mark.rule(21)
@pytest.mark.parametrize("entry", [a_case(entry) for entry in REFUSED])
def test_what_is_refused_is_told_with_its_remedy(entry):
    with pytest.raises(TaskError) as caught:
        preflight(entry.task())
    assert [words for words in entry.refused if words not in caught.value.message] == []


def test_the_zoo_is_large_and_each_model_has_a_name_of_its_own():
    assert len({entry.name for entry in ZOO}) == len(ZOO)
    assert len(ACCEPTED) >= 80
    assert len(REFUSED) >= 40
    assert {entry.name for entry in REFUSED} >= NOT_YET
