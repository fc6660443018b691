"""What only encoders have: segments, positions that skip padding, poolers, and the forms of their checkpoints on the Hub."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from oracle.inputs import padded_batch, token_ids
from oracle.reference import SCALES, Checkpoint, assert_close, oracle_class, save, stored_tensors, values
from oracle.zoo import ZOO, Case, cases
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

ATTENTIONS = ("sdpa", "eager")
MASKED = cases("AutoModelForMaskedLM")
TYPES = list(dict.fromkeys(case.model_type for case in MASKED))
ENCODERS = [case for case in cases() if case.model_type in TYPES]
BASES = [case for case in cases("AutoModel") if case.model_type in TYPES]
TIED = [case for case in MASKED if case.config.get("tie_word_embeddings", True)]

every_attention = pytest.mark.parametrize("attention", ATTENTIONS)
every_encoder = pytest.mark.parametrize("case", ENCODERS, ids=str)
every_base = pytest.mark.parametrize("case", BASES, ids=str)
every_masked = pytest.mark.parametrize("case", MASKED, ids=str)
every_tied = pytest.mark.parametrize("case", TIED, ids=str)


def assert_same_values(
    written: Checkpoint, inputs: dict[str, Tensor], attention: str = "sdpa", real=slice(None)
) -> None:
    """Our values are the oracle's; of values that belong to tokens only those of `real` tokens are compared."""
    with torch.no_grad():
        ours = values(written.load(attn_implementation=attention)(**inputs))
        theirs = values(written.reference(attention)(**inputs))
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert not tensor.isnan().any(), name
        where = real if not isinstance(real, Tensor) or tensor.shape[:2] == real.shape else slice(None)
        assert_close(tensor[where], theirs[name][where], written.tolerance)


@every_attention
@pytest.mark.parametrize("case", [case for case in ENCODERS if case.config["type_vocab_size"] > 1], ids=str)
def test_segments(checkpoint, case, attention):
    """Two segments in padded rows; each row's own border."""
    batch = padded_batch((20, 11, 2), side="right")
    segments = (torch.arange(20) >= torch.tensor([7, 4, 1])[:, None]).long()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "token_type_ids": segments}
    for scale in SCALES:
        assert_same_values(checkpoint(case, scale), inputs, attention, batch.attention_mask.bool())
    with torch.no_grad():
        model = checkpoint(case).load()
        one, two = (values(model(batch.input_ids, token_type_ids=types)) for types in (segments * 0, segments))
    assert all((one[name] - two[name]).abs().max() > 0.05 for name in one)


@pytest.mark.parametrize("side", ["left", "right"])
@every_attention
@every_encoder
def test_rows_of_the_models_own_padding(checkpoint, case, attention, side):
    """Padding has the id of config.json, of which some models take the positions."""
    batch = padded_batch(side=side)
    mask = batch.attention_mask
    inputs = {"input_ids": batch.input_ids.masked_fill(mask == 0, case.config["pad_token_id"]), "attention_mask": mask}
    for scale in SCALES:
        assert_same_values(checkpoint(case, scale), inputs, attention, mask.bool())


@every_base
def test_padding_changes_nothing(checkpoint, case):
    """A row's hidden states are those that it has alone, and no token sees padding."""
    model, pad = checkpoint(case).load(), case.config["pad_token_id"]
    batch = padded_batch((20, 11, 1), side="right")
    ids = batch.input_ids.masked_fill(batch.attention_mask == 0, pad)
    with torch.no_grad():
        together = model(ids, batch.attention_mask)
        for row, length in enumerate((20, 11, 1)):
            alone = model(ids[row : row + 1, :length])
            assert_close(together.last_hidden_state[row, :length], alone.last_hidden_state[0], 2e-4)
            assert_close(together.pooler_output[row], alone.pooler_output[0], 2e-4)
        unmasked = model(ids).last_hidden_state
    assert (unmasked[1, :11] - together.last_hidden_state[1, :11]).abs().max() > 0.05


@every_base
def test_every_token_sees_every_token(checkpoint, case):
    """Changing the last token changes the hidden state of the first."""
    model, ids = checkpoint(case).load(), token_ids(1)
    changed = ids.clone()
    changed[0, -1] = ids[0, -1] % 100 + 3 if ids[0, -1] != 3 else 4
    assert not torch.equal(changed, ids)
    for attention in ATTENTIONS:
        model.config.attn_implementation = attention
        with torch.no_grad():
            assert (model(ids).last_hidden_state - model(changed).last_hidden_state)[0, 0].abs().max() > 1e-3


@every_attention
@every_encoder
def test_embeddings_given_instead_of_ids(checkpoint, case, attention):
    """Positions then count from the first token, whatever the tokens are."""
    written = checkpoint(case)
    mask = padded_batch(side="right").attention_mask
    with torch.no_grad():
        embeddings = written.load().get_input_embeddings()(token_ids(3))
    assert_same_values(written, {"inputs_embeds": embeddings}, attention)
    assert_same_values(written, {"inputs_embeds": embeddings, "attention_mask": mask}, attention, mask.bool())


@every_encoder
def test_the_longest_text(checkpoint, case):
    """`longest_text` tokens have positions, one more has none, here and in the oracle."""
    written = checkpoint(case)
    length = case.config_class.from_pretrained(written.folder).longest_text
    assert_same_values(written, {"input_ids": token_ids(1, length)})
    for model in (written.load(), written.reference()):
        with pytest.raises((IndexError, RuntimeError)):
            model(token_ids(1, length + 1))


@every_encoder
def test_only_what_needs_a_pooler_has_one(checkpoint, case):
    ours, theirs = checkpoint(case).load(), checkpoint(case).reference()
    assert (ours.base_model.pooler is None) == (theirs.base_model.pooler is None)


@pytest.mark.parametrize("attention", ATTENTIONS)
@every_masked
def test_loss_of_masked_words(checkpoint, case, attention):
    """Only labelled tokens count; token types and dropout of a training step are the oracle's."""
    written = checkpoint(case)
    ids = token_ids(2, 12)
    labels = ids.masked_fill(torch.arange(12) % 4 != 0, -100)
    losses = []
    for model in (written.load(attn_implementation=attention), written.reference(attention)):
        torch.manual_seed(0)
        losses.append(model.train()(input_ids=ids, labels=labels).loss)
        with torch.no_grad():
            logits = model.eval()(input_ids=ids).logits[:, ::4].flatten(0, 1)
            expected = torch.nn.functional.cross_entropy(logits, ids[:, ::4].flatten())
            assert_close(model(input_ids=ids, labels=labels).loss, expected, written.tolerance)
    assert_close(losses[0], losses[1], written.tolerance)


@every_attention
@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@every_base
def test_each_dropout_is_the_oracles(tmp_path, case, rate, attention):
    """With one kind of dropout alone, both models draw the same masks in the same places."""
    both = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    written = save(case, "unit", tmp_path, **{**both, rate: 0.5})
    hidden = []
    for model in (written.load(attn_implementation=attention), written.reference(attention)):
        torch.manual_seed(0)
        with torch.no_grad():
            hidden.append(model.train()(token_ids()).last_hidden_state)
    assert_close(hidden[0], hidden[1], written.tolerance)
    with torch.no_grad():
        assert (hidden[0] - written.load()(token_ids()).last_hidden_state).abs().max() > 0.1


@pytest.mark.parametrize("rate", [None, 0.0, 0.5])
@pytest.mark.parametrize(
    "case", [case for case in cases("AutoModelForSequenceClassification") if case in ENCODERS], ids=str
)
def test_dropout_before_the_label(tmp_path, case, rate):
    """`classifier_dropout` counts in the head alone; null means the rate of the layers."""
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.0, "classifier_dropout": rate}
    written = save(case, "unit", tmp_path, **rates)
    logits = []
    for model in (written.load(), written.reference()):
        torch.manual_seed(0)
        logits.append(model.train()(token_ids()).logits.detach())
    assert_close(logits[0], logits[1], written.tolerance)
    assert (logits[0] - written.load()(token_ids()).logits).abs().max() > 0.01


def rewritten(written: Checkpoint, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A copy of the checkpoint in `folder` whose tensors went through `change`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes((written.folder / "config.json").read_bytes())
    tensors = {
        name: tensor.clone() for name, tensor in change(load_file(written.folder / "model.safetensors")).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def assert_read_as_by_the_oracle(case: Case, folder: Path, *, whole: bool = True) -> None:
    """Both read the folder without missing keys; unless `whole`, keys without a use are the same; logits are equal."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    theirs, expected = oracle_class(case).from_pretrained(folder, output_loading_info=True)
    assert info["missing_keys"] == expected["missing_keys"] == set()
    assert info["unexpected_keys"] == expected["unexpected_keys"]
    assert bool(caught) == bool(info["unexpected_keys"]) == (not whole)
    assert all(name in str(caught[0].message) for name in info["unexpected_keys"])
    with torch.no_grad():
        our_values, their_values = values(ours(token_ids())), values(theirs.eval()(token_ids()))
    for name, tensor in their_values.items():
        assert_close(our_values[name], tensor, 2e-4)


def gamma_and_beta(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        ending = next((ending for ending in old if name.endswith(ending)), "")
        renamed[name.removesuffix(ending) + old.get(ending, "")] = tensor
    assert len(renamed.keys() - tensors.keys()) > 6
    return renamed


@every_encoder
def test_gamma_and_beta(checkpoint, tmp_path, case):
    """The first checkpoints name the weights of LayerNorm as the paper does; what we save has today's names."""
    written = checkpoint(case)
    folder = rewritten(written, tmp_path / "old", gamma_and_beta)
    assert_read_as_by_the_oracle(case, folder)
    model = case.model_class.from_pretrained(folder)
    assert set(stored_tensors(model, tmp_path / "new")) == set(load_file(written.folder / "model.safetensors"))


@every_encoder
def test_keys_with_and_without_the_prefix(checkpoint, tmp_path, case):
    """A head reads a base model's keys without their prefix; a base model reads them with it."""
    prefix = f"{case.model_type}."

    def other(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if case in BASES:
            return {prefix + name: tensor for name, tensor in tensors.items()}
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}

    folder = rewritten(checkpoint(case), tmp_path, other)
    assert set(load_file(folder / "model.safetensors")) != set(
        load_file(checkpoint(case).folder / "model.safetensors")
    )
    assert_read_as_by_the_oracle(case, folder)


@every_encoder
def test_stored_positions_are_ignored(checkpoint, tmp_path, case):
    """Old checkpoints store the numbers 0, 1, 2, …"""
    prefix = "" if case in BASES else f"{case.model_type}."
    numbers = {f"{prefix}embeddings.position_ids": torch.arange(case.config["max_position_embeddings"])[None]}
    assert_read_as_by_the_oracle(case, rewritten(checkpoint(case), tmp_path, lambda tensors: {**tensors, **numbers}))


@every_masked
def test_weights_of_pretraining_that_no_head_needs(checkpoint, tmp_path, case):
    """A pooler and the head of next-sentence prediction are named in the warning."""
    surplus = {
        f"{case.model_type}.pooler.dense.weight": torch.ones(32, 32),
        "cls.seq_relationship.bias": torch.ones(2),
    }
    folder = rewritten(checkpoint(case), tmp_path, lambda tensors: {**tensors, **surplus})
    assert_read_as_by_the_oracle(case, folder, whole=False)


@every_base
def test_a_base_model_without_its_pooler(checkpoint, tmp_path, case):
    """The pooler is named in a warning and drawn at random; the hidden states are the checkpoint's."""
    written = checkpoint(case)
    pooler = {"pooler.dense.weight", "pooler.dense.bias"}
    folder = rewritten(written, tmp_path, lambda t: {name: t[name] for name in t if name not in pooler})
    with pytest.warns(UserWarning, match="pooler.dense.bias, pooler.dense.weight"):
        model, info = case.model_class.from_pretrained(folder, output_loading_info=True)
    assert info == {"missing_keys": pooler, "unexpected_keys": set(), "mismatched_keys": set()}
    assert model.pooler.dense.weight.std().item() == pytest.approx(0.02, rel=0.2)
    with torch.no_grad():
        expected = written.reference()(token_ids())
        assert_close(model(token_ids()).last_hidden_state, expected.last_hidden_state, written.tolerance)


@every_masked
def test_a_base_model_from_a_masked_language_model(checkpoint, case):
    written, base = checkpoint(case), next(base for base in BASES if base.model_type == case.model_type)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = written.load_as(base, output_loading_info=True)
    expected = oracle_class(base).from_pretrained(written.folder, output_loading_info=True)[1]
    assert {name: info[name] for name in info} == {name: set(expected[name]) for name in info}
    with torch.no_grad():
        theirs = written.reference().base_model(token_ids()).last_hidden_state
        assert_close(model(token_ids()).last_hidden_state, theirs, written.tolerance)


def tied_names(case: Case) -> dict[str, str]:
    """`weight` and `bias` of the decoder and of what they are tied to, as (name, source) by kind."""
    return {name.rpartition(".")[2]: (name, source) for name, source in case.model_class._tied_weights_keys.items()}


FORMS: dict[str, Callable[[dict[str, Tensor], tuple[str, str], tuple[str, str]], dict[str, Tensor]]] = {
    "both names": lambda t, weight, bias: {**t, weight[0]: t[weight[1]], bias[0]: t[bias[1]]},
    "the other name of the bias": lambda t, weight, bias: {**without(t, bias[1]), bias[0]: t[bias[1]]},
    "the other names": lambda t, weight, bias: {
        **without(t, weight[1], bias[1]),
        weight[0]: t[weight[1]],
        bias[0]: t[bias[1]],
    },
    "another matrix": lambda t, weight, bias: {**t, weight[0]: t[weight[1]] + 1},
    "another matrix, both biases": lambda t, weight, bias: {**t, weight[0]: t[weight[1]] + 1, bias[0]: t[bias[1]]},
    "another matrix, the other bias": lambda t, weight, bias: {
        **without(t, bias[1]),
        weight[0]: t[weight[1]] + 1,
        bias[0]: t[bias[1]],
    },
    "another bias": lambda t, weight, bias: {**t, bias[0]: t[bias[1]] + 1},
}


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize("form", FORMS)
@every_tied
def test_forms_of_the_tied_decoder(checkpoint, tmp_path, case, form):
    """Whatever is stored of the decoder, logits are the oracle's, also after we save the model and either reads it."""
    names = tied_names(case)
    folder = rewritten(checkpoint(case), tmp_path / "read", lambda t: FORMS[form](t, names["weight"], names["bias"]))
    assert_read_as_by_the_oracle(case, folder)
    model = case.model_class.from_pretrained(folder)
    assert model.config.tie_word_embeddings == ("another" not in form)
    model.save_pretrained(tmp_path / "saved")
    assert_read_as_by_the_oracle(case, tmp_path / "saved")
    with torch.no_grad():
        again = case.model_class.from_pretrained(tmp_path / "saved")
        assert torch.equal(again(token_ids()).logits, model(token_ids()).logits)


@every_tied
def test_tied_weights_are_stored_once(checkpoint, tmp_path, case):
    model = checkpoint(case).load()
    for name, source in case.model_class._tied_weights_keys.items():
        assert model.get_parameter(name) is model.get_parameter(source)
    stored = stored_tensors(model, tmp_path)
    assert not set(case.model_class._tied_weights_keys) & set(stored)
    assert model.get_input_embeddings().weight is model.get_parameter(tied_names(case)["weight"][0])


@pytest.mark.parametrize(
    "keys, name",
    [
        ({"is_decoder": True}, "is_decoder True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("model_type", TYPES)
def test_what_the_file_does_not_run_is_refused(model_type, keys, name):
    """Another attention or other positions would give plausible, wrong values."""
    case = next(case for case in BASES if case.model_type == model_type)
    config = case.config_class.from_dict({**ZOO[model_type]["config"], **keys})
    with pytest.raises(ValueError, match=name):
        case.model_class(config)
    fine = case.config_class.from_dict({**ZOO[model_type]["config"], "position_embedding_type": "absolute"})
    assert case.model_class(fine)(token_ids()).pooler_output.shape == (2, 32)


WORDS = [f"w{number}" for number in range(120)]


@pytest.fixture(params=[("bert", "[MASK]"), ("roberta", "<mask>")], ids=["bert", "roberta"])
def program(request, checkpoint, tmp_path, monkeypatch, capsys):
    """`program(auto_class, *arguments)`: what the file prints for a checkpoint with a tokenizer of words; its mask."""
    model_type, mask = request.param
    special = ["<pad>", "<s>", "</s>", mask, "[UNK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def printed(auto_class: str, *arguments: str) -> str:
        case = next(case for case in cases(auto_class) if case.entry == model_type)
        written = checkpoint(case)
        folder = tmp_path / auto_class
        if not folder.exists():
            folder.mkdir()
            for file in written.folder.iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
            tokenizer.save(str(folder / "tokenizer.json"))
        monkeypatch.setattr(sys, "argv", [f"modeling_{model_type}.py", str(folder), *arguments])
        case.module.main()
        return capsys.readouterr().out

    printed.mask, printed.model_type, printed.tokenizer = mask, model_type, tokenizer
    return printed


def oracle_for(program, checkpoint, auto_class: str):
    return checkpoint(next(case for case in cases(auto_class) if case.entry == program.model_type)).reference()


def ids_of(program, text: str) -> Tensor:
    return torch.tensor([program.tokenizer.encode(text).ids])


@pytest.mark.parametrize("written_mask", ["[MASK]", "<mask>"])
def test_program_fills_in_words(program, checkpoint, written_mask):
    """The five likeliest words for each mask, with the oracle's probabilities; both spellings of the mask are read."""
    lines = program("AutoModelForMaskedLM", "--fill", f"w5 {written_mask} w7 {written_mask} w1").splitlines()
    ids = ids_of(program, f"w5 {program.mask} w7 {program.mask} w1")
    with torch.no_grad():
        best = oracle_for(program, checkpoint, "AutoModelForMaskedLM")(ids).logits[0, [1, 3]].softmax(-1).topk(5)
    expected = zip(best.values.flatten().tolist(), best.indices.flatten().tolist(), strict=True)
    assert lines == [f"{score:.4f} {program.tokenizer.decode([token])}" for score, token in expected]


def test_program_classifies(program, checkpoint):
    lines = program("AutoModelForSequenceClassification", "--classify", "w5 w6 w7", "w8").splitlines()
    oracle = oracle_for(program, checkpoint, "AutoModelForSequenceClassification")
    expected = []
    for text in ("w5 w6 w7", "w8"):
        with torch.no_grad():
            scores = oracle(ids_of(program, text)).logits[0].softmax(-1).sort(descending=True)
        expected += [
            f"{score:.4f} LABEL_{label}"
            for score, label in zip(scores.values.tolist(), scores.indices.tolist(), strict=True)
        ]
    assert lines == expected


def test_program_cuts_a_text_that_is_too_long(program, checkpoint):
    """A vector for as many tokens as there are positions."""
    vector = json.loads(program("AutoModel", "--embed", " ".join(WORDS)))
    length = 64 if program.model_type == "bert" else 62
    with torch.no_grad():
        oracle = oracle_for(program, checkpoint, "AutoModel")
        hidden = oracle(ids_of(program, " ".join(WORDS))[:, :length]).last_hidden_state
    assert_close(torch.tensor(vector), torch.nn.functional.normalize(hidden.mean(1))[0], 2e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--fill", "w5 w6"), "error: 'w5 w6' has no masked word: write {mask} in its place"),
        (("--embed", ""), "error: '' has no tokens"),
        (("--embed", "w5", "--dtype", "float7"), "error: dtype 'float7' is not a type of torch"),
    ],
    ids=["no mask", "empty", "type"],
)
def test_program_errors_are_one_line(program, arguments, message):
    auto_class = "AutoModelForMaskedLM" if "--fill" in arguments else "AutoModel"
    with pytest.raises(SystemExit) as caught:
        program(auto_class, *arguments)
    assert str(caught.value.code).startswith(message.format(mask=program.mask))


@pytest.mark.parametrize("arguments", [(), ("--embed", "a", "--fill", "b")], ids=["nothing", "two"])
def test_program_does_one_thing(program, capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        program("AutoModel", *arguments)
    assert caught.value.code == 2
    assert "--embed" in capsys.readouterr().err


def test_auto_class_of_masked_language_models(checkpoint):
    """transformers finds the same class under the same name."""
    for case in MASKED:
        assert case.auto_class == "AutoModelForMaskedLM"
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(checkpoint(case).folder)
        assert type(theirs).__name__ == case.class_name
