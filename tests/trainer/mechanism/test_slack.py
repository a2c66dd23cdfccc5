"""Rules 4 and 7: all rounding together stays within the slack of the clip, or no step is made."""

import math
from fractions import Fraction

import pytest
import torch

from dtjob_trainer.mechanism import slack
from dtjob_trainer.mechanism.contraction import exact_fp32, squared_norms, weighted_sum
from dtjob_trainer.mechanism.noise import Lattice
from dtjob_trainer.mechanism.records.scatter import Layout
from dtjob_trainer.mechanism.slack import Roundings, clipped_norm
from tests.support.mechanism.octave_rows import octave_rows

SMALL = Layout(ranks=1, micro_batches=1, rows=350)


def roundings(noise_multiplier=1.0, norm=1.0, coordinates=1, layout=SMALL, quantile=None):
    """As many records as slots, if no other number is given."""
    lattice = Lattice(noise_multiplier, norm, coordinates)
    return Roundings(lattice, layout, quantile or layout.slots)


def inequality(one):
    """Its left side by hand, exactly, up to the root of d."""
    c, d = Fraction(one.lattice.sensitivity), one.lattice.coordinates
    p, m = one.layout.rows, one.layout.micro_batches
    w, q = one.layout.ranks, one.quantile
    u, v = Fraction(1, 2**24), Fraction(1, 2**53)
    norm = c * (131 * u + d * v) + Fraction(d, 2**127) / (c * (1 - Fraction(1, 2**10)))
    chains = 2 * 32 * u / (1 - 32 * u) * 32 * c
    sums = 2 * ((p + 31) // 32 * p + (2 * m + w) * 2 * q) * v * c
    lattice = Fraction(one.lattice.grid) * Fraction(math.sqrt(d))
    return norm + chains + sums + lattice


LAYOUTS = [SMALL, Layout(4, 2**9, 512), Layout(64, 2**8, 2**10)]


@pytest.mark.rule(4, 7)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", [2.0**-40, 1e-6, 1.0, 2.0**40])
@pytest.mark.parametrize(("sigma", "coordinates"), [(1.0, 1), (2.2, 26_000), (0.5, 2**31)])
def test_the_inequality_has_every_rounding(sigma, coordinates, norm, layout):
    one = roundings(sigma, norm, coordinates, layout)
    assert one.total == pytest.approx(float(inequality(one)), rel=1e-9)


@pytest.mark.rule(7)
@pytest.mark.parametrize("norm", [0.7, 1.0, 50.0])
def test_noise_just_within_the_slack_is_accepted_and_just_beyond_refused(norm):
    """0.867 of 2⁻¹⁰ is left for the lattice by the other roundings."""
    grid = Lattice(2.0**10, norm, 1).grid
    left = norm * (2.0**-10 - 2.0**-13 - 131 * 2.0**-24)
    within, beyond = (int((left / grid) ** 2 * (1 + margin)) for margin in (-1e-4, 1e-4))
    roundings(2.0**10, norm, within).check()
    with pytest.raises(ValueError, match=f"1024 is too large for {beyond} coordinates"):
        roundings(2.0**10, norm, beyond).check()


@pytest.mark.rule(4, 7)
@pytest.mark.parametrize(
    ("part", "remedy", "one"),
    [
        ("norm", "maxGradNorm 1e-12 is too small", roundings(2.0**-10, 1e-12, 2**38)),
        ("norm", "train fewer parameters", roundings(2.0**-10, 1.0, 2**44)),
        ("sums", "lower batchSize", roundings(layout=Layout(1, 2**17, 512))),
        ("sums", "or physicalBatchSize", roundings(layout=Layout(1, 1, 2**25), quantile=2)),
        ("lattice", "lower it", roundings(2.0**10, 1.0, 2**20)),
        ("lattice", "train fewer", roundings(8.0, 1.0, 2**34)),
    ],
)
def test_each_rounding_alone_can_be_too_much(part, remedy, one):
    parts, allowed = one.parts, one.lattice.sensitivity * 2**-10
    assert parts.pop(part) > 0.99 * allowed
    assert sum(parts.values()) < 0.2 * allowed
    with pytest.raises(ValueError, match=remedy):
        one.check()


@pytest.mark.rule(4)
@pytest.mark.parametrize(("rows", "accepted"), [(32, True), (64, True), (128, False)])
def test_longer_chains_would_be_refused(rows, accepted, monkeypatch):
    monkeypatch.setattr(slack, "CHAIN_ROWS", rows)
    if accepted:
        roundings().check()
        return
    with pytest.raises(ValueError, match=r"chains 0\.002,"):
        roundings().check()


@pytest.mark.rule(7)
@pytest.mark.parametrize("coordinates", [1, 650, 3_400_000, 2**38])
def test_noise_within_what_a_refusal_advises_is_accepted(coordinates):
    roundings(2.0**19 / math.sqrt(coordinates), 1.0, coordinates).check()


@pytest.mark.rule(4)
@pytest.mark.parametrize("rows", [4, 32, 512])
def test_what_is_measured_is_within_what_is_proved(rows):
    """On the worst rows that are known."""
    made = octave_rows(rows, 64, 1.03)
    ones = torch.ones(rows)
    with exact_fp32(made.device):
        one = weighted_sum(ones, made)
        made[0] = 0
        other = weighted_sum(ones, made)
    excess = (one - other).norm().item() - 1.03
    parts = roundings(1.0, 1.03, 64, Layout(1, 1, rows)).parts
    assert abs(excess) <= parts["chains"] + parts["sums"]


@pytest.mark.rule(4)
@pytest.mark.parametrize("coordinates", [1, 256, 100_001])
def test_rows_are_hardly_longer_than_they_are_measured(coordinates):
    generator = torch.Generator().manual_seed(0)
    row = torch.rand(4, coordinates, generator=generator)
    row[1:] = torch.tensor([0.3, 0.7, 1 + 2**-12])[:, None]
    short = row.double().norm(dim=1) / squared_norms(row).sqrt() - 1
    assert short.max().item() <= roundings(coordinates=coordinates).parts["norm"]


@pytest.mark.rule(4)
def test_the_clip_leaves_a_thousandth():
    assert clipped_norm(0.5) == 0.5 * 1023 / 1024
