"""The generation benchmark on a tiny model: costs by their definition, weights, files, the page."""

from __future__ import annotations

import copy
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from bench import generation, generation_page, language
from bench.language import Costs
from bench.show import fill

PAGE = Path(__file__).parents[1] / "docs" / "results" / "generation.md"
TEXTS = [[5, 6, 7, 8, 9], [3, 4], [9, 8, 7, 6, 5, 4, 3, 2], [7], [1, 2, 3, 1, 2, 3]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_costs_are_summed_losses_and_the_norms_of_their_gradients(model):
    """Padding, batches and their order change nothing; bfloat16 rounds by a few per cent."""
    found = language.costs(model, TEXTS)
    assert found.tokens.tolist() == [4, 1, 7, 0, 5]
    for text, loss, norm in zip(TEXTS, found.loss, found.gradient_norm, strict=True):
        ids = torch.tensor([text])
        hidden = model.model(ids).last_hidden_state.detach()
        weight = model.lm_head.weight.detach().clone().requires_grad_()
        logits = (hidden @ weight.T)[0, :-1]
        total = functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
        total.backward()
        assert loss == pytest.approx(total.item(), rel=0.02, abs=1e-6)
        assert norm == pytest.approx(weight.grad.norm().item(), rel=0.05, abs=1e-6)
    assert found.per_token == pytest.approx(found.loss.sum() / 17)
    assert not language.costs(model, TEXTS, norms=False).gradient_norm.any()


def tuned(model, texts, weights, folder, **settings):
    given = {"tokens": 4.0, "rate": 3e-3, "seed": 0, "epochs": 12} | settings
    return language.fine_tune(
        copy.deepcopy(model), texts, np.asarray(weights, dtype=float), folder=folder, **given
    )


def test_a_weight_decides_what_is_learned(model, tmp_path):
    texts = [[5, 6, 7, 8, 9], [5, 9, 8, 7, 6]]
    costs = {}
    for first in (1.9, 0.1):
        trained = tuned(model, texts, [first, 2.0 - first], tmp_path)
        costs[first] = language.costs(trained, texts).loss
    assert costs[1.9][0] < costs[0.1][0]
    assert costs[1.9][1] > costs[0.1][1]


def test_a_step_is_divided_by_the_same_number_whatever_its_tokens(model, tmp_path, monkeypatch):
    divisors = []
    from curation.models import training

    whole = training.weighted_loss

    def spy(logits, labels, weights, *, items=None):
        divisors.append(float(items))
        return whole(logits, labels, weights, items=items)

    monkeypatch.setattr(training, "weighted_loss", spy)
    tuned(model, TEXTS * 3, np.ones(15), tmp_path, epochs=1)
    assert divisors == [language.BATCH * 4.0] * 2


def test_a_saved_model_is_the_same_when_loaded(model, tmp_path, monkeypatch):
    from transformers import AutoTokenizer

    class Nothing:
        def save_pretrained(self, folder):
            return None

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *a, **k: Nothing())
    language.save(model, Nothing(), tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    _, again = language.reload(tmp_path)
    assert np.array_equal(language.costs(again, TEXTS).loss, language.costs(model, TEXTS).loss)


@pytest.fixture
def pool():
    rng = np.random.default_rng(2)
    tokens = rng.integers(3, 40, size=400)
    loss = 3.5 * tokens * rng.gamma(20.0, 1 / 20.0, size=400)
    points = np.column_stack([rng.normal(size=(400, 6)), (tokens - 20.0) / 10.0])
    costs = Costs(loss, np.sqrt(loss), tokens)
    return generation.Pool([[1] * n for n in tokens], points.astype(np.float32), costs)


def test_uniform_rows_begin_alike_and_reach_the_tokens_of_those_chosen(pool):
    plain, weights, queries = generation.choose("uniform", pool, 40, 10, 3)
    more, _, _ = generation.choose("uniform, as many tokens", pool, 40, 10, 3)
    ours, own, asked = generation.choose("loss", pool, 40, 10, 3)
    least = min(len(plain), len(more))
    assert np.array_equal(plain[:least], more[:least])
    assert (weights == 1.0).all()
    assert queries == 0
    assert asked >= 10
    tokens = pool.costs.tokens
    wanted = tokens[ours].sum()
    assert wanted <= tokens[more].sum() < wanted + tokens[more[-1]]
    assert np.unique(own).size > 1


def test_the_error_of_a_total_is_smaller_than_that_of_uniform_rows(pool, monkeypatch):
    """Where the number of tokens tells most of a loss."""
    monkeypatch.setattr(generation, "DRAWS", 20)
    found = generation.errors(pool, 40, 10)["loss"]
    assert 0.0 < found["rmse"] < 0.7 * found["uniform"]
    drawn = [pool.costs.loss[generation.uniform_order(pool, s)[:40]].mean() for s in range(400)]
    off = np.array(drawn) / pool.costs.loss.mean() - 1.0
    assert np.sqrt(np.mean(off**2)) == pytest.approx(found["uniform"], rel=0.15)


def test_drawing_by_tokens_asks_nothing(pool):
    """Where a loss is exactly its tokens, the error is that of systematic draws: next to none."""
    costs = Costs(3.0 * pool.costs.tokens, pool.costs.gradient_norm, pool.costs.tokens)
    found = generation.errors_by_tokens(costs, 40)
    noisy = generation.errors_by_tokens(pool.costs, 40)
    assert found["loss"] < 0.5 * noisy["loss"]
    assert noisy["loss"] < generation.errors(pool, 40, 10)["loss"]["uniform"]


def test_results_of_other_settings_are_refused(tmp_path):
    options = Namespace(budget=96, k=48, epochs=1)
    path = tmp_path / "results.json"
    kept = generation.start(path, generation.settings_of(options))
    path.write_text(json.dumps(kept))
    assert generation.start(path, generation.settings_of(options)) == kept
    with pytest.raises(SystemExit, match="move it away"):
        generation.start(path, generation.settings_of(Namespace(budget=97, k=48, epochs=1)))


def test_differences_are_paired_by_seed():
    kept = {"seeds": {"0": {"uniform": {"held": 4.0}, "loss": {"held": 3.0}},
                      "10": {"uniform": {"held": 5.0}, "loss": {"held": 5.5}},
                      "2": {"uniform": {"held": 6.0}}}}  # fmt: skip
    assert generation_page.differences(kept, "loss") == [-1.0, 0.5]
    assert generation_page._difference([0.1, 0.11, 0.12]).startswith("**+0.11")
    assert not generation_page._difference([-0.1, 0.1, 0.0]).startswith("**")


def test_the_page_says_what_was_kept():
    kept = json.loads(PAGE.with_suffix(".json").read_text())
    text = PAGE.read_text()
    assert fill(text, generation_page.grids(kept)) == text
