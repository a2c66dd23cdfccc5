"""The group of ranks: collectives that wait for everybody, and models that agree (Rule 6)."""

from typing import Any, cast

import pytest
import torch
import torch.distributed as dist

from dtjob_trainer.checkpoint import parameter_digest
from dtjob_trainer.distributed import (
    Group,
    agreed_digest,
)
from tests.support.mechanism.layouts import run_world
from tests.support.mechanism.models import linear
from tests.support.mechanism.ranks import use_the_group


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


def test_rule_6_a_backend_that_may_drop_a_rank_is_refused(monkeypatch):
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
