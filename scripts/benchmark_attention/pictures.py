"""The report and the pictures of a results.json."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from scripts.benchmark_attention.worker import NAN

MODES = {
    "forward": "forward",
    "frozen": "forward and backward",
    "learned": "forward and backward, gates learned",
}


def median_ratio(top: list[float], bottom: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(top, bottom, strict=False))


def report(results: dict[str, Any]) -> str:
    lines = [json.dumps(results["about"])]
    for case in results["cases"]:
        lines.append(f"{case['section']} {case['series']} N={case['tokens']} {case['mode']}")
        base = case["names"][0]
        for name in (*case["names"], *case["only_memory"]):
            seconds = case["seconds"].get(name, [NAN])
            median = statistics.median(seconds)
            memory = case["extra_mb"].get(name, NAN)
            line = (
                f"  {name:22s} {median * 1e3:10.3f} ms"
                f"  {median_ratio(case['seconds'][base], seconds):6.2f}x as fast as {base}"
                f"  {memory:9.1f} MB"
            )
            if case["roof_seconds"] is not None and name != base:
                line += f"  {case['roof_seconds'] / median:6.1%} of the roof"
            lines.append(line)
    return "\n".join(lines)


def plot(results: dict[str, Any], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    on_gpu = "" if results["about"].get("device", "cpu") == "cpu" else "_gpu"
    colors: dict[str, str] = {}
    for what, label, stem in (
        ("seconds", "time (ms)", "time"),
        ("extra_mb", "peak memory of the call (MB)", "memory"),
    ):
        figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
        for axis, (mode, title) in zip(axes, MODES.items(), strict=True):
            for key, (x, y) in _curves(results, mode, what).items():
                style = "--" if key.endswith("(fixed)") else "-"
                color = colors.setdefault(key, f"C{len(colors)}")
                axis.plot(x, y, style, color=color, marker="o", markersize=3, label=key)
            axis.set(yscale="log", title=title, xlabel="tokens N")
            axis.set_xscale("log", base=2)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
        axes[0].set_ylabel(label)
        figure.savefig(folder / f"attention_{stem}{on_gpu}.png", dpi=130)
        plt.close(figure)


def _curves(results: dict[str, Any], mode: str, what: str) -> dict[str, tuple[list, list]]:
    found: dict[str, tuple[list, list]] = {}
    for case in results["cases"]:
        if case["section"] != "lengths" or case["mode"] != mode:
            continue
        names = case["names"] if what == "seconds" else (*case["names"], *case["only_memory"])
        for name in names:
            key = f"{name} (fixed)" if case["series"] == "fixed" else name
            value = case[what][name]
            x, y = found.setdefault(key, ([], []))
            x.append(case["tokens"])
            y.append(statistics.median(value) * 1e3 if what == "seconds" else value)
    return found
