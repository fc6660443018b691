"""What a machine lacks for a method or for the kernel that is asked for: one error, with what is there, what is needed and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracle.quantization import inputs
from quantizers.files import generated, make_layer

import unibody

FOUR = {"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}


def choose(kernel: str, device: str, dtype: torch.dtype = torch.bfloat16) -> str:
    """The kernel that is chosen for a layer of NF4 where this one is asked for, or any."""
    file = generated("bitsandbytes")
    file.missing_package.cache_clear()
    config = file.BitsAndBytesConfig(**FOUR, kernel=kernel or None)
    layer = make_layer(file.Linear4bit, config, torch.randn(64, 64))
    return str(file.choose_kernel(layer, torch.device(device), dtype).name)


@pytest.mark.parametrize(
    ("version", "capability", "kernel", "device", "message"),
    [
        (None, (9, 0), "bitsandbytes", "cuda", "bitsandbytes>=0.50 is not installed"),
        ("0.43.1", (9, 0), "bitsandbytes", "cuda", "bitsandbytes>=0.50 is needed, 0.43.1 is installed"),
        ("0.50.2", (5, 2), "bitsandbytes", "cuda", r"it needs compute capability \(6, 0\), cuda has \(5, 2\)"),
        ("0.50.2", (9, 0), "bitsandbytes", "cpu", "it runs on cuda, not on cpu"),
        ("0.43.1", (9, 0), "bitsandbytes_cpu", "cpu", "bitsandbytes>=0.50 is needed, 0.43.1 is installed"),
    ],
)
def test_a_kernel_that_cannot_run(
    version: str | None, capability: tuple[int, int], kernel: str, device: str, message: str, monkeypatch: Any
) -> None:
    """Asked for by name it is refused; otherwise the next one that can runs the layer."""
    file = generated("bitsandbytes")
    monkeypatch.setattr(file, "find_spec", lambda name: version if name == "bitsandbytes" else None)
    monkeypatch.setattr(file.metadata, "version", lambda name: version)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    remedy = rf"; leave out kernel='{kernel}' \(and UNIBODY_KERNEL\), and the best that can runs it$"
    with pytest.raises(RuntimeError, match=rf"^no kernel can run Linear4bit 64 x 64: {kernel}: {message}{remedy}"):
        choose(kernel, device)
    assert choose("", device) != kernel
    file.missing_package.cache_clear()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"device_map": "cuda"},
            "device_map asks for cuda, and torch finds no accelerator here: use device_map='cpu'",
        ),
        ({"device_map": {"": "cuda:1"}}, "device_map asks for cuda:1, and torch finds no accelerator here: use dev"),
        (
            {"dtype": torch.int8},
            "dtype torch.int8 is not a type for weights: write for example 'float32' or 'bfloat16'",
        ),
        ({"dtype": "int8"}, "dtype 'int8' is not a type for weights: write for example 'float32' or 'bfloat16'"),
    ],
)
@pytest.mark.parametrize("method", ["HqqConfig", "BitsAndBytesConfig", "QuantoConfig"])
def test_places_and_types(method: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    if torch.cuda.is_available() and "device_map" in options:
        pytest.skip("this machine has what is asked for")
    inputs.llama().save_pretrained(tmp_path)
    settings: dict[str, Any] = {"HqqConfig": {}, "BitsAndBytesConfig": {"load_in_8bit": True}}.get(method, {})
    config = getattr(unibody, method)(**settings)
    with pytest.raises(ValueError, match=message):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=config, **options)


def test_a_kernel_for_another_type(tmp_path: Path) -> None:
    inputs.llama().save_pretrained(tmp_path)
    config = unibody.HqqConfig(kernel="int4pack_cpu")
    with pytest.raises(RuntimeError, match="int4pack_cpu: its inputs are bfloat16, not float32; leave out kernel="):
        unibody.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, quantization_config=config)
