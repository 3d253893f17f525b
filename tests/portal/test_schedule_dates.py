"""When schedules are due: cron in a zone through changes of the clock, and what becomes of dates that passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.schedules.dates import GRACE, MOST_COUNTED, BadDate, Cron, Missed, Once, Turn, read_once, turn, zones

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def dates(expression: str, zone: str, after: str, count: int) -> list[str]:
    found = Cron.parse(expression, zone).after(at(after))
    return [f"{date:%Y-%m-%d %H:%M}" for date in islice(found, count)]


# --- tables ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("30 2 * * *", "UTC", "2026-11-24 02:30", ["2026-11-25 02:30", "2026-11-26 02:30"]),
        ("0 9 * * MON-FRI", "UTC", "2026-11-27 10:00", ["2026-11-30 09:00", "2026-12-01 09:00"]),
        ("0 9 * * *", "Asia/Tokyo", "2026-11-24 00:00", ["2026-11-25 00:00", "2026-11-26 00:00"]),
        # 29 March 2026: 02:00 becomes 03:00. What is due in the hour that is skipped runs at its end.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28 00:00", ["2026-03-28 01:30", "2026-03-29 01:00"]),
        ("0,30 2 * * *", "Europe/Berlin", "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:00"]),
        # 25 October 2026: 03:00 becomes 02:00. What is due in the hour that comes twice runs in the first.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:15", ["2026-10-26 01:30"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25 00:30", ["2026-10-25 01:00", "2026-10-25 01:30"]),
        ("0 2 29 2 *", "UTC", "2026-01-01 00:00", ["2028-02-29 02:00", "2032-02-29 02:00"]),
        ("0 0 L * *", "UTC", "2026-02-01 00:00", ["2026-02-28 00:00", "2026-03-31 00:00"]),
    ],
)  # fmt: skip
def test_the_dates_of_an_expression(expression: str, zone: str, after: str, expected: list[str]) -> None:
    assert dates(expression, zone, after, len(expected)) == expected


@pytest.mark.parametrize(
    ("expression", "zone", "line"),
    [
        ("61 * * * *", "UTC", "cron: '61 * * * *' is refused: bad minute, wanted 0 to 59"),
        ("* 24 * * *", "UTC", "cron: '* 24 * * *' is refused: bad hour, wanted 0 to 23"),
        ("0 0 30 2 *", "UTC", "bad day-of-month, wanted 1 to 31 in one of its months"),
        ("0 0 29 2 MON#5", "UTC", ""),
        ("* * * * * *", "UTC", "wanted five fields"),
        ("@daily", "UTC", "wanted five fields"),
        ("*/0 * * * *", "UTC", "bad minute"),
        ("1," * 60 + "1 * * * *", "UTC", "of at most 100 characters"),
        ("", "UTC", "cron: '' is refused: wanted five fields"),
        ("0 0 * * *", "Mars/Olympus", "zone: 'Mars/Olympus' is not known"),
        ("0 0 * * *", "../etc/passwd", "zone: "),
    ],
)
def test_a_wrong_expression_is_refused_with_what_was_wanted(expression: str, zone: str, line: str) -> None:
    if not line:
        Cron.parse(expression, zone)
        return
    with pytest.raises(BadDate) as refusal:
        Cron.parse(expression, zone)
    assert line in str(refusal.value)


def test_an_expression_is_told_in_words() -> None:
    assert Cron.parse("30 2 * * MON-FRI", "UTC").words() == "At 02:30 on Monday through Friday"


def test_utc_is_the_first_zone_and_none_is_named_twice() -> None:
    assert zones()[0] == "UTC"
    assert len(set(zones())) == len(zones()) > 300
    assert "Europe/Berlin" in zones()


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-11-30T02:30", "Europe/Berlin", "2026-11-30 01:30"),
        ("2026-11-30T02:30", "UTC", "2026-11-30 02:30"),
        ("2027-10-31T02:30", "Europe/Berlin", "2027-10-31 00:30"),
        ("2026-11-30T02:30+09:00", "UTC", "2026-11-29 17:30"),
    ],
)
def test_a_single_date_is_read_in_its_zone(text: str, zone: str, expected: str) -> None:
    assert read_once(text, zone, NOW) == Once(at(expected))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("2027-03-28T02:30", "once: there is no 2027-03-28T02:30 in Europe/Berlin"),
        ("2026-11-24T12:59", "once: 2026-11-24T12:59 in Europe/Berlin has passed"),
        ("tomorrow", "once: 'tomorrow' is no date"),
        ("", "once: '' is no date"),
        ("9999-12-31T23:59:59-23:00", "once: '9999-12-31T23:59:59-23:00' is out of range"),
    ],
)
def test_a_single_date_that_cannot_be_is_refused(text: str, line: str) -> None:
    with pytest.raises(BadDate) as refusal:
        read_once(text, "Europe/Berlin", NOW)
    assert str(refusal.value).startswith(line)


HOURLY = Cron("0 * * * *", "UTC")


@pytest.mark.parametrize(
    ("next_at", "now", "rule", "expected"),
    [
        # Met, as ticks come every five seconds.
        ("2026-11-24 12:00", "2026-11-24 12:00:04", "skip", ("2026-11-24 12:00", False, 0, "2026-11-24 13:00")),
        # Down over three dates, back between two: all were missed.
        ("2026-11-24 10:00", "2026-11-24 12:30", "skip", (None, False, 3, "2026-11-24 13:00")),
        ("2026-11-24 10:00", "2026-11-24 12:30", "run_once", ("2026-11-24 12:00", True, 2, "2026-11-24 13:00")),
        # Down over two, back for the third: that one is met, whatever the rule.
        ("2026-11-24 10:00", "2026-11-24 12:01", "skip", ("2026-11-24 12:00", False, 2, "2026-11-24 13:00")),
        ("2026-11-24 10:00", "2026-11-24 12:01", "run_once", ("2026-11-24 12:00", False, 2, "2026-11-24 13:00")),
    ],
)
def test_what_becomes_of_dates_that_passed(
    next_at: str, now: str, rule: Missed, expected: tuple[str | None, bool, int, str]
) -> None:
    due, late, missed, coming = expected
    found = turn(HOURLY, at(next_at), at(now), rule)
    assert found == Turn(at(due) if due else None, late, missed, at(coming))


@pytest.mark.parametrize(("rule", "due"), [("skip", None), ("run_once", NOW)])
def test_a_single_date_that_was_missed_is_the_last(rule: Missed, due: datetime | None) -> None:
    found = turn(Once(NOW), NOW, NOW + timedelta(days=1), rule)
    assert (found.due_at, found.next_at) == (due, None)


def test_a_year_of_missed_minutes_is_counted_to_a_hundred_and_costs_no_more() -> None:
    found = turn(Cron("* * * * *", "UTC"), NOW - timedelta(days=365), NOW - timedelta(seconds=1), "skip")
    assert (found.missed, found.due_at, found.next_at) == (MOST_COUNTED, NOW - MINUTE, NOW)


# --- properties -----------------------------------------------------------------------------------
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
STEPS = ["*", "*/15", "0", "30", "5,35", "10-20", "59"]
EXPRESSIONS = st.builds(
    lambda *parts: " ".join(parts),
    st.sampled_from(STEPS),
    st.sampled_from(["*", "*/2", "0", "1", "2", "3", "1-3", "23"]),
    st.sampled_from(["*", "1", "15", "28", "L", "*/7"]),
    st.sampled_from(["*", "3", "10", "MAR,OCT,NOV", "4"]),
    st.sampled_from(["*", "0", "7", "SUN", "MON-FRI", "SUN#1"]),
)
CRONS = st.builds(Cron.parse, EXPRESSIONS, ZONES)
# Around the changes of the clock of 2026, where it is hard.
CHANGES = [
    at(t) for t in ("2026-03-08 07:00", "2026-03-29 01:00", "2026-04-04 15:00", "2026-10-25 01:00", "2026-11-01 06:00")
]
MOMENTS = st.one_of(
    st.integers(0, 5 * 365 * 86400).map(lambda s: at("2025-01-01 00:00") + timedelta(seconds=s)),
    st.builds(lambda change, s: change + timedelta(seconds=s), st.sampled_from(CHANGES), st.integers(-7200, 7200)),
)


@given(CRONS, MOMENTS)
def test_dates_are_later_than_asked_and_in_their_order_each_once(cron: Cron, moment: datetime) -> None:
    found = list(islice(cron.after(moment), 6))
    assert found[0] > moment
    assert all(earlier < later for earlier, later in pairwise(found))


@given(CRONS, MOMENTS)
def test_between_a_moment_and_the_next_date_there_is_none(cron: Cron, moment: datetime) -> None:
    first = next(cron.after(moment))
    between = moment + (first - moment) / 2
    assert next(cron.after(between)) == first


@given(CRONS, MOMENTS)
def test_a_date_has_the_local_time_of_its_expression_unless_the_clock_was_put_forward(
    cron: Cron, moment: datetime
) -> None:
    date = next(cron.after(moment))
    zone = ZoneInfo(cron.zone)
    local = date.astimezone(zone)
    plain = Cron(cron.expression, "UTC")
    as_utc = local.replace(tzinfo=UTC, fold=0)
    meets = next(plain.after(as_utc - timedelta(seconds=1))) == as_utc
    before = (date - timedelta(seconds=1)).astimezone(zone)
    put_forward = before.utcoffset() != local.utcoffset()
    assert meets or put_forward


RULES = st.sampled_from(["run_once", "skip"])


@given(CRONS, MOMENTS, st.integers(0, 40 * 86400), RULES)
def test_a_turn_goes_on_after_now_and_never_for_a_date_to_come(
    cron: Cron, moment: datetime, down_s: int, rule: Missed
) -> None:
    next_at = next(cron.after(moment))
    now = next_at + timedelta(seconds=down_s)
    found = turn(cron, next_at, now, rule)
    assert found.next_at == next(cron.after(now))
    if found.due_at is not None:
        assert next_at <= found.due_at <= now
        assert found.late == (found.due_at <= now - GRACE)
    if found.late:
        assert rule == "run_once"


@given(CRONS, MOMENTS, st.integers(0, 3 * 86400))
def test_the_rules_differ_only_where_all_dates_were_missed(cron: Cron, moment: datetime, down_s: int) -> None:
    next_at = next(cron.after(moment))
    now = next_at + timedelta(seconds=down_s)
    skipped, run = turn(cron, next_at, now, "skip"), turn(cron, next_at, now, "run_once")
    assert run.due_at is not None
    if run.late:
        assert skipped.due_at is None
        assert skipped.missed in (run.missed + 1, MOST_COUNTED)
    else:
        assert skipped == run


@given(CRONS, MOMENTS, st.lists(st.integers(1, 60), min_size=1, max_size=200))
def test_with_ticks_every_minute_each_date_is_met_once(cron: Cron, moment: datetime, gaps_s: list[int]) -> None:
    next_at: datetime | None = next(cron.after(moment))
    assert next_at is not None
    now, met = next_at, []
    for gap_s in gaps_s:
        if next_at is not None and next_at <= now:
            found = turn(cron, next_at, now, "skip")
            met.append(found.due_at)
            assert (found.late, found.missed) == (False, 0)
            next_at = found.next_at
        now += timedelta(seconds=gap_s)
    until = now - timedelta(seconds=gaps_s[-1])
    expected = []
    for date in cron.after(moment):
        if date > until:
            break
        expected.append(date)
    assert met == expected
