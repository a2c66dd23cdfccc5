"""Rules 6 and 21: no write to the model goes unseen, by whatever way."""

import pytest
import torch

from dtjob_trainer.mechanism.watch import untouched
from dtjob_trainer.mechanism.watch.untouched import ModelWritten, Untouched, checksum

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]


@pytest.mark.rule(21)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.complex64], ids=str)
def test_a_checksum_sees_each_bit_of_each_entry(dtype, monkeypatch):
    monkeypatch.setattr(untouched, "_CHUNK", 4)
    tensor = torch.arange(11).to(dtype)
    bits = tensor.view(torch.uint8)
    before = checksum(tensor)
    for place in range(len(bits)):
        for bit in range(8 if dtype is not torch.bool else 1):
            bits[place] ^= 1 << bit
            assert checksum(tensor) != before
            bits[place] ^= 1 << bit


@pytest.mark.rule(21)
def test_a_checksum_sees_exchanged_rows_and_no_layout():
    tensor = torch.arange(12.0).reshape(3, 4)
    assert checksum(tensor[[1, 0, 2]]) != checksum(tensor)
    assert checksum(tensor.t().contiguous().t()) == checksum(tensor)
    assert checksum(torch.empty(0)) == 0


def block():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[1].requires_grad_(False)
    model.register_buffer("seen", torch.zeros(2))
    return model


def add(tensor):
    with torch.no_grad():
        tensor.add_(1.0)


WRITES = {
    "in place": add,
    ".data": lambda tensor: tensor.data.add_(1.0),
    "numpy": lambda tensor: tensor.detach().numpy().fill(9.0),
    "one bit": lambda tensor: tensor.detach().view(torch.int32).bitwise_xor_(1),
}


@pytest.mark.rule(6, 21)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("name", ["0.bias", "seen"])
def test_a_write_in_a_step_is_seen(name, write):
    model = block()
    watch = Untouched(model)
    watch.begin()
    watch.check()
    write(dict([*model.named_parameters(), *model.named_buffers()])[name])
    with pytest.raises(ModelWritten) as caught:
        watch.check()
    assert caught.value.tensor == name


@pytest.mark.rule(6, 21)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_to_what_is_frozen_is_seen_before_it_is_published(write):
    model = block()
    watch = Untouched(model)
    watch.check_frozen()
    write(model[1].weight)
    with pytest.raises(ModelWritten, match="module 1 changes weight"):
        watch.check_frozen()


@pytest.mark.rule(6, 21)
def test_what_the_optimizer_writes_between_steps_is_its_own():
    model = block()
    watch = Untouched(model)
    add(model[0].bias)
    watch.begin()
    watch.check()


@pytest.mark.rule(6, 21)
def test_an_exchanged_parameter_is_seen():
    model = block()
    watch = Untouched(model)
    model[0].bias = torch.nn.Parameter(model[0].bias.detach().clone())
    with pytest.raises(ModelWritten, match="changes bias"):
        watch.check()
