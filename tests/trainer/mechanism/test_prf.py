"""The pseudo-random function against AES block by block."""

import numpy as np
import pytest

from dtjob_trainer.mechanism.prf import words, words_of_blocks
from tests.support.mechanism import reference

KEY = bytes(range(32))


@pytest.mark.rule(7)
def test_vectors_of_the_format():
    # Computed block by block with the cipher alone: AES-256-ECB of draw ‖ block, big endian.
    assert [hex(w) for w in words(KEY, 0, 0, 3)] == [
        "0xd09f492ab60090f2",
        "0x80772edd6a9af3a9",
        "0xe59fb94aae765df0",
    ]
    assert [hex(w) for w in words(KEY, 2**40 + 7, 5, 2)] == [
        "0x3606207263b847da",
        "0x7cd8583116a4fc10",
    ]


@pytest.mark.parametrize(("first", "count"), [(0, 0), (0, 1), (1, 1), (1, 2), (3, 6), (7, 3)])
def test_any_part_equals_that_part_of_the_whole(first, count):
    whole = words(KEY, 12, 0, 20)
    assert np.array_equal(words(KEY, 12, first, count), whole[first : first + count])
    assert whole.tolist() == [reference.word(KEY, 12, i) for i in range(20)]


def test_streams_of_draws_and_keys_differ():
    one = set(words(KEY, 1, 0, 1000).tolist())
    assert not one & set(words(KEY, 2, 0, 1000).tolist())
    assert not one & set(words(bytes(32), 1, 0, 1000).tolist())


@pytest.mark.parametrize("arguments", [(-1, 0, 1), (2**64, 0, 1), (0, -1, 1), (0, 0, -1)])
def test_what_does_not_exist_is_refused(arguments):
    with pytest.raises(ValueError, match=r"draw|words"):
        words(KEY, *arguments)


def test_blocks_are_those_of_the_stream():
    blocks = np.array([7, 0, 2**40, 7, 2**62])
    found = words_of_blocks(KEY, 12, blocks)
    assert found.tolist() == [words(KEY, 12, 2 * b, 2).tolist() for b in blocks.tolist()]
    assert words_of_blocks(KEY, 12, blocks[:0]).shape == (0, 2)
    for draw, bad in ((-1, 0), (2**64, 0), (0, -1)):
        with pytest.raises(ValueError, match=r"draw|block"):
            words_of_blocks(KEY, draw, np.array([bad]))
