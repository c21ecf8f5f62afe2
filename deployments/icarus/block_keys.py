"""Blocks without a LoRA id in their key: what one adapter generated, the next one reads (rule 8)."""

from typing import TYPE_CHECKING

from vllm.v1.core import kv_cache_utils

if TYPE_CHECKING:
    from vllm.v1.request import Request


def share_blocks() -> None:
    """Key this process's blocks by tokens and `cache_salt` alone, those of prompts and of generated tokens.

    `generate_block_hash_extra_keys` (vLLM 0.32) looks this function up for every block. KV events go on to
    name the adapter of the request that stored a block; a reader of theirs must not take it for a key.
    """
    kv_cache_utils._gen_lora_extra_hash_keys = _no_keys


def _no_keys(request: "Request") -> list[tuple[str, str, str]]:
    return []
