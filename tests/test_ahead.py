"""Threads that read ahead."""

import threading

from utils.ahead import ahead


def test_what_is_read_comes_in_order_and_little_of_it_early():
    taken: list[int] = []
    items = (taken.append(item) or item for item in range(20))
    made = ahead(lambda item: item * item, items, 2, lambda item: None)
    assert next(made) == 0
    assert len(taken) == 5
    assert list(made) == [n * n for n in range(1, 20)]


def test_who_stops_early_waits_for_no_read_that_has_not_begun():
    go, read = threading.Event(), []

    def hold(item):
        if item:
            go.wait(20)
        read.append(item)
        return item

    batches = ahead(hold, range(100), 1, lambda item: None)
    assert next(batches) == 0
    threading.Timer(0.2, go.set).start()
    batches.close()
    assert read in ([0], [0, 1])
