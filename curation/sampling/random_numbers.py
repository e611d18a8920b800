"""Permanent random numbers: one per row, fixed by its id, a seed and a purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

ROWS_AT_A_TIME = 1 << 15  # a block of hashes stays in the cache while all characters pass


def permanent_random_numbers(
    ids: NDArray[Any] | Sequence[str] | Sequence[int], *, seed: int, purpose: str = "draw"
) -> Floats:
    """Return a uniform number for each id that never changes.

    Equal ids get equal numbers, whatever the order of the rows, the other rows, the width of the
    array, the machine or the version of numpy. Numbers of another seed or another purpose have
    nothing to do with these.

    Parameters
    ----------
    ids
        (n,) integers that fit 64 bits, or strings as numpy's fixed-width ``U``; a list is
        converted. An integer and its decimal string are different ids. numpy drops NULs at the end
        of a string, so they are no part of the id.
    seed
        Any integer.
    purpose
        What the numbers are for: two samples drawn for different purposes are independent.

    Returns
    -------
    ndarray
        (n,) float64 strictly inside (0, 1).

    Raises
    ------
    ValueError
        If the ids are not one-dimensional, or neither integers nor strings.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids: expected shape (n,), got {array.shape}")
    if len(array) == 0:
        return np.empty(0)
    if array.dtype.kind == "U":
        words = _hash_strings(array, seed, purpose)
    elif array.dtype.kind in "iu":
        multiplier, key = _keys(seed, purpose, "integers", 2)
        words = _mix(array.astype(np.uint64) * (multiplier | np.uint64(1)) + key)
    else:
        raise ValueError(f"ids: expected integers or strings (dtype U), got {array.dtype}")
    # 52 bits and a half: exact in float64, and neither 0 nor 1
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _keys(seed: int, purpose: str, kind: str, count: int) -> Words:
    """Return secret-like 64-bit words; a longer answer begins with the shorter one."""
    told = f"{kind}|{int(seed)}|{purpose}".encode()
    stream = hashlib.shake_256(told).digest(8 * count)
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def _hash_strings(ids: NDArray[np.str_], seed: int, purpose: str) -> Words:
    """Hash by the sum of characters times random odd multipliers, one multiplier a place.

    A NUL adds nothing, so the padding of a wider array changes nothing, while one inside a string
    still shifts what follows it. Two strings that differ in one character can't collide before the
    mixing; others do with probability below 2^-43 over the multipliers.
    """
    native = np.ascontiguousarray(ids, dtype=ids.dtype.newbyteorder("="))
    width = native.dtype.itemsize // 4
    keys = _keys(seed, purpose, "strings", 1 + width)
    if width == 0:
        return _mix(np.full(len(ids), keys[0]))
    codes = native.view(np.uint32).reshape(len(ids), width)
    words = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), ROWS_AT_A_TIME):
        block = codes[start : start + ROWS_AT_A_TIME]
        total = np.full(len(block), keys[0])
        for place in range(width):
            total += block[:, place] * (keys[1 + place] | np.uint64(1))
        words[start : start + ROWS_AT_A_TIME] = _mix(total)
    return words


def _mix(words: Words) -> Words:
    """Return words whose every bit depends on every bit before (splitmix64's finaliser, twice).

    Twice, because consecutive ids enter it as an arithmetic progression.
    """
    for _ in range(2):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        words = words ^ (words >> np.uint64(31))
    return words
