"""What a generated model saves, transformers loads with no missing and no unexpected key, and the same values."""

from __future__ import annotations

import json
import stat

import pytest
import safetensors.torch
import torch
from oracle.inputs import token_ids
from oracle.reference import build, oracle_class, stored_tensors, values
from oracle.zoo import cases, first_case
from safetensors import safe_open

every_case = pytest.mark.parametrize("case", cases(), ids=str)
every_causal_case = pytest.mark.parametrize("case", cases("AutoModelForCausalLM"), ids=str)
NOTHING_WRONG = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}


def assert_transformers_reads(case, folder, expected) -> None:
    """transformers loads `folder` completely, and its tensors are those of the model `expected`."""
    theirs, info = oracle_class(case).from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert {name: set(info[name]) for name in NOTHING_WRONG} == NOTHING_WRONG
    ids = token_ids()
    with torch.no_grad():
        read, wanted = values(theirs.eval()(ids)), values(expected(ids))
    assert set(read) == set(wanted)
    for name, tensor in wanted.items():
        assert torch.equal(read[name], tensor), name
    state = theirs.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor), name


@every_case
def test_transformers_loads_what_we_save(checkpoint, tmp_path, case):
    written = checkpoint(case)
    written.load().save_pretrained(tmp_path)
    assert_transformers_reads(case, tmp_path, written.reference())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@every_case
def test_stored_names_and_values_are_transformers(checkpoint, tmp_path, case):
    written = checkpoint(case)
    theirs = safetensors.torch.load_file(written.folder / "model.safetensors")
    ours = stored_tensors(written.load(), tmp_path)
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@every_causal_case
def test_our_shards(checkpoint, tmp_path, case):
    """No shard is larger than asked, the index names every tensor and the total size, and both sides load it."""
    written = checkpoint(case)
    model = written.load()
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    count = len(shards)
    assert count > 2
    assert [path.name for path in shards] == [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text(encoding="utf-8"))
    tensors = {path.name: safetensors.torch.load_file(path) for path in shards}
    assert index["weight_map"] == {name: file for file, held in tensors.items() for name in held}
    sizes = [sum(tensor.nbytes for tensor in held.values()) for held in tensors.values()]
    assert max(sizes) <= 40_000
    assert index["metadata"]["total_size"] == sum(sizes)
    assert_transformers_reads(case, tmp_path, written.reference())
    again, info = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert info == NOTHING_WRONG
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())


@every_causal_case
def test_shards_of_transformers(checkpoint, tmp_path, case):
    written = checkpoint(case)
    written.reference().save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model, info = case.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert info == NOTHING_WRONG
    expected = written.original.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("size", [40_000, "40KB", "40kb", "0.04MB"])
def test_units_of_the_shard_size(checkpoint, tmp_path, size):
    checkpoint(first_case()).load().save_pretrained(tmp_path / "asked", max_shard_size=size)
    checkpoint(first_case()).load().save_pretrained(tmp_path / "bytes", max_shard_size=40_000)
    asked, expected = (sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("asked", "bytes"))
    assert asked == expected


@every_causal_case
def test_saving_over_shards_leaves_no_old_tensor(checkpoint, tmp_path, case):
    """A checkpoint saved over a sharded one is the only one in the folder, in whichever order they are saved."""
    model = checkpoint(case).load()
    changed = case.model_class.from_pretrained(checkpoint(case, "small").folder)
    for first, second in [("40KB", "5GB"), ("5GB", "40KB"), ("20KB", "40KB")]:
        model.save_pretrained(tmp_path / f"{first}-{second}", max_shard_size=first)
        changed.save_pretrained(tmp_path / f"{first}-{second}", max_shard_size=second)
        changed.save_pretrained(tmp_path / second, max_shard_size=second)
        again = case.model_class.from_pretrained(tmp_path / f"{first}-{second}")
        assert all(torch.equal(tensor, changed.state_dict()[name]) for name, tensor in again.state_dict().items())
        left = sorted(path.name for path in (tmp_path / f"{first}-{second}").iterdir())
        assert left == sorted(path.name for path in (tmp_path / second).iterdir())


TIED = [
    case
    for case in cases()
    if "lm_head.weight" in case.model_class._tied_weights_keys
    and case.config_class.from_dict(case.config).tie_word_embeddings
]


@pytest.mark.parametrize("case", TIED, ids=str)
def test_tied_weights_are_one_tensor(checkpoint, tmp_path, case):
    model = checkpoint(case).load()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert "lm_head.weight" not in stored_tensors(model, tmp_path)
    again = case.model_class.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert_transformers_reads(case, tmp_path, checkpoint(case).reference())


@every_causal_case
def test_bfloat16_stays_bfloat16(checkpoint, tmp_path, case):
    checkpoint(case).load(dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert_transformers_reads(case, tmp_path, checkpoint(case).reference(dtype=torch.bfloat16))
    assert case.model_class.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_a_model_is_saved_over_the_files_that_it_is_mapped_from(checkpoint, tmp_path):
    """Loading maps the file, so saving must not write into it: the loaded model keeps its values, the new file is whole."""
    case = first_case()
    checkpoint(case).reference().save_pretrained(tmp_path)
    model, bystander = (case.model_class.from_pretrained(tmp_path) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in bystander.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    model.save_pretrained(tmp_path)
    again = case.model_class.from_pretrained(tmp_path).state_dict()
    for name, tensor in bystander.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert torch.equal(again[name], before[name] * 2), name


def test_changing_a_loaded_model_does_not_change_its_file(checkpoint, tmp_path):
    case = first_case()
    checkpoint(case).reference().save_pretrained(tmp_path)
    stored = (tmp_path / "model.safetensors").read_bytes()
    model = case.model_class.from_pretrained(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (tmp_path / "model.safetensors").read_bytes() == stored


def test_a_save_that_fails_leaves_the_old_checkpoint(checkpoint, tmp_path, monkeypatch):
    case = first_case()
    model = checkpoint(case).load()
    model.save_pretrained(tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    write = safetensors.torch.save_file

    def write_then_fail(*arguments, **options):
        write(*arguments, **options)
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", write_then_fail)
    with pytest.raises(OSError, match="no space left"):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old


def test_whoever_may_read_new_files_may_read_the_weights(checkpoint, tmp_path):
    """Some releases of safetensors write files for their owner alone."""
    checkpoint(first_case()).load().save_pretrained(tmp_path)
    (tmp_path / "new").touch()
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


def test_a_model_built_from_a_configuration_is_saved_with_its_architecture(tmp_path):
    case = first_case()
    torch.manual_seed(0)
    model = case.model_class(case.config_class.from_dict(case.config))
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == [case.class_name]
    assert config["model_type"] == case.model_type
    assert config["dtype"] == "float32"
    assert set(config) >= set(case.config_keys) - {"transformers_version"}
    assert_transformers_reads(case, tmp_path, model.eval())


@every_case
def test_fresh_parameters_are_drawn_as_the_oracle_draws_them(case):
    """Weights have the oracle's spread, biases are zero, norms one: training from scratch starts at the same place."""
    torch.manual_seed(0)
    model = case.model_class(case.config_class.from_dict(case.config))
    theirs = build(case, "unit").__class__(build(case, "unit").config).state_dict()
    for name, tensor in model.state_dict().items():
        if theirs[name].ndim == 1 or tensor.numel() < 500:
            assert tensor.mean().item() == pytest.approx(theirs[name].mean().item(), abs=0.02), name
        else:
            assert tensor.std().item() == pytest.approx(theirs[name].std().item(), rel=0.2), name
