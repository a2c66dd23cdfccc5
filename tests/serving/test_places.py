"""Who is let in, and who has to go for it."""

from __future__ import annotations

import pytest

from dtjob_serving.places import Places


@pytest.mark.parametrize("together", [3, 100])
def test_the_oldest_of_a_crowd_has_to_go(together: int) -> None:
    places: Places[str] = Places(each=2, together=together)
    assert [places.take("a", guest) for guest in ("a1", "a2", "a3", "a4")] == [
        None,
        None,
        "a1",
        "a2",
    ]
    assert places.take("b", "b1") is None
    assert places.take("c", "c1") == ("a3" if together == 3 else None)


def test_who_proved_himself_takes_no_place() -> None:
    places: Places[str] = Places(each=1)
    assert places.take("a", "a1") is None
    places.leave("a1")
    places.leave("a1")
    assert places.take("a", "a2") is None
    assert places.take("a", "a3") == "a2"
