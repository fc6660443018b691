"""Fine-tunes SmolLM2-135M on Jane Austen, with QLoRA: the weights in four bits, and small matrices beside them that learn.

    pip install 'unibody[peft]'
    python examples/smollm2.py smollm2
    python examples/finetune.py smollm2 persuasion.txt adapter [--steps 30] [--log log.jsonl] [--plot loss.svg]

`persuasion.txt` is any text; the last eighth is held out. Prints the perplexity (exp of the mean loss of a token) of the beginning
of the held-out part before and after, and writes the adapter, which `model.load_adapter` and peft open. `--log` gets one JSON object a step,
`--plot` the losses as a picture.

QLoRA is 2305.14314: NF4, double quantization, adapters at all linear layers of a block. Here they are in the upper third of the
blocks only, so that the backward pass ends there: a step takes a third of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

import unibody

HELD_OUT, MEASURED = 8, 16  # one part of this many is held out; rows of it that are measured
LENGTH, ROWS = 128, 2  # tokens of a row, rows of a step
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read_rows(tokenizer: Any, text: str) -> Tensor:
    """Token ids [rows, LENGTH] of a text; what does not fill a row is left out."""
    ids = torch.tensor(tokenizer(text)["input_ids"])
    return ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)


@torch.no_grad()
def perplexity(model: Any, rows: Tensor) -> float:
    model.eval()
    losses = [model(some, labels=some, use_cache=False).loss.item() * len(some) for some in rows.split(ROWS)]
    return math.exp(sum(losses) / len(rows))


def train(model: Any, rows: Tensor, steps: int, rate: float = 1e-3) -> Iterator[dict[str, float]]:
    """AdamW on the adapter alone; the rate rises for a tenth of the steps, then falls along a cosine. Yields a record a step."""
    model.train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.0)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    start, warm = time.perf_counter(), max(1, steps // 10)
    for step in range(steps):
        at = torch.arange(step * ROWS, (step + 1) * ROWS) % len(rows)
        optimizer.param_groups[0]["lr"] = rate * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        loss = model(rows[order[at]], labels=rows[order[at]]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield {"step": step + 1, "loss": loss.item(), "seconds": time.perf_counter() - start}


def draw(records: list[dict[str, float]], title: str) -> str:
    """An SVG picture of the loss by step."""
    losses = [record["loss"] for record in records]
    low, high = math.floor(min(losses) * 10) / 10, math.ceil(max(losses) * 10) / 10
    high += 0.1 * (high == low)
    points = " ".join(
        f"{60 + 560 * i / max(1, len(losses) - 1):.1f},{300 - 250 * (loss - low) / (high - low):.1f}"
        for i, loss in enumerate(losses)
    )
    marks = [low + (high - low) * part / 4 for part in range(5)]
    lines = [
        f'<path d="M60 {300 - 250 * part / 4:.1f}H620" stroke="#ddd"/>'
        f'<text x="52" y="{304 - 250 * part / 4:.1f}" text-anchor="end">{mark:.2f}</text>'
        for part, mark in enumerate(marks)
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 340" font-family="sans-serif" font-size="12">',
            f'<rect width="640" height="340" fill="#fff"/><text x="60" y="30" font-size="14">{title}</text>',
            *lines,
            f'<polyline points="{points}" fill="none" stroke="#1f77b4" stroke-width="2"/>',
            f'<text x="60" y="322">1</text><text x="620" y="322" text-anchor="end">{len(losses)}</text>',
            '<text x="340" y="322" text-anchor="middle">step</text>',
            "</svg>\n",
        ]
    )


def finetune(checkpoint: str, text: str, adapter: Path, steps: int, rank: int) -> Iterator[dict[str, float]]:
    """Trains and writes the adapter; yields the records of the steps, between those of the perplexity before and after."""
    tokenizer = unibody.AutoTokenizer.from_pretrained(checkpoint)
    cut = len(text) - len(text) // HELD_OUT
    rows, held_out = read_rows(tokenizer, text[:cut]), read_rows(tokenizer, text[cut:])[:MEASURED]
    nf4 = unibody.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = unibody.AutoModelForCausalLM.from_pretrained(checkpoint, quantization_config=nf4, dtype=torch.bfloat16)
    yield {"step": 0, "perplexity": perplexity(model, held_out)}
    torch.manual_seed(0)
    blocks = model.config.num_hidden_layers
    upper = list(range(blocks - max(1, blocks // 3), blocks))
    model.add_adapter(
        LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=TARGETS, layers_to_transform=upper, task_type="CAUSAL_LM"
        )
    )
    yield from train(model, rows, steps)
    yield {"step": steps, "perplexity": perplexity(model, held_out)}
    model.save_pretrained(adapter)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune a model on a text with QLoRA.")
    parser.add_argument("checkpoint", help="folder with a checkpoint of a decoder and its tokenizer, or a Hub id")
    parser.add_argument("text", type=Path)
    parser.add_argument("adapter", type=Path, help="the folder to write")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    text, records = options.text.read_text(encoding="utf-8"), []
    for record in finetune(options.checkpoint, text, options.adapter, options.steps, options.rank):
        print(json.dumps(record), flush=True)
        records.append(record)
        if options.log:
            options.log.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    before, after = (record["perplexity"] for record in records if "perplexity" in record)
    print(
        f"perplexity of the held-out text: {before:.2f} before, {after:.2f} after; {options.adapter} has the adapter"
    )
    if options.plot:
        title = f"QLoRA on {options.text.name}: loss of each step (perplexity {before:.1f} → {after:.1f})"
        options.plot.write_text(draw([one for one in records if "loss" in one], title), encoding="utf-8")


if __name__ == "__main__":
    main()
