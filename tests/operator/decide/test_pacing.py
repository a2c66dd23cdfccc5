"""How often the figures of a job are written."""

from __future__ import annotations

from tests.support.worlds.world import report, running, stamp


def test_telemetry_is_written_every_15_seconds_and_only_if_it_moves() -> None:
    world = running()
    world.see(report=report(1))
    world.settle()
    before = len(world.patches)
    for second in range(60):
        world.later(1)
        world.see(report=report(2 + second))
        world.reconcile()
    assert len(world.patches) - before == 4
    standing = len(world.patches)
    for _ in range(60):
        world.later(1)
        world.see(report=report(61, heartbeatTime=stamp(world.now)))
        world.reconcile()
    assert len(world.patches) <= standing + 1


def test_the_first_figures_are_written_at_once() -> None:
    world = running()
    assert world.decide().wake_after == 1.0
    world.later(1)
    world.see(report=report(3))
    world.reconcile()
    assert world.status["progress"]["step"] == 3
    assert world.decide().wake_after == 15.0


def test_a_clock_that_is_put_back_holds_up_no_figures() -> None:
    world = running()
    world.later(20)
    world.see(report=report(40))
    world.settle()
    world.later(-2 * 86400)
    world.see(report=report(60))
    world.settle()
    assert world.status["progress"]["step"] == 60


def test_a_job_without_figures_is_looked_at_often_in_its_first_minute_only() -> None:
    world = running()
    assert world.decide().wake_after == 1.0
    world.later(61)
    world.settle()
    assert world.decide().wake_after == 15.0
