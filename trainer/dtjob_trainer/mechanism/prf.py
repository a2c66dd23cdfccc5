"""The pseudo-random function under draws and noise: AES-256 in counter mode (Rules 3 and 7)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_BLOCK_BYTES = 16
_WORD_BYTES = 8
_WORDS_PER_BLOCK = _BLOCK_BYTES // _WORD_BYTES


def words(key: bytes, draw: int, first_word: int, count: int) -> npt.NDArray[np.uint64]:
    """Return words `first_word .. first_word + count - 1` of the stream of `(key, draw)`.

    Block b of the stream is AES-256 of the counter block `draw ‖ b`, both 64 bits, big endian
    (NIST SP 800-38A, counter mode over zeros); word w is bytes 8(w mod 2) to 8(w mod 2) + 7 of
    block ⌊w/2⌋, little endian. Any part of a stream equals that part of the whole.

    Parameters
    ----------
    key
        32 bytes.
    draw
        The job's charge index c, 0 <= c < 2**64. It never repeats under a key.
    first_word, count
        Which words; both at least 0.

    Returns
    -------
    ndarray[count] of uint64
    """
    if not 0 <= draw < 1 << 64:
        raise ValueError(f"draw {draw} is outside 0 .. 2**64 - 1")
    if first_word < 0 or count < 0:
        raise ValueError(f"words {first_word} .. +{count} don't exist")
    first_block, skip = divmod(first_word, _WORDS_PER_BLOCK)
    blocks = -(-(skip + count) // _WORDS_PER_BLOCK)
    counter = draw.to_bytes(8, "big") + first_block.to_bytes(8, "big")
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
    stream = encryptor.update(bytes(blocks * _BLOCK_BYTES))
    part = np.frombuffer(stream, dtype="<u8")[skip : skip + count]
    return part.astype(np.uint64, copy=False)


def words_of_blocks(key: bytes, draw: int, blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return both words of each of these blocks of the stream of `(key, draw)`: uint64[n, 2].

    Parameters
    ----------
    blocks
        int64[n], none negative; word w is in block ⌊w/2⌋.
    """
    if not 0 <= draw < 1 << 64:
        raise ValueError(f"draw {draw} is outside 0 .. 2**64 - 1")
    if blocks.size and blocks.min() < 0:
        raise ValueError(f"block {blocks.min()} doesn't exist")
    counters = np.empty((len(blocks), _WORDS_PER_BLOCK), dtype=">u8")
    counters[:, 0], counters[:, 1] = draw, blocks
    encryptor = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()  # noqa: S305
    stream = np.frombuffer(encryptor.update(counters.tobytes()), dtype="<u8")
    return stream.astype(np.uint64, copy=False).reshape(-1, _WORDS_PER_BLOCK)
