"""A sparse encoder under Hugging Face's own Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from aaa import Axis, Local, gate_parameters, sparsify, sparsity, sparsity_loss

EncoderFactory = Callable[..., Any]
STEPS = 20


class SparseTrainer(Trainer):
    """What a user writes to train under Eq. 10."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss + sparsity_loss(model, target=0.6, alpha=10.0)


def examples(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    ids_BN = torch.randint(5, 60, (count, 10), generator=generator)
    keep_N = torch.ones(10, dtype=torch.long)
    keep_N[8:] = 0
    return [
        {"input_ids": ids_N, "attention_mask": keep_N, "labels": index % 3}
        for index, ids_N in enumerate(ids_BN)
    ]


@pytest.fixture
def trained(make_encoder: EncoderFactory, tmp_path: Path) -> SparseTrainer:
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=STEPS,
        save_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=0.03,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    model = sparsify(make_encoder(), Axis() | Local(2))
    trainer = SparseTrainer(model=model, args=arguments, train_dataset=examples(64))
    trainer.train()
    return trainer


def test_trains_saves_and_loads(
    trained: SparseTrainer, make_encoder: EncoderFactory, tmp_path: Path
) -> None:
    model = trained.model.eval()
    assert trained.state.global_step == STEPS
    assert all(parameter.abs().sum() > 0 for parameter in gate_parameters(model))
    batch = {name: torch.stack([x[name] for x in examples(4)]) for name in ("input_ids",)}
    expected = model(**batch).logits
    rho = sparsity(model)
    assert 0.2 < rho < 0.61  # it started at 0

    trained.save_model(str(tmp_path / "model"))
    checkpoints = (tmp_path / "model", tmp_path / f"checkpoint-{STEPS}")
    for folder in checkpoints:
        state = load_file(folder / "model.safetensors")
        assert sum(".sparse." in name for name in state) == 8
        fresh = sparsify(make_encoder(), Axis() | Local(2))
        fresh.load_state_dict(state)
        assert torch.equal(fresh(**batch).logits, expected)
        assert sparsity(fresh) == rho


def test_a_saved_model_loads_as_a_dense_one(
    trained: SparseTrainer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained.save_model(str(tmp_path / "model"))
    family = transformers.BertForSequenceClassification
    model = family.from_pretrained(tmp_path / "model").eval()
    assert model.config._attn_implementation != "adaptive_axis"
    model = sparsify(model, Axis() | Local(2))
    model.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"))
    ids_BN = torch.stack([example["input_ids"] for example in examples(4)])
    assert torch.equal(model(ids_BN).logits, trained.model.eval()(ids_BN).logits)
