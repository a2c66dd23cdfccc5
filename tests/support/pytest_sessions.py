"""Sessions of pytest with our plugins, for tests of these."""

from __future__ import annotations

import pytest

alone_and_with_workers = pytest.mark.parametrize(
    "workers",
    [
        pytest.param((), id="alone"),
        pytest.param(("-n", "2", "--dist", "loadgroup"), id="two workers", marks=pytest.mark.slow),
    ],
)
PLUGINS = ("-p", "testing.tiers", "-p", "testing.figures", "-p", "testing.shards")
