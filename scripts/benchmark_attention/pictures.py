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
    """The pictures of the sections that were measured."""
    import matplotlib

    matplotlib.use("Agg")
    on_gpu = "" if results["about"].get("device", "cpu") == "cpu" else "_gpu"
    sections = {case["section"] for case in results["cases"]}
    if "lengths" in sections:
        _plot_lengths(results, folder, on_gpu)
    if "patterns" in sections:
        _plot_patterns(results, folder, on_gpu)


def _plot_patterns(results: dict[str, Any], folder: Path, on_gpu: str) -> None:
    """How many times as fast as fused attention each pattern is, at each length.

    With its rho at the longest.
    """
    import matplotlib.pyplot as plt

    cases = [case for case in results["cases"] if case["section"] == "patterns"]
    lengths = sorted({case["tokens"] for case in cases})
    names = list(dict.fromkeys(case["series"] for case in cases))
    rhos = {case["series"]: case["rho"] for case in cases if case["tokens"] == lengths[-1]}
    figure, axes = plt.subplots(
        1, len(lengths), figsize=(6 * len(lengths), 5), sharey=True, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for axis, tokens in zip(axes[0], lengths, strict=True):
        for shift, mode in ((-0.2, "forward"), (0.2, "frozen")):
            ratios = {
                case["series"]: median_ratio(*(case["seconds"][name] for name in case["names"]))
                for case in cases
                if (case["tokens"], case["mode"]) == (tokens, mode)
            }
            places = [names.index(name) + shift for name in ratios]
            bars = axis.barh(places, list(ratios.values()), 0.38, label=MODES[mode])
            axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(title=f"{tokens:,} tokens", xlabel="times as fast as fused attention, no mask")
        axis.margins(x=0.12)
    labels = [f"{name}\nρ {100 * rhos[name]:.1f}" for name in names]
    axes[0, 0].set_yticks(range(len(names)), labels, fontsize=9)
    axes[0, 0].invert_yaxis()
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.savefig(folder / f"attention_patterns{on_gpu}.png", dpi=130)
    plt.close(figure)


def _plot_lengths(results: dict[str, Any], folder: Path, on_gpu: str) -> None:
    import matplotlib.pyplot as plt

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
