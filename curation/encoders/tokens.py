"""Texts to token ids, a block at a time and one block ahead of the model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import polars as pl

from curation.encoders.batches import Tokens

BLOCK = 8192
"""Texts tokenised at a time; token ids are kept as int32, an eighth of a list's size."""

CHARACTERS_PER_TOKEN = 200
"""How much of a long text is tokenised at first, per token kept: a text of 10 MB takes 25 s."""


class Tokenizer:
    """A tokenizer of transformers, cut at `max_length` tokens.

    Where there is a backend in Rust it is called directly: it works on all processors, lets other
    threads run meanwhile, and skips offsets and masks, which nobody reads here.

    Parameters
    ----------
    tokenizer
        A ``PreTrainedTokenizerBase``. Its truncation and padding are set here for good.
    max_length : int
        Tokens kept of a text, special ones counted.
    special : bool
        Whether special tokens (``[CLS]``, ``[SEP]``) are added.
    """

    def __init__(self, tokenizer: Any, max_length: int, *, special: bool = True) -> None:
        self.pad = int(tokenizer.pad_token_id or 0)
        self._tokenizer = tokenizer
        self._most = max_length
        self._special = special
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            side = getattr(tokenizer, "truncation_side", "right")
            self._backend.enable_truncation(max_length, direction=side)
            self._backend.no_padding()

    def blocks(self, texts: pl.Series) -> Iterator[tuple[int, Tokens]]:
        """Yield (first row, tokens) of blocks of (n,) strings, the next being made meanwhile.

        Blocks are of equal size, `BLOCK` rows at most.
        """
        if not len(texts):
            return
        count = -(-len(texts) // BLOCK)
        size = -(-len(texts) // count)
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as ahead:
            begin, following = 0, ahead.submit(self.tokens, texts.slice(0, size))
            while begin < len(texts):
                tokens = following.result()
                after = begin + size
                if after < len(texts):
                    following = ahead.submit(self.tokens, texts.slice(after, size))
                yield begin, tokens
                begin = after

    def tokens(self, texts: pl.Series) -> Tokens:
        """Return the tokens of (n,) strings."""
        most = CHARACTERS_PER_TOKEN * self._most
        found = self._ids(texts.str.slice(0, most).to_list())
        # Its beginning was not enough: words that are one token each however long, or blanks.
        longer = (texts.str.len_chars() > most).to_list()
        again = [row for row, ids in enumerate(found) if longer[row] and len(ids) < self._most]
        for row, ids in zip(again, self._ids(texts[again].to_list()), strict=True):
            found[row] = ids
        return Tokens.of(found)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        if self._backend is not None:
            found = self._backend.encode_batch_fast(texts, add_special_tokens=self._special)
            return [one.ids for one in found]
        block = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._most,
            add_special_tokens=self._special,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return list(block["input_ids"])
