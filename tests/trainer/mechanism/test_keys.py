"""Rule 2: fresh keys per attempt, in memory only."""

import hashlib
import hmac
import pickle

import pytest

from dtjob_trainer.mechanism.group import Group
from dtjob_trainer.mechanism.keys import AttemptKeys, derive_keys, fresh_secret

SECRET = bytes(range(32))


def hkdf(secret, info):
    """RFC 5869 with SHA-256, no salt, one block."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


@pytest.mark.rule(2)
def test_derivation_is_the_documented_one():
    keys = derive_keys(SECRET, "uid-1", 7)
    assert keys.sampling == hkdf(SECRET, b"dtjob/1/sampling/uid-1/7")
    assert keys.noise == hkdf(SECRET, b"dtjob/1/noise/uid-1/7")


@pytest.mark.rule(2)
def test_no_key_repeats_over_attempts_jobs_and_purposes():
    keys = [derive_keys(SECRET, uid, attempt) for uid in ("a", "b") for attempt in range(50)]
    assert len({k for pair in keys for k in (pair.sampling, pair.noise)}) == 200


@pytest.mark.rule(2)
def test_every_attempt_draws_a_new_secret():
    assert len({fresh_secret(Group()) for _ in range(100)}) == 100


@pytest.mark.rule(2)
def test_keys_are_neither_shown_nor_written():
    keys = derive_keys(SECRET, "uid", 1)
    assert keys.noise.hex() not in repr(keys)
    assert repr(keys.noise) not in repr(keys)
    with pytest.raises(TypeError, match="memory"):
        pickle.dumps(keys)


def test_wrong_lengths_and_equal_keys_are_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        derive_keys(b"short", "uid", 1)
    with pytest.raises(ValueError, match="32 bytes"):
        AttemptKeys(sampling=b"", noise=SECRET)
    with pytest.raises(ValueError, match="differ"):
        AttemptKeys(sampling=SECRET, noise=SECRET)
