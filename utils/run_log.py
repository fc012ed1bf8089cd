"""What a run writes as it goes: metrics.jsonl, a line an epoch, and TensorBoard's scalars by step."""

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from utils.files import write_bytes, writing


class RunLog:
    """Appends to `lines`, which the checkpoint holds with its `epochs` and `steps`: what is in the file may be damaged,
    or be left by a run that was killed between it and its checkpoint. TensorBoard's axis counts steps throughout.

    Raises `UserError` where the folder cannot be written.
    """

    def __init__(self, folder: str | Path, lines: list[str], epochs: int, steps: int):
        self.path, self.lines = Path(folder) / "metrics.jsonl", lines
        held = self.path.read_bytes() if self.path.exists() else b""
        lines += held.decode(errors="replace").splitlines()[len(lines) : epochs]  # of a checkpoint without them
        if held != self._text():
            write_bytes(self.path, self._text())
        with writing(folder):
            self.board = SummaryWriter(str(folder), purge_step=steps + 1)
        threading.excepthook = _hook

    def _text(self) -> bytes:
        return "".join(f"{line}\n" for line in self.lines).encode()

    def step(self, step: int, losses: Mapping[str, float], rates: Sequence[float | Tensor]) -> None:
        """Losses over the latest steps, and the rates of the parameter groups."""
        with writing(self.path.parent):
            for name, loss in losses.items():
                self.board.add_scalar(f"step_loss/{name}", loss, step)
            for number, rate in enumerate(rates):
                self.board.add_scalar(f"rate/{number}", float(rate), step)

    def epoch(
        self,
        epoch: int,
        step: int,
        losses: Mapping[str, float],
        accuracy: Mapping[str, float],
        rate: float | Tensor,
        seconds: float,
    ) -> None:
        """An epoch's mean losses, validation accuracy, learning rate and time; printed too."""
        others = {name: loss for name, loss in losses.items() if name != "answer"}
        numbers = {"epoch": epoch, "train_loss": losses["answer"], "val": accuracy, "rate": float(rate)}
        numbers["train_seconds"] = seconds
        self.lines.append(json.dumps(numbers | ({"losses": others} if others else {})))
        write_bytes(self.path, self._text())
        with writing(self.path.parent):
            for group, values in {"train_loss": losses, "val": accuracy}.items():
                for name, value in values.items():
                    self.board.add_scalar(f"{group}/{name}", value, step)
            self.board.flush()
        more = "".join(f"  {name} {loss:.4f}" for name, loss in others.items())
        print(f"epoch {epoch:3}  loss {losses['answer']:.4f}{more}  val {accuracy['All']:.2f} %  {seconds:.0f} s")


def _hook(failed: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk in the thread that writes for TensorBoard: the next call raises the same error."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)
