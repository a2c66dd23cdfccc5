"""Rule 2: fresh keys per attempt, in memory only."""

import hashlib
import hmac
import itertools
import pickle
import random
import struct

import numpy as np
import pytest
import torch

from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import AttemptKeys, derive_keys, fresh_secret

SECRET = bytes(range(32))
PURPOSES = ("sampling", "noise", "order", "coins", "loading", "looks")  # by number, from 1
# Computed with the standard library's HMAC alone: the first eight bytes of each key.
VECTORS = {
    "sampling": "48d4fa6af016484b",
    "noise": "ea8cb2743b253d9b",
    "order": "597a16164f25328e",
    "coins": "c8ad698e4bd0166f",
    "loading": "2b590c1374bc77d0",
    "looks": "13707195c3e109b2",
}


def hkdf(secret, info):
    """RFC 5869 with SHA-256, no salt, one block."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


@pytest.mark.rule(2)
def test_derivation_is_the_documented_one():
    keys = derive_keys(SECRET, "uid-1", 7)
    for purpose, name in enumerate(PURPOSES, start=1):
        info = b"dtjob" + struct.pack(">QQQ", 2, purpose, 7) + b"uid-1"
        assert getattr(keys, name) == hkdf(SECRET, info)


@pytest.mark.rule(2)
def test_vectors_of_the_format():
    keys = derive_keys(SECRET, "uid-1", 7)
    assert {name: getattr(keys, name).hex()[:16] for name in PURPOSES} == VECTORS


@pytest.mark.rule(2)
def test_no_key_repeats_over_attempts_jobs_and_purposes():
    keys = [derive_keys(SECRET, uid, attempt) for uid in ("a", "b") for attempt in range(50)]
    assert len({getattr(each, name) for each in keys for name in PURPOSES}) == 600


@pytest.mark.rule(2)
def test_every_attempt_draws_a_new_secret():
    assert len({fresh_secret(Group()) for _ in range(100)}) == 100


@pytest.mark.rule(2)
def test_a_secret_comes_from_no_generator_that_can_be_set():
    def secret():
        random.seed(7)
        np.random.seed(7)
        torch.manual_seed(7)
        return fresh_secret(Group())

    assert secret() != secret()


@pytest.mark.rule(2)
def test_keys_are_neither_shown_nor_written():
    keys = derive_keys(SECRET, "uid", 1)
    for name in PURPOSES:
        key = getattr(keys, name)
        assert key.hex() not in repr(keys)
        assert repr(key) not in repr(keys)
    with pytest.raises(TypeError, match="memory"):
        pickle.dumps(keys)


def test_wrong_lengths_and_equal_keys_are_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        derive_keys(b"short", "uid", 1)
    keys = {name: bytes([number]) * 32 for number, name in enumerate(PURPOSES)}
    AttemptKeys(**keys)
    for name, other in itertools.permutations(PURPOSES, 2):
        with pytest.raises(ValueError, match="32 bytes"):
            AttemptKeys(**keys | {name: b""})
        with pytest.raises(ValueError, match="two purposes"):
            AttemptKeys(**keys | {name: keys[other]})
