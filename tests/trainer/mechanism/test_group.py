"""The group of ranks: collectives that wait for everybody, and models that agree (Rule 6)."""

from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from dtjob_api.wire.gang import EndKind
from dtjob_trainer.mechanism.digest import parameter_digest
from dtjob_trainer.mechanism.group import (
    CollectiveFailed,
    Group,
    agreed_digest,
    share_parameters,
)
from dtjob_trainer.rank.failures import Failures, Phase
from tests.support.mechanism.layouts import run_world
from tests.support.mechanism.models import linear
from tests.support.mechanism.ranks import leave_rank_0_alone, use_the_group


@pytest.fixture
def left_by_peer(monkeypatch):
    """Rank 0 of two, after the other has gone, and what its collectives raise: it can be set."""
    raised = [RuntimeError("Connection closed by peer")]

    def break_off(*_, **__):
        raise raised[0]

    for name, found in (("backend", "gloo"), ("rank", 0), ("world_size", 2)):
        monkeypatch.setattr(dist, f"get_{name}", lambda _, found=found: found)
    for name in ("reduce_scatter_tensor", "all_gather_into_tensor", "broadcast"):
        monkeypatch.setattr(dist, name, break_off)
    return Group(process_group=cast(dist.ProcessGroup, object())), raised


COLLECTIVES = {
    "reduce_scatter": lambda group: group.reduce_scatter(torch.zeros(4)),
    "all_gather": lambda group: group.all_gather(torch.zeros(2)),
    "broadcast_": lambda group: group.broadcast_(torch.zeros(2)),
    "broadcast_bytes": lambda group: group.broadcast_bytes(b"abc", 3),
    "broadcast_ints": lambda group: group.broadcast_ints([1]),
    "gather_bytes": lambda group: group.gather_bytes(b"abc"),
    "share_parameters": lambda group: share_parameters(linear(), group),
    "agreed_digest": lambda group: agreed_digest(linear(), group),
}


@pytest.mark.parametrize("collective", COLLECTIVES.values(), ids=COLLECTIVES)
def test_collective_that_breaks_off_says_so_by_its_type(left_by_peer, collective):
    group, raised = left_by_peer
    with pytest.raises(CollectiveFailed, match="RuntimeError: Connection closed by peer") as caught:
        collective(group)
    assert caught.value.__cause__ is raised[0]


@pytest.mark.parametrize("collective", COLLECTIVES.values(), ids=COLLECTIVES)
@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()],
    ids=["memory", "GPU memory", "interrupt"],
)
def test_want_of_memory_and_a_signal_are_no_lost_peer(left_by_peer, collective, error):
    group, raised = left_by_peer
    raised[0] = error
    with pytest.raises(type(error)) as caught:
        collective(group)
    assert caught.value is error


def test_lost_peer_is_tried_again_wherever_its_module_lies(left_by_peer, monkeypatch):
    for method in (Group.broadcast_ints, Group.broadcast_):
        code = method.__code__.replace(co_filename="elsewhere/collectives.py")
        monkeypatch.setattr(method, "__code__", code)
    with pytest.raises(RuntimeError) as caught:
        left_by_peer[0].broadcast_ints([1])
    kind, *_ = Failures("task:task", 0, shows_private_data=False).explain(
        caught.value, Phase.PRIVATE
    )
    assert kind is EndKind.CRASHED


def test_rank_that_is_alone_loses_no_peer(monkeypatch):
    """Such as a label that a GPU refuses: the host hears of it where it next waits."""

    def refuse(*_, **__):
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch, "tensor", refuse)
    with pytest.raises(torch.AcceleratorError):
        Group().broadcast_ints([1])


def test_mistake_of_the_caller_is_no_lost_peer(left_by_peer):
    with pytest.raises(ValueError, match="divide"):
        left_by_peer[0].reduce_scatter(torch.zeros(3))
    with pytest.raises(ValueError, match="3 bytes"):
        left_by_peer[0].broadcast_bytes(b"ab", 3)


def test_a_world_of_one_needs_no_process_group():
    group = Group()
    flat = torch.arange(4.0)
    assert torch.equal(group.reduce_scatter(flat), flat)
    assert group.reduce_scatter(flat) is not flat
    assert torch.equal(group.all_gather(flat), flat)
    assert group.broadcast_ints([3, -(2**62)]) == [3, -(2**62)]
    assert group.broadcast_bytes(b"abc", 3) == b"abc"
    assert group.gather_bytes(b"abc") == [b"abc"]
    assert agreed_digest(linear(), group) == parameter_digest(linear().state_dict())
    group.close()


def test_rank_0_must_give_what_it_broadcasts():
    with pytest.raises(ValueError, match="3 bytes"):
        Group().broadcast_bytes(None, 3)
    with pytest.raises(ValueError, match="3 bytes"):
        Group().broadcast_bytes(b"ab", 3)


@pytest.mark.rule(6)
def test_a_backend_that_may_drop_a_rank_is_refused(monkeypatch):
    monkeypatch.setattr(dist, "get_backend", lambda _: "elastic")
    with pytest.raises(ValueError, match="without every rank"):
        Group(process_group=cast(Any, object()))


def test_the_digest_sees_every_bit_name_and_shape():
    model, digests = linear(), set()
    digests.add(parameter_digest(model.state_dict()))
    with torch.no_grad():
        model.bias[1] = torch.nextafter(model.bias[1], torch.tensor(1.0))
    digests.add(parameter_digest(model.state_dict()))
    digests.add(parameter_digest(torch.nn.Sequential(linear()).state_dict()))
    model.register_buffer("b", torch.zeros(2))
    digests.add(parameter_digest(model.state_dict()))
    model.b = torch.zeros(1, 2)
    digests.add(parameter_digest(model.state_dict()))
    assert len(digests) == 5


@pytest.mark.rule(3, 6)
@pytest.mark.processes
def test_three_ranks_together():
    ranks = run_world(use_the_group, 3)
    sums = [3.0 * i + 3 for i in range(6)]
    assert [rank["scattered"] for rank in ranks] == [sums[0:2], sums[2:4], sums[4:6]]
    for rank in ranks:
        assert rank["gathered"] == [0.0, 0.5, 1.0, 0.5, 2.0, 0.5]
        assert rank["ints"] == [7, -1]
        assert rank["bytes"] == [b"\0\xff", b"\1\xff", b"\2\xff"]
        assert rank["secret"] == ranks[0]["secret"] != rank["again"]
        assert rank["digest"] == ranks[0]["digest"]


@pytest.mark.processes
def test_peer_that_is_gone_is_known_by_the_type():
    message, _ = run_world(leave_rank_0_alone, 2)
    assert message.startswith("RuntimeError: ")
