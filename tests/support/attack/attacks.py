"""All attacks: on sound steps of many models, and on broken ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.per_example import Losses
from dtjob_trainer.mechanism.records.batches import synthetic_examples
from tests.support.attack import crafted, faults, reading
from tests.support.attack.crafted import of_rows, scene
from tests.support.attack.reading import Reading
from tests.support.attack.scenes import Scene
from tests.support.attack.trials import Attacker, blind, knowing
from tests.support.mechanism.layouts import run_world
from tests.support.zoo.everything import ACCEPTED

FALSE_ALARM = 1e-3
"""The chance that any sound step of all reads above its claim."""
_RECORDS = 8


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes
    ----------
    name
        Unique.
    scene
        Whom it attacks.
    attacker
        `knowing` or `blind`.
    fault
        What is broken of the step, or nothing.
    sound
        Whether the step keeps its claim. Where it does not and `fault` is none, the task breaks it.
    trials
        On either side, a quarter of them for choosing the statistic.
    ranks
        W, processes of their own where they are several.
    """

    name: str
    scene: Callable[[], Scene]
    attacker: Attacker
    fault: faults.Fault = contextlib.nullcontext
    sound: bool = False
    trials: int = 800
    ranks: int = 1

    def read(self, trials: int | None = None) -> Reading:
        """Make the trials, and read them."""
        if self.ranks == 1:
            return self.on_rank(Group(), trials)
        first: Reading = run_world(partial(_of_rank, self.name, trials), self.ranks)[0]
        return first

    def on_rank(self, group: Group, trials: int | None = None) -> Reading:
        """The same as one of the ranks."""
        torch.set_num_threads(1)
        made = self.scene()
        with self.fault():
            seen = self.attacker(made, self.name, trials or self.trials, group)
        return reading.read(made, seen, FALSE_ALARM / len(ATTACKS))


def named(name: str) -> Attack:
    """The attack of a name, which processes can send each other."""
    (attack,) = (attack for attack in ATTACKS if attack.name == name)
    return attack


def reading_of(name: str) -> Reading:
    """What the attack of a name reads."""
    return named(name).read()


def _of_rank(name: str, trials: int | None, group: Group) -> Reading:
    return named(name).on_rank(group, trials)


def of_the_zoo(name: str, x: int) -> Scene:
    """A model of the zoo, with synthetic records."""
    (entry,) = (entry for entry in ACCEPTED if entry.name == name)
    task = entry.task()
    records = synthetic_examples(task.example_spec, _RECORDS, np.random.default_rng(7))
    return Scene(task, records, x, random=entry.random)


ZOO = (
    "linear",
    "perceptron",
    "bag_of_words",
    "group_norm",
    "lstm",
    "encoder",
    "opacus_attention",
    "low_rank",
    "lora_of_bert",
    "gpt2",
    "residual",
    "dropout",
    "channel_dropout",
    "stochastic_depth",
    "drop_path",
    "diffusion",
    "variational",
    "words_left_out",
)
ALIKE = [1.0] * _RECORDS
IN_TURN = [1.0, -1.0] * _RECORDS
MASKED = [1.0, *crafted.public_signs(4).tolist() * 4][:16]
BALANCED = [1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0] * 2
"""Four by four they add up to zero; with another one before them each four to 2 or −2."""
CRAFTED = {
    "like rows": partial(scene, crafted.itself, ALIKE),
    "coin of each row": partial(scene, crafted.by_own_coin, BALANCED),
    "coin of all rows": partial(scene, crafted.by_shared_coin, [-1.0, *BALANCED]),
    "public masks": partial(scene, crafted.by_masks, MASKED),
    "members by row": partial(scene, crafted.by_member, IN_TURN),
}
"""Models that are sound where slots are scattered, refused or not."""


def sampled() -> Scene:
    """Others of whom nothing is along the record; one in four draws takes it."""
    rows = np.eye(4, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 3]]
    return of_rows(crafted.itself, rows, 7, batch_size=2)


def against(**options: float) -> Scene:
    """Seven records one way, and the record that goes the other way."""
    return scene(crafted.itself, [1.0] * 7 + [-1.0], 7, random=False, **options)


def against_padding() -> Scene:
    """A record opposite to what padding rows hold."""
    padding = crafted.padding()
    rows = np.stack([padding] * 7 + [-padding])
    return of_rows(crafted.itself, rows.astype(np.float32), 7, noise_multiplier=1.0)


def overflowing(losses: Losses) -> Scene:
    """As many like records as slots, and one more that is against them."""
    room = {"batch_size": 8, "dataset_size": 8}
    return scene(losses, [*ALIKE, -1.0], 8, noise_multiplier=1.0, **room)


def longer(**options: float) -> Scene:
    """Others just as long as C, and a record of 64 times their length against them."""
    return scene(crafted.itself, [2.0**-6] * 7 + [-1.0], 7, max_grad_norm=2.0**-6, **options)


def mixed() -> Scene:
    """Short records along padding, and a long one against both, in one micro-batch."""
    along = float(np.sign(crafted.padding()[0]))
    signs = [2.0**-6 * along] * 7 + [-along]
    return scene(crafted.by_next, signs, 7, rows=8, max_grad_norm=2.0**-10, noise_multiplier=1.0)


def turned() -> Scene:
    """Records that are positive in the second feature, and one that makes their mean negative."""
    rows = np.array([[1.0, 0.1, 0.0]] * 7 + [[-1.0, -1.0, 0.0]], np.float32)
    return of_rows(crafted.by_batch_sign, rows, 7, rows=8, noise_multiplier=3.0)


def two_weights(**options: float) -> Scene:
    """Others along the first weight, which rank 0 of two owns; the record along the last."""
    rows = np.eye(4, dtype=np.float32)[[0] * 7 + [3]]
    return of_rows(crafted.itself, rows, 7, random=False, **options)


def layers() -> Scene:
    """A model of several layers, with more noise."""
    return replace(of_the_zoo("perceptron", 7), noise_multiplier=1.0)


SOUND = (
    *(Attack(name, partial(of_the_zoo, name, 7), knowing, sound=True) for name in ZOO),
    *(Attack(name, partial(made, -1), knowing, sound=True) for name, made in CRAFTED.items()),
    *(
        Attack(f"{name}, blind", partial(of_the_zoo, name, 0), blind, sound=True)
        for name in ("dropout", "group_norm", "lstm", "stochastic_depth")
    ),
    *(
        Attack(f"{name}, blind", partial(made, 0), blind, sound=True)
        for name, made in CRAFTED.items()
    ),
    Attack("one draw in four, blind", sampled, blind, sound=True, trials=3_000),
    Attack(
        "ten draws",
        partial(against, draws=10, noise_multiplier=1.0),
        knowing,
        sound=True,
        trials=200,
    ),
    Attack("two ranks", two_weights, knowing, sound=True, ranks=2),
    Attack("more than its slots, blind", partial(overflowing, crafted.itself), blind, sound=True),
)
BROKEN = (
    Attack(
        "public masks; records dealt in order",
        partial(CRAFTED["public masks"], 0, noise_multiplier=3.0),
        blind,
        faults.dealt,
        trials=200,
    ),
    Attack(
        "members by row; records dealt in order",
        partial(CRAFTED["members by row"], 0, noise_multiplier=3.0),
        blind,
        faults.dealt,
        trials=200,
    ),
    Attack(
        "coin of all rows; records dealt in order",
        partial(CRAFTED["coin of all rows"], 0, noise_multiplier=1.0),
        blind,
        faults.dealt,
    ),
    Attack(
        "members by row; records shuffled into the first slots",
        partial(scene, crafted.by_member, [*ALIKE[1:], -1.0], 7, noise_multiplier=1.0),
        blind,
        faults.shuffled,
        trials=2_000,
    ),
    Attack(
        "coin of all rows, more records than slots",
        partial(overflowing, crafted.by_shared_coin),
        blind,
        trials=2_000,
    ),
    Attack(
        "records beyond the slots are dropped",
        partial(overflowing, crafted.itself),
        blind,
        faults.dropped,
        trials=2_000,
    ),
    Attack("padding counts", against_padding, blind, faults.padding_counted),
    Attack(
        "divided by the real number of records",
        partial(against, noise_multiplier=1.0),
        blind,
        faults.by_real_number,
    ),
    Attack("drawn twice as often", sampled, blind, faults.drawn_twice_as_often),
    Attack("not clipped", partial(longer, noise_multiplier=3.0), blind, faults.unclipped),
    Attack(
        "sums of micro-batches clipped",
        partial(longer, noise_multiplier=1.0),
        blind,
        faults.clipped_together,
    ),
    Attack("layers clipped, each to C", layers, knowing, faults.clipped_by_layer),
    Attack("rows turned by their mean", turned, blind, faults.not_exchanged),
    Attack("rows mixed, each with the next", mixed, blind, faults.not_exchanged),
    Attack("noise of 0.9 times", against, knowing, faults.quieter, trials=8_000),
    Attack(
        "no noise at each tenth draw",
        partial(against, draws=10, noise_multiplier=3.0),
        knowing,
        faults.now_and_then,
        trials=200,
    ),
    Attack(
        "no noise in half of the coordinates",
        partial(two_weights, noise_multiplier=3.0),
        knowing,
        faults.in_part,
        trials=200,
    ),
    Attack(
        "the same noise for six draws",
        partial(scene, crafted.by_own_coin, ALIKE, 7, draws=6, noise_multiplier=3.0),
        knowing,
        faults.again,
        trials=200,
    ),
    Attack(
        "two ranks, of which one adds noise",
        partial(two_weights, noise_multiplier=3.0),
        knowing,
        faults.of_one_rank,
        ranks=2,
        trials=200,
    ),
    Attack(
        "two ranks that add noise of half to their parts",
        two_weights,
        knowing,
        faults.of_each_part,
        trials=2_000,
        ranks=2,
    ),
)
ATTACKS = (*SOUND, *BROKEN)
