"""Generated models on a GPU: transformers' values there, generation with a cache, device maps, training in mixed precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.inputs import padded_batch, token_ids
from oracle.reference import assert_close, values
from oracle.zoo import cases, first_case
from training.rows import rows

import unibody

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU that it can use")

every_case = pytest.mark.parametrize("case", cases(), ids=str)
every_causal_case = pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)


@every_case
def test_values_are_the_oracles(checkpoint: Any, case: Any) -> None:
    """In float32, padded too; in bfloat16 but for a part of what rounding changes."""
    written, batch = checkpoint(case), padded_batch()
    inputs = {"input_ids": batch.input_ids.cuda(), "attention_mask": batch.attention_mask.cuda()}
    attention = (
        "eager" if case.model_type == "gemma2" else "sdpa"
    )  # caps its scores, which older oracles' sdpa does not
    model, reference = written.load().cuda(), written.reference(attention).cuda()
    with torch.no_grad():
        exact, theirs = values(model(**inputs)), values(reference(**inputs))
        for name, tensor in exact.items():
            real = inputs["attention_mask"].bool() if tensor.shape[:2] == batch.attention_mask.shape else slice(None)
            assert_close(tensor[real], theirs[name][real], written.tolerance)
        ids = token_ids().cuda()
        exact = values(reference(ids))
        theirs = values(written.reference(attention, torch.bfloat16).cuda()(ids))
        ours = values(written.load(dtype=torch.bfloat16).cuda()(ids))
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.device.type) == (torch.bfloat16, "cuda")
        rounding = (theirs[name].float() - exact[name]).abs().mean()
        assert (tensor.float() - theirs[name].float()).abs().mean() <= 0.5 * rounding


@every_causal_case
def test_generation(checkpoint: Any, case: Any) -> None:
    """Greedy tokens are those of the CPU and of the oracle."""
    written, ids = checkpoint(case), token_ids()
    attention = "eager" if case.model_type == "gemma2" else "sdpa"
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    model = written.load().cuda()
    expected = written.load().generate(ids, **options)
    assert torch.equal(model.generate(ids.cuda(), **options).cpu(), expected)
    assert torch.equal(written.reference(attention).cuda().generate(ids.cuda(), **options).cpu(), expected)


def test_device_maps(checkpoint: Any) -> None:
    """`auto` fills the GPU; with little room there, the rest stays on the CPU, and values are the same."""
    case = first_case()
    written, ids = checkpoint(case), token_ids()
    auto, with_little = (
        unibody.AutoModelForCausalLM.from_pretrained(written.folder, device_map="auto", **options)
        for options in ({}, {"max_memory": {0: "60KB", "cpu": "1GB"}})
    )
    assert {parameter.device.type for parameter in auto.parameters()} == {"cuda"}
    assert len({str(device) for device in with_little.hf_device_map.values()}) == 2
    with torch.no_grad():
        expected = values(written.load()(ids))
        for model in (auto, with_little):
            for name, tensor in values(model(ids.cuda())).items():
                assert_close(tensor.cpu(), expected[name], written.tolerance)


def test_compiled(checkpoint: Any) -> None:
    """A model can be compiled whole, and gives the same values."""
    written, ids = checkpoint(first_case()), token_ids().cuda()
    model = written.load().cuda()
    with torch.no_grad():
        expected = values(model(ids, use_cache=False))
        found = values(torch.compile(model, fullgraph=True)(ids, use_cache=False))
    for name, tensor in found.items():
        assert_close(tensor, expected[name], written.tolerance)


@pytest.mark.parametrize(("precision", "bound"), [({}, 1e-4), ({"bf16": True}, 0.03), ({"fp16": True}, 0.01)], ids=str)
def test_training(checkpoint: Any, tmp_path: Path, precision: dict[str, bool], bound: float) -> None:
    """Losses on the GPU are those of float32 on the CPU, but for rounding."""
    losses = []
    for options in ({"use_cpu": True}, precision):
        args = unibody.TrainingArguments(
            output_dir=str(tmp_path), per_device_train_batch_size=4, max_steps=12, logging_steps=1, learning_rate=1e-2,
            report_to="none", save_strategy="no", disable_tqdm=True, **options,
        )  # fmt: skip
        trainer = unibody.Trainer(model=checkpoint(first_case(), "small").load(), args=args, train_dataset=rows())
        trainer.train()
        losses.append(torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
        assert next(trainer.model.parameters()).dtype == torch.float32
    assert losses[1].shape == (12,)
    torch.testing.assert_close(losses[1], losses[0], rtol=bound, atol=bound)
