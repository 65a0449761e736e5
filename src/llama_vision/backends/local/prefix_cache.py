"""Prefix cache: blocks of computed tokens, shared by prompts that begin alike (a trie of blocks, LRU)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from llama_vision.backends.local.block_pool import BlockPool, CachedBlocks

PrefixKey: TypeAlias = int | bytes
"""A token id, or an image's hash in place of its `<|image|>`."""

_MIN_TOKENS = 32
"""A shorter prefix is computed as fast as it is found."""

_logger = logging.getLogger("llama_vision")


@dataclass(slots=True, eq=False, repr=False)
class PrefixNode:
    """A cached block of self-attention keys and values, which depend on nothing but the tokens up to its end.

    Attributes:
        tokens: As many as a block has, or fewer at the end of a sequence.
        blocks: The one block.
        children: By their first token, the nodes that follow.
    """

    tokens: tuple[PrefixKey, ...]
    blocks: CachedBlocks
    children: "_Children" = field(default_factory=dict[PrefixKey, "list[PrefixNode]"])

    @property
    def block_id(self) -> int:
        """Id of the block."""
        return self.blocks.block_ids[0]


_Children: TypeAlias = dict[PrefixKey, list[PrefixNode]]


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The longest cached prefix of a prompt. Its blocks are retained.

    Attributes:
        nodes: Whole blocks, which can be shared.
        partial: The node that has the tokens after those, to be copied, since others are to follow them.
        num_tokens: Tokens in all, never the last one of the prompt, whose logits have to be computed.
    """

    nodes: list[PrefixNode]
    partial: PrefixNode | None
    num_tokens: int

    @property
    def retained(self) -> list[PrefixNode]:
        """All nodes."""
        return self.nodes if self.partial is None else [*self.nodes, self.partial]


class PrefixCache:
    """Finds the blocks of a prefix by its tokens. A node with users has ancestors with users, so leaves are evicted first."""

    def __init__(self, pool: BlockPool, block_size: int, max_blocks: int | None) -> None:
        self._pool = pool
        self._block_size = block_size
        self._is_enabled = max_blocks != 0
        self._cache = pool.add_cache(max_blocks)
        self._root: dict[PrefixKey, list[PrefixNode]] = {}

    def match(self, tokens: Sequence[PrefixKey], *, partial: bool = True) -> PrefixMatch:
        """Find and retain the longest cached prefix of a prompt, of whole blocks only without `partial`."""
        size, limit = self._block_size, len(tokens) - 1
        nodes: list[PrefixNode] = []
        children = self._root
        while (end := (len(nodes) + 1) * size) <= limit:
            node = _find(children, tuple(tokens[end - size : end]))
            if node is None:
                break
            nodes.append(node)
            children = node.children
        rest = tokens[len(nodes) * size : limit] if partial else ()
        longest, num_more = _longest(children, rest)
        match = PrefixMatch(nodes, longest, len(nodes) * size + num_more)
        if match.num_tokens < _MIN_TOKENS:
            return PrefixMatch([], None, 0)
        for node in match.retained:
            self._pool.retain(node.blocks)
        _logger.debug("Prefix cache hit: %d of %d prompt tokens", match.num_tokens, len(tokens))
        return match

    def insert(
        self,
        tokens: Sequence[PrefixKey],
        block_ids: list[int],
        nodes: list[PrefixNode],
        *,
        is_complete: bool = False,
    ) -> bool:
        """Cache a sequence's computed tokens.

        Args:
            tokens: Those that are computed.
            block_ids: The sequence's block table. A block that is cached already takes the place of the sequence's own.
            nodes: The sequence's first blocks, which are cached; new ones are appended, and are in use by the sequence.
            is_complete: Whether no token will follow, so that also a block that is not full is cached.

        Returns:
            Whether the block table has changed.
        """
        if not self._is_enabled or len(tokens) < _MIN_TOKENS:
            return False
        size, changed = self._block_size, False
        for start in range(len(nodes) * size, len(tokens) if is_complete else len(tokens) - size + 1, size):
            block_tokens = tuple(tokens[start : start + size])
            children = nodes[-1].children if nodes else self._root
            node = _find(children, block_tokens)
            if node is not None:
                self._pool.retain(node.blocks)
                self._pool.free([block_ids[len(nodes)]])
                block_ids[len(nodes)] = node.block_id
                changed = True
            elif len(block_tokens) == size or _longest(children, block_tokens)[1] < len(block_tokens):
                node = self._add(children, block_tokens, block_ids[len(nodes)])
            else:
                break  # a longer block has them
            nodes.append(node)
        return changed

    def release(self, nodes: Sequence[PrefixNode]) -> None:
        """A sequence uses these no more."""
        for node in reversed(nodes):
            self._pool.release(node.blocks)

    def clear(self) -> None:
        """Drop all that no sequence uses."""
        self._pool.clear(self._cache)

    def _add(self, children: _Children, tokens: tuple[PrefixKey, ...], block_id: int) -> PrefixNode:
        for shorter in list(children.get(tokens[0], ())):
            is_part = shorter.tokens == tokens[: len(shorter.tokens)]
            if is_part and not shorter.blocks.ref_count:
                self._pool.evict(shorter.blocks)
        node = PrefixNode(tokens, CachedBlocks([block_id], self._cache, lambda: _remove(children, node)))
        children.setdefault(tokens[0], []).append(node)
        return node


def _find(children: _Children, tokens: tuple[PrefixKey, ...]) -> PrefixNode | None:
    return next((node for node in children.get(tokens[0], ()) if node.tokens == tokens), None)


def _longest(children: _Children, tokens: Sequence[PrefixKey]) -> tuple[PrefixNode | None, int]:
    """Find the node with the most tokens in common, and their number."""
    best, most = None, 0
    for node in children.get(tokens[0], ()) if tokens else ():
        pairs = enumerate(zip(node.tokens, tokens, strict=False))
        shorter = min(len(node.tokens), len(tokens))
        if (count := next((index for index, (one, other) in pairs if one != other), shorter)) > most:
            best, most = node, count
    return best, most


def _remove(children: _Children, node: PrefixNode) -> None:
    siblings = children[node.tokens[0]]
    siblings.remove(node)
    if not siblings:
        del children[node.tokens[0]]
