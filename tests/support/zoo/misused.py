"""Models of other houses that the validator refuses, as people use them first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dtjob_trainer.task import Task
from tests.support.zoo.entry import Entry
from tests.support.zoo.hugging_face import (
    DRY_GPT2,
    ENCODER,
    OPT,
    READS,
    T5,
    UNTIED,
    WIDE,
    frozen,
    made,
    untied,
)
from tests.support.zoo.making import (
    CLASSES,
    Batch,
    Through,
    classified,
    kept,
    label,
    next_words,
    task_of,
    text,
)
from tests.support.zoo.vision import resnet

_OTHER_ROWS = "is called on other rows than those of the batch"


def _read_by_mask_of_two_dimensions(name: str, **config: Any) -> Callable[[], Task]:
    """Makes the task of a classifier of texts that hands the padding mask over as it is."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        positions = torch.arange(words.shape[1]).expand(len(words), -1)
        given = {} if name.startswith(("Distil", "T5")) else {"position_ids": positions}
        seen = model.encoder(words, attention_mask=batch["kept"], **given).last_hidden_state
        return nn.functional.cross_entropy(model.head(seen[:, 0]), batch["y"], reduction="none")

    def model() -> nn.Module:
        encoder = frozen(made(name, **config), "pooler", "position", "relative_attention_bias")
        return nn.ModuleDict({"encoder": encoder, "head": nn.Linear(8, CLASSES)})

    return lambda: task_of(model, losses, x=text(), kept=kept(), y=label())


def _written(name: str, **config: Any) -> Callable[[], Task]:
    """Makes the task of a language model that is given its words alone."""

    def losses(model: Any, batch: Batch) -> Any:
        return next_words(model(input_ids=batch["x"], use_cache=False).logits, batch["x"])

    return lambda: task_of(lambda: made(name, **config), losses, x=text())


def _translator() -> Task:
    """T5 that learns how far words are from one another: one table for all rows."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        found = model(input_ids=words, decoder_input_ids=words, use_cache=False)
        return next_words(found.logits, words)

    return task_of(lambda: untied(made("T5ForConditionalGeneration", **T5)), losses, x=text())


def _adapted(base: str, kind: str, config: dict[str, Any], **adapter: Any) -> Callable[[], Task]:
    """Makes the task of a language model with one of peft's adapters."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        logits = model(input_ids=words, use_cache=False).logits
        return next_words(logits[:, -words.shape[1] :], words)

    def model() -> nn.Module:
        import peft

        options = getattr(peft, kind)(**adapter)
        adapted: nn.Module = peft.get_peft_model(made(base, **config), options)
        return adapted

    return lambda: task_of(model, losses, x=text())


def _windows() -> Any:
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 8, [1, 1], [1, 2], [2, 2], num_classes=CLASSES)


def _convnext() -> Any:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    blocks = [CNBlockConfig(4, 8, 1), CNBlockConfig(8, None, 1)]
    return ConvNeXt(blocks, stochastic_depth_prob=0.4, num_classes=CLASSES)


def _listener_of_fewer_layers() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=8,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=12,
        encoder_layerdrop=0.5,
        num_mel_bins=4,
        max_source_positions=5,
    )
    return Through(
        lambda self, x: self.head(self.inner(x).last_hidden_state.mean(1)),
        inner=frozen(WhisperEncoder(config), "embed_positions"),
        head=nn.Linear(8, CLASSES),
    )


_SEPARATE = "keep buffers and trainable parameters in separate modules"
_READY = "floats [rows, 1, positions, positions]"

ENTRIES = (
    Entry(
        "gpt2_without_positions",
        _written("GPT2LMHeadModel", **DRY_GPT2),
        ("module transformer.wpe", _OTHER_ROWS),
    ),
    Entry(
        "gpt2_tied",
        _written("GPT2LMHeadModel", **{**DRY_GPT2, "tie_word_embeddings": True}),
        ("transformer.wte.weight", "lm_head.weight", "give each module its own"),
    ),
    Entry("opt", _written("OPTForCausalLM", **OPT, **UNTIED), ("embed_positions", "one tensor in")),
    Entry("t5_of_distances", _translator, ("relative_attention_bias", _OTHER_ROWS)),
    Entry(
        "bert_of_two_dimensions",
        _read_by_mask_of_two_dimensions("BertModel", **ENCODER),
        ("encoder", _READY),
    ),
    Entry(
        "llama_of_two_dimensions",
        _read_by_mask_of_two_dimensions("LlamaModel", **WIDE, **READS),
        ("encoder", _READY),
    ),
    Entry(
        "dora",
        _adapted(
            "LlamaForCausalLM",
            "LoraConfig",
            {**WIDE, **READS},
            target_modules=["q_proj"],
            use_dora=True,
        ),
        ("lora_A.default", "call it on the whole batch"),
    ),
    Entry(
        "ia3",
        _adapted(
            "LlamaForCausalLM",
            "IA3Config",
            {**WIDE, **READS},
            target_modules=["k_proj"],
            feedforward_modules=[],
        ),
        ("k_proj.ia3_l.default", "call the module"),
    ),
    Entry(
        "prompt_tuning",
        _adapted(
            "LlamaForCausalLM",
            "PromptTuningConfig",
            {**WIDE, **READS},
            task_type="CAUSAL_LM",
            num_virtual_tokens=2,
        ),
        ("prompt_encoder.default.embedding", _OTHER_ROWS),
    ),
    Entry(
        "resnet_as_it_comes",
        classified(lambda: resnet(None), 3, 16, 16),
        ("module bn1", "GroupNorm"),
    ),
    Entry("swin", classified(_windows, 3, 8, 8), ("ShiftedWindowAttention", _SEPARATE)),
    Entry(
        "convnext_of_random_depth",
        classified(_convnext, 3, 8, 8),
        ("CNBlock", "a module of their own"),
    ),
    Entry(
        "layers_left_out",
        classified(_listener_of_fewer_layers, 4, 10),
        ("inner.layers.0", "layerdrop=0"),
        random=True,
    ),
)
