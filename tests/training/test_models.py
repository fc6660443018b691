"""What can be trained: every generated model in both editions, plain modules, losses of one's own, streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models.test_training import LABELLED, labelled_batch
from oracle.inputs import padded_batch
from oracle.zoo import Case, cases
from torch import nn

import unibody
from training.rows import rows


def examples(case: Case) -> list[dict[str, torch.Tensor]]:
    batch = labelled_batch(case)
    return [{name: column[number] for name, column in batch.items()} for number in range(len(batch["input_ids"]))]


@pytest.mark.parametrize("case", [case for case in LABELLED if case.entry == case.model_type], ids=str)
def test_generated_models(trainer, case: Case, tmp_path: Path) -> None:
    """The loss of the training data falls, predictions come in order, and the checkpoint is the model."""
    torch.manual_seed(0)
    model = case.model_class(case.config_class.from_dict(case.config))
    made = trainer(
        model=model, train_dataset=examples(case), eval_dataset=examples(case), num_train_epochs=8,
        per_device_train_batch_size=3, learning_rate=3e-3,
    )  # fmt: skip
    before = made.evaluate()["eval_loss"]
    made.train()
    assert made.evaluate()["eval_loss"] < 0.95 * before
    found = made.predict(examples(case))
    made.save_model(tmp_path / "saved")
    again = case.model_class.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        outputs = again(**labelled_batch(case))
    expected = outputs.logits if hasattr(outputs, "logits") else outputs.start_logits
    first = found.predictions if hasattr(outputs, "logits") else found.predictions[0]
    assert abs(first - expected.numpy()).max() < 1e-5


def test_library_edition(trainer, llama) -> None:
    made = trainer(model=unibody.AutoModelForCausalLM.from_pretrained(llama.folder), max_steps=2)
    made.train()
    assert isinstance(made.model, unibody.LlamaForCausalLM)


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)[:, 0]


def points() -> list[dict[str, torch.Tensor]]:
    """Points on a plane."""
    return [
        {"x": torch.tensor([float(i % 4), float(i // 4)]), "labels": torch.tensor(i % 4 + 2.0 * (i // 4))}
        for i in range(16)
    ]


def test_loss_of_ones_own(trainer) -> None:
    """`compute_loss_func` gets outputs, labels and the number of labels of the whole step."""
    counts: list[Any] = []

    def loss(outputs: torch.Tensor, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        counts.append(num_items_in_batch)
        return ((outputs - labels) ** 2).sum() / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    made = trainer(
        model=Line(), compute_loss_func=loss, train_dataset=points(), eval_dataset=points(), learning_rate=0.05,
        num_train_epochs=30, gradient_accumulation_steps=2, compute_metrics=lambda found: {"far": abs(found[0] - found[1]).max()},
    )  # fmt: skip
    made.train()
    assert set(counts) == {4.0}
    metrics = made.evaluate()
    assert metrics["eval_far"] < 0.1 and metrics["eval_loss"] < 0.01 and counts[-1] is None
    predictions = made.predict([{"x": point["x"]} for point in points()])
    assert predictions.label_ids is None and "test_loss" not in predictions.metrics
    assert abs(predictions.predictions - torch.stack([point["labels"] for point in points()]).numpy()).max() < 0.1


def test_subclass(trainer, tmp_path: Path) -> None:
    """A trainer with a loss and an optimizer of its own, over tuples."""

    class Squares(unibody.Trainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            x, y = inputs
            outputs = model(x)
            loss = ((outputs - y) ** 2).mean()
            return (loss, outputs) if return_outputs else loss

        def create_optimizer(self) -> Any:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
            return self.optimizer

    data = torch.utils.data.TensorDataset(*(torch.stack([p[name] for p in points()]) for name in ("x", "labels")))
    args = unibody.TrainingArguments(
        str(tmp_path), use_cpu=True, num_train_epochs=20, lr_scheduler_type="constant", disable_tqdm=True
    )
    made = Squares(Line(), args, torch.utils.data.default_collate, data, data)
    made.train()
    assert made.evaluate()["eval_loss"] < 0.05
    assert made.get_learning_rate() == 0.05


def test_accumulation_is_one_large_batch(trainer, llama) -> None:
    """Batches with few labels, and with none, weigh as much as their labels."""
    data = rows(12)
    for row in data[:2]:
        row["labels"] = torch.full_like(row["labels"], -100)
    made = [
        trainer(
            train_dataset=data,
            train_sampling_strategy="sequential",
            max_steps=3,
            optim="sgd",
            learning_rate=0.1,
            **sizes,
        )
        for sizes in (
            {"per_device_train_batch_size": 4},
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        )
    ]
    for one in made:
        one.train()
    for mine, other in zip(made[0].model.parameters(), made[1].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_weight_decay_is_for_matrices() -> None:
    from unibody.training.optimizers import get_decay_parameter_names

    (case,) = (
        case for case in cases("AutoModelForSequenceClassification") if str(case) == "BertForSequenceClassification"
    )
    model = case.model_class(case.config_class.from_dict(case.config))
    decayed = set(get_decay_parameter_names(model))
    assert {name for name, parameter in model.named_parameters() if parameter.dim() > 1} == decayed


@pytest.mark.parametrize("case", [cases("AutoModelForCausalLM")[0], cases("AutoModelForMaskedLM")[0]], ids=str)
def test_gradient_checkpointing(trainer, case: Case) -> None:
    """The same gradients, with less kept between forward and backward."""
    kept: list[int] = []
    weights = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = case.model_class(
            case.config_class.from_dict(
                {**case.config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
            )
        )
        made = trainer(
            model=model,
            train_dataset=examples(case),
            max_steps=2,
            optim="sgd",
            learning_rate=0.1,
            gradient_checkpointing=enabled,
        )
        made.train()
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: kept.__setitem__(-1, kept[-1] + t.nbytes) or t, lambda t: t
        ):
            model(**labelled_batch(case))
        weights.append(list(model.parameters()))
    assert kept[1] < 0.6 * kept[0]
    for mine, other in zip(*weights, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_gives_the_same_batches(trainer, workers: int) -> None:
    """Also what a collator draws; the program's own random numbers are left alone."""

    def collate(features: list[Any]) -> Any:
        batch = unibody.default_data_collator(features)
        batch["noise"] = torch.rand(1)
        return batch

    made = trainer(data_collator=collate, dataloader_num_workers=workers, remove_unused_columns=False, seed=5)
    loader = made.get_train_dataloader()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    loader.start(1, 20)
    drawn = [round(batch["noise"].item(), 6) for batch in loader]
    assert torch.equal(torch.rand(1), expected)
    assert len(set(drawn)) == 5
    loader.start(1)
    assert [round(batch["noise"].item(), 6) for batch in loader][20:] == drawn


def test_evaluations_of_several_datasets(trainer) -> None:
    made = trainer(eval_dataset={"short": rows(3), "long": rows(5)}, per_device_eval_batch_size=2)
    metrics = made.evaluate()
    assert {"eval_short_loss", "eval_long_loss"} < metrics.keys()
    assert metrics["eval_short_loss"] == pytest.approx(made.evaluate(rows(3))["eval_loss"])


def test_metrics_see_inputs_losses_and_reduced_logits(trainer) -> None:
    seen: dict[str, Any] = {}

    def metrics(found: unibody.EvalPrediction) -> dict[str, float]:
        seen.update(logits=found.predictions.shape, inputs=found.inputs.shape, losses=len(found.losses))
        return {"eval_same": 1, "other": torch.tensor(2.0)}

    made = trainer(
        eval_dataset=rows(5), compute_metrics=metrics, include_for_metrics=["inputs", "loss"],
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )  # fmt: skip
    found = made.evaluate()
    assert seen == {"logits": (5, 12), "inputs": (5, 12), "losses": 5}
    assert (found["eval_same"], found["eval_other"]) == (1, 2.0)


def test_rows_of_unequal_length_are_put_together(trainer) -> None:
    batch = padded_batch((9, 4), side="right")
    data = [
        {"input_ids": batch.input_ids[i : i + 1, :n][0], "labels": batch.input_ids[i, :n]}
        for i, n in enumerate((9, 4))
    ]
    found = trainer(per_device_eval_batch_size=1).predict(data)
    assert found.predictions.shape[:2] == (2, 9)
    assert (found.predictions[1, 4:] == -100).all() and (found.label_ids[1, 4:] == -100).all()


def test_progress_bar(trainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "0")
    trainer(max_steps=4, logging_steps=1).train()
    shown = capsys.readouterr().err
    assert "4/4" in shown and "loss=" in shown and "tokens/s=" in shown


def test_callbacks_are_added_and_removed(trainer) -> None:
    made = trainer(callbacks=[unibody.EarlyStoppingCallback])
    assert isinstance(made.pop_callback(unibody.EarlyStoppingCallback), unibody.EarlyStoppingCallback)
    assert made.pop_callback(unibody.EarlyStoppingCallback) is None
    made.add_callback(unibody.PrinterCallback())
    made.remove_callback(unibody.PrinterCallback)
    assert unibody.PrinterCallback not in map(type, made.callback_handler.callbacks)


def test_seeds(trainer, llama) -> None:
    """The same seed gives the same run; another gives another order."""
    runs = [trainer(model_init=llama.load, max_steps=3, seed=seed) for seed in (1, 1, 2)]
    losses = [[log.get("loss") for log in (run.train(), run.state.log_history)[1]] for run in runs]
    assert losses[0] == losses[1] != losses[2]
    runs[0].train()
    assert [log.get("loss") for log in runs[0].state.log_history] == losses[0]
