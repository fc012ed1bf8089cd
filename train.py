"""Train TSPM: python train.py --config configs/bandstand.yaml; on four GPUs: torchrun --nproc-per-node 4 train.py ...

The run folder receives config.yaml, metrics.jsonl, TensorBoard events, last.pt and best.pt. After Ctrl-C, a crash or a
kill, --resume goes on from last.pt to the very numbers of a run that was never interrupted.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR
from tqdm import tqdm

from configs import schema
from configs.stored import require_same_features
from dataset.data import Data, open_data
from dataset.loader import Loader, epoch_order
from nets.config import FeatureSizes
from nets.layers import StandardizedLinear
from nets.tspm.model import build_model, edges_and_depths
from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.cli import Parser
from utils.cuda_graph import Recorded, recordable
from utils.errors import Interrupted, UserError, command
from utils.files import write_bytes
from utils.run_log import RunLog
from utils.runtime import Interrupt, PeakMemory, Runtime, autocast, compiled, seed, start
from utils.scoring.evaluation import in_batches, predict
from utils.scoring.metrics import accuracy_row, judge

LOOK_EVERY = 50  # steps between looks at the loss: each waits for the device


def train(config: schema.Config, resume: bool, runtime: Runtime) -> None:
    """Train by `config`, from the beginning or from where the run folder's last.pt left off."""
    options, folder = config.train, Path(config.out)
    last = _last_checkpoint(config, resume)
    if any(at != (last and last["at"]) for at in runtime.gather(last and last["at"])):
        raise UserError(f"{folder}: not every process finds the same last.pt there; let --out be on a shared disk")
    with runtime.main_first():
        data = open_data(config.data, config.model.kinds, ("train", "val"), last and last["answers"])
    loader = Loader(data, runtime, config.data.residency, config.data.workers)
    if options.compile and loader.shards > 1:
        raise UserError(
            f"train.compile wants batches of one size, but the features do not fit in one process, and each of "
            f"{loader.shards} answers the questions about its share of them; leave it out, or take data.residency disk"
        )
    sizes = FeatureSizes.of(config.data.segments, data.store.shapes, data.store.text_width)
    questions, validation = data.splits["train"], data.splits["val"]

    seed(options.seed)
    model = build_model(config.model, sizes, len(data.vocabulary)).to(runtime.device)
    edges, depths = edges_and_depths(model)
    groups = [{"params": edges, "lr": options.lr}, {"params": depths, "lr": options.lr * options.deep_lr}]
    graph = options.graph and recordable(runtime, options.compile)
    optimizer = torch.optim.Adam(groups, fused=True, capturable=graph)
    scheduler = StepLR(optimizer, options.lr_step, options.lr_gamma)
    if config.model.standardize and not last:
        _measure_features(model, data)
    at = {"epoch": 0, "step": 0, "best": -1.0, "best_epoch": 0, "questions": len(questions)}
    at["window"] = loader.window  # a resumed run keeps its order, wherever the features are now
    at["loss"] = 0.0  # summed over the epoch's steps done
    if last:
        require_same_features(last, sizes, data, config.data)
        load_weights(model, last["model"], folder / "last.pt")
        optimizer.load_state_dict(last["optimizer"])
        for group in optimizer.param_groups:  # whatever it was where the checkpoint was written
            group["capturable"] = graph
        scheduler.load_state_dict(last["scheduler"])
        at |= last["at"]
        if at["questions"] != len(questions):  # the epoch's order would be another
            raise UserError(
                f"{config.data.train}: gives {len(questions)} training questions, but gave {at['questions']} when "
                f"{folder / 'last.pt'} was written; restore that file and its features, or start another run with --out"
            )
    network = DistributedDataParallel(model, forward_sync_buffers=False) if runtime.world > 1 else model
    network = compiled(network, options.compile, runtime.device, loader.resident)

    def save(name: str) -> None:
        if runtime.is_main:
            described = {"config": config.to_dict(), "sizes": sizes._asdict(), "manifests": data.store.manifests}
            described |= {"answers": list(data.vocabulary.answers), "model": model.state_dict(), "at": at}
            resumable = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            save_checkpoint(folder / name, described | resumable)

    interrupt, memory = Interrupt(), PeakMemory(runtime.device)

    def learn(questions: int, answer: Tensor, **inputs: Tensor | None) -> Tensor:
        with autocast(runtime.device, options.precision):
            logits = network(**inputs).logits  # (B, C)
        loss = F.cross_entropy(logits.float(), answer, reduction="sum")
        memory.look()
        optimizer.zero_grad()
        (loss * runtime.world / questions).backward()  # DDP averages over the processes
        optimizer.step()
        return loss.detach()

    if graph:
        learn = Recorded(learn, scheduler.get_last_lr)

    log = None
    if runtime.is_main:
        for leftover in folder.glob(".tmp-*"):  # of a process that was killed while it wrote
            leftover.unlink()
        _announce(config, data.notes, loader.place, model, at)
        if at["epoch"] < options.epochs:  # a finished run keeps the configuration that made it
            write_bytes(folder / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
        log = RunLog(folder, at["epoch"])

    for epoch in range(at["epoch"], options.epochs):
        began = time.perf_counter()
        order = epoch_order(questions.video, options.batch_size, options.seed, epoch, at["window"])
        mine = (loader.share(questions, rows) for rows in order[at["step"] :])
        loss_sum = torch.tensor(at["loss"] if runtime.is_main else 0.0, dtype=torch.float64, device=runtime.device)
        unseen = []  # (loss, rows) of the steps since the last look
        bar = tqdm(total=len(order), initial=at["step"], desc=f"epoch {epoch + 1}", leave=False, disable=log is None)
        network.train()
        for step, batch in enumerate(loader.batches(questions, mine), start=at["step"]):
            seed(options.seed, epoch * len(order) + step, runtime.rank)
            loss = learn(len(order[step]), answer=batch.answer, **batch.inputs)

            loss_sum += loss
            unseen.append((loss, batch.rows))
            bar.update()
            at |= {"epoch": epoch, "step": step + 1}
            stopping = runtime.any(interrupt.asked)
            if stopping or len(unseen) == LOOK_EVERY or step + 1 == len(order):
                memory.look()  # within the step it is looked at only when that is not replayed
                bar.set_postfix(loss=f"{_mean_loss(unseen, questions.questions['question_id']):.3f}")
                unseen.clear()
            if stopping:
                at["loss"] = runtime.sum(loss_sum).item()
                save("last.pt")
                runtime.wait()  # for the file: when one process ends, torchrun ends the others
                raise Interrupted(f"epoch {epoch + 1}, step {step + 1} saved to {folder / 'last.pt'}; --resume goes on")
        bar.close()
        train_loss = runtime.sum(loss_sum).item() / len(questions)
        train_seconds = time.perf_counter() - began
        scheduler.step()

        asked = in_batches(loader.share(validation, np.arange(len(validation))), options.batch_size)
        classes = predict(model, loader.batches(validation, asked), len(validation), options.precision, runtime)
        accuracy = accuracy_row(judge(validation.questions, data.vocabulary.words(classes)))
        at |= {"epoch": epoch + 1, "step": 0, "loss": 0.0}
        if accuracy["All"] > at["best"]:
            at |= {"best": accuracy["All"], "best_epoch": epoch + 1}
            save("best.pt")
        if log:
            numbers = {"train_loss": train_loss, "val": accuracy, "train_seconds": train_seconds, "peak_gb": memory.gb}
            log.write(epoch + 1, numbers)
            print(f"epoch {epoch + 1:3}  loss {train_loss:.4f}  val {accuracy['All']:.2f} %  {train_seconds:.0f} s")
        save("last.pt")
    if log:
        held = ", ".join(f"{size:.1f} GB of the {where}" for where, size in memory.gb.items())
        print(f"features in {loader.place}: at most {held}")
        print(f"best: epoch {at['best_epoch']}, val {at['best']:.2f} %; next: python test.py --run {folder}")


def _measure_features(model: nn.Module, data: Data) -> None:
    """Tell the layers that standardise what the features of (at most 256) training videos are like."""
    videos = data.splits["train"].questions["video_id"].unique()[:256]
    for name, layer in model.named_modules():
        if isinstance(layer, StandardizedLinear):  # called audio, frame or token by whatever holds it
            kind = name.rpartition(".")[2]
            layer.measure(torch.from_numpy(data.store.read(kind, [video])) for video in videos)


def _last_checkpoint(config: schema.Config, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one; without `resume` only a finished run's, to say so again.

    Raises `UserError` where it belongs to another configuration.
    """
    path = Path(config.out) / "last.pt"
    if not path.exists():
        return None
    last = load_checkpoint(path)
    if not resume and last["at"]["epoch"] < config.train.epochs:
        raise UserError(f"{config.out}: already holds a run; go on with --resume, or choose another folder with --out")
    schema.require_same_training(config, last["config"], path)
    return last


def _announce(config: schema.Config, notes: list[str], place: str, model: nn.Module, at: dict[str, Any]) -> None:
    """Print what will run: the resolved options, what the data lack, and the size of the model."""
    print(yaml.safe_dump(config.to_dict(), sort_keys=False))
    for note in notes:
        print(note)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    print(f"{trained:,} trained parameters, {frozen:,} frozen; features in {place}")
    if at["epoch"] or at["step"]:
        print(f"resuming after epoch {at['epoch']}, step {at['step']}")


def _mean_loss(steps: list[tuple[Tensor, np.ndarray]], ids: pd.Series) -> float:
    """Mean loss of a question. Raises `UserError` with the questions of the first step whose loss is not finite."""
    losses = torch.stack([loss for loss, _ in steps]).tolist()
    for loss, (_, rows) in zip(losses, steps, strict=True):
        if not math.isfinite(loss):
            raise UserError(f"the loss is not finite; the batch held the questions {', '.join(ids.iloc[rows])}")
    return sum(losses) / max(1, sum(len(rows) for _, rows in steps))


@command
def main() -> None:
    """Read the command line and train."""
    parser = Parser(description=__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last.pt, if there is one")
    schema.add_config(parser)
    config, options = schema.parse(parser, sys.argv[1:])
    with start(config.train.device, config.train.precision) as runtime:
        train(config, options.resume, runtime)


if __name__ == "__main__":
    main()
