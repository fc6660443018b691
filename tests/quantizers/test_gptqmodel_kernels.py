"""Rows of gptqmodel's kernels for CUDA: chosen by name only, given what its own layer classes give them, and without a trace in what is saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from oracle.quantization import fixtures
from quantizers.files import generated, make_layer
from quantizers.gptqmodel_functions import Functions
from torch import Tensor

FACTS = fixtures.load_json("gptqmodel/kernels")
ROWS = ("marlin", "machete", "exllama_v2")
LAYERS: list[tuple[str, dict[str, Any]]] = [
    *(("gptq", {"bits": bits, "group_size": 64, "sym": sym}) for bits in (4, 8) for sym in (True, False)),
    ("gptq", {"bits": 4, "group_size": -1, "checkpoint_format": "gptq_v2"}),
    ("gptq", {"bits": 4, "group_size": 64, "sym": False, "desc_act": True}),
    *(("awq", {"group_size": 64, "version": version}) for version in ("gemm", "gemv", "gemv_fast")),
    ("awq", {"group_size": 128, "zero_point": False}),
    *(("autoround", {"bits": 4, "group_size": 64, "sym": sym}) for sym in (True, False)),
    ("autoround", {"bits": 4, "group_size": 64, "packing_format": "auto_round:auto_awq"}),
]


def layer_of(name: str, options: dict[str, Any], shape: tuple[int, int] = (128, 256)) -> Any:
    module = generated(name)
    classes = {"gptq": ("GPTQConfig", "GPTQLinear"), "awq": ("AwqConfig", "AWQLinear")}
    config, layer_class = (getattr(module, n) for n in classes.get(name, ("AutoRoundConfig", "AutoRoundLinear")))
    layer = make_layer(layer_class, config(**options), torch.randn(shape) / 8, torch.randn(shape[0]))
    if options.get("desc_act"):
        groups = torch.randperm(shape[1], dtype=torch.int32) // layer.group_size
        layer.hold({**layer.stored_tensors(), "g_idx": groups})
    return layer


def as_on_cuda(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every row run here."""
    monkeypatch.setattr(generated(name), "why_not", lambda *arguments: "")


@pytest.mark.parametrize(
    ("row", "name", "options"),
    [(row, *layer) for layer in LAYERS for row in ROWS[: 2 if layer[1].get("bits") == 8 else 3]],
)
def test_results_and_what_is_saved(row: str, name: str, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference's results, whatever the orders; the checkpoint's tensors come back to the bit, also of a layer that is moved or copied."""
    torch.manual_seed(0)
    Functions(monkeypatch)
    as_on_cuda(name, monkeypatch)
    layer, module = layer_of(name, options), generated(name)
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    stored = sum(tensor.nbytes for tensor in before.values())
    layer.config = copy.copy(layer.config)
    layer.config.kernel = row
    for dtype, limit in ((torch.float16, 1e-3), (torch.bfloat16, 1e-2)):
        x = torch.randn(2, 3, 256).to(dtype)
        with torch.no_grad():
            expected = module.dequantize_matmul(layer, x)
            found = layer(x)
            assert layer.kernel == row
            other = copy.deepcopy(layer)
            moved = copy.deepcopy(layer).float()
            assert torch.equal(other(x), found)
            assert torch.equal(moved(x), found)
        assert (found.dtype, found.shape) == (dtype, expected.shape)
        assert (found - expected).float().norm() / expected.float().norm() < limit
        held = [tensor for tensor in layer.buffers() if tensor is not None]
        assert sum(tensor.nbytes for tensor in held) + layer.bias.nbytes < 1.1 * stored
        for after in (layer.state_dict(), other.state_dict(), moved.state_dict()):
            assert after.keys() == before.keys()
            assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())


def test_a_copy_outlives_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """ExllamaV2's handle is of the words that it was made for: a copy has another, and none is kept for words that are gone."""
    functions = Functions(monkeypatch)
    as_on_cuda("gptq", monkeypatch)
    module = generated("gptq")
    layer, x = layer_of("gptq", {"bits": 4, "kernel": "exllama_v2"}), torch.randn(3, 256).half()
    with torch.no_grad():
        expected = layer(x)
        handles = [module.Q_MATRICES[layer.qweight][0]]
        layer = copy.deepcopy(layer)
        assert torch.equal(layer(x), expected)
        handles.append(module.Q_MATRICES[layer.qweight][0])
    assert handles[0] != handles[1]
    functions.matrices.clear()
    del layer
    assert len(module.Q_MATRICES) == 0


def given_by_class(layer_class: str, dtype: str, function: str) -> dict[str, Any]:
    """What the package's layer class gave to a function, but for the inputs."""
    start, tensors = f"{layer_class}/{dtype}/{function}/", fixtures.load("gptqmodel/kernels").tensors
    found = {**FACTS["others"], **tensors}
    return {key.removeprefix(start): value for key, value in found.items() if key.startswith(start)}


def same(found: dict[str, Any], expected: dict[str, Any], names: set[str]) -> None:
    for name in names:
        if isinstance(expected[name], Tensor):
            assert found[name].dtype == expected[name].dtype, name
            assert torch.equal(found[name], expected[name]), name
        else:
            assert str(found[name]) == str(expected[name]), name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layer_class", ["MarlinLinear", "AwqMarlinLinear"])
def test_marlin_gets_what_its_layers_give_it(layer_class: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FACTS["passed_on"] == {
        "a": "input", "b_q_weight": "weight", "b_scales": "weight_scale", "b_zeros": "weight_zp", "g_idx": "g_idx",
        "perm": "g_idx_sort_indices", "workspace": "workspace", "b_q_type": "uint4",
    }  # fmt: skip
    functions = run_recorded("marlin", layer_class == "MarlinLinear", dtype, monkeypatch)
    given = functions.calls["apply_gptq_marlin_linear"]
    found = {key: given[name] for key, name in FACTS["passed_on"].items() if key != "b_q_type"}
    found |= {"b_q_type": given["wtype"], "size_m": 3, "size_n": given["output_size_per_partition"]}
    expected = given_by_class(layer_class, dtype, "gptq_marlin_gemm")
    names = {"a", "b_scales", "b_zeros", "g_idx", "perm", "workspace", "b_q_type", "size_m", "size_n"}
    same(found, expected, names | ({"b_q_weight"} if layer_class == "MarlinLinear" else set()))
    if layer_class == "MarlinLinear":
        expected = given_by_class(layer_class, dtype, "gptq_marlin_repack")
        same(functions.calls["gptq_marlin_repack"], expected, {"b_q_weight", "perm", "size_k", "size_n", "num_bits"})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("row", "layer_class", "names"),
    [
        ("machete", "AwqMacheteLinear", {"machete_prepack_B", "machete_mm"}),
        ("exllama_v2", "ExllamaV2Linear", {"exllamav2_make_q_matrix", "exllamav2_gemm_half_q_half"}),
    ],
)
def test_others_get_what_their_layers_give_them(
    row: str, layer_class: str, names: set[str], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = run_recorded(row, False, dtype, monkeypatch)
    for name in names:
        expected = given_by_class(layer_class, dtype, name)
        same(functions.calls[name], expected, expected.keys() - {"q_handle", "force_cuda"})
    if row == "exllama_v2":
        assert functions.calls["exllamav2_make_q_matrix"]["temp_dq"].nbytes == FACTS["others"]["scratch"]


def run_recorded(row: str, symmetric: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> Functions:
    """The functions, after a layer of the recorded tensors has run; words stay in their order, the rest comes into gptqmodel's."""
    functions = Functions(monkeypatch)
    as_on_cuda("gptq", monkeypatch)
    recorded = fixtures.load("gptqmodel/kernels").tensors
    (groups, count), rows = recorded["scales"].shape, 8 * recorded["qweight"].shape[0]
    digits = (recorded["orders/zeros"][..., None] >> torch.arange(0, 32, 4) & 15).view(3, -1)
    functions.orders = {
        ("words", rows * count): torch.arange(rows * count),
        ("scales", groups * count): recorded["orders/scales"].flatten().long(),
        ("zeros", groups * count): sum(part << 4 * index for index, part in enumerate(digits.long())),  # type: ignore[dict-item]
    }
    config = {"bits": 4, "group_size": rows // groups, "sym": symmetric, "checkpoint_format": "gptq_v2", "kernel": row}
    layer = layer_of("gptq", config, (count, rows))
    zeros = torch.full_like(recorded["zeros"], -0x77777778) if symmetric else recorded["zeros"]
    stored = {**layer.stored_tensors(), "qweight": recorded["qweight"], "qzeros": zeros, "scales": recorded["scales"]}
    layer.hold(stored)
    with torch.no_grad():
        layer(recorded["x"].to(getattr(torch, dtype)))
    return functions


@pytest.mark.parametrize("name", ["gptq", "awq", "autoround"])
def test_rows_say_what_the_classes_declare(name: str) -> None:
    """A row may ask for more than a class, not for less: Marlin's has no padding, and its zero points want what AWQ's class wants."""
    rows = {row.name: row for row in generated(name).GPTQMODEL_ROWS}
    assert list(rows) == list(ROWS)
    pairs = (("marlin", "AwqMarlinLinear"), ("machete", "MacheteLinear"), ("exllama_v2", "ExllamaV2Linear"))
    for row, declared in ((rows[row], FACTS["classes"][layer_class]) for row, layer_class in pairs):
        assert list(row.bits) == declared["bits"]
        assert list(row.group_size) == declared["group_size"]
        assert list(row.dtypes) == declared["dtypes"]
        assert [row.device] == declared["devices"]
        assert declared["sym"] == [True, False]
        if row.name != "marlin":
            assert [row.multiples] == [
                (declared["out_features_divisible_by"][0], declared["in_features_divisible_by"][0])
            ]
        assert row.package == "gptqmodel>=7.6"
    sizes = [(n, k) for n in range(64, 513, 64) for k in range(128, 513, 128)]
    assert rows["marlin"].multiples == (64, 128)
    assert all([n, k] in FACTS["aligned"] for n, k in sizes)
    least = FACTS["others"]["AwqMarlinLinear/float16/marlin_validate_runtime_device/min_capability"]
    assert list(rows["marlin"].capability) == least


@pytest.mark.parametrize(
    ("row", "changes", "message"),
    [
        ("marlin", {"capability": (7, 5)}, r"it needs compute capability \(8, 0\), cuda has \(7, 5\)"),
        ("machete", {"capability": (8, 9)}, r"it needs compute capability \(9, 0\), cuda has \(8, 9\)"),
        ("machete", {"capability": (10, 0)}, r"it is for compute capabilities below \(10, 0\), cuda has \(10, 0\)"),
        ("marlin", {"device": "cpu"}, "it runs on cuda, not on cpu"),
        ("marlin", {"bits": 2}, "it reads 4 or 8 bits, not 2"),
        ("exllama_v2", {"bits": 8}, "it reads 4 bits, not 8"),
        ("machete", {"group_size": 32}, "its groups have -1 or 64 or 128 columns, not 32"),
        ("marlin", {"dtype": torch.float32}, "its inputs are float16 or bfloat16, not float32"),
        ("marlin", {"shape": (96, 256)}, r"96 x 256 is not divisible by \(64, 128\)"),
        ("marlin", {"version": None}, "gptqmodel>=7.6 is not installed"),
        ("exllama_v2", {"version": "7.5.1"}, "gptqmodel>=7.6 is needed, 7.5.1 is installed"),
        ("marlin", {"g_idx": torch.zeros(256, dtype=torch.int32)}, "its groups differ in size"),
    ],
)
def test_what_a_row_cannot_run(row: str, changes: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, given = generated("gptq"), {"version": "7.6.0", "capability": (9, 0), "device": "cuda", **changes}
    on_a_machine(monkeypatch, given["version"], given["capability"])
    config = {"bits": given.get("bits", 4), "group_size": given.get("group_size", 128), "kernel": row}
    layer = layer_of("gptq", config, given.get("shape", (128, 256)))
    if "g_idx" in given:
        layer.hold({**layer.stored_tensors(), "g_idx": given["g_idx"]})
    with pytest.raises(
        RuntimeError, match=f"^no kernel can run GPTQLinear [0-9 x]+: {row}: {message}; leave out kernel='{row}'"
    ):
        module.choose_kernel(layer, torch.device(given["device"]), given.get("dtype", torch.float16))


def on_a_machine(monkeypatch: pytest.MonkeyPatch, version: str | None, capability: tuple[int, int] | None) -> None:
    """As if it had a GPU of this capability, or none, and this version of gptqmodel, or none; and no Triton."""
    for module in (generated("gptq"), generated("awq"), generated("autoround")):
        module.missing_package.cache_clear()
        monkeypatch.setattr(module, "find_spec", lambda name: version if name == "gptqmodel" else None)
        monkeypatch.setattr(module, "missing_package", module.missing_package.__wrapped__)
        monkeypatch.setattr(module.metadata, "version", lambda name: version)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


BACKENDS = [
    ("marlin", "marlin"),
    ("gptq_machete", "machete"),
    ("exllama_v2", "exllama_v2"),
    ("gptqmodel:marlin", "marlin"),
    ("exllamav2", "exllama_v2"),
    ("gptqmodel:exllamav2", "exllama_v2"),
]


@pytest.mark.parametrize("name", ["gptq", "awq", "autoround"])
def test_only_what_is_named_is_chosen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all rows can run these do not, unless `kernel` or `backend` name one; a backend that cannot run a layer leaves it to the others."""
    on_a_machine(monkeypatch, "7.6.0", (9, 0))
    module, options = generated(name), {"bits": 4, "group_size": 128}

    def chosen(dtype: torch.dtype = torch.float16, **more: Any) -> str:
        return str(module.choose_kernel(layer_of(name, {**options, **more}), torch.device("cuda"), dtype).name)

    assert chosen() == "torch"
    for row in ROWS:
        assert chosen(kernel=row) == row
    for backend, row in BACKENDS:
        if name != "awq" or backend == row:
            assert chosen(backend=backend) == row
    assert chosen(torch.float32, backend="marlin") == "torch"
    assert chosen(backend="marlin", kernel="exllama_v2") == "exllama_v2"
    monkeypatch.setenv("UNIBODY_KERNEL", "machete")
    assert chosen(backend="marlin") == "machete"


@pytest.mark.parametrize("name", ["gptq", "awq", "autoround"])
def test_a_backend_without_its_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it changes nothing, and the layer runs as without it."""
    on_a_machine(monkeypatch, None, None)
    with pytest.warns(UserWarning, match="backend changes nothing"):
        layer = layer_of(name, {"bits": 4, "group_size": 128, "backend": "marlin"})
    layer(torch.randn(1, 256).bfloat16())
    assert layer.kernel == "int4pack_cpu"
