"""What is drawn is the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from aaa import Axis, Full, Global, Local, Random
from aaa.masks import SparseMask
from aaa.patterns import Degree, Diagonal, FixedDiagonal, InLayers, LayerInput, Pattern
from aaa.plots.files import save
from aaa.plots.illustrate import example_mask, figure_1, illustrate
from aaa.plots.maps import CLOSED, COLUMN, OPEN, ROW, Map, figure_of, map_of
from tests.patterns.test_spec import SHIPPED

KEEP_BN = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]]).bool()  # padding on the left


def gates(*opened: int, size: int = 6) -> torch.Tensor:
    return torch.zeros(1, 1, size).index_fill(-1, torch.tensor(opened), 1.0)


def mask() -> SparseMask:
    return SparseMask(
        KEEP_BN, rows_BHN=gates(3), columns_BHN=gates(2, 5), diagonals_BHK=gates(0, size=1)
    )


def drawn(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_kinds_by_hand() -> None:
    found = map_of(mask(), "x")
    expected = np.full((6, 6), CLOSED)
    np.fill_diagonal(expected, OPEN)
    expected[:, [2, 5]] = COLUMN
    expected[3] = ROW
    assert np.array_equal(found.kinds_NN, expected)
    assert (found.rows, found.columns) == ((3,), (2, 5))


def test_padding_is_cut_off() -> None:
    found = map_of(mask(), "x", sample=1)
    assert found.size == 4
    assert (found.rows, found.columns) == ((1,), (0, 3))
    cells_NN = mask().dense()[1, 0, 2:, 2:].numpy() > 0
    assert np.array_equal(found.kinds_NN > CLOSED, cells_NN)


def test_full_attention_has_nothing_to_mark() -> None:
    full = Full()(LayerInput(KEEP_BN[:1]))
    found = map_of(full, "x")
    assert set(found.kinds_NN.flat) == {OPEN}
    assert found.rows == tuple(range(6))
    [axes] = figure_of([found], "x").axes
    assert not [line for line in axes.lines if np.size(line.get_xdata())]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_pattern_is_drawn_as_it_is(name: str) -> None:
    pattern = SHIPPED[name]
    cells_HNN = example_mask(pattern, 24).dense()[0]
    figure = figure_of(illustrate(name, pattern, 24), name)
    assert np.array_equal(drawn(figure)[0] > CLOSED, cells_HNN[0].numpy() > 0)


def test_a_fixed_pattern_is_no_example_a_learned_one_is() -> None:
    pattern = Local(2) | Global(1) | Random(3)
    cells_NN = pattern(LayerInput(torch.ones(1, 12, dtype=torch.bool))).dense()[0, 0].numpy()
    [found] = illustrate("fixed", pattern, 12)
    assert np.array_equal(found.kinds_NN > CLOSED, cells_NN > 0)
    assert found.title == "fixed"
    [learned] = illustrate("learned", Axis() | Local(1), 12)
    assert learned.title == "learned (an example)"


@pytest.mark.parametrize("pattern", [Axis(), Diagonal("task"), Diagonal("head") | Axis()], ids=str)
def test_examples_open_a_few_gates_and_change_nothing(pattern: Pattern) -> None:
    before, state = pattern.spec(), torch.get_rng_state()
    first, again = (example_mask(pattern, 40).dense() for _ in range(2))
    assert torch.equal(first, again)
    assert 0.05 < float(first.mean()) < 0.6
    assert pattern.spec() == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_tokens", [3, 6, 16, 24, 25, 40])
def test_examples_show_something_that_was_learned(num_tokens: int) -> None:
    for pattern in (Diagonal("layer"), Diagonal("layer") | Global(1), Degree(), Axis() | Local(1)):
        example = example_mask(pattern, num_tokens).dense()[0, 0].sum()
        assert example > example_mask(pattern.closed(), num_tokens).dense()[0, 0].sum()


def test_some_layers_only_has_two_maps() -> None:
    inside, outside = illustrate("x", InLayers(Local(1), "6-11"), 8)
    assert inside.title == "x\nlayers 6-11"
    assert set(outside.kinds_NN.flat) == {OPEN}
    band = np.abs(np.subtract.outer(range(8), range(8))) <= 1
    assert np.array_equal(inside.kinds_NN > CLOSED, band)


def test_copied_diagonals_are_drawn_in_their_first_layer_and_head() -> None:
    copied = FixedDiagonal(distances=[None, [[2], [3], [1]], [[1], [1], [1]]]) | Local(0)
    [found] = illustrate("x", copied, 6)
    assert found.title == "x\nlayer 1 · head 0"
    distance = np.abs(np.subtract.outer(range(6), range(6)))
    assert np.array_equal(found.kinds_NN > CLOSED, (distance == 0) | (distance == 2))
    inside, outside = illustrate("x", InLayers(copied, "1-2"), 6)
    assert (inside.title, outside.title) == (
        "x\nlayers 1-2\nlayer 1 · head 0",
        "x\nall other layers",
    )
    [alike] = illustrate("x", FixedDiagonal(distances=[[[1]]]), 6)
    assert alike.title == "x"


def test_figure_1() -> None:
    maps = figure_1(8)
    assert [item.title[4:] for item in maps] == [
        "Local", "Global", "Diagonal", "Axis", "Local + Global"
    ]  # fmt: skip
    opened = [item.kinds_NN > CLOSED for item in maps]
    distance = np.abs(np.subtract.outer(range(8), range(8)))
    first = np.minimum.outer(range(8), range(8)) == 0
    assert np.array_equal(opened[0], distance <= 1)
    assert np.array_equal(opened[1], first)
    assert np.array_equal(opened[4], (distance <= 1) | first)
    for item in (maps[0], maps[2]):  # diagonals: the same all along a distance
        for k in range(8):
            assert len(set(item.kinds_NN[distance == k])) == 1
    assert len(figure_of(maps, "Figure 1", 5).axes) == 5


class TestFigure:
    def figure(self, tokens: tuple[str, ...]) -> Figure:
        size = len(tokens)
        kinds_NN = np.eye(size, dtype=int)
        kinds_NN[1] = ROW
        return figure_of([Map("layer 0", kinds_NN, (1,), (), tokens)] * 2, "a title")

    def test_tokens_stand_at_both_axes_and_the_chosen_ones_in_bold(self) -> None:
        figure = self.figure(("[CLS]", "$5", "_a$", "[SEP]"))
        for axes in figure.axes:
            for axis, bold in ((axes.yaxis, {"$5"}), (axes.xaxis, set())):
                labels = axis.get_ticklabels()
                assert [label.get_text() for label in labels] == ["[CLS]", "$5", "_a$", "[SEP]"]
                found = {x.get_text() for x in labels if x.get_fontweight() == "bold"}
                assert found == bold
                assert not any(label.get_parse_math() for label in labels)

    def test_chosen_rows_have_a_mark(self) -> None:
        rows, columns = self.figure(("a", "b", "c")).axes[0].lines
        assert np.asarray(rows.get_ydata()).tolist() == [1]
        assert (rows.get_marker(), np.size(columns.get_xdata())) == (">", 0)

    @pytest.mark.parametrize("size", [1, 10, 128])
    def test_letters_fit_their_cells(self, size: int) -> None:
        figure = self.figure(tuple("some" for _ in range(max(2, size))))
        axes = figure.axes[0]
        inches = axes.get_position().height * figure.get_figheight()
        points = float(axes.get_yticklabels()[0].get_fontsize())
        assert 5 <= points <= 72 * inches / max(2, size)

    @pytest.mark.parametrize("tokens", [("a",), ("a", "man", "plays"), ("adventures",) * 128])
    def test_nothing_is_over_anything_else(self, tokens: tuple[str, ...]) -> None:
        size = len(tokens)
        kinds_NN = np.full((size, size), ROW)
        title = "layer 0 · ρ 0.42 · 2 rows · 31 columns"
        columns = (0,) if size > 1 else ()  # in bold
        figure = figure_of([Map(title, kinds_NN, (), columns, tokens)] * 6, "a title")
        figure.canvas.draw()  # only then is it known where things are
        titles = [axes.title.get_window_extent() for axes in figure.axes]
        maps = [axes.get_window_extent() for axes in figure.axes]
        labels = [
            label.get_window_extent()
            for axes in figure.axes
            for label in (axes.get_xticklabels()[0], axes.get_yticklabels()[0])
        ]
        for number, extent in enumerate(titles):
            others = titles[:number] + titles[number + 1 :] + maps + labels
            assert not extent.count_overlaps(others)
        for extent in titles + labels:
            assert figure.bbox.containsx(extent.x0)
            assert figure.bbox.containsx(extent.x1)
            assert figure.bbox.containsy(extent.y1)

    def test_colours_differ_in_grey(self) -> None:
        from matplotlib.colors import to_rgb

        from aaa.plots.maps import COLOURS

        greys = [np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in COLOURS]
        assert (-np.diff(greys) > 0.15).all()


def test_both_formats_are_written_the_same_each_time(tmp_path: Path) -> None:
    paths = save(figure_of(figure_1(8), "x"), tmp_path / "new" / "fig.1.png")
    assert [path.name for path in paths] == ["fig.1.png", "fig.1.svg"]
    before = [path.read_bytes() for path in paths]
    assert before[0].startswith(b"\x89PNG")
    assert b"<svg" in before[1]
    save(figure_of(figure_1(8), "x"), tmp_path / "new" / "fig.1")
    assert [path.read_bytes() for path in paths] == before
