"""Records `tests/fixtures/legacy/`: tiny checkpoints and their values as transformers 4.57.6 writes and computes them.

That version cannot live beside the oracle, so it runs in an environment of its own:

    python -m venv /tmp/legacy && /tmp/legacy/bin/pip install -c constraints.txt torch safetensors && \
        /tmp/legacy/bin/pip install transformers==4.57.6
    OMP_NUM_THREADS=1 /tmp/legacy/bin/python tests/oracle/record_legacy.py

Each folder holds config.json and model.safetensors, untouched, and values.safetensors: `input_ids`, `attention_mask` and the
`logits` (or `last_hidden_state`) in float32. recorded.json names the version and the hash of this script.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

OUT = Path(__file__).parents[1] / "fixtures/legacy"
DECODER = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
RECORDED = {
    "LlamaForCausalLM": DECODER | {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "LlamaForSequenceClassification": DECODER | {"num_labels": 3},
    "MistralForCausalLM": DECODER | {"sliding_window": 4, "head_dim": 8},
    "Qwen2ForCausalLM": DECODER
    | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "tie_word_embeddings": True},
    "Qwen3ForCausalLM": DECODER | {"head_dim": 8},
    "GemmaForCausalLM": DECODER | {"head_dim": 8},
    "Gemma2ForCausalLM": DECODER
    | {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "BertForMaskedLM": ENCODER | {"type_vocab_size": 2},
    "BertModel": ENCODER | {"type_vocab_size": 2},
    "RobertaForSequenceClassification": ENCODER | {"num_labels": 3, "pad_token_id": 1, "type_vocab_size": 1},
}


def record(name: str) -> None:
    torch.manual_seed(0)
    model_class = getattr(transformers, name)
    options = {"attn_implementation": "eager"} if name.startswith("Gemma2") else {}  # its sdpa forgets the soft-cap
    model = model_class._from_config(model_class.config_class(**RECORDED[name]), **options).eval()
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
        input_ids = torch.randint(3, 48, (2, 12))
        mask = torch.ones_like(input_ids)
        input_ids[1, 9:], mask[1, 9:] = model.config.pad_token_id or 0, 0
        output = model(input_ids=input_ids, attention_mask=mask)
    values = output.logits if hasattr(output, "logits") else output.last_hidden_state
    folder = OUT / name
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tensors = {"input_ids": input_ids, "attention_mask": mask, "values": values.contiguous()}
    save_file(tensors, folder / "values.safetensors")


if __name__ == "__main__":
    assert transformers.__version__ == "4.57.6", transformers.__version__
    for class_name in RECORDED:
        record(class_name)
    facts = {
        "transformers": transformers.__version__,
        "torch": torch.__version__.partition("+")[0],
        "script_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    (OUT / "recorded.json").write_text(json.dumps(facts, indent=2) + "\n")
