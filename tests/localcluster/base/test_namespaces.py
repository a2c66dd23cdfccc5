"""Which process is which, from outside of its PID namespace."""

from __future__ import annotations

import os

import pytest

from localcluster.base import namespaces
from localcluster.base.namespaces import child, first_member


def test_who_has_not_made_a_namespace_yet_has_no_first_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one of the namespace that it is in would be another's: the machine's own first one."""
    monkeypatch.setattr(namespaces, "_own_number", lambda _: 1)
    assert first_member(os.getpid()) is None


def test_a_child_is_found_by_how_it_numbers_itself() -> None:
    assert child(os.getppid(), os.getpid()) == os.getpid()
    assert child(os.getpid(), os.getpid()) is None, "it is no child of its own"
