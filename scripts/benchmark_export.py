"""A sparse encoder in onnxruntime against the same weights under full attention, both exported.

    python scripts/benchmark_export.py --lengths 128 512 2048 4096

Random weights; rows and columns chosen by an importance layer of which the bias is set so that
about ``--open`` tokens of a text have their row, and as many their column, open. The two sessions
take turns; the ratio of the medians is printed. One thread, unless ``--threads``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from transformers import BertConfig, BertModel

from aaa import Axis, Local, load_sparse, sparsify
from aaa.deploy.onnx import export_onnx, write_onnx
from aaa.objective import sparsity
from aaa.saved import load_dense


def save(folder: Path, longest: int, opened: int) -> None:
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=2, hidden_size=384, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=longest, vocab_size=1000,
    )  # fmt: skip
    model = sparsify(BertModel(config), Axis() | Local(2))
    # The logits of random states are normal: the bias is their quantile at the share wanted.
    share = torch.tensor(min(0.5, opened / longest))
    for name, parameter in model.named_parameters():
        if ".sparse." in name and name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=384**-0.5)
        elif ".sparse." in name:
            torch.nn.init.constant_(parameter, float(torch.special.ndtri(share)))
    model.save_pretrained(folder)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 4096])
    parser.add_argument(
        "--open", type=int, default=61, help="rows, and columns, of a longest text"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    longest = max(options.lengths)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder, longest, options.open)
        checks = export_onnx(folder, folder / "sparse.onnx", longest)
        print(f"the sparse one differs by {max(c.difference for c in checks):.1e} at most")
        write_onnx(load_dense(folder), longest, folder / "full.onnx")
        sessions = {
            kind: session(folder / f"{kind}.onnx", options.threads) for kind in ("full", "sparse")
        }
        sparse = load_sparse(folder)
        for length in options.lengths:
            ids = torch.randint(1000, (1, length))
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            with torch.inference_mode():
                sparse(**inputs)
            inputs["token_type_ids"] = torch.zeros_like(ids)
            arrays = {key: tensor.numpy() for key, tensor in inputs.items()}
            times: dict[str, list[float]] = {pattern: [] for pattern in sessions}
            for _ in range(options.rounds):
                for pattern, one in sessions.items():
                    started = time.perf_counter()
                    one.run(None, arrays)
                    times[pattern].append(time.perf_counter() - started)
            full, own = (statistics.median(times[pattern]) for pattern in ("full", "sparse"))
            rho = float(sparsity(sparse))
            print(
                f"{length:6} tokens, rho {rho:.3f}: full {full * 1e3:8.1f} ms, "
                f"sparse {own * 1e3:8.1f} ms, {full / own:.2f} times faster",
                flush=True,
            )


if __name__ == "__main__":
    main()
