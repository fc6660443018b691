"""A generated file as a program: its options, its text as it grows, and its errors, which are one line each."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from oracle.inputs import token_ids
from oracle.tokenizer import ACCENTED, tiny_tokenizer
from oracle.zoo import first_case

CASE = first_case()
PROMPT = "Who is there?"


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    """A checkpoint with a tokenizer."""
    folder = shutil.copytree(checkpoint(CASE).folder, tmp_path / "checkpoint")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(*arguments)`: what the program prints."""

    def printed(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["modeling_llama.py", *map(str, arguments)])
        CASE.module.main()
        return capsys.readouterr().out

    return printed


@pytest.mark.parametrize(
    "arguments, options",
    [
        ((), {"max_new_tokens": 100}),
        (("--max-new-tokens", 7), {"max_new_tokens": 7}),
        (
            ("--max-new-tokens", 20, "--temperature", 0.8, "--top-k", 9, "--top-p", 0.9, "--seed", 5),
            {"max_new_tokens": 20, "do_sample": True, "temperature": 0.8, "top_k": 9, "top_p": 0.9, "seed": 5},
        ),
    ],
    ids=["default", "length", "sampling"],
)
def test_options_are_those_of_generate(checkpoint, folder, run, arguments, options):
    tokenizer = tiny_tokenizer()
    prompt = tokenizer.encode(PROMPT).ids
    tokens = checkpoint(CASE).load().generate(torch.tensor([prompt]), **options)[0]
    assert (
        run(folder, "--prompt", PROMPT, *arguments)
        == complete(tokenizer.decode(tokens[len(prompt) :].tolist())) + "\n"
    )


def complete(text: str) -> str:
    """Without the end of a character whose last bytes never came."""
    return text.rstrip("\ufffd")


def test_type_option(folder, run, monkeypatch):
    """`--dtype` reaches the model."""
    seen = []
    load = CASE.model_class.from_pretrained
    monkeypatch.setattr(
        CASE.model_class, "from_pretrained", lambda *a, **options: seen.append(load(*a, **options)) or seen[-1]
    )
    run(folder, "--prompt", PROMPT, "--max-new-tokens", 1, "--dtype", "bfloat16")
    assert seen[0].dtype == torch.bfloat16


def test_characters_of_several_tokens_are_printed_whole():
    """A token that ends inside a character prints nothing; the one that completes it prints the character."""
    tokenizer = tiny_tokenizer()
    text = f"a{ACCENTED}b"
    tokens = [torch.tensor([number]) for number in tokenizer.encode(text).ids]
    assert len(tokens) == 2 + 2 * len(ACCENTED)
    pieces = list(CASE.module.decode_stream(tokenizer, tokenizer.encode(PROMPT).ids, iter(tokens)))
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece] == ["a", *ACCENTED, "b"]


def failure(run, *arguments: object) -> str:
    """The one line that the program ends with instead of a traceback."""
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert isinstance(caught.value.code, str), "an exit status without a text"
    return caught.value.code


def test_no_checkpoint(run, tmp_path):
    assert failure(run, tmp_path / "no" / "where", "--prompt", PROMPT) == (
        f"error: {tmp_path}/no/where is not a folder: name a checkpoint's folder or a repository of the Hub"
    )


def test_no_tokenizer(run, folder):
    (folder / "tokenizer.json").unlink()
    assert failure(run, folder, "--prompt", PROMPT).startswith(f"error: {folder}/tokenizer.json ")


def test_a_damaged_tokenizer(run, folder):
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    assert f"{folder}/tokenizer.json" in failure(run, folder, "--prompt", PROMPT)


def test_an_empty_prompt(run, folder):
    assert "prompt" in failure(run, folder, "--prompt", "")


def test_a_wrong_setting(run, folder):
    assert "top_p" in failure(run, folder, "--prompt", PROMPT, "--temperature", 1, "--top-p", 7)


def test_help_names_every_option(run, capsys):
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    names = ("prompt", "max-new-tokens", "temperature", "top-k", "top-p", "seed", "dtype", "device")
    assert [name for name in names if f"--{name}" not in text] == []


def test_prompt_tokens_alone_are_not_enough():
    """A prompt without tokens is refused by `generate` as well, with a text that says so."""
    model = CASE.model_class(CASE.config_class.from_dict(CASE.config)).eval()
    with pytest.raises(ValueError, match="prompt"):
        model.generate(token_ids(1, 5)[:, :0])
