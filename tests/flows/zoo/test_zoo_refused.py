"""Rule 21: what is refused is refused by name, with a remedy."""

import pytest

from dtjob_trainer.preflight.task_validation import preflight
from dtjob_trainer.task import TaskError
from tests.support.zoo.everything import ACCEPTED, REFUSED, ZOO

pytestmark = pytest.mark.models


@pytest.mark.rule(21)
@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry.name)
def test_what_is_refused_is_told_with_its_remedy(entry):
    with pytest.raises(TaskError) as caught:
        preflight(entry.task())
    assert [words for words in entry.refused if words not in caught.value.message] == []


def test_the_zoo_is_large_and_each_model_has_a_name_of_its_own():
    assert len({entry.name for entry in ZOO}) == len(ZOO)
    assert len(ACCEPTED) >= 80
    assert len(REFUSED) >= 40
