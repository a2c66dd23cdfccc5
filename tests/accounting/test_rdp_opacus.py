"""Opacus' Rényi accountant gives the figures of ours."""

from __future__ import annotations

import pytest

from dtjob_accounting import rdp
from dtjob_accounting.errors import PlanError

pytestmark = [
    # Importing anything of Opacus loads torch: many seconds, too slow for the fast tier.
    pytest.mark.processes,
    pytest.mark.xdist_group("opacus"),
    # Both are given the same orders; that the best is the first or last changes nothing.
    pytest.mark.filterwarnings("ignore:Optimal order is the"),
]


@pytest.mark.parametrize("delta", [1e-5, 1e-8])
@pytest.mark.parametrize("draws", [1, 366, 20_000])
@pytest.mark.parametrize("q", [1e-4, 256 / 60_000, 256 / 1437, 1.0])
@pytest.mark.parametrize("sigma", [0.7, 1.1, 2.203, 30.0])
def test_the_rdp_accountant_equals_opacus(sigma: float, q: float, draws: int, delta: float) -> None:
    from opacus.accountants import RDPAccountant

    if q * draws > 400 * sigma**2:
        with pytest.raises(PlanError):
            rdp.epsilon(sigma, q, draws, delta)
        return
    accountant = RDPAccountant()
    accountant.history = [(sigma, q, draws)]
    theirs = accountant.get_epsilon(delta, alphas=list(rdp.DEFAULT_ORDERS))
    ours = rdp.epsilon(sigma, q, draws, delta)
    assert theirs * (1 - 1e-9) - 1e-9 <= ours <= max(theirs, 0) * (1 + 1e-6) + 1e-9
