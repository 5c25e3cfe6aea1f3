"""Data in the layout of a hub's repository."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pyarrow.parquet


def glue_folder(
    tmp_path: Path,
    name: str,
    columns: list[str],
    text: str = "Parliament ratified unprecedented legislation concerning fisheries",
) -> Path:
    """A folder of GLUE's layout with forty rows; the demo does not know the default text."""
    folder = tmp_path / "glue"
    (folder / name).mkdir(parents=True)
    table = pyarrow.table(
        {column: [f"{text} {row}" for row in range(40)] for column in columns}
        | {"label": [row % 2 for row in range(40)]}
    )
    lines = ["---", "configs:", f"- config_name: {name}", "  data_files:"]
    for split in ("train", "validation"):
        pyarrow.parquet.write_table(table, folder / name / f"{split}-00000-of-00001.parquet")
        lines.append(f"  - {{split: {split}, path: {name}/{split}-*}}")
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder
