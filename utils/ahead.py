"""Work that threads do before it is asked for."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


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
