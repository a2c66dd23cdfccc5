"""Models of Hugging Face's transformers, of a few hidden units, from their configurations.

Where a padding mask of two dimensions is given, they ask whether it masks anything at all: a
question to all rows. A ready mask of four dimensions is taken as it is; `adapted` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dtjob_trainer.task import Task
from tests.support.zoo.entry import Entry
from tests.support.zoo.making import (
    CLASSES,
    WORDS,
    Batch,
    Through,
    cross_entropy,
    features,
    kept,
    label,
    next_words,
    task_of,
    text,
)

Config = dict[str, Any]

_WIDTH, _SIDE, _PATCH = 8, 8, 4
_SMALL: Config = {"hidden_size": _WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
WIDE: Config = {**_SMALL, "intermediate_size": 12}
READS: Config = {"vocab_size": WORDS, "max_position_embeddings": 16}
_DRY: Config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_SEES: Config = {
    "image_size": _SIDE,
    "patch_size": _PATCH,
    "num_channels": 1,
    "num_labels": CLASSES,
}
_KEPT_OUT = torch.finfo(torch.float32).min / 2


def made(name: str, **config: Any) -> nn.Module:
    """Make a model by its class's name, with a configuration of small numbers."""
    import transformers

    kind = getattr(transformers, name)
    options = {"add_pooling_layer": False} if config.pop("without_pooler", False) else {}
    model: nn.Module = kind(kind.config_class(**config), **options)
    return model


def adapted(kept: torch.Tensor) -> torch.Tensor:
    """Return the float mask [rows, 1, T, T] of a padding mask [rows, T]."""
    length = kept.shape[1]
    seen = kept.bool()[:, None, None, :].expand(-1, 1, length, length)
    return torch.zeros(seen.shape, dtype=torch.get_default_dtype()).masked_fill(~seen, _KEPT_OUT)


def causal(kept: torch.Tensor) -> torch.Tensor:
    """Return the same for a model that looks back only."""
    later = torch.ones(kept.shape[1], kept.shape[1]).triu(1).bool()
    return adapted(kept).masked_fill(later, _KEPT_OUT)


def frozen(model: nn.Module, *parts: str) -> nn.Module:
    """Return the model with these parameters frozen, by parts of their names."""
    for name, p in model.named_parameters():
        if any(part in name for part in parts):
            p.requires_grad_(False)
    return model


def untied(model: Any) -> nn.Module:
    """Return a T5 whose encoder and decoder have words of their own."""
    for side in (model.encoder, model.decoder):
        side.embed_tokens = nn.Embedding(WORDS, _WIDTH)
    return frozen(model, "shared")


def reader(
    name: str, mask: Callable[[torch.Tensor], torch.Tensor] = adapted, **config: Any
) -> Callable[[], Task]:
    """Makes the task of an encoder that reads a padded text, by a ready mask."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        positions = torch.arange(words.shape[1]).expand(len(words), -1)
        seen = model.encoder(
            words, position_ids=positions, attention_mask=mask(batch["kept"])
        ).last_hidden_state
        logits = model.head(seen[:, 0])
        return nn.functional.cross_entropy(logits, batch["y"], reduction="none")

    def model() -> nn.Module:
        encoder = frozen(made(name, **config), "pooler")
        return nn.ModuleDict({"encoder": encoder, "head": nn.Linear(_WIDTH, CLASSES)})

    return lambda: task_of(model, losses, x=text(), kept=kept(), y=label())


def writer(name: str, *without: str, **config: Any) -> Callable[[], Task]:
    """Makes the task of a language model that has no padding, with positions for each row."""

    def losses(model: Any, batch: Batch) -> Any:
        words = batch["x"]
        positions = torch.arange(words.shape[1]).expand(len(words), -1)
        found = model(input_ids=words, position_ids=positions, use_cache=False)
        return next_words(found.logits, words)

    return lambda: task_of(lambda: frozen(made(name, **config), *without), losses, x=text())


def viewer(name: str, *without: str, **config: Any) -> Callable[[], Task]:
    """Makes the task of a classifier of images, with some of its parameters frozen."""

    def model() -> nn.Module:
        inner = frozen(made(name, **config), *without)
        return Through(lambda self, x: self.inner(x).logits, inner=inner)

    return lambda: task_of(model, cross_entropy, x=features(1, _SIDE, _SIDE), y=label())


_GPT2: Config = {
    "n_embd": _WIDTH,
    "n_layer": 1,
    "n_head": 2,
    "vocab_size": WORDS,
    "n_positions": 16,
}
_GPT2_DRY: Config = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
UNTIED: Config = {"tie_word_embeddings": False}


_GPT2_WET: Config = {**_GPT2, **UNTIED}
DRY_GPT2: Config = {**_GPT2_WET, **_GPT2_DRY}
ENCODER: Config = {**WIDE, **READS, **_DRY}
_SHARED_KEYS: Config = {**WIDE, **READS, "num_key_value_heads": 1}
_BLOOM: Config = {"hidden_size": _WIDTH, "n_layer": 1, "n_head": 2, "vocab_size": WORDS}
_DISTILBERT: Config = {
    "vocab_size": WORDS,
    "max_position_embeddings": 16,
    "n_layers": 1,
    "n_heads": 2,
    "dim": _WIDTH,
    "hidden_dim": 12,
}
OPT: Config = {**_SMALL, **READS, "ffn_dim": 12, "word_embed_proj_dim": _WIDTH, "dropout": 0.0}
T5: Config = {
    "d_model": _WIDTH,
    "d_ff": 12,
    "d_kv": 4,
    "num_layers": 1,
    "num_heads": 2,
    "vocab_size": WORDS,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
    **UNTIED,
}
_CONVNEXT: Config = {
    "num_channels": 1,
    "num_labels": CLASSES,
    "hidden_sizes": [4, 8],
    "depths": [1, 1],
    "num_stages": 2,
    "patch_size": 2,
}


def _translator() -> Task:
    """T5, whose decoder begins with a word of its own."""

    def losses(model: Any, batch: Batch) -> Any:
        words, translation = batch["x"], batch["translation"]
        found = model(
            input_ids=words,
            attention_mask=adapted(batch["kept"]),
            decoder_input_ids=translation,
            decoder_attention_mask=causal(torch.ones_like(translation)),
            use_cache=False,
        )
        return next_words(found.logits, translation)

    def model() -> nn.Module:
        whole = made("T5ForConditionalGeneration", **T5)
        return frozen(untied(whole), "relative_attention_bias")

    return task_of(
        model,
        losses,
        x=text(),
        kept=kept(),
        translation=text(),
    )


def _listener() -> Task:
    """Whisper's encoder."""

    def model() -> nn.Module:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        config = WhisperConfig(
            d_model=_WIDTH,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=12,
            num_mel_bins=4,
            max_source_positions=5,
            dropout=0.0,
        )
        return Through(
            lambda self, x: self.head(self.inner(x).last_hidden_state.mean(1)),
            inner=frozen(WhisperEncoder(config), "embed_positions"),
            head=nn.Linear(_WIDTH, CLASSES),
        )

    return task_of(model, cross_entropy, x=features(4, 10), y=label())


ENTRIES = (
    Entry("gpt2", writer("GPT2LMHeadModel", **DRY_GPT2)),
    Entry("gpt2_dropout", writer("GPT2LMHeadModel", **_GPT2_WET), random=True),
    Entry("bert", reader("BertModel", **ENCODER)),
    Entry("bert_dropout", reader("BertModel", **WIDE, **READS), random=True),
    Entry("roberta", reader("RobertaModel", **ENCODER)),
    Entry("electra", reader("ElectraModel", **ENCODER, embedding_size=_WIDTH)),
    Entry("albert", reader("AlbertModel", **ENCODER, embedding_size=_WIDTH)),
    Entry(
        "distilbert",
        reader("DistilBertModel", **_DISTILBERT, dropout=0.0, attention_dropout=0.0),
    ),
    Entry("llama", writer("LlamaForCausalLM", **WIDE, **READS)),
    Entry("llama_padded", reader("LlamaModel", causal, **WIDE, **READS)),
    Entry("mistral", writer("MistralForCausalLM", **_SHARED_KEYS)),
    Entry("qwen2", writer("Qwen2ForCausalLM", **_SHARED_KEYS, **UNTIED)),
    Entry("phi", writer("PhiForCausalLM", **WIDE, **READS)),
    Entry("gpt_neox", writer("GPTNeoXForCausalLM", **WIDE, **READS, **UNTIED)),
    Entry("t5", _translator),
    Entry("whisper_encoder", _listener),
    Entry("vit", viewer("ViTForImageClassification", **WIDE, **_SEES, **_DRY)),
    Entry("deit", viewer("DeiTForImageClassification", **WIDE, **_SEES, **_DRY)),
    Entry("dinov2", viewer("Dinov2ForImageClassification", "mask_token", **_SMALL, **_SEES)),
    Entry("convnext_of_hub", viewer("ConvNextForImageClassification", **_CONVNEXT)),
)
