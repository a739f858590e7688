"""Language models from a directory to a directory: peak memory, time for a parameter, and quality.

    python -m benchmarks.offload [small large] [--blocks N] [--preset fast] [--folder DIR]

Two models through `optiprune prune --model`, each in a process of its own whose largest resident
memory the system reports. Half of the weights of the blocks stay; both models have the same
options and 32 windows of 512 tokens.

- small: SmolLM2-135M-Instruct in bfloat16 (see `benchmarks.models.language` for its packages),
  calibrated on an encyclopedia; perplexity on 16 windows of other articles before and after, and a
  text that the pruned directory writes with transformers.
- large: a Llama of width 2048 and 22 blocks (1.1 billion parameters) with random weights in
  bfloat16; its embeddings are drawn with a falling spectrum, so that the activations are
  correlated. With ``--blocks`` only that many of the blocks are made, and the table says so.

With ``--folder``, what was ended from outside goes on: `optiprune resume` takes an unfinished run
up, and what its processes took before is added (``spent-PRESET.json``); the table counts them.

Writes benchmarks/results/offload.md from benchmarks/results/offload.json, in which the rows that
were measured before stay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.machine import machine_line
from benchmarks.models.language import (
    CALIBRATION_ARTICLES,
    compare_windows,
    language_tokenizer,
    load_smollm2,
    token_windows,
)
from benchmarks.models.wikipedia import articles

RESULT = Path(__file__).parent / "results" / "offload.json"
SAMPLES, LENGTH, TEST_WINDOWS = 32, 512, 16
OPTIPRUNE = [sys.executable, "-c", "from optiprune.cli import main; main()"]
NOTHING = {"seconds": 0.0, "cpu": 0.0, "peak_mib": 0.0, "sittings": 0}
LARGE = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_small(folder: Path) -> None:
    """SmolLM2 as a directory in bfloat16, with its tokenizer."""
    from transformers import PreTrainedTokenizerFast

    load_smollm2().to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=language_tokenizer(), bos_token="<|im_start|>", eos_token="<|im_end|>"
    ).save_pretrained(folder)


def make_large(folder: Path, blocks: int) -> None:
    """A Llama with random weights, a shard a block."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(**LARGE, num_hidden_layers=blocks, tie_word_embeddings=False)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    words = {f"w{i}": i for i in range(config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w2").save_pretrained(folder)
    draw = torch.Generator().manual_seed(0)
    width, hidden = config.hidden_size, config.intermediate_size
    small = width // config.num_attention_heads * config.num_key_value_heads

    def weight(rows: int, cols: int, scale: float) -> Tensor:
        return (torch.randn(rows, cols, generator=draw) * scale).to(torch.bfloat16)

    spectrum = torch.arange(1, width + 1).float().rsqrt()
    mixing = torch.randn(width, width, generator=draw) * spectrum[:, None] / width**0.5
    embedding = torch.randn(config.vocab_size, width, generator=draw) @ mixing
    shards: list[dict[str, Tensor]] = [
        {
            "model.embed_tokens.weight": embedding.to(torch.bfloat16),
            "model.norm.weight": torch.ones(width, dtype=torch.bfloat16),
            "lm_head.weight": weight(config.vocab_size, width, 0.02),
        }
    ]
    index: dict[str, str] = {}
    for i in range(-1, blocks):
        at = f"model.layers.{i}."
        tensors = (
            shards[0]
            if i < 0
            else {
                f"{at}self_attn.q_proj.weight": weight(width, width, width**-0.5),
                f"{at}self_attn.k_proj.weight": weight(small, width, width**-0.5),
                f"{at}self_attn.v_proj.weight": weight(small, width, width**-0.5),
                f"{at}self_attn.o_proj.weight": weight(width, width, width**-0.5),
                f"{at}mlp.gate_proj.weight": weight(hidden, width, width**-0.5),
                f"{at}mlp.up_proj.weight": weight(hidden, width, width**-0.5),
                f"{at}mlp.down_proj.weight": weight(width, hidden, hidden**-0.5),
                f"{at}input_layernorm.weight": torch.ones(width, dtype=torch.bfloat16),
                f"{at}post_attention_layernorm.weight": torch.ones(width, dtype=torch.bfloat16),
            }
        )
        name = f"model-{i + 2:05}-of-{blocks + 1:05}.safetensors"
        save_file(tensors, folder / name, {"format": "pt"})
        index |= dict.fromkeys(tensors, name)
    size = sum(p.stat().st_size for p in folder.glob("*.safetensors"))
    table = {"metadata": {"total_size": size}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(table))


def make_text(path: Path, small: bool) -> None:
    """Calibration text: articles, or words drawn evenly."""
    if small:
        texts = ["\n\n".join(articles()[:CALIBRATION_ARTICLES])]
    else:
        draw = torch.Generator().manual_seed(1)
        ids = torch.randint(3, LARGE["vocab_size"], (SAMPLES * LENGTH,), generator=draw)
        texts = [" ".join(f"w{int(i)}" for i in ids)]
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")


def prune(folder: Path, preset: str) -> dict[str, float]:
    """Through the command line; seconds, processor seconds and the peak in MiB."""
    out, spent = folder / f"pruned-{preset}", folder / f"spent-{preset}.json"
    before = NOTHING
    if (out / "unfinished").exists():
        before = json.loads(spent.read_text()) if spent.exists() else NOTHING
        command = [*OPTIPRUNE, "resume", str(out)]
    else:
        command = [
            *(*OPTIPRUNE, "prune", "--model", str(folder / "dense")),
            *("--data", str(folder / "text.jsonl"), "--out", str(out)),
            *("--sparsity", "0.5", "--preset", preset),
            *("--samples", str(SAMPLES), "--length", str(LENGTH), "--force"),
        ]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watched, peak, done = psutil.Process(process.pid), 0, 0
    while not done:
        time.sleep(5)
        now, peak = watched.cpu_times(), max(peak, watched.memory_info().rss)
        spent.write_text(json.dumps(_add(before, began, now.user + now.system, peak / 2**20)))
        done, status, used = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    whole = _add(before, began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    spent.write_text(json.dumps(whole))
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return whole


def _add(before: dict[str, float], began: float, cpu: float, peak: float) -> dict[str, float]:
    return {
        "seconds": before["seconds"] + time.perf_counter() - began,
        "cpu": before["cpu"] + cpu,
        "peak_mib": max(before["peak_mib"], peak),
        "sittings": before["sittings"] + 1,
    }


def judge(folder: Path, preset: str) -> dict[str, Any]:
    """Perplexities, and what the pruned model writes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pruned = folder / f"pruned-{preset}"
    model = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    dense = AutoModelForCausalLM.from_pretrained(folder / "dense", dtype=torch.float32)
    found = compare_windows(model, dense, token_windows(CALIBRATION_ARTICLES, None, TEST_WINDOWS))
    tokenizer = AutoTokenizer.from_pretrained(pruned)
    start = tokenizer("The city lies on the river", return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**start, max_new_tokens=24, do_sample=False)
    zeros = [(p == 0).double().mean() for n, p in model.named_parameters() if "_proj" in n]
    return {
        "perplexity": found["perplexity"],
        "dense_perplexity": found["dense_perplexity"],
        "text": tokenizer.decode(out[0]),
        "sparsity": float(torch.stack(zeros).mean()),
    }


def measure(kind: str, blocks: int, preset: str, folder: Path) -> dict[str, Any]:
    folder = folder / kind
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dense" / "config.json").exists():
        make_small(folder / "dense") if kind == "small" else make_large(folder / "dense", blocks)
        make_text(folder / "text.jsonl", kind == "small")
    row: dict[str, Any] = {"model": kind, "preset": preset, **prune(folder, preset)}
    summary = json.loads((folder / f"pruned-{preset}" / "summary.json").read_text())
    layers = summary["report"]["layers"]
    row["weights"] = sum(layer["total"] for layer in layers)
    row["blocks"] = len({layer["name"].split(".")[2] for layer in layers})
    row["pruning"] = summary["seconds"]
    if kind == "small":
        row |= judge(folder, preset)
    return {**row, "machine": machine_line()}


def report(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "# Model directories, one block in memory at a time",
        "",
        f"`python -m benchmarks.offload`: half of the weights of the blocks, {SAMPLES} windows of "
        f"{LENGTH} tokens. Seconds are those of the whole command, with imports and the writing of "
        "the model; microseconds of processor time for a weight that takes part.",
        "",
        "| model | blocks | preset | weights | peak, MiB | seconds | processor seconds "
        "| us a weight | perplexity (dense) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        quality = "-"
        if "perplexity" in r:
            quality = f"{r['perplexity']:.2f} ({r['dense_perplexity']:.2f})"
        lines.append(
            f"| {r['model']} | {r['blocks']} | {r['preset']} | {r['weights']:,} | "
            f"{r['peak_mib']:.0f} | {r['seconds']:.0f} | {r['cpu']:.0f} | "
            f"{1e6 * r['cpu'] / r['weights']:.2f} | {quality} |"
        )
    lines.append("")
    for r in rows:
        if "text" in r:
            lines += [f"{r['model']}, {r['preset']}: {r['text']!r}", ""]
        lines += [f"{r['model']}, {r['preset']}: {r['machine']}", ""]
        if r.get("sittings", 1) > 1:
            lines += [
                f"{r['model']}, {r['preset']}: in {r['sittings']} processes, of which the last "
                "went on with `optiprune resume`; seconds and processor seconds are of all.",
                "",
            ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["small", "large"])
    parser.add_argument("--blocks", type=int, default=22)
    parser.add_argument("--preset", nargs="*", default=["fast"])
    parser.add_argument("--folder", type=Path, help="Where models are made, and stay.")
    args = parser.parse_args()
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        for kind in args.models:
            for preset in args.preset:
                row = measure(kind, args.blocks, preset, folder)
                key = ("model", "preset", "blocks")
                rows = [r for r in rows if any(r[k] != row[k] for k in key)] + [row]
                RESULT.write_text(json.dumps(rows, indent=1) + "\n")
                RESULT.with_suffix(".md").write_text(report(rows))
    print(report(rows))


if __name__ == "__main__":
    main()
