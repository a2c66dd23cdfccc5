"""Small trained parts in a large frozen base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dtjob_trainer.task import Task
from tests.support.zoo.entry import Entry
from tests.support.zoo.hugging_face import DRY_GPT2, ENCODER, frozen, made
from tests.support.zoo.making import (
    CLASSES,
    FEATURES,
    Batch,
    Through,
    classified,
    cross_entropy,
    label,
    next_words,
    task_of,
    text,
)

_HIDDEN = 6


def _low_rank(inner: nn.Linear, rank: int = 2) -> nn.Module:
    """LoRA (Hu et al. 2022) written out."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        return self.inner(x) + self.up(self.down(x))

    return Through(
        forward,
        inner=inner.requires_grad_(False),
        down=nn.Linear(inner.in_features, rank, bias=False),
        up=nn.Linear(rank, inner.out_features, bias=False),
    )


def _written_out() -> nn.Module:
    return nn.Sequential(
        _low_rank(nn.Linear(FEATURES, _HIDDEN)), nn.Tanh(), _low_rank(nn.Linear(_HIDDEN, CLASSES))
    )


def _only_biases() -> nn.Module:
    """BitFit (Ben Zaken et al. 2022)."""
    model = nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, CLASSES))
    return frozen(model, "weight")


def _bottleneck() -> nn.Module:
    """Houlsby et al. (2019): a small detour behind a frozen layer."""

    def forward(self: Any, x: torch.Tensor) -> Any:
        hidden = self.base(x)
        return self.last(hidden + self.up(self.down(hidden).relu()))

    return Through(
        forward,
        base=nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.Tanh()).requires_grad_(False),
        down=nn.Linear(_HIDDEN, 2),
        up=nn.Linear(2, _HIDDEN),
        last=nn.Linear(_HIDDEN, CLASSES),
    )


def _of_gpt2(kind: str, **config: Any) -> Callable[[], Task]:
    """Makes the task of a language model by one of peft's configurations."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        logits = model(input_ids=words, use_cache=False).logits
        return next_words(logits[:, -words.shape[1] :], words)

    def model() -> nn.Module:
        import peft

        base = made("GPT2LMHeadModel", **DRY_GPT2)
        model: nn.Module = peft.get_peft_model(base, getattr(peft, kind)(**config))
        return model

    return lambda: task_of(model, losses, x=text())


def _of_bert(kind: str, **config: Any) -> Callable[[], Task]:
    """Makes the task of a classifier of texts by one of peft's configurations."""

    def model() -> nn.Module:
        import peft

        base = made("BertModel", **ENCODER, without_pooler=True)
        return Through(
            lambda self, words: self.last(self.inner(words).last_hidden_state[:, 0]),
            inner=peft.get_peft_model(base, getattr(peft, kind)(**config)),
            last=nn.Linear(8, CLASSES),
        )

    return lambda: task_of(model, cross_entropy, x=text(), y=label())


_LORA = {"r": 2, "lora_alpha": 4}

ENTRIES = (
    Entry("low_rank", classified(_written_out)),
    Entry("only_biases", classified(_only_biases)),
    Entry("bottleneck", classified(_bottleneck)),
    Entry(
        "lora_of_gpt2",
        _of_gpt2("LoraConfig", **_LORA, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    ),
    Entry("lora_of_bert", _of_bert("LoraConfig", **_LORA, target_modules=["query", "value"])),
    Entry(
        "lora_dropout",
        _of_bert("LoraConfig", **_LORA, target_modules=["query"], lora_dropout=0.3),
        random=True,
    ),
    Entry(
        "prefix_tuning", _of_gpt2("PrefixTuningConfig", task_type="CAUSAL_LM", num_virtual_tokens=2)
    ),
)
