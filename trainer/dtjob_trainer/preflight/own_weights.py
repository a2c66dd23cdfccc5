"""Whether each call of `Task.model()` makes trainable parameters of its own.

The dry run moves the weights of its models, and training those of the released one. Where they are
one global model's, what is released would begin from weights that a probe has moved.
"""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from dtjob_api.reasons import Reason
from dtjob_trainer.mechanism.per_example import trainable
from dtjob_trainer.task import TaskError

# Storages of all models that this process has built and that somebody still holds.
_BUILT: dict[int, StorageWeakRef] = {}


def check(model: torch.nn.Module) -> None:
    """Refuse trainable parameters that lie in the memory of an earlier call's.

    Frozen ones may: a large base model, loaded once, is written to by nobody.

    Raises
    ------
    TaskError
    """
    for address in [address for address, built in _BUILT.items() if built.expired()]:
        del _BUILT[address]
    storages = {name: StorageWeakRef(p.untyped_storage()) for name, p in trainable(model).items()}
    for name, storage in storages.items():
        if storage.cdata in _BUILT:
            raise TaskError(
                Reason.MODEL_REFUSED,
                f"Task.model() returns parameter {name} of an earlier call again; make the model "
                "anew in each call, or return copy.deepcopy of a model that is kept",
            )
    _BUILT.update({storage.cdata: storage for storage in storages.values()})
