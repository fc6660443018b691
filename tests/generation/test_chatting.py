"""`unibody chat`: answers are those of `generate` to the whole conversation; the terminal decides when it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from oracle.reference import save
from oracle.tokenizer import SPECIAL, tiny_tokenizer
from oracle.zoo import Case, cases, first_case

import unibody
from unibody.chatting import COMMANDS, Conversation, chat
from unibody.cli import unibody as command

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}|{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
NEW = 6
MISTRAL = next(case for case in cases("AutoModelForCausalLM") if case.entry == "mistral")


def write(folder: Path, template: str | None = TEMPLATE, case: Case = first_case()) -> Path:  # noqa: B008  a constant
    save(case, "unit", folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    settings = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def expected_answers(folder: Path, turns: list[str], system: str | None = None) -> list[str]:
    """Each from the whole conversation, anew."""
    model, tokenizer = (
        unibody.AutoModelForCausalLM.from_pretrained(folder),
        unibody.AutoTokenizer.from_pretrained(folder),
    )
    history = [] if system is None else [{"role": "system", "content": system}]
    answers = []
    for turn in turns:
        history.append({"role": "user", "content": turn})
        ids = tokenizer.apply_chat_template(
            history, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        found = model.generate(ids, max_new_tokens=NEW)
        answers.append(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))
        history.append({"role": "assistant", "content": answers[-1]})
    return answers


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *lines: monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@pytest.mark.parametrize("case", [first_case(), MISTRAL], ids=str)
def test_conversation(tmp_path: Path, typed: Any, capsys: pytest.CaptureFixture[str], case: Case) -> None:
    folder = write(tmp_path, case=case)
    first, second = expected_answers(folder, ["hello", "a lazy dog"], "be kind")
    again = expected_answers(folder, ["a lazy dog"], "be kind")[0]
    typed("hello", "", "a lazy dog", "/clear", "a lazy dog", "/exit", "not read")
    assert chat(str(folder), {"max_new_tokens": NEW, "system": "be kind", "top_k": None}) == 0
    assert capsys.readouterr().out == f"{COMMANDS}\n> {first}\n> > {second}\n> > {again}\n> "
    assert again != second or case is MISTRAL, "whose window is shorter than a turn"


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    model, tokenizer = (
        unibody.AutoModelForCausalLM.from_pretrained(folder),
        unibody.AutoTokenizer.from_pretrained(folder),
    )
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *call: passes.append(call[2]["input_ids"].shape[1]), with_kwargs=True)
    talk = Conversation(model, tokenizer, None, {"max_new_tokens": NEW})
    talk.answer("a long message to begin with, and so on")
    before = passes[0]
    passes.clear()
    talk.answer("ok")
    assert passes[0] < before / 2


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C cuts an answer short, wherever the model is; the conversation goes on from what was said."""
    folder = write(tmp_path)
    model, tokenizer = (
        unibody.AutoModelForCausalLM.from_pretrained(folder),
        unibody.AutoTokenizer.from_pretrained(folder),
    )
    talk = Conversation(model, tokenizer, None, {"max_new_tokens": NEW})
    calls: list[int] = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_hook(interrupt)
    talk.answer("hello")
    hook.remove()
    cut = talk.history[-1]["content"]
    assert expected_answers(folder, ["hello"])[0].startswith(cut)
    assert capsys.readouterr().out == f"{cut}\n"
    talk.answer("a lazy dog")
    ids = tokenizer.apply_chat_template(talk.history[:-1], add_generation_prompt=True, return_dict=False)
    found = model.generate(torch.tensor([ids]), max_new_tokens=NEW)[0, len(ids) :]
    assert talk.history[-1]["content"] == tokenizer.decode(found, skip_special_tokens=True)


def test_the_command(tmp_path: Path) -> None:
    """The end of the input ends it too; without a template there is no conversation."""
    folder = write(tmp_path / "with")
    answer = expected_answers(folder, ["hello"])[0]
    done = CliRunner().invoke(command, ["chat", str(folder), "--max-new-tokens", str(NEW)], input="hello\n")
    assert (done.exit_code, done.stdout) == (0, f"{COMMANDS}\n> {answer}\n> \n")
    drawn = [
        CliRunner()
        .invoke(command, ["chat", str(folder), "--temperature", "3.0", "--seed", seed], input="hello\n")
        .stdout
        for seed in ("1", "1", "2")
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    without = write(tmp_path / "without", template=None)
    done = CliRunner().invoke(command, ["chat", str(without)], input="hello\n")
    assert done.exit_code == 1
    assert "has no chat template" in done.stderr
    assert done.stdout == ""
