"""Block tables: for each running sequence a row of the ids of its blocks, on the device, where they stay in place."""

from collections.abc import Sequence

import torch

from llama_vision.backends.local.block_pool import NULL_BLOCK
from llama_vision.backends.local.encoder_cache import EncodedImage
from llama_vision.backends.local.kv_cache import BlockLayout


class BlockTables:
    """Rows of block ids, followed by null blocks. The last row is all null blocks, for padding.

    Attributes:
        tokens: Blocks of a sequence's tokens, (max_num_seqs + 1, blocks).
        vision: Blocks of the images that its output tokens attend to, (max_num_seqs + 1, blocks).
        vision_counts: How many vision tokens each of these has.
        num_vision_columns: Columns of the blocks that are not null, up to the last vision token, (max_num_seqs + 1,).
    """

    def __init__(
        self,
        layout: BlockLayout,
        max_num_seqs: int,
        max_blocks: int,
        max_vision_blocks: int,
        device: torch.device,
    ) -> None:
        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(max_num_seqs + 1, *shape, dtype=torch.int32, device=device)

        self._layout = layout
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self.padding_row = max_num_seqs
        self.tokens = zeros(max_blocks)
        self.vision, self.vision_counts = zeros(max_vision_blocks), zeros(max_vision_blocks)
        self.num_vision_columns = zeros()

    def reserve_row(self) -> int:
        """Reserve a row."""
        return self._free_rows.pop()

    def free_row(self, row: int) -> None:
        """Give a row back, and empty it."""
        self._free_rows.append(row)
        self.tokens[row] = NULL_BLOCK
        self.vision[row], self.vision_counts[row], self.num_vision_columns[row] = NULL_BLOCK, 0, 0

    def set_tokens(self, row: int, block_ids: Sequence[int], start: int = 0) -> None:
        """Write the ids of a sequence's blocks from the one numbered `start` on."""
        self.tokens[row, start : start + len(block_ids)] = torch.tensor(block_ids, dtype=torch.int32)

    def set_images(self, row: int, images: Sequence[EncodedImage]) -> None:
        """Write the ids of the blocks of images to an empty row."""
        size = self._layout.vision_block_size
        blocks = [
            (block_id, min(image.num_vision_tokens - index * size, size))
            for image in images
            for index, block_id in enumerate(image.blocks.block_ids)
        ]
        if blocks:
            self.vision[row, : len(blocks)], self.vision_counts[row, : len(blocks)] = torch.tensor(
                blocks, dtype=torch.int32
            ).t()
            self.num_vision_columns[row] = (len(blocks) - 1) * size + blocks[-1][1]
