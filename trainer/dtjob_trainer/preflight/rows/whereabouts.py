"""Where in a model and in the task's code an operator runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from dtjob_trainer.preflight.rows.passes import Around, Batch, Passes
from dtjob_trainer.task import where_in_task


class Met(Exception):
    """The operator that is looked for runs; the words say in which module."""


class Modules:
    """The modules whose forward runs at the moment, outermost first."""

    def __init__(self, passes: Passes) -> None:
        self._passes = passes
        self._running: list[str] = []

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follow the model's forward passes while the context lasts."""
        handles = []
        for name, module in self._passes.model.named_modules():
            called = f"module {name or 'model'} ({type(module).__name__})"
            handles += [
                module.register_forward_pre_hook(
                    lambda _m, _i, called=called: self._running.append(called)
                ),
                module.register_forward_hook(lambda *_: self._leave(), always_call=True),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def innermost(self) -> str:
        """Its name and class, or what else runs."""
        if self._running:
            return self._running[-1]
        return "losses()" if self._passes.in_losses else "the backward pass"

    def _leave(self) -> None:
        self._running.pop()


def met_at(
    passes: Passes, batch: Batch, looking: Callable[[Modules], Around], *, seed: int = 0
) -> str | None:
    """Take a pass; return module, file, line and function where `Met` is raised, None if nowhere.

    Parameters
    ----------
    looking
        From the modules that run at the moment: what is entered around the pass.
    """
    modules = Modules(passes)
    try:
        with modules.followed():
            passes.take(batch, seed=seed, around=looking(modules))
    except Met as met:
        return f"{met}{where_in_task(met)}"
    return None
