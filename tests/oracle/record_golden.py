"""Records `tests/fixtures/golden/<release>/`: what this release writes, and what it computes from it, for every later one to read.

    PYTHONPATH=.:tests OMP_NUM_THREADS=1 python tests/oracle/record_golden.py

It writes the folder of the release that pyproject.toml names, and is run once for each: a release's files are never written again.
`values.safetensors` holds the input ids and the logits of every model, by the names of its folders; `values.json` the tokens of the
tokenizer and the losses of the run that the trainer's checkpoint is from. Reports of benchmarks have recorded files of their own, in
`tests/bench/recorded`.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from integrations.packed import CONFIGS
from integrations.test_gguf import write_tokenizer
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from training.rows import rows

import unibody
from oracle.inputs import token_ids
from unibody.core.quantization.replacement import linears_to_convert, output_modules, set_module

OUT = Path(__file__).parents[1] / "fixtures/golden"
SIZES = {
    "vocab_size": 128, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
DECODER = SIZES | {"num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.3}
MODELS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": DECODER | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}},
    "LlamaForSequenceClassification": DECODER | {"num_labels": 3},
    "MistralForCausalLM": DECODER | {"sliding_window": 4},
    "Qwen2ForCausalLM": DECODER | {"tie_word_embeddings": True},
    "Qwen3ForCausalLM": DECODER | {"head_dim": 8},
    "GemmaForCausalLM": DECODER | {"head_dim": 8},
    "Gemma2ForCausalLM": DECODER | {"head_dim": 8, "sliding_window": 4},
    "BertForMaskedLM": SIZES | {"initializer_range": 0.3},
    "RobertaForTokenClassification": SIZES | {"num_labels": 3, "initializer_range": 0.3},
}
PACKED = DECODER | {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_key_value_heads": 4, "initializer_range": 0.1,
    "tie_word_embeddings": True,
}  # fmt: skip
LARGER = {  # one block, one group
    "fp8": {"hidden_size": 128, "intermediate_size": 128},
    "compressed-tensors": {"hidden_size": 128, "intermediate_size": 128},
}
TRAINING: dict[str, Any] = {
    "max_steps": 4, "per_device_train_batch_size": 2, "logging_steps": 1, "learning_rate": 1e-2, "optim": "adamw_torch",
    "use_cpu": True, "report_to": "none", "disable_tqdm": True,
}  # fmt: skip
TEXTS = ["Sir Walter Elliot, of Kellynch Hall", "naïve — café", "<s>a</s>"]


def build(name: str, values: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model_class = getattr(unibody, name)
    return model_class(model_class.config_class.from_dict(values)).eval()


def pack(method: str) -> Any:
    """A Llama whose linear layers are rounded to the nearest values of a method, without calibration."""
    model = build("LlamaForCausalLM", PACKED | LARGER.get(method, {})).bfloat16()
    quantizer = unibody.AutoHfQuantizer.from_config(CONFIGS[method](), pre_quantized=False)
    for name, linear in linears_to_convert(model, output_modules(model)).items():
        layer = quantizer.make_linear(name, linear)
        layer.hold(layer.quantize(linear.weight.detach()))
        set_module(model, name, layer)
    quantizer.pre_quantized = True
    quantizer.postprocess_model(model)
    return model


@torch.no_grad()
def logits(folder: Path, class_name: str = "AutoModelForCausalLM") -> Tensor:
    """What a folder's model computes, in float32."""
    model = getattr(unibody, class_name).from_pretrained(folder, dtype=torch.float32)
    return model(token_ids(2, 10)).logits.contiguous()


def train(folder: Path, base: Path, checkpoint: Path | None = None) -> list[float]:
    """The losses of a run of four steps from the beginning, or from a checkpoint."""
    model = unibody.AutoModelForCausalLM.from_pretrained(base)
    args = unibody.TrainingArguments(str(folder), save_strategy="steps", save_steps=2, **TRAINING)
    trainer = unibody.Trainer(model, args, train_dataset=rows(10))
    trainer.train(resume_from_checkpoint=checkpoint)
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def record(out: Path) -> None:
    values: dict[str, Tensor] = {"input_ids": token_ids(2, 10)}
    for name, sizes in MODELS.items():
        build(name, sizes).save_pretrained(out / "models" / name)
        values[f"models/{name}"] = logits(out / "models" / name, name)
    build("LlamaForCausalLM", MODELS["LlamaForCausalLM"]).save_pretrained(out / "sharded", max_shard_size="8KB")
    for method in CONFIGS:
        if method == "compressed-tensors":  # says in its configuration that it is done, so it has to do it
            build("LlamaForCausalLM", PACKED | LARGER[method]).bfloat16().save_pretrained(out / "plain")
            load = unibody.AutoModelForCausalLM.from_pretrained
            model = load(out / "plain", quantization_config=CONFIGS[method](), dtype=torch.bfloat16)
            shutil.rmtree(out / "plain")
        else:
            model = pack(method)
        model.save_pretrained(out / "quantized" / method)
        values[f"quantized/{method}"] = logits(out / "quantized" / method)
    base = out / "models/LlamaForCausalLM"
    model = unibody.AutoModelForCausalLM.from_pretrained(base)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    model.save_pretrained(out / "adapter")
    with torch.no_grad():
        values["adapter"] = model.eval()(token_ids(2, 10)).logits.contiguous()
    (out / "written").mkdir()
    write_tokenizer(out / "written")
    tokenizer = unibody.AutoTokenizer.from_pretrained(out / "written")
    tokenizer.save_pretrained(out / "tokenizer")
    shutil.rmtree(out / "written")
    losses = train(out / "trainer", base)
    shutil.rmtree(out / "trainer/checkpoint-4")
    save_file(values, out / "values.safetensors")
    facts = {
        "losses": losses,
        "texts": {text: tokenizer(text)["input_ids"] for text in TEXTS},
        "chat": tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False),
    }
    (out / "values.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    release = OUT / ".".join(version("unibody").split(".")[:2])
    release.mkdir(parents=True)
    os.chdir(release)  # so that no file holds the path of this machine
    record(Path())
