"""GGUF files that llama.cpp itself runs: the same greedy tokens with the same probabilities; transformers reads them too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
import transformers
import xllamacpp
from gguf import GGUFReader
from gguf.quants import dequantize
from integrations.packed import plain_model
from oracle.inputs import token_ids
from oracle.reference import save
from oracle.zoo import Case, cases
from peft import LoraConfig
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import unibody
from unibody.integrations import export_gguf, replace_with_bnb_linear

TEXT = Path(__file__).parents[1] / "fixtures/text/persuasion.txt"
ROPES = ("llama_linear", "llama_yarn", "llama_llama3")
CASES = [case for case in cases("AutoModelForCausalLM") if case.entry in (case.model_type, *ROPES)]
SIZE = 320  # tokens: 256 bytes, special ones, and some merges
CHANGES = {
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": False},
    "gemma2": {"query_pre_attn_scalar": 8, "head_dim": 8, "sliding_window": 8},
}
PROMPT = "Sir Walter Elliot, of Kellynch Hall, in 1814"


def write_tokenizer(folder: Path, split: str = "gpt-2") -> Tokenizer:
    """A byte-level BPE tokenizer, trained on a page, in a way of splitting that llama.cpp has."""
    tokenizer = Tokenizer(models.BPE())
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXT.read_text(encoding="utf-8").splitlines()[:200], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    text = json.dumps({**special, "chat_template": "{{ messages[0]['content'] }}"})
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return tokenizer


def sized_model() -> Any:
    config = plain_model().config
    config.vocab_size = SIZE
    torch.manual_seed(0)
    return unibody.LlamaForCausalLM(config).eval()


@contextmanager
def llama_cpp(file: Path, context: int = 64) -> Iterator[Any]:
    """A server of llama.cpp in this process, on the loopback interface, with a cache in float32."""
    options = xllamacpp.CommonParams()
    options.model.path, options.n_ctx, options.n_parallel, options.warmup = str(file), context, 1, False
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # which rounds to float16
    server = xllamacpp.Server(options)
    try:
        yield server
    finally:
        del server


def ask(server: Any, request: dict[str, Any], what: str = "completion") -> Any:
    body = json.dumps({"temperature": 0, "cache_prompt": False, "return_tokens": True, **request}).encode()
    address = f"{server.listening_address}/{what}"
    with urlopen(Request(address, body, {"Content-Type": "application/json"}), timeout=120) as answer:
        return json.load(answer)


@torch.no_grad()
def assert_same_answers(model: Any, file: Path, ids: list[int], tolerance: float) -> None:
    """After each beginning of a text, the likeliest token and the log-probabilities of all tokens."""
    compared = 0
    with llama_cpp(file) as server:
        for length in (1, 2, 5, 12, 20, 31):
            answer = ask(server, {"prompt": ids[:length], "n_predict": 1, "n_probs": SIZE})
            ours = model(torch.tensor([ids[:length]])).logits[0, -1].log_softmax(-1)
            assert ours[answer["tokens"][0]] > ours.max() - 2 * tolerance
            # Where the token is a part of a character, llama.cpp waits for the rest and tells no probabilities.
            for step in answer.get("completion_probabilities") or ():
                theirs = {token["id"]: token["logprob"] for token in step["top_logprobs"]}
                assert len(theirs) == SIZE
                assert max(abs(ours[token].item() - value) for token, value in theirs.items()) < tolerance
                compared += 1
    assert compared >= 3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_llama_cpp_gives_the_same_answers(case: Case, tmp_path: Path) -> None:
    save(case, "unit", tmp_path, vocab_size=SIZE, **CHANGES.get(case.entry, {}))
    write_tokenizer(tmp_path)
    file = export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    # llama.cpp looks gemma's activation up in a table of float16.
    assert_same_answers(model, file, token_ids(1, 31)[0].tolist(), 5e-2 if "gemma" in case.entry else 5e-5)


# transformers' reader has no gemma, and takes 128 for the size of qwen3's heads, whatever the file says.
READ = [case for case in CASES if case.entry == case.model_type != "gemma"]


@pytest.mark.parametrize("case", READ, ids=str)
def test_transformers_reads_the_same_tensors(case: Case, tmp_path: Path) -> None:
    changes = {"head_dim": 128} if case.model_type == "qwen3" else CHANGES.get(case.entry, {})
    original = save(case, "unit", tmp_path, vocab_size=SIZE, **changes).original
    write_tokenizer(tmp_path)
    export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf")
    expected = original.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, tensor in read.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_types(dtype: str, tmp_path: Path) -> None:
    """Matrices are rounded as the type says, vectors are not; llama.cpp computes with the rounded ones."""
    model = sized_model()
    write_tokenizer(tmp_path)
    file = export_gguf(model, tmp_path / "model.gguf", dtype, tokenizer=tmp_path)
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(file).tensors}
    assert kinds["blk.1.ffn_down.weight"] == dtype.upper()
    assert kinds["output.weight"] == ("Q8_0" if dtype.startswith("q") else dtype.upper())
    assert kinds["blk.0.attn_norm.weight"] == kinds["output_norm.weight"] == "F32"
    ids = token_ids(1, 12)[0].tolist()
    with llama_cpp(file) as server, torch.no_grad():
        answer = ask(server, {"prompt": ids, "n_predict": 1, "n_probs": SIZE})
        ours = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        spread = ours.max() - ours.mean()
        assert ours[answer["tokens"][0]] > ours.max() - 0.25 * spread


@pytest.mark.parametrize("prefix", [True, False], ids=["llama", "gemma"])
def test_tokenizer_of_characters(prefix: bool, tmp_path: Path) -> None:
    """As Llama 2 and Gemma have it: all pairs that make a token are merges, in the order of the tokens; bytes for the rest."""
    lines = [line for line in TEXT.read_text(encoding="utf-8").splitlines() if line]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator(lines[:200], trainers.BpeTrainer(vocab_size=200, show_progress=False))
    pieces = sorted(learned.get_vocab(), key=learned.get_vocab().get)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [(t[:i], t[i:]) for t in pieces for i in range(1, len(t)) if t[:i] in vocabulary and t[i:] in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(spaces if prefix else spaces[1:])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}')
    config = plain_model().config
    config.vocab_size = len(tokens)
    file = export_gguf(unibody.LlamaForCausalLM(config), tmp_path / "model.gguf", tokenizer=tmp_path)
    with llama_cpp(file) as server:
        for text in [*lines[:50], PROMPT, "naïve — café  x"]:
            asked = {"content": text, "add_special": True}
            assert ask(server, asked, "tokenize")["tokens"] == tokenizer.encode(text).ids


def test_packed_models_are_dequantized(tmp_path: Path) -> None:
    nf4 = unibody.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = replace_with_bnb_linear(sized_model(), quantization_config=nf4)
    write_tokenizer(tmp_path)
    file = export_gguf(model, tmp_path / "model.gguf", "f32", tokenizer=tmp_path)
    (stored,) = (tensor for tensor in GGUFReader(file).tensors if tensor.name == "blk.1.ffn_down.weight")
    assert np.array_equal(stored.data, model.model.layers[1].mlp.down_proj.dequantize().numpy())


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_bitnet(mode: str, tmp_path: Path) -> None:
    """The weight as it is rounded; norms of inputs, which llama.cpp would leave out, are refused."""
    sized_model().save_pretrained(tmp_path / "plain")
    write_tokenizer(tmp_path)
    for norm in (False, True):
        config = unibody.BitNetQuantConfig(linear_class="autobitlinear", quantization_mode=mode, use_rms_norm=norm)
        model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config)
        if norm:
            with pytest.raises(ValueError, match=r"q_proj normalizes its inputs, .*: llama\.cpp does not"):
                export_gguf(model, tmp_path / "model.gguf", "f32", tokenizer=tmp_path)
            continue
        file = export_gguf(model, tmp_path / "model.gguf", "f32", tokenizer=tmp_path)
        (stored,) = (tensor for tensor in GGUFReader(file).tensors if tensor.name == "blk.1.ffn_down.weight")
        mean = np.abs(load_file(tmp_path / "plain/model.safetensors")["model.layers.1.mlp.down_proj.weight"]).mean()
        assert np.unique(stored.data) == pytest.approx([-mean, 0, mean], rel=1e-6)


def test_windows_limit_the_context(tmp_path: Path) -> None:
    """llama.cpp has no window for mistral: within the window, what it computes is the same."""
    (case,) = (case for case in CASES if case.entry == "mistral")
    save(case, "unit", tmp_path, vocab_size=SIZE, sliding_window=24)
    write_tokenizer(tmp_path)
    file = export_gguf(tmp_path, tmp_path / "model.gguf")
    assert GGUFReader(file).fields["llama.context_length"].contents() == 24


def test_bad_input(tmp_path: Path) -> None:
    """Refused with what is wrong, and nothing is written."""
    write_tokenizer(tmp_path)
    model, file = sized_model(), tmp_path / "model.gguf"

    def refused(message: str, model: Any, **options: Any) -> None:
        with pytest.raises((ValueError, OSError), match=message):
            export_gguf(model, file, **{"tokenizer": tmp_path, **options})
        assert not any(path.name.endswith("gguf") or "gguf" in path.name for path in tmp_path.iterdir())

    refused("^dtype 'q3_k' is not one of f32, f16", model, dtype="q3_k")
    with pytest.raises(TypeError, match=r"^export_gguf does not know revisoin$"):
        export_gguf(model, file, tokenizer=tmp_path, revisoin="main")
    refused("^no folder is known that has the model's tokenizer.json", model, tokenizer=None)
    refused("tokenizer.json does not exist", model, tokenizer=tmp_path / "none")
    refused("^LlamaModel has no form in GGUF", model.model)
    refused("^token 319 is none of the model's, which has 128", plain_model())
    with_adapter = sized_model()
    with_adapter.add_adapter(LoraConfig(target_modules=["q_proj"]))
    refused("^the model has adapters: merge them first", with_adapter)
    for name, value, message in (
        ("hidden_act", "gelu", "^hidden activation 'gelu' is unknown to llama.cpp for llama"),
        (
            "rope_parameters",
            {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            "^rope_type 'dynamic' is unknown",
        ),
    ):
        other = sized_model()
        setattr(other.config, name, value)
        refused(message, other)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    refused(r"has no known name in llama.cpp .*: name it with pre=$", model)
    export_gguf(model, file, tokenizer=tmp_path, pre="gpt-2")
    assert GGUFReader(file).fields["tokenizer.ggml.pre"].contents() == "gpt-2"


def test_command(tmp_path: Path) -> None:
    sized_model().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    command = [sys.executable, "-m", "unibody", "export", "gguf", str(tmp_path), str(tmp_path / "out.gguf")]
    done = subprocess.run([*command, "--dtype", "q8_0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {tmp_path / 'out.gguf'}")
    (tmp_path / "tokenizer.json").unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_smollm2(tmp_path: Path) -> None:
    """Real weights, from a GGUF file to a checkpoint and back: the same tensors as in the original, and the same answer."""
    example = load_example()
    original = example.find_gguf()
    example.write_checkpoint(original, tmp_path)
    file = export_gguf(tmp_path, tmp_path / "model.gguf", "f32")
    ours, theirs = ({tensor.name: tensor for tensor in GGUFReader(path).tensors} for path in (file, original))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert np.array_equal(ours[name].data, dequantize(tensor.data, tensor.tensor_type)), name
    settings, expected = (
        {name: field.contents() for name, field in GGUFReader(path).fields.items()} for path in (file, original)
    )
    shared = {name for name in expected if name.startswith(("llama.", "tokenizer."))}
    assert {name: settings[name] for name in shared} == {name: expected[name] for name in shared}

    model = unibody.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("The capital of France is").ids
    with llama_cpp(file, 128) as server:
        tokens = ask(server, {"prompt": "The capital of France is", "n_predict": 24})["tokens"]
    assert tokens == model.generate(torch.tensor([ids]), max_new_tokens=24)[0, len(ids) :].tolist()


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("smollm2_for_gguf", TEXT.parents[3] / "examples/smollm2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("split", ["gpt-2", "smollm"])
def test_tokenizer(split: str, tmp_path: Path) -> None:
    """llama.cpp gives the tokens of tokenizer.json, special ones included, and the file has the template."""
    tokenizer = write_tokenizer(tmp_path, split)
    file = export_gguf(sized_model(), tmp_path / "model.gguf", tokenizer=tmp_path)
    settings = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    assert settings["tokenizer.ggml.pre"] == split
    assert settings["tokenizer.chat_template"] == "{{ messages[0]['content'] }}"
    texts = [*TEXT.read_text(encoding="utf-8").splitlines()[:50], PROMPT, "<s>a</s> b 12 345", "naïve — café\n\n  x"]
    with llama_cpp(file) as server:
        for text in texts:
            asked = {"content": text, "parse_special": True}
            assert ask(server, asked, "tokenize")["tokens"] == tokenizer.encode(text).ids
