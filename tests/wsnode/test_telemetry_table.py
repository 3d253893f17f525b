"""Counters in shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from wsnode.core.metrics import AGENT, SERVER, for_job
from wsnode.telemetry import Buckets, Layout, SharedTable


@pytest.fixture
def table():
    made = SharedTable.create(Layout(for_job(SERVER)), slots=3)
    yield made
    made.close()


def writer_on(table: SharedTable):
    slot = table.acquire()
    counters = table.layout.counters()
    return slot, counters, table.writer(slot, counters)


def test_every_counted_metric_has_cells_of_its_own():
    for job in (SERVER, AGENT):
        layout = Layout(for_job(job))
        taken = [cell for cells in layout.cells.values() for cell in range(cells.start, cells.stop)]
        assert taken == list(range(layout.size))
        assert set(layout.cells) == {metric.field for metric in for_job(job) if metric.source == "worker"}


def test_flushed_counts_are_added_up_over_the_slots(table):
    _, one, first = writer_on(table)
    _, two, second = writer_on(table)
    one.messages_received += 3
    two.messages_received += 4
    one.errors["too_big"] += 1
    two.errors["internal"] += 2
    one.message_processing.observe(50_000)  # ns
    two.message_processing.observe(2_000_000_000)
    assert table.total("messages_received") == 0
    first.flush()
    second.flush()
    assert table.total("messages_received") == 7
    assert table.total("errors") == 3
    assert table.series("errors") == [0, 0, 0, 0, 1, 0, 0, 0, 2]
    *counts, total = table.series("message_processing")
    assert (counts[2], counts[-1], sum(counts), total) == (1, 1, 2, 2_000_050_000)


@pytest.mark.parametrize(("value", "bucket"), [(0, 0), (10, 0), (11, 1), (20, 1), (21, 2)])
def test_a_bucket_holds_values_up_to_its_bound(value, bucket):
    buckets = Buckets((10, 20))
    buckets.observe(value)
    assert buckets.counts.index(1) == bucket
    assert buckets.total == value


def test_a_name_or_label_value_that_is_not_declared_is_refused(table):
    counters = table.layout.counters()
    with pytest.raises(AttributeError):
        counters.mesages_received = 1
    with pytest.raises(AttributeError):
        counters.mesages_received += 1
    with pytest.raises(KeyError):
        counters.errors["tooo_big"] += 1


def test_totals_stay_and_gauges_go_when_a_worker_has_ended(table):
    slot, counters, writer = writer_on(table)
    counters.messages_received, counters.connections = 5, 2
    counters.message_processing.observe(1)
    writer.flush()
    table.fold(slot)
    assert (table.total("messages_received"), table.total("connections")) == (5, 0)
    counters = table.layout.counters()
    writer = table.writer(slot, counters)
    counters.messages_received, counters.connections = 1, 1
    writer.flush()
    assert (table.total("messages_received"), table.total("connections")) == (6, 1)
    assert sum(table.series("message_processing")[:-1]) == 1


def test_the_lowest_free_slot_is_taken_next_and_a_full_table_says_so(table):
    assert [table.acquire() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="all 3 slots"):
        table.acquire()
    table.release(1)
    table.release(2)
    assert table.acquire() == 1
    assert table.used == 3


def test_a_slot_says_whose_it_is_until_it_is_folded(table):
    slot, _, writer = writer_on(table)
    writer.flush()
    (reading,) = table.read()
    assert reading.pid == os.getpid()
    assert reading.flushed_at_ns > 0
    table.fold(slot)
    (reading,) = table.read()
    assert (reading.pid, reading.flushed_at_ns) == (0, 0)


def test_connections_are_shared_at_once(table):
    _, one, first = writer_on(table)
    _, two, second = writer_on(table)
    one.connections, two.connections = 3, 4
    first.flush_connections()
    second.flush_connections()
    assert table.connections() == 7


def test_a_table_of_another_layout_is_refused(table):
    with pytest.raises(RuntimeError, match="another version of wsnode"):
        SharedTable.attach(table.fd, Layout(for_job(AGENT)))


def test_a_slot_out_of_the_table_is_refused(table):
    with pytest.raises(IndexError, match="0 to 2"):
        table.start_of(3)


def test_a_reader_in_another_process_never_sees_half_a_flush(table):
    """The writer counts two metrics in step; whoever reads them apart would sooner or later see them differ."""
    code = textwrap.dedent(
        """
        import sys
        from wsnode.core.metrics import SERVER, for_job
        from wsnode.telemetry import Layout, SharedTable
        table = SharedTable.attach(int(sys.argv[1]), Layout(for_job(SERVER)))
        counters = table.layout.counters()
        writer = table.writer(0, counters)
        for _ in range(30000):
            counters.messages_received += 1
            counters.messages_sent += 1
            counters.message_processing.observe(1)
            writer.flush()
        """
    )
    slot = table.acquire()
    received, sent = (table.layout.cells[field].start for field in ("messages_received", "messages_sent"))
    processed = table.layout.cells["message_processing"].start
    seen = set()
    with subprocess.Popen([sys.executable, "-c", code, str(table.fd)], pass_fds=[table.fd]) as process:
        while process.poll() is None:
            (reading,) = table.read()
            assert reading.cells[received] == reading.cells[sent] == reading.cells[processed]
            seen.add(reading.cells[received])
    assert process.returncode == 0
    assert len(seen) > 10, "the test must have read while it was written"
    table.fold(slot)
    assert table.total("messages_received") == 30000


def test_a_writer_that_died_in_the_middle_of_a_flush_is_still_read(table):
    slot, counters, writer = writer_on(table)
    counters.messages_received = 5
    writer.flush()
    table.words[table.start_of(slot)] += 1  # as left by SIGKILL between the two increments
    assert table.total("messages_received") == 5
    table.fold(slot)
    assert table.total("messages_received") == 5
