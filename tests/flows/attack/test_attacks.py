"""The real step under attack: sound ones keep their claim, and broken ones are seen to break it.

Of the false alarms of all attacks together, here with fixed keys, see `FALSE_ALARM`. `make attack`
makes all of them with as many trials as their figures need.
"""

import contextlib
from dataclasses import replace

import pytest

from dtjob_trainer.task import TaskError
from tests.support.attack.attacks import BROKEN, SOUND, named

TRIALS = {
    "linear": 100,
    "dropout": 60,
    "members by row": 60,
    "public masks; records dealt in order": 60,
    "members by row; records dealt in order": 60,
    "not clipped": 60,
    "rows turned by their mean": 60,
    "no noise in half of the coordinates": 60,
}
"""Of those that need no more to be on one side of their claim."""


def seen(attack, trials=None):
    reading = attack.read(trials)
    assert reading.within == attack.sound, reading
    if reading.sensitivity == reading.sensitivity and attack.sound:
        assert 0.98 < reading.sensitivity <= 1.0
        mean, error = reading.seen_sensitivity
        assert abs(mean - reading.sensitivity) < 4.5 * error


@pytest.mark.models
@pytest.mark.rule(3, 4, 5, 6, 7, 8, 21)
@pytest.mark.parametrize("name", TRIALS)
def test_a_hundred_trials_separate_sound_from_broken(name):
    seen(named(name), TRIALS[name])


@pytest.mark.nightly(minutes=0.3)
@pytest.mark.rule(3, 4, 5, 6, 7, 8, 21)
@pytest.mark.parametrize("attack", SOUND, ids=lambda attack: attack.name)
def test_a_sound_step_keeps_its_claim(attack):
    seen(attack)


@pytest.mark.nightly(minutes=0.3)
@pytest.mark.rule(3, 4, 5, 6, 7, 8, 21)
@pytest.mark.parametrize("attack", BROKEN, ids=lambda attack: attack.name)
def test_a_broken_step_is_seen_to_break_it(attack):
    seen(attack)


@pytest.mark.models
@pytest.mark.rule(8, 21)
@pytest.mark.parametrize("name", ["rows turned by their mean", "rows mixed, each with the next"])
def test_a_step_refuses_rows_that_meet(name):
    with pytest.raises(TaskError, match="mixes the examples of a batch"):
        replace(named(name), fault=contextlib.nullcontext).read(200)
