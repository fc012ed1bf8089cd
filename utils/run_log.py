"""The measurements of a run: a line of `metrics.jsonl` and TensorBoard scalars per epoch."""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from utils.files import write_bytes


class RunLog:
    """Appends an epoch's numbers to `metrics.jsonl` and TensorBoard, after the `epochs` that the checkpoint knows.

    Later lines, left by a run that was killed between them and its checkpoint, are dropped.
    """

    def __init__(self, folder: str | Path, epochs: int):
        self.path = Path(folder) / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.lines = [line for line in lines if json.loads(line)["epoch"] <= epochs]
        self.board = SummaryWriter(str(folder), purge_step=epochs + 1)

    def write(self, epoch: int, numbers: dict[str, Any]) -> None:
        """Add the numbers of one epoch; nested dicts become TensorBoard groups."""
        self.lines.append(json.dumps({"epoch": epoch, **numbers}))
        write_bytes(self.path, "".join(f"{line}\n" for line in self.lines).encode())
        for name, value in numbers.items():
            for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
                self.board.add_scalar(f"{name}/{inner}" if inner else name, number, epoch)
        self.board.flush()
