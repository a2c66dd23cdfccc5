"""Rules 4 and 21: what has no gradient for each example is refused by its cause and a remedy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from opacus.layers import DPLSTM, DPMultiheadAttention
from opacus.layers.dp_rnn import DPGRUCell, DPLSTMCell, DPRNNCell
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dtjob_trainer.preflight.task_validation import preflight
from dtjob_trainer.task import Task, TaskError
from tests.support.checkout import ROOT
from tests.support.mechanism.blocks import Hidden
from tests.support.mechanism.models import CLASSES, FEATURES, cross_entropy, make_task
from tests.support.pages import fenced

# functorch's, on the way to its refusal.
pytestmark = pytest.mark.filterwarnings(
    "ignore:There is a performance drop", "ignore:None of the inputs have requires_grad"
)


def refusal(task: Task) -> str:
    with pytest.raises(TaskError) as caught:
        preflight(task, whole=False)
    assert caught.value.reason == "ModelRefused"
    return caught.value.message


def accepted(task: Task) -> None:
    preflight(task, whole=False)


class Checkpointed(nn.Module):
    """Two layers, of which a part is checkpointed."""

    def __init__(self, part: str, reentrant: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, CLASSES)
        self.part, self.reentrant = part, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = getattr(self, self.part)
        for layer in (self.first, self.second):
            x = layer(x) if layer is not kept else self.checkpointed(layer, x)
        return x

    def checkpointed(self, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        again: torch.Tensor = checkpoint(layer, x, use_reentrant=self.reentrant)
        return again


@pytest.mark.rule(4)
@pytest.mark.parametrize("part", ["first", "second"])
def test_reentrant_checkpointing_is_refused_by_its_line(part: str) -> None:
    """At the begin of a model no gradient comes at all, later the reference can't be taken."""
    message = refusal(make_task(model=lambda: Checkpointed(part, reentrant=True)))
    assert f"activations are checkpointed at {__file__}:" in message
    assert "in checkpointed with use_reentrant=True" in message
    assert "use_reentrant=False" in message
    assert "freeze" not in message
    accepted(make_task(model=lambda: Checkpointed(part, reentrant=False)))


class Idle(Checkpointed):
    """Owns what nothing uses, beside a frozen part that is checkpointed so."""

    def __init__(self) -> None:
        super().__init__("first", reentrant=True)
        self.first.requires_grad_(False)
        self.idle = nn.Linear(2, 2)


@pytest.mark.rule(4)
def test_checkpointing_is_not_to_blame_for_what_nothing_uses() -> None:
    assert "no loss depends on the trainable parameter idle.weight" in refusal(
        make_task(model=Idle)
    )


class Free(nn.Module):
    """A layer, and a parameter beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale = nn.Linear(FEATURES, CLASSES), nn.Parameter(torch.ones(CLASSES))


class OfDict(Free):
    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        return self.layer(batch["x"]) * self.scale


class OfTwo(Free):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self.layer(x) * self.scale + 0.0 * y[:, None]


class OfName(Free):
    def forward(self, *, x: torch.Tensor) -> Any:
        return self.layer(x) * self.scale


class OutOfForward(Free):
    """A temperature, say."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)


@functools.cache
def of_the_page(file: str, name: str) -> Callable[..., nn.Module]:
    """A module of docs/writing-a-task.md, to which messages lead."""
    page = ROOT / "docs" / "writing-a-task.md"
    (text,) = [block.text for block in fenced.blocks(page) if block.name == file]
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    made: Callable[..., nn.Module] = namespace[name]
    return made


def own(*shape: int) -> nn.Module:
    return of_the_page("free.py", "Free")(*shape)


class WithOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale = nn.Linear(FEATURES, CLASSES), own(CLASSES)

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        return self.layer(batch["x"]) * self.scale(batch["x"])


def losses(call: Callable[[Any, Any], torch.Tensor]) -> Callable[[Any, Any], torch.Tensor]:
    return lambda model, batch: functional.cross_entropy(
        call(model, batch), batch["y"], reduction="none"
    )


FREE: dict[str, tuple[type[Free], Callable[[Any, Any], torch.Tensor]]] = {
    "a dict": (OfDict, lambda m, b: m(dict(b))),
    "several inputs": (OfTwo, lambda m, b: m(b["x"], b["y"])),
    "an input by name": (OfName, lambda m, b: m(x=b["x"])),
    "use in losses": (OutOfForward, lambda m, b: m(b["x"]) / m.scale),
}


@pytest.mark.rule(4)
@pytest.mark.parametrize("name", FREE)
def test_a_parameter_beside_layers_wants_a_module_of_its_own(name: str) -> None:
    model, call = FREE[name]
    message = refusal(make_task(model=model, losses=losses(call)))
    example = "def forward(self, x): return self.scale.expand(len(x), *self.scale.shape)"
    assert "put scale into a module of its own, which is called in the model's forward" in message
    assert example in message


def test_a_parameter_in_a_module_of_its_own_is_accepted() -> None:
    accepted(make_task(model=WithOwn, losses=losses(lambda m, b: m(dict(b)))))


class Attending(nn.Module):
    """A query of its own looks over the features."""

    def __init__(self, attention: Callable[..., nn.Module], query: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.query = nn.Linear(1, 4), query or own(1, 4)
        self.attention, self.head = attention(4, 2, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        seen = self.wide(x[:, :, None])
        return self.head(self.attention(self.query(seen), seen, seen)[0][:, 0])


@pytest.mark.rule(4)
def test_what_opacus_can_not_do_is_named_and_its_neighbour_is_not() -> None:
    message = refusal(make_task(model=lambda: Attending(nn.MultiheadAttention)))
    assert (
        "of module attention (MultiheadAttention); use attention made of Linear layers" in message
    )
    assert "(Free)" not in message
    assert "module of its own" not in message
    assert "positional arguments" not in message
    accepted(make_task(model=lambda: Attending(DPMultiheadAttention)))


class OfDictAttending(nn.Module):
    """Has a parameter beside its layers too, and is called with a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.within, self.scale = Attending(nn.MultiheadAttention), nn.Parameter(torch.ones(()))

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        return self.within(batch["x"]) * self.scale


@pytest.mark.rule(4)
def test_a_layer_that_will_fail_next_is_named_before_a_parameter() -> None:
    message = refusal(make_task(model=OfDictAttending, losses=losses(lambda m, b: m(dict(b)))))
    first, second = (
        message.index("use attention made of Linear layers"),
        message.index("put scale into a module"),
    )
    assert first < second
    assert "put p into" not in message


class Weighed(nn.Module):
    """A layer of two inputs, written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(FEATURES))

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> Any:
        return x * shares * self.weight


class WithWeighed(nn.Module):
    def __init__(self, weighed: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weighed, self.head = weighed, nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.weighed(x, x.softmax(1)))


class WithOwnWeight(nn.Module):
    """The same by the remedy."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = own(FEATURES)

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> Any:
        return x * shares * self.weight(x)


@pytest.mark.rule(4)
def test_a_layer_of_two_inputs_has_its_parameter_in_a_module_of_its_own() -> None:
    message = refusal(make_task(model=lambda: WithWeighed(Weighed())))
    assert "of module weighed (Weighed): TypeError" in message
    assert "put weight into a module of its own" in message
    accepted(make_task(model=lambda: WithWeighed(WithOwnWeight())))


class Encoding(nn.Module):
    """The page's encoder of the features, of which those below zero are padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.head = nn.Linear(1, 8), nn.Linear(8, CLASSES)
        self.encoder = of_the_page("encoder.py", "Encoder")(8, 2, dropout=0.1)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.encoder(self.wide(x[:, :, None]), x < 0).mean(1))


@pytest.mark.rule(4)
def test_the_encoder_of_the_page_is_accepted() -> None:
    preflight(make_task(model=Encoding))


def as_torch_names(name: str) -> str:
    for ours, of_torch in {
        "parts.": "self_attn.in_proj_",
        "out.": "self_attn.out_proj.",
        "mlp.0.": "linear1.",
        "mlp.3.": "linear2.",
    }.items():
        name = of_torch + name.removeprefix(ours) if name.startswith(ours) else name
    return name


def test_the_encoder_of_the_page_computes_what_torch_does() -> None:
    own, padding = of_the_page("encoder.py", "Encoder")(8, 2), torch.tensor([[False] * 4 + [True]])
    of_torch = nn.TransformerEncoderLayer(8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True)
    of_torch.load_state_dict({as_torch_names(name): p for name, p in own.state_dict().items()})
    x = torch.randn(3, 5, 8)
    masks = padding.expand(3, -1)
    torch.testing.assert_close(own(x, masks), of_torch(x, src_key_padding_mask=masks))
    assert own(x, torch.ones(3, 5, dtype=torch.bool)).isfinite().all()


def test_opacus_attention_is_not_torchs_as_the_page_says() -> None:
    of_torch = nn.MultiheadAttention(8, 2, batch_first=True)
    of_opacus = DPMultiheadAttention(8, 2, batch_first=True)
    of_opacus.load_state_dict(dict(of_torch.state_dict()))
    x = torch.randn(5, 5, 8)  # as many rows as positions: it takes one for the other
    assert not torch.allclose(of_torch(x, x, x)[0], of_opacus(x, x, x)[0], atol=1e-2)
    query = x[:, :1]
    torch.testing.assert_close(of_torch(query, x, x)[0], of_opacus(query, x, x)[0])
    later = torch.cat([x[:, :4], torch.randn(5, 1, 8)], 1)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    (before, _), (after, _) = (of_opacus(it, it, it, attn_mask=causal) for it in (x, later))
    assert not torch.allclose(before[:, :4], after[:, :4], atol=1e-2)


class WithPositions(nn.Module):
    """Has parameters itself, and holds torch's attention."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(FEATURES, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, dropout, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x + self.positions)


@pytest.mark.rule(4)
def test_attention_of_torch_within_a_module_that_has_parameters() -> None:
    def model(middle: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            torch.manual_seed(0)
            first, last = nn.Linear(1, 8), nn.Linear(8 * FEATURES, CLASSES)
            return nn.Sequential(nn.Unflatten(1, (-1, 1)), first, middle(), nn.Flatten(), last)

        return make

    accepted(make_task(model=model(WithPositions)))
    random = refusal(make_task(model=model(lambda: WithPositions(dropout=0.1))))
    assert "module 2 (WithPositions) has parameters of its own beside layers that draw" in random
    encoder = functools.partial(nn.TransformerEncoderLayer, 8, 2, 8, batch_first=True)
    alone = refusal(make_task(model=model(encoder)))
    assert "of module 2.self_attn (MultiheadAttention); use attention made of Linear" in alone


class Cells(nn.Module):
    """One position after the other."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        state = None
        for each in x.unbind(1):
            state = self.cell(each[:, None], *(() if state is None else (state,)))
        return self.head(state[0] if isinstance(state, tuple) else state)


CELLS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "DPLSTMCell": (nn.LSTMCell, DPLSTMCell),
    "DPGRUCell": (nn.GRUCell, DPGRUCell),
    "DPRNNCell": (nn.RNNCell, DPRNNCell),
}


@pytest.mark.rule(4)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_has_one_of_opacus_in_its_place(name: str) -> None:
    of_torch, of_opacus = CELLS[name]
    message = refusal(make_task(model=lambda: Cells(of_torch(1, 8))))
    assert f"use opacus.layers.dp_rnn.{name}, with bias=True" in message
    accepted(make_task(model=lambda: Cells(of_opacus(1, 8, bias=True))))


class Made(nn.Linear):
    """A layer as MADE has it: some of its weights are masked."""

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__(FEATURES, CLASSES)
        mask = torch.ones(CLASSES, FEATURES).tril().bool()
        self.mask: Any
        if frozen:
            self.mask = nn.Parameter(mask.float(), requires_grad=False)
        else:
            self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight * self.mask, self.bias)


@pytest.mark.rule(4)
def test_a_layer_with_a_mask_has_it_for_a_parameter_that_is_not_trained() -> None:
    message = refusal(make_task(model=lambda: nn.Sequential(Made())))
    assert "module 0 (Made)" in message
    assert "self.mask = torch.nn.Parameter(mask.float(), requires_grad=False)" in message
    accepted(make_task(model=lambda: nn.Sequential(Made(frozen=True))))


class OfPairs(nn.Module):
    """A bilinear layer, and what computes the same of products."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> Any:
        y = x[:, :2].tanh()
        if isinstance(self.layer, nn.Bilinear):
            return self.layer(x, y)
        return self.layer((x[:, :, None] * y[:, None]).flatten(1))


@pytest.mark.rule(4)
def test_a_bilinear_layer_is_a_linear_one_of_products() -> None:
    of_two, of_products = nn.Bilinear(FEATURES, 2, CLASSES), nn.Linear(FEATURES * 2, CLASSES)
    with torch.no_grad():
        of_products.weight.copy_(of_two.weight.flatten(1))
        of_products.bias.copy_(of_two.bias)
    x = torch.rand(3, FEATURES)
    assert torch.allclose(OfPairs(of_two)(x), OfPairs(of_products)(x), atol=1e-6)

    message = refusal(make_task(model=lambda: OfPairs(nn.Bilinear(FEATURES, 2, CLASSES))))
    assert "module layer (Bilinear)" in message
    assert "use torch.nn.Linear(in1_features * in2_features, out_features)" in message
    assert "(x[:, :, None] * y[:, None]).flatten(1)" in message
    accepted(make_task(model=lambda: OfPairs(nn.Linear(FEATURES * 2, CLASSES))))


class Bag(nn.Module):
    """Looks up what is in a bag, as one layer or as an embedding and its mean."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table, self.head = table, nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        looked_up = self.table((x > 0).long())
        return self.head(looked_up if looked_up.dim() == 2 else looked_up.mean(1))


@pytest.mark.rule(4)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_is_an_embedding_and_a_sum(mode: str) -> None:
    message = refusal(make_task(model=lambda: Bag(nn.EmbeddingBag(2, 4, mode=mode))))
    assert "module table (EmbeddingBag)" in message
    assert "use torch.nn.Embedding, and .sum(1), .mean(1) or .amax(1)" in message
    accepted(make_task(model=lambda: Bag(nn.Embedding(2, 4))))


class Positions(nn.Module):
    """Sums its positions up, which a recurrent layer finds in the first place or the second."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.layer = DPLSTM(1, 8, batch_first=batch_first)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        if self.layer.batch_first:
            return self.head(self.layer(x[:, :, None])[0].sum(1))
        return self.head(self.layer(x.t()[:, :, None])[0].sum(0))


@pytest.mark.rule(4)
def test_a_recurrent_layer_has_the_batch_first() -> None:
    message = refusal(make_task(model=lambda: Positions(batch_first=False)))
    assert "make it with batch_first=True, and give it [rows, positions, features]" in message
    accepted(make_task(model=lambda: Positions(batch_first=True)))


class Folded(nn.Module):
    """Passes its features through a layer one by one, as rows of their own or as they are."""

    def __init__(self, layer: nn.Module, folds: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.layer, self.folds = nn.Linear(1, 4), layer, folds
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        nodes = self.wide(x[:, :, None])
        met = self.layer(nodes.flatten(0, 1)).view_as(nodes) if self.folds else self.layer(nodes)
        return self.head(met.sum(1))


@pytest.mark.rule(4)
@pytest.mark.parametrize("layer", [lambda: nn.Linear(4, 4), lambda: nn.LayerNorm(4)])
def test_nodes_are_not_folded_into_the_rows(layer: Callable[[], nn.Module]) -> None:
    message = refusal(make_task(model=lambda: Folded(layer(), folds=True)))
    assert "module layer is called on other rows" in message
    assert "don't fold nodes or positions into the rows: Linear and LayerNorm take" in message
    assert "[rows, nodes, features]" in message
    accepted(make_task(model=lambda: Folded(layer(), folds=False)))


class Read(nn.Module):
    """Looks its features up, and adds them up."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.first = nn.Embedding(2, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.first(self.words((x > 0).long())).sum(1))


@pytest.mark.models
@pytest.mark.rule(4)
def test_lora_of_an_embedding_is_named() -> None:
    import peft

    def adapted(*names: str) -> Callable[[], nn.Module]:
        config = peft.LoraConfig(r=2, target_modules=list(names))
        return lambda: peft.get_peft_model(Read(), config)

    message = refusal(make_task(model=adapted("words", "first"), losses=cross_entropy))
    assert "leave embeddings, such as embed_tokens and wte, out of target_modules" in message
    accepted(make_task(model=adapted("first")))


@pytest.mark.models
@pytest.mark.rule(4)
def test_dora_is_named() -> None:
    import peft

    def adapted(**options: Any) -> Callable[[], nn.Module]:
        config = peft.LoraConfig(r=2, target_modules=["first"], **options)
        return lambda: peft.get_peft_model(Hidden(torch.tanh), config)

    message = refusal(make_task(model=adapted(use_dora=True), losses=cross_entropy))
    assert "DoRA passes the identity through lora_A and lora_B for the norm" in message
    assert "leave use_dora out" in message
    accepted(make_task(model=adapted()))
