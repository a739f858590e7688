"""Small models of transformers with random weights, in directories of save_pretrained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {
    "vocab_size": 97,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL, tie_word_embeddings=True),
    "gpt2": lambda: transformers.GPT2Config(**GPT2),
    "falcon": lambda: transformers.FalconConfig(
        vocab_size=97,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=8),
    "mixtral": lambda: transformers.MixtralConfig(**SMALL, **MIXTURE),
    "granitemoe": lambda: transformers.GraniteMoeConfig(**SMALL, **MIXTURE),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(
        **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=8
    ),
}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """(family, type of the weights, size of a shard) -> directory."""

    def made(family: str, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family](), dtype=dtype)
            for name, p in model.named_parameters():
                if p.ndim > 1 and "embed" not in name and "wte" not in name:
                    p.data.mul_(4.0)  # layers that do something, beside the residual stream
        folder = tmp_path / f"{family}-dense"
        model.save_pretrained(folder, max_shard_size=shard)
        return folder

    return made


@pytest.fixture
def windows() -> list[dict[str, Tensor]]:
    """24 windows of 16 tokens."""
    draw = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(3, 97, (8, 16), generator=draw)} for _ in range(3)]


def load(folder: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
