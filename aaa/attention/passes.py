"""The plan for one text: which queries meet which keys, so that every open cell is met once.

Shape suffixes: H heads, N tokens of a text, D features, M queries of a chunk, X cells of a query,
R and K selected rows and columns, E edges of a query, W diagonals of a band.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from aaa.attention.bands import bands, bands_and_scattered
from aaa.attention.parts import Columns, Part
from aaa.attention.selection import Selection
from aaa.attention.slots import Slots, of_diagonals, of_single_cells

# Cells of all heads at work at a time: few enough for the caches, enough to keep two cores busy.
NUMBERS_AT_ONCE = 2**20
QUERIES_AT_ONCE = 2**12
TOKENS_AT_ONCE = 2**14  # of all heads at work: their keys and values are laid out anew
BYTES_KEPT = 2**24  # for all chunks of a pass, of each thing that all heads share


Made = TypeVar("Made", Tensor, Tensor | None)


@dataclass(frozen=True)
class Pass:
    """Some queries of a text, all of which meet the keys of the same parts.

    What follows from its fields is computed once, since behind an attention a short text's Python
    takes a tenth of the next one.

    Args:
        queries_R: their positions; None for all tokens in order.
        masked: whether some of the parts' cells are closed by the mask and have to be looked up.
        overwritten_N: bool, the queries whose output comes from another pass.
        columns_N: bool, the keys that its queries meet as columns.
        never_empty: whether every query is sure to have an open cell.
    """

    selection: Selection
    parts: tuple[Part, ...]
    queries_R: Tensor | None = None
    masked: bool = False
    overwritten_N: Tensor | None = None
    columns_N: Tensor | None = None
    never_empty: bool = True

    @cached_property
    def width(self) -> int:
        return sum(self._widths)

    @cached_property
    def _widths(self) -> list[int]:
        return [part.width for part in self.parts]

    @cached_property
    def layouts(self) -> dict[Hashable, Part]:
        """A part for each way in which tokens are laid out."""
        return {part.layout: part for part in self.parts}

    @cached_property
    def held(self) -> int:
        return sum(part.held for part in self.parts)

    @cached_property
    def block(self) -> int:
        return max(part.block for part in self.parts)

    @cached_property
    def num_queries(self) -> int:
        return self.selection.num_tokens if self.queries_R is None else len(self.queries_R)

    @property
    def meets_all(self) -> bool:
        """Whether every cell of its queries is open."""
        return self.queries_R is not None and not self.masked

    @property
    def leaves_cells_out(self) -> bool:
        """Whether the closed cells of its queries are not computed."""
        return self.queries_R is None and not self.masked

    def head_groups(self, num_heads: int) -> Iterator[slice]:
        """The heads in groups, so that a chunk of all of a group stays within a cache."""
        numbers = min(self._queries_at_once, self.num_queries) * self.held
        tokens = self.selection.num_tokens
        size = max(1, min(NUMBERS_AT_ONCE // numbers, TOKENS_AT_ONCE // tokens))
        for start in range(0, num_heads, size):
            yield slice(start, min(start + size, num_heads))

    def chunks(self) -> Iterator[Chunk]:
        """The queries in groups."""
        for first in range(0, self.num_queries, self._queries_at_once):
            real = min(self._queries_at_once, self.num_queries - first)
            yield Chunk(self, first, real, -(-real // self.block) * self.block)

    @cached_property
    def _queries_at_once(self) -> int:
        queries = min(NUMBERS_AT_ONCE // self.held, QUERIES_AT_ONCE)
        return max(1, queries // self.block) * self.block

    def split(self, cells_HMX: Tensor) -> tuple[Tensor, ...]:
        """The columns of ``cells_HMX`` that belong to each part, as views."""
        return cells_HMX.split_with_sizes(self._widths, dim=-1)

    def keys(self, queries_M1: Tensor) -> Tensor:
        """The key of each cell, (M, X) or (1, X)."""
        if len(self.parts) == 1:
            return self.parts[0].keys(queries_M1)
        keys = [part.keys(queries_M1).expand(len(queries_M1), -1) for part in self.parts]
        return torch.cat(keys, dim=-1)


@dataclass(frozen=True)
class Chunk:
    """``real`` queries of a pass from its ``first`` on, ``padded`` by zeros to whole blocks."""

    owner: Pass
    first: int
    real: int
    padded: int
    made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """What ``make`` returns, the same for all heads; kept for the next ones, unless large."""
        if key in self.made:
            return self.made[key]
        made = make()
        if made is None or made.nbytes * self.owner.num_queries <= BYTES_KEPT * self.real:
            self.made[key] = made
        return made

    @property
    def queries_M1(self) -> Tensor:
        """Positions in the text; those of padding lie behind it."""
        return self.once("queries", self._queries_M1)

    def _queries_M1(self) -> Tensor:
        if self.owner.queries_R is None:
            device = self.owner.selection.device
            return torch.arange(self.first, self.first + self.padded, device=device).unsqueeze(-1)
        return self.owner.queries_R[self.first : self.first + self.real].unsqueeze(-1)

    def open_cells(self) -> Tensor:
        """Which of the chunk's cells the mask opens, bool (M, X)."""
        queries_M1 = self.queries_M1
        return self.once(
            "open",
            lambda: self.owner.selection.open_cells(queries_M1, self.owner.keys(queries_M1)),
        )

    def read(self, tensor_HND: Tensor, dtype: torch.dtype, factor: float = 1.0) -> Tensor:
        """The chunk's rows times a factor, (H, M, D), a copy."""
        shape = (len(tensor_HND), self.padded, tensor_HND.shape[-1])
        chunk_HMD = torch.empty(shape, dtype=dtype, device=tensor_HND.device)
        rows_HMD = tensor_HND[:, self._where()]
        if rows_HMD.dtype == dtype:  # one pass over them instead of two
            torch.mul(rows_HMD, factor, out=chunk_HMD[:, : self.real])
        else:
            chunk_HMD[:, : self.real] = rows_HMD
            chunk_HMD *= factor
        chunk_HMD[:, self.real :] = 0
        return chunk_HMD

    def write(self, chunk_HMD: Tensor, tensor_HND: Tensor) -> None:
        """Puts rows in the chunk's place."""
        tensor_HND[:, self._where()] = chunk_HMD[:, : self.real].to(tensor_HND.dtype)

    def add(self, chunk_HMD: Tensor, tensor_HND: Tensor) -> None:
        """Adds rows in the chunk's place."""
        tensor_HND[:, self._where()] += chunk_HMD[:, : self.real]

    def bias(self, part: Part) -> Tensor | None:
        """What closes cells of a part that are none, or are counted in another; (M, X)."""
        return self.once(
            ("bias", part), lambda: part.bias(self.first, self.padded, self.owner.columns_N)
        )

    def own_M1(self) -> Tensor | None:
        """Which of the queries get their output from this pass; None for all."""
        if self.owner.overwritten_N is None:
            return None
        own_M = ~self.owner.overwritten_N[self.first : self.first + self.real]
        return torch.nn.functional.pad(own_M, (0, self.padded - self.real)).unsqueeze(-1)

    def _where(self) -> slice | Tensor:
        here = slice(self.first, self.first + self.real)
        return here if self.owner.queries_R is None else self.owner.queries_R[here]


def passes_for(selection: Selection) -> list[Pass]:
    """The passes that compute a text's attention; together they meet every open cell once."""
    num_tokens = selection.num_tokens
    if selection.window is not None:
        return [_within_window(selection, selection.window)]
    rows_R = selection.rows_N.nonzero().squeeze(-1)
    whole = Columns(None, num_tokens, selection.device)
    num_rows = rows_R.numel()  # len of a tensor takes ten times as long
    if num_rows == num_tokens:
        return [Pass(selection, (whole,), rows_R)]
    main, crowded_R = _columns_bands_and_slots(selection, has_rows=num_rows > 0)
    num_whole = num_rows + crowded_R.numel()
    if not main.parts or main.width + num_whole >= num_tokens:
        return [_everything(selection)]
    passes = [main]
    if num_rows:
        passes.append(Pass(selection, (whole,), rows_R))
    if crowded_R.numel():
        passes.append(Pass(selection, (whole,), crowded_R, masked=True, never_empty=False))
    return passes


def _everything(selection: Selection) -> Pass:
    """All cells, the closed ones as well: for masks that are hardly sparse."""
    num_tokens = selection.num_tokens
    all_N = torch.arange(num_tokens, device=selection.device)
    whole = Columns(None, num_tokens, selection.device)
    return Pass(selection, (whole,), all_N, masked=True, never_empty=False)


def _within_window(selection: Selection, window: int) -> Pass:
    open_K = torch.ones(window + 1, dtype=torch.bool, device=selection.device)
    (band,) = bands(open_K, selection.num_tokens)
    if band.width + 1 >= selection.num_tokens:
        return _everything(selection)
    return Pass(selection, (band,), masked=True, never_empty=False)


def _columns_bands_and_slots(selection: Selection, has_rows: bool) -> tuple[Pass, Tensor]:
    """The pass of all queries that are no whole rows, and those with too many single cells."""
    num_tokens = selection.num_tokens
    columns_K = selection.columns_N.nonzero().squeeze(-1)
    laid_out, scattered = bands_and_scattered(selection.diagonals_K, num_tokens)
    parts: list[Part] = list(laid_out)
    if columns_K.numel():
        parts.insert(0, Columns(columns_K, num_tokens, selection.device))
    block = max((part.block for part in parts), default=1)
    num_queries = -(-num_tokens // block) * block
    slots, crowded_R = of_single_cells(selection, num_queries)
    if scattered:
        slots.append(of_diagonals(selection, scattered, num_queries))
    if slots:
        parts.append(Slots(torch.cat(slots, dim=-1)))
    overwritten_N = selection.rows_N if has_rows else None
    if crowded_R.numel():
        overwritten_N = selection.rows_N.index_fill(0, crowded_R, True)
    main = Pass(
        selection,
        tuple(parts),
        overwritten_N=overwritten_N,
        columns_N=selection.columns_N if columns_K.numel() else None,
        never_empty=bool(selection.diagonals_K[:1].any()),
    )
    return main, crowded_R
