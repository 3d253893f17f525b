"""What following costs the conductor: CPU time to encode, decode and merge one line of a load generator.

    python -m tests.benchmarks.core_merge [--buckets 200] [--hosts 200] [--rounds 30]

Each of a line's five histograms has about so many non-empty buckets. The last line is the share of a core that it takes
to read so many hosts' lines once a second and to merge them into one.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from time import process_time

from wsnode.core.histogram import Histogram, bucket_bounds, bucket_index
from wsnode.core.merge import merge
from wsnode.core.protocol import HISTOGRAMS, Counters, HostSecond, Second, decode_reply, encode


def line(buckets: int, seed: int) -> Second:
    """A second whose histograms lie around a millisecond."""
    draw = random.Random(seed)
    middle = bucket_index(1_000_000)
    histograms = {}
    for name in HISTOGRAMS:
        values = [bucket_bounds(middle + draw.randint(0, buckets) - buckets // 2)[0] for _ in range(4 * buckets)]
        histograms[name] = Histogram.of(values)
    return Second(
        second=60,
        counters=Counters(messages_due=60_000, messages_sent=60_000, messages_received=60_000),
        histograms=histograms,
        host=HostSecond(worker_cpu_s=(12.5, 13.25), core_s=120),
    )


def cost_us(act: Callable[[], object], rounds: int) -> float:
    """Least CPU time (µs) of an act: what disturbs on a shared machine only ever adds."""
    best = float("inf")
    for _ in range(rounds):
        begun = process_time()
        for _ in range(5):
            act()
        best = min(best, (process_time() - begun) / 5)
    return best * 1e6


def main() -> None:
    """Print a line per act."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--buckets", type=int, default=200, help="non-empty buckets of each histogram (default 200)")
    parser.add_argument("--hosts", type=int, default=200, help="load generators merged into one line (default 200)")
    parser.add_argument("--rounds", type=int, default=30, help="rounds of 5, of which the fastest counts (default 30)")
    options = parser.parse_args()
    first, second = line(options.buckets, 1), line(options.buckets, 2)
    data = encode(first)
    hosts = [line(options.buckets, seed) for seed in range(options.hosts)]
    filled = sum(len(histogram.buckets) for histogram in first.histograms.values())
    decode_us = cost_us(lambda: decode_reply(data), options.rounds)
    merge_us = cost_us(lambda: merge(hosts), max(3, options.rounds // 10))
    print(f"a line of {filled:,} buckets, {len(data):,} bytes")
    print(f"encode           {cost_us(lambda: encode(first), options.rounds):10,.0f} µs")
    print(f"decode           {decode_us:10,.0f} µs")
    print(f"merge of 2       {cost_us(lambda: merge([first, second]), options.rounds):10,.0f} µs")
    print(f"merge of {options.hosts:<7,} {merge_us:10,.0f} µs, {merge_us / options.hosts:,.0f} µs a host")
    print(f"follow {options.hosts:,} hosts at 1 Hz: {(options.hosts * decode_us + merge_us) / 1e6:.0%} of a core")


if __name__ == "__main__":
    main()
