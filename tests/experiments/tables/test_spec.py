"""Tables as data: the shipped ones say what the papers say; a wrong one is told what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aaa.experiments.tables.spec import (
    Pretraining,
    load_table,
    scales_of,
    table_names,
)

SHIPPED = [(name, scale) for name in table_names() for scale in scales_of(name)]

MINE: dict[str, Any] = {
    "title": "Mine",
    "columns": {"rte": {"overrides": ["task=rte"]}, "cola": {"overrides": ["task=cola"]}},
    "rows": {
        "local": {"overrides": ["pattern=local2"], "paper": {"rho": {"rte": 84}}},
        "aaa": {"overrides": ["pattern=aaa"], "compare": "local", "target": "match"},
    },
    "scales": {"demo": {"overrides": ["scale=demo"], "seeds": [0, 1]}},
}


def table(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINE | changes, sort_keys=False))
    return str(path)


def row(**changes: Any) -> dict[str, Any]:
    return {"rows": {**MINE["rows"], "other": changes}}


class TestShipped:
    def test_all_are_there_at_all_scales(self) -> None:
        tables = {"1", "3", "4", "5", "6", "7"}
        names = {f"table_{number}" for number in tables} | {"figure_2", "learned"}
        names |= {f"breaking_bert_{study}" for study in ("masks", "layers", "degrees")}
        assert names <= set(table_names())
        for name in names:
            assert scales_of(name) == ["demo", "small", "paper"]

    @pytest.mark.parametrize(("name", "scale"), SHIPPED)
    def test_loads_and_has_cells_of_its_own(self, name: str, scale: str) -> None:
        loaded = load_table(name, scale)
        cells = loaded.cells()
        assert len({cell.key for cell in cells}) == len(cells) > 0
        for cell in cells:
            assert cell.overrides[-1] == f"seed={cell.seed}"
            assert any(o.startswith("task=") for o in cell.overrides)
            assert any(o.startswith("pattern=") for o in cell.overrides)

    def test_the_papers_setting_is_the_papers(self) -> None:
        for number in "13457":
            columns = [column.label for column in load_table(number, "paper").columns]
            expected = ["MNLI", "QQP", "QNLI", "SST-2", "CoLA", "STS-B", "MRPC", "RTE"]
            assert columns == (expected[:3] if number == "7" else expected)

    def test_table_4_has_the_papers_arrows(self) -> None:
        """The arrows that the paper prints are its own figures' differences, rounding aside."""
        printed = {
            "aaa_at_local2_global2": (4, 0, 2, -1, 8, 37, 5, 5),
            "aaa_at_local2_global1_random1": (3, 1, 7, -1, 6, 31, -2, 0),
            "aaa_at_local1_global1_random2": (3, 1, 6, -1, 17, 18, 1, 7),
        }
        loaded = load_table("4", "paper")
        for name, arrows in printed.items():
            compared = loaded.row(name).compare
            assert compared is not None
            differences = []
            for column in loaded.columns:
                ours, theirs = (loaded.paper(r, column.name) for r in (name, compared))
                assert ours is not None
                assert theirs is not None
                differences.append(ours - theirs)
            assert tuple(differences) == arrows

    def test_learned_rows_of_table_4_match_their_fixed_row(self) -> None:
        for cell in load_table("4").cells(columns=["cola"]):
            targets = [o for o in cell.overrides if o.startswith("sparsity.target=")]
            expected = cell.row.removeprefix("aaa_at_")
            assert targets == ([f"sparsity.target=match:{expected}"] if "aaa" in cell.row else [])

    def test_table_6_is_the_first_learned_row_of_table_4(self) -> None:
        four = {cell.overrides for cell in load_table("4", "paper").cells()}
        six = {cell.overrides for cell in load_table("6", "paper").cells()}
        assert {frozenset(o) for o in six} <= {frozenset(o) for o in four}

    def test_diagonals_wait_for_the_pre_training_that_they_are_copied_from(self) -> None:
        fixed, task, layer, head = load_table("3").cells(columns=["cola"])
        run = ("scale=demo", "pattern=diagonal_task_global1")
        assert fixed.needs == (Pretraining(run, ("pattern.source=",)),)
        target = "sparsity.target=match:diagonal_fixed_global1:"
        assert task.needs == layer.needs == head.needs == (Pretraining(run, (target,)),)
        assert task.needs[0].given(Path("out/my model")) == (
            "sparsity.target='match:diagonal_fixed_global1:out/my model'",
        )
        assert task.needs[0].command == "aaa pretrain scale=demo pattern=diagonal_task_global1"

    @pytest.mark.parametrize("name", table_names())
    def test_every_paper_scale_has_a_cost(self, name: str) -> None:
        cost = load_table(name, "paper").cost
        assert cost is not None
        assert cost.weights_of("bert_base_cased") == 8.5e7 or name == "table_2"
        assert cost.weights_of("mobilebert") == 2.1e7 or name != "table_7"


class TestOneOfYourOwn:
    def test_cells(self, tmp_path: Path) -> None:
        loaded = load_table(table(tmp_path))
        assert loaded.name == "mine"
        assert [cell.key for cell in loaded.cells()][:3] == [
            ("local", "rte", 0),
            ("aaa", "rte", 0),
            ("local", "cola", 0),
        ]
        [cell] = loaded.cells(rows=["aaa"], columns=["rte"], seeds=[7])
        assert cell.overrides == (
            "scale=demo", "task=rte", "pattern=aaa", "sparsity.target=match:local2", "seed=7",
        )  # fmt: skip

    def test_targets(self, tmp_path: Path) -> None:
        for target, expected in (
            ("paper", "0.84"), (0.5, "0.5"), ("match:local", "match:local2"),
            ("match:local3_global1", "match:local3_global1"),
        ):  # fmt: skip
            name = table(
                tmp_path, **row(overrides=["pattern=aaa"], compare="local", target=target)
            )
            [cell] = load_table(name).cells(rows=["other"], columns=["rte"], seeds=[0])
            assert f"sparsity.target={expected}" in cell.overrides

    def test_the_paper_has_no_rho_there(self, tmp_path: Path) -> None:
        name = table(tmp_path, **row(compare="local", target="paper"))
        with pytest.raises(ValueError, match=r"row other, column cola: .* no rho of row local"):
            load_table(name).cells()

    def test_quoted_rows_and_left_out_columns_have_no_cells(self, tmp_path: Path) -> None:
        name = table(
            tmp_path,
            rows=MINE["rows"]
            | {
                "theirs": {"quoted": "Tay et al. (2021)", "paper": {"score": {"rte": 65.9}}},
                "partly": {"overrides": ["pattern=full"], "columns": ["cola"]},
            },
        )
        loaded = load_table(name)
        keys = [cell.key for cell in loaded.cells(seeds=[0])]
        assert [key for key in keys if key[0] not in MINE["rows"]] == [("partly", "cola", 0)]
        assert loaded.paper("theirs", "rte") == 65.9
        assert loaded.paper("theirs", "cola") is None

    def test_what_is_said_of_one_cell_and_of_one_scale(self, tmp_path: Path) -> None:
        other = {
            "overrides": ["pattern=full"],
            "at": {"demo": {"label": "here", "overrides": ["a=1"]}, "small": {"label": "there"}},
            "in": {"cola": ["c=1"]},
        }  # fmt: skip
        scales = MINE["scales"] | {"small": {}}
        loaded = load_table(table(tmp_path, **row(**other), scales=scales))
        assert loaded.row("other").label == "here"
        rte, cola = loaded.cells(rows=["other"], seeds=[0])
        assert rte.overrides[2:] == ("pattern=full", "a=1", "seed=0")
        assert cola.overrides[2:] == ("pattern=full", "a=1", "c=1", "seed=0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "mine.yaml: key 'titel' is unknown, did you mean title"),
        ({"kind": "picture"}, "kind 'picture' is unknown, did you mean figure"),
        ({"quantities": ["f1"]}, "quantity 'f1' is unknown"),
        ({"extends": "superglue"}, "extends 'superglue' is unknown, did you mean glue"),
        ({"rows": {}}, "mine.yaml, rows is empty"),
        ({"title": 7}, "title is a text, not 7"),
        ({"scales": {"demo": {"seeds": [0, 0]}}}, "scale demo, seeds are different whole"),
        ({"scales": {"demo": {"columns": ["qqp"]}}}, "column 'qqp' is unknown; known: rte, cola"),
        ({"scales": {"demo": {"rows": ["aaa"]}}}, "compared with local, which scale demo leaves"),
        ({"columns": {"rte": {"overrides": "task=rte"}}}, "column rte, overrides is a list"),
        (row(compare="nobody"), "row other: compare: row 'nobody' is unknown; known: local, aaa"),
        (row(target="match"), "row other: target: match needs compare"),
        (row(target="half"), r"row other: target is match, .*, not 'half'"),
        (row(target=1.5), r"a share in \[0, 1\), not 1.5"),
        (row(paper={"score": {"mrpc": 1}}), "row other, paper: column 'mrpc' is unknown"),
        (row(paper={"f1": {"rte": 1}}), "row other, paper: quantity 'f1' is unknown"),
        (row(paper={"score": {"rte": "abc"}}), "paper, score, rte is a finite number in percent"),
        (row(paper={"rho": {"rte": 101}}), r"paper, rho, rte is in \[0, 100\], not 101"),
        ({"quantities": []}, "mine.yaml, quantities is empty; known: rho, score"),
        (
            row(at={"demoo": {"label": "x"}}),
            "row other, at: scale 'demoo' is unknown, did you mean",
        ),
        (row(compare="other"), "row other is compared with itself: other -> other"),
        (
            {"rows": {a: {"overrides": ["pattern=full"], "compare": b} for a, b in ("xy", "yx")}},
            "row x is compared with itself: x -> y -> x; leave one",
        ),
        (row(compare=["local"]), r"row other: compare is a word, not \['local'\]"),
        (row(label=["a"]), r"row other: label is a word, not \['a'\]"),
        (row(series=["a"]), r"row other: series is a word, not \['a'\]"),
        (row(target="match:nope"), "row other: target: row or pattern 'nope' is unknown"),
        (row(x="two"), "row other: x is a finite number, not 'two'"),
        (row(x=float("nan")), "row other: x is a finite number, not nan"),
        (row(paper={"score": {"rte": float("inf")}}), "score, rte is a finite number in percent"),
        ({"scales": {"demo": {"rows": []}}}, "scale demo, rows is empty; known: local, aaa"),
        ({"scales": {"demo": {"rows": ["local"] * 2}}}, "rows has local more than once"),
        ({"quantities": ["rho", "rho"]}, "mine.yaml, quantities has rho more than once"),
        (
            row(pretrained={"pattern": "ful"}),
            "row other, pretrained, pattern: pattern 'ful' is un",
        ),
        (
            row(pretrained={"pattern": "full", "adapts": "ful"}),
            "pretrained, adapts: pattern 'ful' is",
        ),
        (row(pretrained={"pattern": "full", "gives": []}), "pretrained, gives is empty; leave it"),
        ({"scales": {"demo": {"seeds": [0]}, "a/b": {}}}, "mine.yaml, scales: 'a/b' has a slash"),
        (row(quoted="X", overrides=["pattern=full"]), "row other is quoted, so it has no runs"),
        (row(pretrained={"model": "full"}), "pretrained: key 'model' is unknown"),
        (
            row(pretrained={"pattern": "full", "adapts": "local2", "steps": {"small": 9}}),
            "row other, pretrained: adapts needs steps at scale demo, a whole number",
        ),
        (row(pretrained={"pattern": "full", "steps": {"demo": 9}}), "steps are for adapts"),
        (row(**{"in": {"qqp": []}}), "in: column 'qqp' is unknown"),
        (
            {
                "rows": {
                    "local": {"overrides": ["pattern=local2", "pattern.size=3"]},
                    "aaa": {"overrides": ["pattern=aaa"], "target": "match:local"},
                }
            },
            "rho of row local can be matched only if its pattern is one of conf/pattern as it",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_table(table(tmp_path, **changes))


def test_unknown_tables_scales_and_parts_are_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="table '9' is unknown; known: breaking_bert_degrees"):
        load_table("9")
    with pytest.raises(ValueError, match=r"there is no table nowhere\.yaml"):
        load_table("nowhere.yaml")
    with pytest.raises(ValueError, match="scale 'huge' is unknown; known: demo, small, paper"):
        load_table("4", "huge")
    with pytest.raises(ValueError, match="row 'nobody' is unknown; known: full, local2_global2"):
        load_table("4").cells(rows=["nobody"])
    with pytest.raises(ValueError, match="scale demo: column 'mnli' is unknown; known: cola"):
        load_table("4").cells(columns=["mnli"])
    broken = tmp_path / "broken.yaml"
    for text, message in (
        ("title: x\nrows: [", r"broken\.yaml, line 2, column 8 is no YAML: expected the node"),
        ("title: x\ntitle: y", r"broken\.yaml, line 2, column 1 is no YAML: found duplicate key"),
        ("7", r"broken\.yaml cannot be read: Invalid loaded object type: int"),
        ("\udcff", r"broken\.yaml cannot be read: 'utf-8' codec"),
    ):
        broken.write_text(text, errors="surrogateescape")
        with pytest.raises(ValueError, match=message):
            load_table(str(broken))


def test_reading_a_table_takes_neither_torch_nor_hydra() -> None:
    code = (
        "import sys; from aaa.experiments.tables import index, spec; "
        "spec.load_table('4').cells(); "
        "print(sorted({'torch', 'hydra', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_adapted_encoder_goes_on_from_another(tmp_path: Path) -> None:
    """For its own number of steps; what a user adds holds for both, but not over those steps."""
    node = {"pattern": "local2", "adapts": "full", "steps": {"demo": 9}}
    spec = table(
        tmp_path,
        rows={"adapted": {"overrides": ["pattern=local2"], "pretrained": node}},
        scales={"demo": {"pretrain": ["scale=demo"], "seeds": [0]}},
    )
    [pretraining] = load_table(spec).cells()[0].needs
    pretraining = pretraining.also(("training.max_steps=70",))
    assert pretraining.overrides[-1] == "training.max_steps=9"
    assert {"scale=demo", "pattern=local2"} <= set(pretraining.overrides)
    assert pretraining.adapts is not None
    assert pretraining.adapts.overrides == ("scale=demo", "pattern=full", "training.max_steps=70")
    assert pretraining.adapts.given(Path("/an/encoder")) == ("model.path='/an/encoder'",)
