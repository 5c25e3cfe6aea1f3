"""Every pattern can be written as plain JSON and built again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from aaa.experiments.plan import build_pattern, named_pattern
from aaa.patterns import (
    Axis,
    FixedDiagonal,
    Full,
    Global,
    InLayers,
    LayerSite,
    Local,
    Pattern,
    Random,
    Union,
    pattern_from_spec,
)
from aaa.patterns.spec import known_patterns
from aaa.places import config_folder

NAMES = sorted(path.stem for path in (config_folder() / "pattern").glob("*.yaml"))
CONFIGS = {name: named_pattern(name, "pattern") for name in NAMES}
# All but those that copy from a run, which only their user can name.
SHIPPED = {
    name: build_pattern(config)
    for name, config in CONFIGS.items()
    if not OmegaConf.is_missing(config, "source")
}
EXAMPLES = [
    Full(),
    FixedDiagonal(distances=[[[1, 3]], [[2]]]) | Global(1),
    InLayers(Axis(rows=False) | Local(1), "1-", elsewhere=Local(3)),
    InLayers(Local(1), [0]),
    Local(0),
    Local(8, window="total"),
    Random(3, seed=5, reading="text"),
    Axis(initial_logit=-1.5, temperature=0.5) | Local(2) | Global(1),
]


def there_and_back(pattern: Pattern) -> Pattern:
    return pattern_from_spec(json.loads(json.dumps(pattern.spec())))


@pytest.mark.parametrize("pattern", EXAMPLES, ids=str)
def test_there_and_back(pattern: Pattern) -> None:
    twin = there_and_back(pattern)
    assert twin is not pattern
    assert type(twin) is type(pattern)
    assert str(twin) == str(pattern)
    assert twin.spec() == pattern.spec()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_pattern(name: str) -> None:
    pattern = SHIPPED[name]
    twin = there_and_back(pattern)
    assert twin.spec() == pattern.spec()
    assert str(twin) == str(pattern)


def test_every_class_is_tried() -> None:
    """A pattern that could not be saved would be noticed by its user only when it is too late."""
    tried = json.dumps([pattern.spec() for pattern in (*EXAMPLES, *SHIPPED.values())])
    for name in known_patterns():
        assert f'"pattern": "{name}"' in tried, name


def test_spec_says_all_arguments_and_nests() -> None:
    assert (Axis() | Local(2)).spec() == {
        "pattern": "Union",
        "patterns": [
            {"pattern": "Axis", **{name: getattr(Axis(), name) for name in AXIS}},
            {"pattern": "Local", **{name: getattr(Local(2), name) for name in LOCAL}},
        ],
    }


AXIS = list(Axis.__init__.__annotations__.keys() - {"return"})
LOCAL = list(Local.__init__.__annotations__.keys() - {"return"})


def test_templates_are_not_changed_by_binding() -> None:
    pattern = Axis(initial_logit=1.0) | Local(1)
    before = pattern.spec()
    assert pattern.bind(LayerSite(0, 2, 8, 2)).spec() == before == pattern.spec()


class Outsider(Pattern):
    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.other_name = table


def test_a_class_from_elsewhere_is_named_but_not_built() -> None:
    spec = (Outsider(torch.ones(1)) | Local(1)).spec()
    assert spec["patterns"][0] == {"pattern": f"{__name__}.Outsider"}
    with pytest.raises(ValueError, match=r"pattern '.*Outsider' is unknown; known: .*Axis"):
        pattern_from_spec(spec)
    assert "Outsider" not in known_patterns()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"pattern": "Lokal", "size": 2},
            "pattern 'Lokal' is unknown, did you mean Local. known",
        ),
        ({"pattern": "Pattern"}, "pattern 'Pattern' is unknown"),
        ({"pattern": "os.system", "command": "true"}, "pattern 'os.system' is unknown"),
        ({"pattern": "Local", "radius": 2}, "Local's argument 'radius' is unknown; known: size"),
        ({"pattern": "Full", "size": 2}, "Full's argument 'size' is unknown"),
        ({"pattern": "Global"}, "Global cannot be built"),
        ({"pattern": "Local", "size": "two"}, "Local size is a whole number"),
        ({"pattern": "Local", "size": -1}, "Local size is "),
        ({"pattern": "Union", "patterns": []}, "at least one pattern"),
        ({"pattern": "Union", "patterns": [2]}, "takes patterns, not 2"),
        ({"pattern": "Union", "patterns": 2}, "Union cannot be built"),
        ({"pattern": "Union", "patterns": [{"pattern": "Lokal"}]}, "pattern 'Lokal' is unknown"),
        ({"_target_": "os.system"}, "a pattern's spec is"),
        ("Local(2)", "a pattern's spec is"),
        (None, "a pattern's spec is"),
    ],
)
def test_wrong_specs(spec: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pattern_from_spec(spec)


def test_unions_of_one_and_nested_unions() -> None:
    nested = Union(Local(1), Union(Global(1), Random(1)))
    assert str(there_and_back(nested)) == str(nested)
    assert isinstance(there_and_back(Union(Local(1))), Union)
