"""Language models that transformers builds from a configuration: few layers, small widths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .entry import Entry, configured, tokens

__all__ = ["ENTRIES"]

_VOCABULARY = 100


def _entry(kind: str, config: str, *, masked: bool = False, **of: Any) -> Entry:
    def inputs() -> dict[str, Tensor]:
        out = {"input_ids": tokens(16, _VOCABULARY)}
        if masked:  # the second sentence is shorter
            out["attention_mask"] = torch.ones(2, 16, dtype=torch.long)
            out["attention_mask"][1, 6:] = 0
        return out

    return configured(kind, config, inputs, vocab_size=_VOCABULARY, **of)


_ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 160,
    "max_position_embeddings": 64,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "use_cache": False}


ENTRIES: dict[str, Entry] = {
    "bert": _entry("BertForSequenceClassification", "BertConfig", masked=True, **_ENCODER),
    "bert-eager": _entry(
        "BertForSequenceClassification",
        "BertConfig",
        masked=True,
        attn_implementation="eager",
        **_ENCODER,
    ),
    "distilbert": _entry(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        masked=True,
        dim=64,
        n_layers=3,
        n_heads=4,
        hidden_dim=160,
        max_position_embeddings=64,
    ),
    "roberta": _entry("RobertaForSequenceClassification", "RobertaConfig", masked=True, **_ENCODER),
    "albert": _entry(
        "AlbertForSequenceClassification",
        "AlbertConfig",
        masked=True,
        embedding_size=32,
        **_ENCODER,
    ),
    "electra": _entry(
        "ElectraForSequenceClassification",
        "ElectraConfig",
        masked=True,
        embedding_size=32,
        **_ENCODER,
    ),
    "deberta-v2": _entry(
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        masked=True,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        **_ENCODER,
    ),
    "modernbert": _entry(
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        masked=True,
        attn_implementation="sdpa",
        pad_token_id=0,
        **_ENCODER,
    ),
    "gpt-2": _entry(
        "GPT2LMHeadModel",
        "GPT2Config",
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=64,
        use_cache=False,
    ),
    "gpt-neox": _entry("GPTNeoXForCausalLM", "GPTNeoXConfig", use_cache=False, **_ENCODER),
    "gpt-j": _entry(
        "GPTJForCausalLM",
        "GPTJConfig",
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=64,
        rotary_dim=8,
        use_cache=False,
    ),
    "bloom": _entry(
        "BloomForCausalLM", "BloomConfig", hidden_size=64, n_layer=2, n_head=4, use_cache=False
    ),
    "opt": _entry(
        "OPTForCausalLM",
        "OPTConfig",
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        ffn_dim=160,
        max_position_embeddings=64,
        word_embed_proj_dim=64,
        use_cache=False,
    ),
    "llama": _entry("LlamaForCausalLM", "LlamaConfig", **_DECODER),
    "mistral": _entry("MistralForCausalLM", "MistralConfig", sliding_window=8, **_DECODER),
    "qwen2": _entry("Qwen2ForCausalLM", "Qwen2Config", **_DECODER),
    "qwen3": _entry("Qwen3ForCausalLM", "Qwen3Config", head_dim=16, **_DECODER),
    "gemma": _entry("GemmaForCausalLM", "GemmaConfig", head_dim=16, **_DECODER),
    "phi-3": _entry("Phi3ForCausalLM", "Phi3Config", pad_token_id=0, **_DECODER),
    "falcon": _entry(
        "FalconForCausalLM",
        "FalconConfig",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        use_cache=False,
    ),
    "mixtral": _entry(
        "MixtralForCausalLM",
        "MixtralConfig",
        num_local_experts=4,
        num_experts_per_tok=2,
        experts_implementation="batched_mm",
        **_DECODER,
    ),
    # torch's grouped product wants widths that are multiples of 16 bytes
    "mixtral-grouped": _entry(
        "MixtralForCausalLM",
        "MixtralConfig",
        num_local_experts=4,
        num_experts_per_tok=2,
        experts_implementation="grouped_mm",
        **_DECODER,
    ),
    "mamba": _entry(
        "MambaForCausalLM",
        "MambaConfig",
        hidden_size=32,
        state_size=8,
        num_hidden_layers=2,
        use_cache=False,
    ),
    "t5-encoder": _entry(
        "T5EncoderModel", "T5Config", d_model=64, d_kv=16, d_ff=160, num_layers=3, num_heads=4
    ),
    "t5-gated-encoder": _entry(
        "T5EncoderModel",
        "T5Config",
        d_model=64,
        d_kv=16,
        d_ff=160,
        num_layers=3,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    ),
}
