"""Which models of other houses ask for values of a batch, and with what mask not (Rule 21)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
import transformers
from opacus.layers import DPLSTM, DPMultiheadAttention
from torch import nn
from torchvision.models.convnext import CNBlockConfig

from dtjob_trainer.mechanism.watch.structure import ValueAsked, looked_at
from tests.support.checkout import ROOT
from tests.support.pages import fenced

pytestmark = pytest.mark.models

ROWS, POSITIONS, WORDS = 3, 6, 20
Batch = dict[str, torch.Tensor]
Call = Callable[[nn.Module, Batch], Any]
TRANSFORMER: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(ROWS, POSITIONS, dtype=torch.int64)
    mask[0, 3:] = 0
    return {
        "ids": torch.randint(1, WORDS, (ROWS, POSITIONS), generator=generator),
        "mask": mask,
        "x": torch.rand(ROWS, POSITIONS, 4, generator=generator),
        "image": torch.rand(ROWS, 3, 32, 32, generator=generator),
    }


@functools.cache
def ready_mask() -> Callable[..., torch.Tensor]:
    """The one of docs/writing-a-task.md."""
    (text,) = [
        block.text
        for block in fenced.blocks(ROOT / "docs" / "writing-a-task.md")
        if block.name == "masks.py"
    ]
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    made: Callable[..., torch.Tensor] = namespace["ready_mask"]
    return made


def looked(model: nn.Module, call: Call) -> torch.Tensor:
    given = batch()
    with looked_at(model, given):
        result: torch.Tensor = call(model, given)
        torch.autograd.backward(result.sum())
    return result.detach()


def bert() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**TRANSFORMER))


def distilbert() -> nn.Module:
    config = transformers.DistilBertConfig(
        vocab_size=WORDS, dim=8, n_layers=2, n_heads=2, hidden_dim=16
    )
    return transformers.DistilBertModel(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=8, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2Model(config)


def llama() -> nn.Module:
    return transformers.LlamaModel(transformers.LlamaConfig(**TRANSFORMER))


def t5() -> nn.Module:
    config = transformers.T5Config(  # type: ignore[call-arg]
        vocab_size=WORDS, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    return transformers.T5Model(config)


def encoded(model: nn.Module, b: Batch, mask: torch.Tensor) -> torch.Tensor:
    more = {"decoder_input_ids": b["ids"]} if isinstance(model, transformers.T5Model) else {}
    states: torch.Tensor = model(input_ids=b["ids"], attention_mask=mask, **more)[0]
    return states


CAUSAL = {"gpt2", "llama"}
MASKED = {"bert": bert, "distilbert": distilbert, "gpt2": gpt2, "llama": llama, "t5": t5}


@pytest.mark.rule(21)
@pytest.mark.parametrize("name", MASKED)
def test_a_mask_of_two_dimensions_is_asked_and_a_ready_one_is_not(name: str) -> None:
    torch.manual_seed(0)
    model = MASKED[name]().eval()
    with pytest.raises(ValueAsked, match=r"ready attention mask of floats") as caught:
        looked(model, lambda m, b: encoded(m, b, b["mask"]))
    assert f"({type(model).__name__.removesuffix('Model')}" in str(caught.value)
    given = batch()
    ready = ready_mask()(given["mask"], causal=name in CAUSAL)
    found = looked(model, lambda m, b: encoded(m, b, ready))
    expected = encoded(model, given, given["mask"]).detach()
    seen = given["mask"].bool()
    torch.testing.assert_close(found[seen], expected[seen])


@pytest.mark.rule(21)
def test_padding_that_is_sought_where_no_mask_is_given_wants_a_ready_one() -> None:
    """transformers warns of it; so it asks whether the padding's word is in the batch."""
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=8, n_layer=1, n_head=2, pad_token_id=0, eos_token_id=2
    )
    model = transformers.GPT2Model(config)
    with pytest.raises(ValueAsked, match=r"the operator in reads them.* ready attention mask of"):
        looked(model, lambda m, b: m(input_ids=b["ids"])[0])
    ready = ready_mask()(batch()["mask"], causal=True)
    assert looked(model, lambda m, b: encoded(m, b, ready)).isfinite().all()


def convnext() -> nn.Module:
    blocks = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    made: nn.Module = torchvision.models.ConvNeXt(blocks, num_classes=3)
    return made


def vit() -> nn.Module:
    sizes = {name: TRANSFORMER[name] for name in TRANSFORMER if "_token_" not in name}
    del sizes["vocab_size"]
    return transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=16, **sizes))


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1)


CLEAN: dict[str, tuple[Callable[[], nn.Module], Call]] = {
    "gpt2 without a mask": (gpt2, lambda m, b: m(input_ids=b["ids"])[0]),
    "vit": (vit, lambda m, b: m(pixel_values=b["image"])[0]),
    "convnext": (convnext, lambda m, b: m(b["image"])),
    "DPLSTM": (lambda: DPLSTM(4, 5, batch_first=True), lambda m, b: m(b["x"])[0]),
    "DPMultiheadAttention": (
        lambda: DPMultiheadAttention(4, 2, batch_first=True),
        lambda m, b: m(b["x"], b["x"], b["x"])[0],
    ),
    "TransformerEncoder": (
        encoder,
        lambda m, b: m(b["x"], src_key_padding_mask=b["mask"] == 0),
    ),
}


@pytest.mark.parametrize("name", CLEAN)
def test_these_ask_nothing(name: str) -> None:
    make, call = CLEAN[name]
    assert looked(make(), call).isfinite().all()


class Asking(nn.Module):
    """Asks, in code that torch.compile has seen or not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.layer(x)
        return hidden if hidden.sum() > 0 else -hidden


class CompilesLate(Asking):
    """Compiles its forward when it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.compile(super().forward, backend="eager")(x)
        return result


@pytest.mark.rule(21)
@pytest.mark.parametrize("called", [False, True])
def test_compiled_code_runs_eagerly_while_one_looks(called: bool) -> None:
    model: Any = torch.compile(Asking(), backend="eager")
    if called:
        model(batch()["x"])
    for asking in (model, CompilesLate()):
        with pytest.raises(ValueAsked, match=r"if or bool\(\) reads them"):
            looked(asking, lambda m, b: m(b["x"]))


@pytest.mark.rule(21)
def test_nothing_that_was_compiled_runs_while_one_looks() -> None:
    """What a compiler made of an operator asks within itself, where nobody sees it."""
    runs = []

    def backend(module: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            runs.append(1)
            return module.forward(*args)

        return run

    model: Any = torch.compile(nn.Linear(4, 4), backend=backend)
    model(batch()["x"])
    assert len(runs) == 1
    looked(model, lambda m, b: m(b["x"]))
    assert len(runs) == 1


@pytest.mark.rule(21)
def test_cond_is_refused() -> None:
    def call(m: nn.Module, b: Batch) -> Any:
        x = m(b["x"])
        return torch.cond(x.sum() > 0, x.clone, lambda: -x)

    with pytest.raises(ValueAsked, match=r"torch\.where"):
        looked(nn.Linear(4, 4), call)
