"""An encoder's file as a program: it embeds, classifies and fills in words, and its errors are one line each."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from oracle.reference import assert_close
from oracle.zoo import cases
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

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
        (("--embed", "w5", "--dtype", "float7"), "error: dtype 'float7' is not a type for weights"),
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
