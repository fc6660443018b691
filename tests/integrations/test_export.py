"""Programs of every class of the registry, for any number and length of rows: they give the very numbers of the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from oracle.inputs import padded_batch, token_ids
from oracle.reference import assert_close
from oracle.zoo import Case, cases
from torch import Tensor
from torch.export import Dim, export
from torch.utils._pytree import tree_leaves

import unibody
from unibody.generated.registry import MODELS
from unibody.integrations import DecodingStep

OWN = [case for case in cases() if case.entry == case.model_type and case.auto_class is not None]
CAUSAL = [case for case in OWN if case.auto_class == "AutoModelForCausalLM"]
ONE_OF_EACH = CAUSAL + [case for case in OWN if case.auto_class == "AutoModelForMaskedLM"]
TORCH_WARNS_OF_ITSELF = pytest.mark.filterwarnings(
    "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"
)
SIZES = ((1, 1), (3, 7), (2, 40))


def build(case: Case, **changes: Any) -> Any:
    torch.manual_seed(0)
    values = {**case.config, "use_cache": False, **changes}
    config = getattr(unibody, MODELS[case.model_type]["config"]).from_dict(values)
    return getattr(unibody, case.class_name)(config).eval()


def batch(rows: int, length: int, masked: bool = True) -> dict[str, Tensor]:
    found = padded_batch((length, *(max(1, length - 3 * row) for row in range(1, rows))), side="right")
    return {"input_ids": found.input_ids, **({"attention_mask": found.attention_mask} if masked else {})}


def tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def test_every_class_is_exported() -> None:
    named = {name for entry in MODELS.values() for name in entry["classes"].values()}
    assert {case.class_name for case in OWN} == named


def assert_same(program: Callable[..., Any], model: Any, masked: bool = True) -> None:
    for count, length in SIZES:
        inputs = batch(count, length, masked)
        pairs = list(zip(tensors(program(**inputs)), tensors(model(**inputs)), strict=True))
        assert pairs
        for ours, eager in pairs:
            assert_close(ours, eager, 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("case", OWN, ids=str)
def test_program(case: Case) -> None:
    model, shape = build(case), {0: Dim("rows"), 1: Dim("length")}
    program = export(model, (), batch(2, 12), dynamic_shapes={"input_ids": shape, "attention_mask": shape})
    assert_same(program.module(), model)


@torch.no_grad()
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_program_without_a_mask(case: Case, strict: bool) -> None:
    """Where the model itself looks at the length, the program is for any, also beyond a window; by both ways to trace."""
    model = build(case, attn_implementation="sdpa" if strict else "eager")
    sizes = {"input_ids": {0: Dim("rows"), 1: Dim("length")}}
    program = export(model, (), batch(2, 12, False), dynamic_shapes=sizes, strict=strict)
    assert_same(program.module(), model, masked=False)


@torch.no_grad()
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_compiled_in_one_piece(case: Case) -> None:
    """torch.compile finds nothing that it has to leave to Python, and two graphs do: one for a single row or token."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = build(case)
    assert_same(torch.compile(model, fullgraph=True, dynamic=True, backend="eager"), model)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def exported_step(step: DecodingStep, masked: bool) -> Any:
    """A program of a step, for any number of rows, new tokens and tokens before."""
    _, keys, values = step(token_ids(2, 7), *step.start(2))
    rows, past = Dim("rows"), Dim("past")
    held = [{0: rows, 2: past}] * len(keys)
    mask, size = ([torch.ones(2, 12, dtype=torch.long)], [{0: rows, 1: Dim.AUTO}]) if masked else ([], [])
    shapes = ({0: rows, 1: Dim("new")}, held, held, *size)
    return export(step, (token_ids(2, 5), keys, values, *mask), dynamic_shapes=shapes)


def generate(run: Callable[..., Any], step: DecodingStep, prompt: Tensor, count: int) -> Tensor:
    """The prompt with the tokens that a program of steps adds to it."""
    keys, values = step.start(len(prompt))
    tokens, new = prompt, prompt
    for _ in range(count):
        logits, keys, values = run(new, keys, values)
        new = logits[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, new], 1)
    return tokens


@torch.no_grad()
@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_step(case: Case) -> None:
    """One program takes a prompt and then token after token, beyond the window."""
    model = build(case)
    step = DecodingStep(model)
    program = exported_step(step, masked=False).module()
    for prompt in (token_ids(3, 15, seed=1), token_ids(1, 1)):
        expected = model.generate(prompt, max_new_tokens=9, eos_token_id=[])
        assert torch.equal(generate(program, step, prompt, 9), expected)


@torch.no_grad()
@pytest.mark.parametrize("case", CAUSAL, ids=str)
def test_step_with_padding(case: Case) -> None:
    """In pieces of any size, a padded batch gives what it gives whole."""
    model = build(case)
    step = DecodingStep(model)
    program, whole = exported_step(step, masked=True).module(), padded_batch((20, 13, 4), side="left")
    (keys, values), found, done = step.start(3), [], 0
    for size in (9, 1, 1, 7, 2):
        pieces = whole.input_ids[:, done : done + size], whole.attention_mask[:, : done + size]
        logits, keys, values = program(pieces[0], keys, values, pieces[1])
        found.append(logits)
        done += size
    expected = model(whole.input_ids, whole.attention_mask).logits
    real = whole.attention_mask.bool()
    assert_close(torch.cat(found, 1)[real], expected[real], 1e-6)


def onnx_session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
@TORCH_WARNS_OF_ITSELF
def test_onnx(tmp_path: Path) -> None:
    """An encoder as an ONNX file, run by onnxruntime."""
    (case,) = (case for case in OWN if str(case) == "RobertaForTokenClassification")
    model, shape = build(case), {0: Dim("rows"), 1: Dim("length")}
    program = export(model, (), batch(2, 12), dynamic_shapes={"input_ids": shape, "attention_mask": shape})
    torch.onnx.export(program, f=tmp_path / "model.onnx", dynamo=True, verbose=False, output_names=["logits"])
    session = onnx_session(tmp_path / "model.onnx")

    def run(**inputs: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(logits)

    assert_same(run, model)


@torch.no_grad()
@pytest.mark.slow
@TORCH_WARNS_OF_ITSELF
def test_onnx_step(tmp_path: Path) -> None:
    """A decoder with a window in onnxruntime gives the model's tokens."""
    (case,) = (case for case in CAUSAL if case.model_type == "mistral")
    model = build(case)
    step, layers = DecodingStep(model), model.config.num_hidden_layers
    names = [f"{side}.{i}" for side in ("keys", "values") for i in range(layers)]
    torch.onnx.export(
        exported_step(step, masked=False), f=tmp_path / "step.onnx", dynamo=True, verbose=False,
        input_names=["input_ids", *names], output_names=["logits", *(f"new_{name}" for name in names)],
    )  # fmt: skip
    session = onnx_session(tmp_path / "step.onnx")

    def run(ids: Tensor, keys: list[Tensor], values: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        inputs = dict(zip(["input_ids", *names], (t.numpy() for t in (ids, *keys, *values)), strict=True))
        logits, *cached = (torch.from_numpy(found) for found in session.run(None, inputs))
        return logits, cached[:layers], cached[layers:]

    prompt = token_ids(3, 15, seed=1)
    expected = model.generate(prompt, max_new_tokens=7, eos_token_id=[])
    assert torch.equal(generate(run, step, prompt, 7), expected)


@torch.no_grad()
@pytest.mark.slow
@TORCH_WARNS_OF_ITSELF
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_step_as_machine_code(tmp_path: Path) -> None:
    """AOTInductor: a step compiled ahead of time."""
    (case,) = (case for case in CAUSAL if case.model_type == "llama")
    model = build(case, num_hidden_layers=1)
    step = DecodingStep(model)
    file = torch._inductor.aoti_compile_and_package(
        exported_step(step, masked=False), package_path=str(tmp_path / "step.pt2")
    )
    compiled, prompt = torch._inductor.aoti_load_package(file), token_ids(3, 15, seed=1)
    expected = model.generate(prompt, max_new_tokens=7, eos_token_id=[])
    assert torch.equal(generate(compiled, step, prompt, 7), expected)
