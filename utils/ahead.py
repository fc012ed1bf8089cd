"""Work that threads do side by side, or before it is asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import TypeVar

from utils.progress import tqdm

Item = TypeVar("Item")
Made = TypeVar("Made")
THREADS = 8  # they wait for the disk, or for a network drive; more than the cores on purpose


def ask_all(
    ask: Callable[[str], Made], names: Iterable[str], label: str, quiet: bool = False
) -> Iterator[tuple[str, Made]]:
    """Each distinct name with what `ask` says of it, in order: asked for several at once, with a bar for who waits."""
    names = list(dict.fromkeys(names))
    with ThreadPool(THREADS) as pool:
        answers = pool.imap(ask, names, chunksize=16)
        bar = tqdm(answers, f"checking {label}", len(names), leave=False, delay=1, unit="video", disable=quiet)
        yield from zip(names, bar, strict=True)


def ahead(
    read: Callable[[Item], Made], items: Iterable[Item], workers: int, prefetch: Callable[[Item], None]
) -> Iterator[Made]:
    """`map(read, items)` in threads, at most two items a thread ahead of the consumer.

    `prefetch(item)` comes as early, in a thread of its own: to ask a busy disk is to wait. What it raises, `read` will.
    """
    with ThreadPoolExecutor(workers) as pool, ThreadPoolExecutor(1) as asker:
        pending: deque[Future[Made]] = deque()
        try:
            for item in items:
                asker.submit(prefetch, item)
                pending.append(pool.submit(read, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # whoever stops early waits for nothing that has not begun
            for executor in (pool, asker):
                executor.shutdown(wait=False, cancel_futures=True)
