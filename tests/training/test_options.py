"""What changes the loss, the batches or the evaluation: the same as transformers' trainer does, and exact after a resume."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.trainer_pt_utils import LengthGroupedSampler

import unibody
from training.rows import rows
from training.test_oracle import CLOSE, assert_same_weights
from training.test_resume import stop_at, without_times
from unibody.training.data import EpochLoader, grouped_by_length

SGD = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 8}
PAGE = Path(__file__).parents[2] / "docs/training.md"


def losses(made: Any) -> list[float]:
    return [log["loss"] for log in made.state.log_history if "loss" in log]


def test_label_smoothing(trainer) -> None:
    """Curve, evaluation and weights are the oracle's; of several batches the loss is that of one that holds them all."""
    settings = {**SGD, "label_smoothing_factor": 0.2, "eval_dataset": rows(6, seed=2)}
    ours, theirs = trainer(unibody, **settings), trainer(transformers, **settings)
    plain, split = trainer(**SGD), trainer(**settings, per_device_train_batch_size=1, gradient_accumulation_steps=2)
    for made in (ours, theirs, plain, split):
        made.train()
    assert losses(ours) == pytest.approx(losses(theirs), abs=CLOSE)
    assert losses(ours) == pytest.approx(losses(split), abs=CLOSE)
    assert min(abs(a - b) for a, b in zip(losses(ours), losses(plain), strict=True)) > 1e-3
    assert ours.evaluate()["eval_loss"] == pytest.approx(theirs.evaluate()["eval_loss"], abs=CLOSE)
    assert_same_weights(ours.model, theirs.model)
    assert_same_weights(ours.model, split.model)


def seeded(library: Any) -> Any:
    """Before each step the random numbers begin anew, as the two trainers do not draw them alike."""

    class Seeded(library.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            torch.manual_seed(state.global_step)

    return Seeded()


def test_noisy_embeddings(trainer) -> None:
    """NEFTune: the oracle's noise while training, none in an evaluation, and no trace of it afterwards."""
    data = {"eval_dataset": rows(6, seed=2), "eval_strategy": "steps", "eval_steps": 4}
    found = []
    for library, alpha in ((unibody, 5.0), (transformers, 5.0), (unibody, None)):
        found.append(trainer(library, **SGD, **data, neftune_noise_alpha=alpha, callbacks=[seeded(library)]))
        found[-1].train()
    ours, theirs, plain = found
    assert losses(ours) == pytest.approx(losses(theirs), abs=CLOSE)
    assert losses(ours) != losses(plain)
    evaluated = [[log["eval_loss"] for log in made.state.log_history if "eval_loss" in log] for made in (ours, theirs)]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=CLOSE)
    assert_same_weights(ours.model, theirs.model)
    assert not ours.model.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize(("count", "step"), [(50, 2), (50, 6), (7, 4), (1000, 3)])
def test_groups_of_equal_length(count: int, step: int) -> None:
    """The oracle's sampler, from the same random numbers."""
    lengths = torch.randint(1, 40, (count,), generator=torch.Generator().manual_seed(5)).tolist()
    expected = list(LengthGroupedSampler(step, lengths=lengths, generator=torch.Generator().manual_seed(3)))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(3)).tolist()
    assert grouped_by_length(order, lengths, step) == expected


def test_lengths_of_a_column_or_counted() -> None:
    """All examples once an epoch, in another order each epoch, whichever way the lengths are known."""
    texts = [{"input_ids": [3] * (4 + 7 * number % 11)} for number in range(40)]
    named = [{**text, "size": len(text["input_ids"])} for text in texts]

    class Table(list[Any]):
        """As the package `datasets` has it: a column by its name."""

        column_names = ("input_ids", "size")

        def __getitem__(self, key: Any) -> Any:
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)

    def orders(data: Any) -> list[list[int]]:
        args = unibody.TrainingArguments(
            per_device_train_batch_size=4, train_sampling_strategy="group_by_length", length_column_name="size"
        )
        loader = EpochLoader(data, list, args, 1, 0)
        found = []
        for epoch in range(2):
            loader.start(epoch)
            found.append(loader.order())
        return found

    first, second = orders(texts)
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second
    assert orders(named) == orders(Table(named)) == [first, second]
    with pytest.raises(
        ValueError, match=r"^the examples have neither 'size' nor 'input_ids', by which to group them: name"
    ):
        orders([{"text": "a"}])


@pytest.mark.parametrize("settings", [{"neftune_noise_alpha": 5.0}, {"train_sampling_strategy": "group_by_length"}])
def test_resumed_in_the_middle(trainer, tmp_path: Path, settings: dict[str, Any]) -> None:
    data = [{**row, "length": int(row["attention_mask"].sum())} for row in rows(18)]
    given = {"max_steps": 12, "save_strategy": "steps", "save_steps": 4, "train_dataset": data, **settings}
    whole = trainer(output_dir=tmp_path / "whole", **given)
    whole.train()
    trainer(output_dir=tmp_path / "parts", callbacks=[stop_at(4)], **given).train()
    resumed = trainer(output_dir=tmp_path / "parts", **given)
    resumed.train(resume_from_checkpoint=True)
    assert without_times(whole.state.log_history) == without_times(resumed.state.log_history)
    for mine, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, other)


class Small(unibody.Trainer):
    """A trainer on a device that has no memory for more than two rows, from the third step on."""

    sizes: tuple[int, ...] = ()

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: float | None = None) -> Any:
        self.sizes += (len(inputs["input_ids"]),)
        if self.state.global_step >= 2 and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().training_step(model, inputs, num_items_in_batch)


def test_batches_that_fit(trainer, llama, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Smaller batches make the same steps: the curve is that of enough memory. A resume begins with what was found."""
    settings = {
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "save_steps": 5,
        "report_to": "none",
        "use_cpu": True,
        "logging_steps": 1,
    }

    def small(**more: Any) -> Any:
        args = unibody.TrainingArguments(
            str(tmp_path / "small"), per_device_train_batch_size=8, auto_find_batch_size=True, **settings, **more
        )
        return Small(llama.load(), args, train_dataset=rows())

    enough = trainer(**{**settings, "per_device_train_batch_size": 8})
    made = small()
    enough.train()
    with caplog.at_level("WARNING"):
        made.train()
    assert made.sizes[:8] == (8, 8, 8, 4, 2, 2, 2, 2)
    assert "memory ran out at batches of 4: they have 2 now" in caplog.text
    assert made.state.global_step == enough.state.global_step == 14
    assert losses(made) == pytest.approx(losses(enough), abs=CLOSE)
    assert_same_weights(made.model, enough.model)
    resumed = small()
    resumed.train(resume_from_checkpoint=tmp_path / "small/checkpoint-5")
    assert set(resumed.sizes) == {2}
    for mine, other in zip(made.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_other_errors_are_not_of_memory(trainer) -> None:
    class Broken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            raise RuntimeError(f"broken at {len(input_ids)} rows")

    with pytest.raises(RuntimeError, match=r"^broken at 2 rows$"):
        trainer(model=Broken(), auto_find_batch_size=True, max_steps=1).train()


def test_metrics_by_batch(trainer) -> None:
    """compute_metrics sees the oracle's batches one after the other, and is told of the last."""
    seen: dict[str, list[Any]] = {}
    for library in (unibody, transformers):
        calls = seen[library.__name__] = []

        def metrics(found: Any, compute_result: bool, calls: list[Any] = calls) -> dict[str, float]:
            logits, labels = found
            calls.append((logits.shape, (logits.argmax(-1) == labels).sum().item(), compute_result))
            return {"right": sum(right for _, right, _ in calls)} if compute_result else {}

        made = trainer(library, compute_metrics=metrics, per_device_eval_batch_size=4, batch_eval_metrics=True)
        found = made.evaluate(rows(10))
        calls.append((found["eval_right"], pytest.approx(found["eval_loss"], abs=CLOSE)))
    assert seen["unibody"] == seen["transformers"]
    with pytest.raises(ValueError, match=r"^batch_eval_metrics needs a compute_metrics that takes compute_result"):
        trainer(compute_metrics=lambda found: {}, batch_eval_metrics=True)


def test_predictions_as_batches(trainer) -> None:
    for library in (unibody, transformers):
        made = trainer(library, per_device_eval_batch_size=4, eval_do_concat_batches=False)
        found = made.predict(rows(10))
        assert [batch.shape for batch in found.predictions] == [(4, 12, 128), (4, 12, 128), (2, 12, 128)]
        assert [batch.shape for batch in found.label_ids] == [(4, 12), (4, 12), (2, 12)]


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_some_layers_are_computed_again(trainer, name: str) -> None:
    plain, made = trainer(**SGD), trainer(**SGD, **{name: True, f"{name}_kwargs": {"every_n_layers": 2}})
    plain.train()
    made.train()
    again = [hasattr(layer, "recomputing_options") for layer in made.model.model.layers]
    assert again == [True, False][: len(again)]
    assert losses(made) == losses(plain)


def test_a_compiler_is_named(trainer) -> None:
    made, plain = trainer(**SGD, torch_compile_backend="aot_eager"), trainer(**SGD)
    assert made.args.torch_compile
    for one in (made, plain):
        one.train()
    assert losses(made) == pytest.approx(losses(plain), abs=CLOSE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing_factor": 1.0}, r"^label_smoothing_factor is 1\.0: it must be from 0 to below 1$"),
        ({"auto_find_batch_size": True, "dataloader_drop_last": True}, "^auto_find_batch_size and dataloader_drop_last are both"),
    ],
)  # fmt: skip
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unibody.TrainingArguments(**settings)


def test_smoothing_with_a_loss_of_ones_own(trainer) -> None:
    with pytest.raises(
        ValueError, match=r"^label_smoothing_factor is for the model's own loss, and there is a compute_"
    ):
        trainer(label_smoothing_factor=0.1, compute_loss_func=lambda *_, **__: torch.tensor(0.0))


def test_every_setting_of_the_oracle_is_there_or_accounted_for() -> None:
    """docs/training.md has a row for each that is left out, and for no other."""
    section = PAGE.read_text(encoding="utf-8").partition("## Settings that are left out")[2].partition("\n## ")[0]
    names = [
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    ours, theirs = (
        {field.name for field in dataclasses.fields(library.TrainingArguments)} for library in (unibody, transformers)
    )
    assert len(names) == len(set(names))
    assert set(names) == theirs - ours


def test_reports(llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts print the metrics and keep them, in transformers' files."""
    for library in (unibody, transformers):
        folder = tmp_path / library.__name__
        args = library.TrainingArguments(str(folder), use_cpu=True, report_to="none")
        made = library.Trainer(llama.reference(), args)
        made.log_metrics("train", {"train_loss": 1.25, "epoch": 2.0})
        printed = capsys.readouterr().out
        assert "***** train metrics *****" in printed
        assert "train_loss = " in printed
        made.save_metrics("train", {"train_loss": 1.25, "epoch": 2.0})
        made.save_metrics("eval", {"eval_loss": 1.5, "epoch": 2.0})
        made.save_metrics("test", {"test_loss": 2.0}, combined=False)
        made.create_optimizer_and_scheduler(10)
        assert made.optimizer.param_groups[0]["lr"] == made.lr_scheduler.get_last_lr()[0] == 5e-5
    written = [
        {file.name: json.loads(file.read_text()) for file in (tmp_path / name).glob("*.json")}
        for name in ("unibody", "transformers")
    ]
    assert written[0] == written[1]
    assert written[0].keys() == {"train_results.json", "eval_results.json", "test_results.json", "all_results.json"}
