"""What a run writes as it goes: metrics.jsonl, a line an epoch, and TensorBoard's scalars by step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from utils.files import write_bytes


class RunLog:
    """Appends to what the `epochs` and `steps` that the checkpoint knows have left.

    Later lines, left by a run that was killed between them and its checkpoint, are dropped. TensorBoard's axis counts
    steps throughout.
    """

    def __init__(self, folder: str | Path, epochs: int, steps: int):
        self.path = Path(folder) / "metrics.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.lines = [line for line in lines if json.loads(line)["epoch"] <= epochs]
        self.board = SummaryWriter(str(folder), purge_step=steps + 1)

    def step(self, step: int, losses: Mapping[str, float], rates: Sequence[float]) -> None:
        """Losses over the latest steps, and the rates of the parameter groups."""
        for name, loss in losses.items():
            self.board.add_scalar(f"step_loss/{name}", loss, step)
        for number, rate in enumerate(rates):
            self.board.add_scalar(f"rate/{number}", rate, step)

    def epoch(
        self,
        epoch: int,
        step: int,
        losses: Mapping[str, float],
        accuracy: Mapping[str, float],
        rate: float,
        seconds: float,
    ) -> None:
        """An epoch's mean losses, validation accuracy, learning rate and time; printed too."""
        others = {name: loss for name, loss in losses.items() if name != "answer"}
        numbers = {"epoch": epoch, "train_loss": losses["answer"], "val": accuracy, "rate": rate}
        numbers["train_seconds"] = seconds
        self.lines.append(json.dumps(numbers | ({"losses": others} if others else {})))
        write_bytes(self.path, "".join(f"{line}\n" for line in self.lines).encode())
        for group, values in {"train_loss": losses, "val": accuracy}.items():
            for name, value in values.items():
                self.board.add_scalar(f"{group}/{name}", value, step)
        self.board.flush()
        more = "".join(f"  {name} {loss:.4f}" for name, loss in others.items())
        print(f"epoch {epoch:3}  loss {losses['answer']:.4f}{more}  val {accuracy['All']:.2f} %  {seconds:.0f} s")
