"""One logical batch of DP-SGD (Abadi et al. 2016), from a charged draw to an updated model."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.clipping import ClippedSum, flat_slices
from dtjob_trainer.mechanism.coins import Coins
from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import AttemptKeys
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.mechanism.per_example import GradientUnreached, Losses, trainable
from dtjob_trainer.mechanism.records.agreement import agreed_length
from dtjob_trainer.mechanism.records.batches import (
    BatchLoader,
    MicroBatch,
    padding_example,
    to_tensors,
)
from dtjob_trainer.mechanism.records.scatter import scatter
from dtjob_trainer.mechanism.watch import exchange
from dtjob_trainer.mechanism.watch.exchange import RowsMet
from dtjob_trainer.mechanism.watch.structure import ValueAsked, ValueKept, chosen, looked_at
from dtjob_trainer.mechanism.watch.untouched import ModelWritten, Untouched
from dtjob_trainer.task import ArraySpec, Records, TaskError

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Learner:
    """A model and how it learns.

    Attributes
    ----------
    model
        The module to train, on the group's device, accepted by `task_validation.preflight`,
        equal on all ranks.
    losses
        `losses(model, batch) -> Tensor[P]`.
    optimizer
        Over exactly the model's trainable parameters.
    learning_rate
        The rate as a function of the step.
    untouched
        The watch over all that is written to the model from now on.

    Raises
    ------
    ValueError
        The optimizer would update a parameter without noise, or never one that is noised (Rule 21).
    """

    model: torch.nn.Module
    losses: Losses
    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[int], float]
    untouched: Untouched = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        parameters = self.parameters
        if {id(p) for p in held} != {id(p) for p in parameters} or len(held) != len(parameters):
            raise ValueError(
                "the optimizer must hold exactly the model's trainable parameters (Rule 21)",
            )
        object.__setattr__(self, "untouched", Untouched(self.model))

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The trainable ones, in the order of their coordinates."""
        return list(trainable(self.model).values())


@dataclass(frozen=True)
class PrivateData:
    """The private records, and what is public of them.

    Attributes
    ----------
    records
        The same under the same ids on every rank.
    example_spec
        Describes one of them.
    on_bad_record
        See `BatchLoader`.
    """

    records: Records
    example_spec: Mapping[str, ArraySpec]
    on_bad_record: Callable[[int, str], None] | None = None


class PrivateStep:
    """Executes logical batches; keeps no state from one to the next but model and optimizer.

    Every rank constructs one and calls `run` for every step, in the same order (Rule 1).

    Parameters
    ----------
    mechanism
        What is drawn, clipped and noised.
    keys
        This attempt's keys; they come from nowhere else (Rule 2).
    group
        The ranks of this attempt.
    physical_batch_size
        P rows per micro-batch, or None for min(⌈Q/W⌉, 512).

    Attributes
    ----------
    layout
        The ranks, the M micro-batches that every step executes on each, and their P rows.
    seconds
        Wall-clock time of all steps so far, by part: draw, load, gradients, reduce, noise,
        update. With a GPU, when the host waited for it.

    Raises
    ------
    ValueError
        Mechanism and model don't fit each other.
    TaskError
        The ranks see different records.
    """

    def __init__(
        self,
        learner: Learner,
        data: PrivateData,
        mechanism: Mechanism,
        keys: AttemptKeys,
        group: Group,
        *,
        physical_batch_size: int | None = None,
    ) -> None:
        self._learner = learner
        self._parameters = learner.parameters
        self._group = group
        self._keys = keys
        self._sampler = mechanism.sampler
        self._dataset_size = agreed_length(data.records, data.example_spec, group)
        self.layout = mechanism.layout(group.world_size, physical_batch_size)
        self._loader = BatchLoader(
            data.records, data.example_spec, keys.loading, group.device, data.on_bad_record
        )
        self._padding = to_tensors(padding_example(data.example_spec), group.device)
        self._coins = Coins(keys.coins, group.rank, group.device)
        self._slices = flat_slices(self._parameters)
        coordinates = sum(p.numel() for p in self._parameters)
        self._lattice = mechanism.noise(coordinates, self.layout)
        self._sum = mechanism.clipper.summed(learner.model, learner.losses, group.world_size)
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def run(self, draw: int, step: int) -> None:
        """Execute draw c as step `step` of the model: one logical batch, whole or not at all.

        An empty draw is a step like any other (Rule 1). Whatever interrupts it, nothing of it
        reaches a later step (Rule 8): the model and the optimizer are written last.

        Parameters
        ----------
        draw
            The charge index c: leased, never used before (Rules 3 and 10).
        step
            0 <= step < T; only the learning rate depends on it.
        """
        self._discard()
        try:
            self._sum_gradients(draw)
            with self._timed("reduce"):
                own = self._group.reduce_scatter(self._sum.flat)
            with self._timed("noise"):
                own = self._noised(own, draw)
            with self._timed("reduce"):
                whole = self._group.all_gather(own)
            with self._timed("update"):
                self._update(whole / self._sampler.batch_size, self._learner.learning_rate(step))
        finally:
            self._discard()

    def check_publishable(self) -> None:
        """Refuse to publish a model that something else than the optimizer has written to.

        Raises
        ------
        TaskError
            Names the frozen tensor; `run` sees to the others.
        """
        try:
            self._learner.untouched.check_frozen()
        except ModelWritten as error:
            raise TaskError(Reason.MODEL_REFUSED, str(error)) from None

    def close(self) -> None:
        """Take the hooks off the model."""
        if isinstance(self._sum, ClippedSum):
            self._sum.close()

    def _sum_gradients(self, draw: int) -> None:
        """Sum over this rank's share of the draw, in the same number of passes on every rank."""
        with self._timed("draw"):
            reading = self._sampler.reading(
                self._keys.sampling, draw, self._dataset_size, self.layout.slots
            )
            slots = scatter(self._keys.order, draw, reading, self.layout)
        self._learner.model.train()
        self._learner.untouched.begin()
        own = zip(slots.ids[self._group.rank], slots.drawn[self._group.rank], strict=True)
        try:
            for number, (ids, drawn) in enumerate(own):
                with self._timed("load"):
                    batch = self._loader.micro_batch(draw, ids, drawn)
                with self._timed("gradients"):
                    if chosen(self._keys.looks, draw):
                        self._add_looking(draw, number, batch)
                    else:
                        self._add(draw, number, batch)
            self._learner.untouched.check()
        except ValueAsked as error:
            # The cause tells where in the task's code, which is all that may be shown beside.
            raise TaskError(Reason.MODEL_REFUSED, str(error)) from error
        except (GradientUnreached, ModelWritten, RowsMet, ValueKept) as error:
            # The dry run could not see what a model does only now and then.
            raise TaskError(Reason.MODEL_REFUSED, str(error)) from None

    def _add(self, draw: int, number: int, batch: MicroBatch) -> None:
        self._coins.begin(draw, number)
        self._sum.add(batch.fields, batch.mask)

    def _add_looking(self, draw: int, number: int, batch: MicroBatch) -> None:
        """Look at what is done with values: at secretly chosen draws, and no others (Rule 21).

        The task gets copies, which no other holds: it may not keep them either.
        """
        fields = {name: tensor.clone() for name, tensor in batch.fields.items()}
        with looked_at(self._learner.model, fields) as look:
            self._add(draw, number, replace(batch, fields=fields))
        fields.clear()
        look.check_forgotten([self._sum.flat])
        own = exchange.chosen_micro_batch(self._keys.looks, draw, self.layout.micro_batches)
        # A GPU's kernels add up in no fixed order: there the bits would tell nothing.
        if own == number and isinstance(self._sum, ClippedSum) and self._group.device == _CPU:
            row = exchange.chosen_row(self._keys.looks, draw, batch.mask)
            begin = functools.partial(self._coins.begin, draw, number)
            exchange.check(self._sum.gradients, batch.fields, self._padding, row, begin)

    def _noised(self, own: torch.Tensor, draw: int) -> torch.Tensor:
        """Noise the slice that this rank owns; no other rank noises it (Rule 6). In fp32."""
        if self._lattice is None:
            return own.float()
        noised = self._lattice.noised(
            own.cpu().numpy(), self._keys.noise, draw, self._group.rank * own.numel()
        )
        return torch.from_numpy(noised).to(device=own.device, dtype=torch.float32)

    def _update(self, mean: torch.Tensor, learning_rate: float) -> None:
        """Hand the optimizer exactly the noised mean, nothing that autograd left (Rule 4)."""
        for p, flat in zip(self._parameters, self._slices, strict=True):
            p.grad = mean[flat].view_as(p)
        for group in self._learner.optimizer.param_groups:
            group["lr"] = learning_rate
        self._learner.optimizer.step()

    def _discard(self) -> None:
        self._sum.zero_()

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start
