"""What an attacker makes of releases: statistics that are large where the record is there.

Two attackers. The *knowing* one has all keys but that of the noise, so it knows either sum
without noise; the record is the last, so that under equal keys nobody else moves. By the theorem
of rule 8 the order of slots must stay secret where others would; random numbers may be public.
The *blind* one has the data, the code and the parameters, and no key: it knows the law of either
sum, from sums under other keys. Both know how the noise may fail: that a coordinate, or a draw, has
none, or that two draws have the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import AttemptKeys
from tests.support.attack.scenes import Floats, Releases, Scene, keys_of

# Of the law of noise that may be missing: how seldom it is, and what then is left of it.
_RARE, _LEFT_BITS = 2.0**-10, 16
_LAW = 128
"""Sums from which the blind attacker has the law of either side."""


class Trials(NamedTuple):
    """Statistics of trials on both sides.

    Attributes
    ----------
    without, with_x
        float64[trials, statistics].
    moved
        float64[trials·draws]: ‖sum(D ∪ x) − sum(D)‖ in units of C, of sums without noise that
        the attacker knows; empty for the blind one.
    along
        float64[2, trials·draws]: the noised releases of either side along the direction of that
        difference, from the sum of D.
    """

    without: Floats
    with_x: Floats
    moved: Floats
    along: Floats


Attacker = Callable[[Scene, str, int, Group], Trials]
"""`attacker(scene, purpose of its keys, trials, group)`."""


def knowing(scene: Scene, name: str, count: int, group: Group) -> Trials:
    """Make trials on both sides under keys of which the attacker lacks that of the noise."""
    keys = keys_of(f"{name} knowing")
    keys_of_x = replace(keys, noise=keys_of(f"{name} knowing, x").noise)
    sums = [Releases(scene, keys, side, group, noised=False) for side in (False, True)]
    noised = [
        Releases(scene, keys, False, group),
        Releases(scene, keys_of_x, True, group),
    ]
    sigma = scene.noise_multiplier
    statistics: list[list[list[float]]] = [[], []]
    moved, along = [], []
    centres: list[Floats] = []
    for trial in range(count):
        draws = range(trial * scene.draws, (trial + 1) * scene.draws)
        if scene.random or trial == 0:
            centres = [np.stack([one.of(draw) for draw in draws]) for one in sums]
        change = centres[1] - centres[0]
        lengths = np.linalg.norm(change, axis=1)
        direction = change / np.where(lengths > 0, lengths, 1.0)[:, None]
        moved.append(lengths)
        for side, releases in enumerate(noised):
            left = [np.stack([releases.of(draw) for draw in draws]) - centre for centre in centres]
            by_noise = _log_noise(left[1], sigma) - _log_noise(left[0], sigma)
            repeats = [np.square(each - each[0]).sum() for each in left]
            statistics[side].append([by_noise.sum(), repeats[0] - repeats[1]])
            along.append((left[0] * direction).sum(1))
    without, with_x = (np.array(of) for of in statistics)
    apart = np.stack([np.concatenate(along[side::2]) for side in (0, 1)])
    return Trials(without, with_x, np.concatenate(moved), apart)


def blind(scene: Scene, name: str, count: int, group: Group) -> Trials:
    """Make trials on both sides under keys of which the attacker has none."""
    laws = [_law(scene, keys_of(f"{name} blind, law"), side, group) for side in (False, True)]
    directions = _directions(*laws)
    lines = [law @ directions.T for law in laws]
    statistics = []
    for side, keys in ((False, keys_of(f"{name} blind")), (True, keys_of(f"{name} blind, x"))):
        releases = Releases(scene, keys, side, group)
        released = np.stack([releases.of(draw) for draw in range(count * scene.draws)])
        along = released @ directions.T
        each = [
            _log_law(along[:, i], lines[1][:, i], scene.noise_multiplier)
            - _log_law(along[:, i], lines[0][:, i], scene.noise_multiplier)
            for i in range(len(directions))
        ]
        statistics.append(np.stack(each, 1).reshape(count, scene.draws, -1).sum(1))
    return Trials(statistics[0], statistics[1], np.empty(0), np.empty((2, 0)))


def _law(scene: Scene, keys: AttemptKeys, with_x: bool, group: Group) -> Floats:
    sums = Releases(scene, keys, with_x, group, noised=False)
    return np.stack([sums.of(draw) for draw in range(_LAW)])


def _directions(without: Floats, with_x: Floats) -> Floats:
    """That in which the means differ, and that in which sums vary most: float64[2, d]."""
    mean = with_x.mean(0) - without.mean(0)
    both = np.concatenate([without, with_x])
    widest = np.linalg.svd(both - both.mean(0), full_matrices=False)[2][0]
    return np.stack([mean / max(np.linalg.norm(mean), 1e-300), widest])


def _log_law(at: Floats, centres: Floats, sigma: float) -> Floats:
    """Log density at `at[n]` of a uniform one of `centres[m]` with noise, which may be missing."""
    distance = (at[:, None] - centres)[:, :, None]
    result: Floats = logsumexp(_log_noise(distance, sigma), axis=1) - math.log(len(centres))
    return result


def _log_noise(left: Floats, sigma: float) -> Floats:
    """Log density of noise `left[..., d]`, up to a constant; any of its numbers may be missing."""
    square = np.square(left / sigma) / 2
    missing = math.log(_RARE) + _LEFT_BITS * math.log(2) - square * 2.0 ** (2 * _LEFT_BITS)
    result: Floats = np.logaddexp(-square, missing).sum(-1)
    return result
