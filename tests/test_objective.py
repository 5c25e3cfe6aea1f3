"""The hinge of Eq. 10, and rho from lengths alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aaa import Axis, Full, Global, Local, Random, sparsify, sparsity, sparsity_loss
from aaa.mask_statistics import MaskStatistics
from aaa.objective import sample_sparsity, sparsity_of_lengths
from aaa.sparse import latest_masks
from tests.conftest import EncoderFactory


class TestLoss:
    def model(
        self, make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
    ) -> torch.nn.Module:
        model = sparsify(make_encoder(), Axis() | Local(1)).train()
        model(**batch)
        return model

    def test_is_the_hinge(
        self, make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
    ) -> None:
        model = self.model(make_encoder, batch)
        rho = float(sparsity(model))
        loss = sparsity_loss(model, target=rho + 0.25, alpha=8)
        assert float(loss) == pytest.approx(2, rel=1e-5)
        assert float(sparsity_loss(model, target=max(0.0, rho - 0.1))) == 0

    def test_closes_gates(
        self, make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
    ) -> None:
        """The gradient of the hinge pushes every importance layer's bias down."""
        model = self.model(make_encoder, batch)
        sparsity_loss(model, target=1.0).backward()
        biases = [p for name, p in model.named_parameters() if "sparse" in name and "bias" in name]
        assert len(biases) == 4
        assert all(bias.grad is not None and bias.grad.item() > 0 for bias in biases)

    def test_rho_is_the_mean_over_samples_not_pooled_cells(
        self, make_encoder: EncoderFactory
    ) -> None:
        model = sparsify(make_encoder(), Local(1))
        ids = torch.full((2, 20), 7)
        keep = torch.ones(2, 20, dtype=torch.long)
        keep[1, 4:] = 0
        model(input_ids=ids, attention_mask=keep)
        expected = sum(1 - (3 * n - 2) / n**2 for n in (20, 4)) / 2
        assert float(sparsity(model)) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("inside", [False, True])
    def test_gates_in_evaluation_mode_do_not_learn_and_it_is_said(
        self, make_encoder: EncoderFactory, batch: dict[str, torch.Tensor], inside: bool
    ) -> None:
        """``from_pretrained`` leaves an encoder so, also one inside a module in training mode."""
        encoder = sparsify(make_encoder(), Axis() | Local(1))
        model = torch.nn.Sequential(encoder).train() if inside else encoder
        encoder.eval()
        assert model.training is inside
        encoder(**batch)
        with pytest.warns(UserWarning, match=r"evaluation mode: .*call model.train\(\)"):
            assert not sparsity_loss(model, target=0.9).requires_grad

    @pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
    def test_evaluation_is_silent(
        self, make_encoder: EncoderFactory, batch: dict[str, torch.Tensor], off: Callable[[], Any]
    ) -> None:
        model = sparsify(make_encoder(), Axis() | Local(1)).eval()
        fixed = sparsify(make_encoder(), Local(1)).eval()
        fixed(**batch)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sparsity_loss(fixed, target=0.9)
            with off():
                model(**batch)
                sparsity_loss(model, target=0.9)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"target": 70}, r"target is a share in \[0, 1\], not 70"),
            ({"target": -0.1}, r"target is a share in \[0, 1\], not -0.1"),
            ({"target": math.nan}, r"target is a share in \[0, 1\], not nan"),
            ({"target": "0.7"}, r"target is a share in \[0, 1\], not '0.7'"),
            ({"target": True}, r"target is a share in \[0, 1\], not True"),
            ({"target": 0.7, "alpha": math.inf}, "alpha is a finite number, not inf"),
            ({"target": 0.7, "alpha": "10"}, "alpha is a finite number, not '10'"),
        ],
    )
    def test_what_is_no_target(
        self,
        make_encoder: EncoderFactory,
        batch: dict[str, torch.Tensor],
        wrong: dict[str, Any],
        said: str,
    ) -> None:
        with pytest.raises(ValueError, match=f"^sparsity_loss {said}$"):
            sparsity_loss(self.model(make_encoder, batch), **wrong)

    def test_a_text_of_padding_alone_does_not_count(self, make_encoder: EncoderFactory) -> None:
        model = sparsify(make_encoder(), Local(1))
        ids, keep = torch.full((3, 9), 7), torch.ones(3, 9, dtype=torch.long)
        model(input_ids=ids[:2], attention_mask=keep[:2])
        expected = 0.9 - float(sparsity(model))
        keep[2] = 0
        model(input_ids=ids, attention_mask=keep)
        assert sample_sparsity(model)[2] == 0
        assert float(sparsity_loss(model, target=0.9, alpha=1)) == pytest.approx(expected)
        statistics = MaskStatistics(num_layers=2)
        statistics.update(latest_masks(model))
        assert statistics.compute()["sparsity"] == pytest.approx(float(sparsity(model)))

    def test_a_dense_model_has_no_rho(self, make_encoder: EncoderFactory) -> None:
        with pytest.raises(ValueError, match="dense"):
            sparsity(make_encoder())

    def test_nor_has_one_that_never_ran(self, make_encoder: EncoderFactory) -> None:
        with pytest.raises(ValueError, match="has not run"):
            sparsity(sparsify(make_encoder(), Full()))


class TestLengths:
    @given(
        st.lists(st.integers(1, 200), min_size=1, max_size=20),
        st.integers(0, 3),
        st.integers(1, 3),
    )
    def test_closed_form(self, lengths: list[int], a: int, b: int) -> None:
        """Footnote 5 and facts: |B| = (2s + 1) N - s (s + 1) for N > s; all open below."""
        s = a + b
        expected = sum(
            1 - ((2 * s + 1) * n - s * (s + 1)) / n**2 if n > s else 0.0 for n in lengths
        )
        found = sparsity_of_lengths(Local(a) | Global(b), lengths, num_layers=1)
        assert found == pytest.approx(expected / len(lengths), abs=1e-6)

    def test_is_what_a_model_measures(
        self, make_encoder: EncoderFactory, batch: dict[str, torch.Tensor]
    ) -> None:
        pattern = Local(1) | Global(1) | Random(2)
        model = sparsify(make_encoder(), pattern)
        model(**batch)
        lengths = batch["attention_mask"].sum(-1).tolist()
        assert sparsity_of_lengths(pattern, lengths, num_layers=2) == pytest.approx(
            float(sparsity(model)), abs=1e-6
        )

    def test_closed_axis_is_its_floor(self) -> None:
        floor = (Axis() | Local(2)).closed()
        assert sparsity_of_lengths(floor, [10, 30], 1) == sparsity_of_lengths(
            Local(2), [10, 30], 1
        )

    def test_learned_patterns_have_none(self) -> None:
        with pytest.raises(ValueError, match="learned"):
            sparsity_of_lengths(Axis(), [10], 1)
