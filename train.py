"""Train a network: python train.py --config configs/bandstand.yaml; on 4 GPUs: torchrun --nproc-per-node 4 train.py ...

The run folder receives config.yaml, metrics.jsonl, TensorBoard events, last.pt and best.pt. After Ctrl-C, a crash or a
kill, --resume goes on from last.pt to the very numbers of a run that was never interrupted.
"""

import sys
from argparse import Namespace

from configs import schema
from utils.cli import Parser


def parse(arguments: list[str]) -> tuple[schema.Config, Namespace]:
    """Read the command line; --help shows the options of the network that it chooses."""
    parser = Parser(description=__doc__)
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last.pt, if there is one")
    return schema.parse(parser, arguments)


if __name__ == "__main__" and {"-h", "--help"} & {*sys.argv}:
    parse(sys.argv[1:])  # answers and ends: before torch is imported, which takes longer than the answer

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR

from configs.stored import describe_run, require_same_contents, require_same_features
from dataset import DATASETS
from dataset.data import Data, open_data
from dataset.loader import Loader, epoch_order
from nets.layers import StandardizedLinear
from nets.network import Network, build
from nets.options import FeatureSizes
from utils.checkpoint import load_checkpoint, load_latest, load_weights, save_checkpoint
from utils.compiling import compiled
from utils.cuda_graph import Recorded, recordable
from utils.errors import Interrupted, UserError, command
from utils.files import write_bytes
from utils.interrupt import Interrupt
from utils.losses import Losses
from utils.numerics import autocast, seed
from utils.progress import tqdm
from utils.run_log import RunLog
from utils.runtime import Runtime, set_threads, start
from utils.scoring.evaluation import at_once, predict
from utils.scoring.metrics import accuracy_row, judge

LOOK_EVERY = 50  # steps between looks at the loss: each waits for the device
Learn = Callable[..., dict[str, Tensor]]


@dataclass
class Position:
    """How far a run has come, and its best epoch."""

    epoch: int = 0
    step: int = 0  # of that epoch
    totals: dict[str, list[float]] = field(default_factory=dict)  # sum and count of each loss over the epoch's steps
    best: float = -1.0
    best_epoch: int = 0
    log: list[str] = field(default_factory=list)  # a line of metrics.jsonl for each epoch


@dataclass
class State:
    """All that a checkpoint restores."""

    model: Network
    optimizer: torch.optim.Optimizer
    scheduler: StepLR
    at: Position
    described: dict[str, Any]  # what else a checkpoint tells: configuration, sizes, answers, contents of the data

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        states = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint(path, self.described | states | {"at": asdict(self.at)}, keep=path.name == "last.pt")

    def restore(self, last: dict[str, Any], path: Path) -> None:
        """Take over what `save` wrote."""
        load_weights(self.model, last["model"], path)
        here = [group["capturable"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(last["optimizer"])
        for group, capturable in zip(self.optimizer.param_groups, here, strict=True):
            group["capturable"] = capturable  # whatever it was where the checkpoint was written
        self.scheduler.load_state_dict(last["scheduler"])
        self.at = Position(**last["at"])


def train(config: schema.Config, resume: bool, runtime: Runtime) -> None:
    """Train by `config`, from the beginning or from where the run folder's last.pt left off."""
    folder = Path(config.out)
    last = last_checkpoint(config, resume)
    if any(at != (last and last["at"]) for at in runtime.gather(last and last["at"])):
        raise UserError(f"{folder}: not every process finds the same last.pt there; let --out be on a shared disk")
    with runtime.main_first():
        data = open_data(config.data, config.model.kinds, ("train", "val"), last["answers"] if last else None)
    loader = Loader(data, runtime, config.data.residency, config.data.workers)
    state = set_up(config, data, runtime, last)
    if runtime.is_main:
        announce(config, data.notes, loader.residency, state)
    fit(config, state, data, loader, make_step(config, state, loader, runtime), runtime)


def set_up(config: schema.Config, data: Data, runtime: Runtime, last: dict[str, Any] | None) -> State:
    """Network, optimizer and schedule: new ones, or those of the checkpoint `last`."""
    options, sizes = config.train, FeatureSizes(config.data.segments, data.store.shapes, data.store.text_width)
    if last:
        require_same_features(last, sizes, data, config.data)
    seed(options.seed)
    model = build(config.model, sizes, len(data.vocabulary)).to(runtime.device)
    begun, options.threads = options.threads, set_threads(model, options.batch_size * sizes.segments, options.threads)
    described = describe_run(config, data, sizes)
    if last:
        require_same_contents(last, described, config)
        if begun not in (None, options.threads):
            raise UserError(f"OMP_NUM_THREADS is {options.threads}, but the run began with {begun} threads; unset it")
    else:
        measure_features(model, data)
    graph = options.graph and recordable(runtime, options.compile)
    betas: Any = options.betas  # a list, which PyTorch takes too
    optimizer = torch.optim.Adam(rate_groups(model, options), options.lr, betas, fused=True, capturable=graph)
    state = State(model, optimizer, StepLR(optimizer, options.lr_step, options.lr_gamma), Position(), described)
    if last:
        state.restore(last, Path(config.out) / "last.pt")
    return state


def rate_groups(model: Network, options: schema.TrainConfig) -> list[dict[str, Any]]:
    """The trained parameters with their learning rates. Raises `UserError` for a group that the network has not."""
    groups = model.rate_groups()
    if unknown := options.rates.keys() - groups.keys():
        known = ", ".join(groups) or "none"
        raise UserError(f"train.rates.{min(unknown)}: the groups here are {known}; --train.rates {{}} scales none")
    factor = {p: options.rates.get(name, 1.0) for name, parameters in groups.items() for p in parameters}
    by_factor: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            by_factor.setdefault(factor.get(parameter, 1.0), []).append(parameter)
    return [{"params": held, "lr": options.lr * scale} for scale, held in sorted(by_factor.items(), reverse=True)]


def make_step(config: schema.Config, state: State, loader: Loader, runtime: Runtime) -> Learn:
    """One training step: `learn(questions, answer=, **inputs)` gives the sum and count (2,) of each loss.

    `questions` is the size of the global batch, which the loss is divided by.
    """
    options, optimizer = config.train, state.optimizer
    network: nn.Module = state.model
    if runtime.world > 1:
        network = DistributedDataParallel(network, forward_sync_buffers=False)
    network = compiled(network, options.compile, runtime.device, loader.resident)

    def learn(questions: int, answer: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        network.train()
        with autocast(runtime.device, options.precision):
            seen = network(**inputs)
        answered = F.cross_entropy(seen.logits.float(), answer, reduction="sum")
        loss = answered * runtime.world / questions  # DDP averages over the processes
        totals = {"answer": torch.stack([answered.detach(), answered.new_full((), len(answer))])}
        for name, term in seen.losses.items():
            loss = loss + term.weight * term.sum / term.count.clamp(min=1)  # of this process' own part
            totals[name] = torch.stack([term.sum.detach(), term.count]).float()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return totals

    if options.graph and recordable(runtime, options.compile):
        return Recorded(learn, state.scheduler.get_last_lr)
    return learn


def fit(config: schema.Config, state: State, data: Data, loader: Loader, learn: Learn, runtime: Runtime) -> None:
    """The epochs that are left: train, validate, keep the best."""
    options, folder, at = config.train, Path(config.out), state.at
    questions, validation = data.splits["train"], data.splits["val"]
    columns = DATASETS[config.data.dataset].columns
    steps = math.ceil(len(questions) / options.batch_size)
    to_answer = loader.share(validation, np.arange(len(validation)))
    interrupt = Interrupt()
    log = RunLog(folder, at.log, at.epoch, at.epoch * steps + at.step) if runtime.is_main else None
    for epoch in range(at.epoch, options.epochs):
        began = time.perf_counter()
        group = options.questions_per_video
        order = epoch_order(questions.video, options.batch_size, options.seed, epoch, config.data.window, group)
        mine = (loader.share(questions, rows) for rows in order[at.step :])
        losses = Losses(at.totals if runtime.is_main else {}, questions.questions["question_id"], runtime)
        bar = tqdm(total=steps, initial=at.step, desc=f"epoch {epoch + 1}", leave=False, disable=log is None)
        for step, batch in enumerate(loader.batches(questions, mine, once=group > 1), start=at.step):
            seed(options.seed, epoch * steps + step, runtime.rank)
            losses.add(learn(len(order[step]), answer=batch.answer, **batch.inputs), batch.rows)
            bar.update()
            at.epoch, at.step = epoch, step + 1
            stopping = runtime.any(interrupt.asked)
            if stopping or at.step % LOOK_EVERY == 0 or at.step == steps:
                recent = losses.look()
                bar.set_postfix(loss=f"{recent['answer']:.3f}")
                if log:
                    log.step(epoch * steps + at.step, recent, state.scheduler.get_last_lr())
            if stopping:
                stop(state, losses, folder, runtime)
        bar.close()
        means = losses.means()
        rate, train_seconds = state.scheduler.get_last_lr()[0], time.perf_counter() - began
        state.scheduler.step()

        batches = loader.by_video(validation, to_answer, at_once(options.batch_size, runtime.device))
        classes = predict(state.model, batches, len(validation), options.precision, runtime)
        accuracy = accuracy_row(judge(validation.questions, data.vocabulary.words(classes)), columns)
        at.epoch, at.step, at.totals = epoch + 1, 0, {}
        better = accuracy["All"] > at.best
        if better:
            at.best, at.best_epoch = accuracy["All"], epoch + 1
        if log:
            log.epoch(epoch + 1, (epoch + 1) * steps, means, accuracy, rate, train_seconds)
            if better:
                state.save(folder / "best.pt")
            state.save(folder / "last.pt")
    if log:
        print(f"best: epoch {at.best_epoch}, val {at.best:.2f} %; next: python test.py --run {folder}")


def stop(state: State, losses: Losses, folder: Path, runtime: Runtime) -> None:
    """Save where the run is and end it."""
    state.at.totals = losses.sums()
    if runtime.is_main:
        state.save(folder / "last.pt")
    runtime.wait()  # for the file: when one process ends, torchrun ends the others
    at = state.at
    raise Interrupted(f"epoch {at.epoch + 1}, step {at.step} saved to {folder / 'last.pt'}; --resume goes on")


def measure_features(model: Network, data: Data) -> None:
    """Tell the layers that standardise what the features of (at most 256) training videos are like."""
    videos = data.splits["train"].questions["video_id"].unique()[:256]
    for name, layer in model.named_modules():
        if isinstance(layer, StandardizedLinear):  # called by its kind of features, by whatever holds it
            kind = name.rpartition(".")[2]
            layer.measure(torch.from_numpy(data.store.read(kind, [video])) for video in videos)


def last_checkpoint(config: schema.Config, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one; without `resume` only a finished run's, to say so again.

    Raises `UserError` where it belongs to another configuration.
    """
    path = Path(config.out) / "last.pt"
    if (last := load_latest(path)) is None:
        return None
    if not resume and last["at"]["epoch"] < config.train.epochs:
        raise UserError(f"{config.out}: already holds a run; go on with --resume, or choose another folder with --out")
    if config.train.threads is None:
        config.train.threads = last["config"]["train"].get("threads")  # as it began
    schema.require_same_training(config, last["config"], path)
    if last["at"]["best_epoch"]:
        load_checkpoint(path.with_name("best.pt"))  # it may stay the best: broken, it is better known now
    return last


def announce(config: schema.Config, notes: list[str], residency: str, state: State) -> None:
    """Print what will run: the resolved options, what the data lack, and the size of the model; clear the folder."""
    folder, at, model = Path(config.out), state.at, state.model
    for leftover in folder.glob(".tmp-*"):  # of a process that was killed while it wrote
        leftover.unlink()
    print(resolved := yaml.safe_dump(config.to_dict(), sort_keys=False))
    print(*config.notes, *notes, sep="\n", end="\n" if config.notes or notes else "")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    print(f"{trained:,} trained parameters, {frozen:,} frozen; features on {residency}")
    if at.epoch or at.step:
        print(f"resuming after epoch {at.epoch}, step {at.step}")
    if at.epoch < config.train.epochs or not (folder / "config.yaml").exists():  # else what made it stays
        write_bytes(folder / "config.yaml", resolved.encode())


@command
def main(arguments: list[str] | None = None) -> None:
    """Read the command line and train."""
    config, options = parse(sys.argv[1:] if arguments is None else arguments)
    with start(config.train.device, config.train.precision) as runtime:
        train(config, options.resume, runtime)


if __name__ == "__main__":
    main()
