"""One way to deprecate, one base of exceptions, and log messages that go through loggers."""

from __future__ import annotations

import ast
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import inputs

import unibody
from unibody import deprecation
from unibody.deprecation import deprecated

PRINTING = {  # modules whose prints are what was asked for
    "bench.command", "bench.run", "bench.upload", "chatting", "generation.streamers", "inspection", "integrations.gguf", "publishing",
    "quantize", "running", "training.merging", "training.progress", "training.reports",
}  # fmt: skip
ROOT = Path(str(unibody.__file__)).parent
ELSEWHERE = ("cli", "core", "generated", "generator", "modular", "templates")  # of the compiler, or inlined by it
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.relative_to(ROOT).parts[0] not in ELSEWHERE and path.stem not in ("__init__", "__main__")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    inputs.llama().save_pretrained(folder)
    return folder


@deprecated(since="0.1", removed_in="9.0", instead="call other()")
def former(value: int) -> int:
    """Twice the value."""
    return 2 * value


def test_warned_once_for_each_place() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            assert former(2) == 4
        former(3)
    message = "former() is deprecated since unibody 0.1 and will be removed in 9.0: call other()"
    assert [(str(w.message), w.category, w.filename) for w in caught] == [(message, FutureWarning, __file__)] * 2
    assert former.__doc__ == "Twice the value."


def test_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.0", "9.0.1", "10.0"):
        monkeypatch.setattr(deprecation, "library_version", lambda version=version: version)
        with pytest.raises(unibody.RemovedError, match=r"former\(\) was removed in unibody 9\.0: call other\(\)"):
            former(1)
    monkeypatch.setattr(deprecation, "library_version", lambda: "9.0.dev1")
    with pytest.warns(FutureWarning):
        former(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"torch_dtype": torch.bfloat16}, "torch_dtype= is deprecated since .*: write dtype="),
        ({"use_auth_token": "hf_x"}, "use_auth_token= is deprecated since .*: write token="),
        ({"low_cpu_mem_usage": True}, "low_cpu_mem_usage= is deprecated since .*: leave it out"),
        ({"load_in_4bit": True}, r"load_in_4bit= is .*: write quantization_config=BitsAndBytesConfig\(load_in_4bit=True\)"),
        ({"load_in_8bit": False}, "load_in_8bit= is deprecated"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "AutoModelForCausalLM"])
def test_spellings_of_old_in_loading(name: str, options: dict[str, Any], message: str, folder: Path) -> None:
    """What they mean still counts, and the warning points at the program."""
    with pytest.warns(FutureWarning, match=message) as caught:
        model = getattr(unibody, name).from_pretrained(folder, **options)
    assert [w.filename for w in caught] == [__file__]
    assert model.dtype == options.get("torch_dtype", torch.float32)
    assert hasattr(model, "hf_quantizer") == ("load_in_4bit" in options)


@pytest.mark.filterwarnings("ignore:load_in_:FutureWarning")
def test_spellings_that_exclude_each_other(folder: Path) -> None:
    both = {"load_in_8bit": True, "load_in_4bit": True}
    with pytest.raises(ValueError, match="load_in_8bit and load_in_4bit exclude each other"):
        unibody.LlamaForCausalLM.from_pretrained(folder, **both)
    with pytest.raises(ValueError, match="load_in_4bit and quantization_config say the same twice"):
        unibody.LlamaForCausalLM.from_pretrained(
            folder, load_in_4bit=True, quantization_config=unibody.BitsAndBytesConfig(load_in_8bit=True)
        )


def test_spellings_of_old_elsewhere(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="use_auth_token= is deprecated"):
        config = unibody.AutoConfig.from_pretrained(folder, use_auth_token="hf_x")
    with pytest.raises(
        TypeError, match="token= and use_auth_token=, its former name, are both given: leave out use_auth"
    ):
        unibody.AutoConfig.from_pretrained(folder, use_auth_token="hf_x", token="hf_y")
    model = unibody.LlamaForCausalLM(config)
    with pytest.warns(FutureWarning, match="safe_serialization= is deprecated since .*: leave it out"):
        model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    with pytest.raises(
        ValueError, match="safe_serialization=False asks for pickled weights: they are written as safetens"
    ):
        model.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert not (tmp_path / "pickled").exists()
    quantizer = unibody.GptqHfQuantizer(unibody.GPTQConfig(bits=4))
    with pytest.warns(FutureWarning, match=r"update_torch_dtype\(\) is deprecated since .*: call update_dtype"):
        assert quantizer.update_torch_dtype(torch.float16) == torch.float16


def test_one_base_of_exceptions() -> None:
    """What is named like an exception is one of the library's."""
    found = 0
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (node.name.endswith(("Error", "Exception", "Warning"))):
                kind = getattr(import_module(f"unibody.{name}"), node.name)
                assert issubclass(kind, unibody.UnibodyError), kind
                found += 1
    assert found >= 8
    assert issubclass(unibody.HubError, OSError)


@pytest.mark.parametrize("name", MODULES)
def test_messages_go_through_the_loggers(name: str) -> None:
    """Only commands print; only `unibody.logging` asks for a logger by itself; only `unibody.deprecation` says that something goes."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print" or name in PRINTING, (name, node.lineno)
            others = [argument.value for argument in node.args if isinstance(argument, ast.Constant)] == ["codecarbon"]
            assert called != "logging.getLogger" or name == "logging" or others, (name, node.lineno)
            kinds = [ast.unparse(argument) for argument in node.args[1:]] if called == "warnings.warn" else []
            assert {"DeprecationWarning", "FutureWarning"}.isdisjoint(kinds) or name == "deprecation", (
                name,
                node.lineno,
            )
