"""Texts as a prefix tree: in a causal tower, texts that begin with the same tokens have the same activations there.

A node of the tree is one token of one or more texts, after the same tokens in all of them. What a block computes token by
token (norms, linear layers) is computed once for a node; only attention is computed for each text, on its nodes' queries,
keys and values. Of CelebA's names in "{}." and ImageNet's classes in seven templates about half of all tokens are nodes.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


def order(tokens: Tensor) -> Tensor:
    """(N,) order of texts (N, L) by their token ids, in which texts with a common beginning are neighbours."""
    rows = tokens.tolist()
    return torch.tensor(sorted(range(len(rows)), key=rows.__getitem__), dtype=torch.long)


class Prefixes:
    """Texts of one length in the order of `order`, as a prefix tree of M nodes.

    Attributes:
        table: (N, L) node of each token of each text, 0 to M - 1.
        first: (M,) place of each node in `table.flatten()`, the first of its places.
        words: (M,) token id of each node.
        depths: (M,) its position in its texts.
    """

    def __init__(self, tokens: Tensor) -> None:
        """`tokens` are token ids (N, L), N >= 1."""
        self.tokens = tokens
        new = torch.ones_like(tokens, dtype=torch.bool)  # a node that the text before does not have
        new[1:] = (tokens[1:] != tokens[:-1]).long().cummax(1).values > 0
        places = new.flatten().long().cumsum(0).view(new.shape) - 1
        self.table = torch.where(new, places, 0).cummax(0).values
        self.first = torch.nonzero(new.flatten()).flatten()
        self.words = tokens.flatten()[self.first]
        self.depths = self.first % tokens.shape[1]

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.tokens)

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """The tree of the texts `rows`, which ascend."""
        return type(self)(self.tokens[rows])

    @property
    def shape(self) -> torch.Size:
        """(N, L), as of the texts themselves."""
        return self.tokens.shape

    @property
    def nodes(self) -> int:
        """Number of nodes, M."""
        return len(self.first)

    def nodes_of(self, rows: Tensor) -> Tensor:
        """The nodes of the tree `self[rows]`, in its order, as nodes of this tree."""
        return self.table[rows].flatten()[self[rows].first]

    def to(self, device: torch.device) -> Self:
        """The same tree on a device."""
        if self.tokens.device == device:
            return self
        moved = type(self).__new__(type(self))
        moved.__dict__ = {name: t.to(device) for name, t in self.__dict__.items()}
        return moved

    def ends(self, x: Tensor) -> Tensor:
        """Of values (M, W) of all nodes those of the texts' last tokens (N, W)."""
        return x[self.table[:, -1]]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Causal attention (M, W) of queries, keys and values (M, W): each node sees itself and the nodes before it."""
        seen = _attend(query[self.table], key[self.table], value[self.table], heads, causal=True)
        return seen.flatten(0, 1)[self.first]

    def attend_ends(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """As `attend` for the texts' last tokens: queries (N, W), keys and values (M, W) -> (N, W)."""
        return _attend(query[:, None], key[self.table], value[self.table], heads, causal=False)[:, 0]


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int, *, causal: bool) -> Tensor:
    """Attention (N, Q, W) of queries (N, Q, W), keys and values (N, L, W)."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
