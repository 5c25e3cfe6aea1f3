"""The masks of a text are those of the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForMultipleChoice, AutoTokenizer

from aaa import Axis, Local, Pattern, gate_parameters, latest_masks, load_sparse, sparsify
from aaa.patterns import Syntax
from aaa.plots.sentence import sentence_maps

TEXT, PAIR = "the large red key is near this tower", "a small key is here"


def test_each_layers_mask_with_its_tokens(finished_run: Path) -> None:
    maps = sentence_maps(finished_run, TEXT, PAIR, head=0)
    folder = finished_run / "model"
    model, tokenizer = load_sparse(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXT, PAIR, return_tensors="pt")
    with torch.no_grad():
        model(**batch)
    masks = latest_masks(model)
    assert len(maps) == len(masks) == 3
    for layer, (found, mask) in enumerate(zip(maps, masks, strict=True)):
        assert np.array_equal(found.kinds_NN > 0, mask.dense()[0, 0].numpy() > 0)
        assert found.tokens == tuple(tokenizer.convert_ids_to_tokens(batch["input_ids"][0]))
        assert mask.rows_BHN is not None
        assert mask.columns_BHN is not None
        assert found.rows == tuple(mask.rows_BHN[0, 0].nonzero()[:, 0].tolist())
        assert found.columns == tuple(mask.columns_BHN[0, 0].nonzero()[:, 0].tolist())
        assert found.title.startswith(f"layer {layer} · ρ {float(mask.sparsity()):.2f} · ")
        assert f"{len(found.rows)} row" in found.title
    assert maps[0].tokens[0] == "[CLS]"
    assert maps[0].tokens.count("[SEP]") == 2


def saved(folder: Path, finished_run: Path, pattern: Pattern) -> Path:
    """The run's encoder under another pattern, its gates at random, with its tokenizer."""
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(finished_run / "model", folder)
    model = sparsify(AutoModelForSequenceClassification.from_pretrained(folder), pattern)
    for parameter in gate_parameters(model):
        parameter.data.normal_(std=3.0)
    model.save_pretrained(folder)
    return folder


def test_a_model_of_choices_is_refused(finished_run: Path, tmp_path: Path) -> None:
    shutil.copytree(finished_run / "model", tmp_path / "choices")
    config = AutoConfig.from_pretrained(tmp_path / "choices")
    model = sparsify(AutoModelForMultipleChoice.from_config(config), Local(1))
    model.save_pretrained(tmp_path / "choices")
    with pytest.raises(ValueError, match="ForMultipleChoice reads several texts a sample"):
        sentence_maps(tmp_path / "choices", TEXT, None, head=0)


def test_heads_that_differ(finished_run: Path, tmp_path: Path) -> None:
    folder = saved(tmp_path / "heads", finished_run, Axis(per_head=True) | Local(0))
    first, second = (sentence_maps(folder, TEXT, None, head) for head in (0, 1))
    assert " · head 1 · " in second[0].title
    assert any((a.kinds_NN != b.kinds_NN).any() for a, b in zip(first, second, strict=True))
    with pytest.raises(ValueError, match="head=2: this mask has 2 heads"):
        sentence_maps(folder, TEXT, None, head=2)


def test_a_fixed_pattern_has_no_rows_to_count(finished_run: Path, tmp_path: Path) -> None:
    maps = sentence_maps(saved(tmp_path / "fixed", finished_run, Local(1)), TEXT, None, head=0)
    assert "row" not in maps[0].title
    assert maps[0].rows == ()


def test_long_texts_are_cut(finished_run: Path, tmp_path: Path) -> None:
    assert sentence_maps(finished_run, "key " * 500, None, head=0)[0].size == 64
    boundless = shutil.copytree(finished_run / "model", tmp_path / "boundless")
    tokenizer = AutoTokenizer.from_pretrained(boundless, model_max_length=10**6)
    tokenizer.save_pretrained(boundless)
    assert sentence_maps(boundless, "key " * 500, None, head=0)[0].size == 64


def test_what_cannot_be_drawn(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no model/: the run is not finished"):
        sentence_maps(tmp_path, TEXT, None, head=0)
    with pytest.raises(ValueError, match="reads parses"):
        sentence_maps(saved(tmp_path / "tree", finished_run, Syntax(hops=1)), TEXT, None, head=0)
    bare = shutil.copytree(finished_run / "model", tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no tokenizer"):
        sentence_maps(bare, TEXT, None, head=0)
