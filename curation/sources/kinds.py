"""The type of a column of JSON values, found out while they pass by."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

import polars as pl

# Deeper objects, and those used as dictionaries with keys of their own, are kept as text.
_MOST_DEPTH = 16
_MOST_FIELDS = 256

_ALONE: dict[str, Any] = {
    "int": pl.Int64,
    "float": pl.Float64,
    "bool": pl.Boolean,
    "str": pl.String,
}


class Kinds:
    """What values a column has had so far.

    Numbers are one type, and so are lists of numbers. Anything else that is mixed is text, as are
    whole numbers beyond 64 bits: as floats, two of them could become the same.
    """

    __slots__ = ("_depth", "_fields", "_inner", "_leaves")

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._leaves: set[str] = set()
        self._inner: Kinds | None = None
        self._fields: dict[str, Kinds] = {}

    def see(self, values: list[Any]) -> None:
        """Take note of values; null says nothing."""
        names = {kind.__name__ for kind in set(map(type, values))}
        names.discard("NoneType")
        self._leaves |= names
        if "int" in names:
            whole = [v for v in values if type(v) is int]
            if min(whole) < -(2**63) or max(whole) >= 2**63:
                self._leaves.add("large")
        if "list" in names:
            self._see_lists([v for v in values if type(v) is list])
        if "dict" in names:
            self._see_objects([v for v in values if type(v) is dict])

    def _see_lists(self, lists: list[list[Any]]) -> None:
        if self._depth >= _MOST_DEPTH:
            self._leaves.add("deep")
            return
        if self._inner is None:
            self._inner = Kinds(self._depth + 1)
        self._inner.see(list(chain.from_iterable(lists)))

    def _see_objects(self, objects: list[dict[str, Any]]) -> None:
        if self._depth >= _MOST_DEPTH or "deep" in self._leaves:
            self._leaves.add("deep")
            return
        for name, values in by_name(objects).items():
            if name not in self._fields and len(self._fields) == _MOST_FIELDS:
                self._leaves.add("deep")
                return
            self._fields.setdefault(name, Kinds(self._depth + 1)).see(values)

    def dtype(self) -> Any:
        """Return the type that holds all values as they are; None if only text does."""
        if not self._leaves:
            return pl.Null
        if self._leaves == {"int", "float"}:
            return pl.Float64
        if len(self._leaves) > 1:
            return None
        (only,) = self._leaves
        if only == "list":
            inner = self._inner.dtype() if self._inner else pl.Null
            return None if inner is None else pl.List(inner)
        if only == "dict":
            inside = {name: kinds.dtype() for name, kinds in self._fields.items()}
            if not inside or None in inside.values():
                return None
            return pl.Struct(inside)
        return _ALONE.get(only)


def by_name(objects: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each field, of the objects that have it."""
    found: dict[str, list[Any]] = {}
    for values in objects:
        for name, value in values.items():
            if name in found:
                found[name].append(value)
            else:
                found[name] = [value]
    return found


def column(name: str, values: list[Any], dtype: Any) -> pl.Series:
    """Return values as a column of the type `Kinds.dtype` gave for all of them."""
    if dtype is None:
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        return pl.Series(name, texts, dtype=pl.String)
    # Not strict: whole numbers become floats where the column has both.
    return pl.Series(name, values, dtype=dtype, strict=False)
