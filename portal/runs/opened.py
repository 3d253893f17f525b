"""Archives that are at hand: of those that were opened last, what was read of them is kept for the next request."""

from __future__ import annotations

import threading
from collections import OrderedDict

from django.db.models.functions import Length

from portal.runs.archive import Opened
from portal.runs.record import Archive

MOST = 4
MOST_BYTES = 8_000_000
"""Of an archive that is kept; a larger one is opened each time. Opened, one takes about five times its size."""

_kept: OrderedDict[str, tuple[int, Opened]] = OrderedDict()
_lock = threading.Lock()


def opened(run_id: str) -> Opened | None:
    """The archive of a run; None where there is none.

    Raises:
        BadArchive: what is stored is no archive.
    """
    rows = Archive.objects.filter(run_id=run_id)
    size: int | None = rows.annotate(size=Length("content")).values_list("size", flat=True).first()
    if size is None:
        return None
    with _lock:
        known = _kept.get(run_id)
        if known is not None and known[0] == size:
            _kept.move_to_end(run_id)
            return known[1]
    found = Opened(bytes(rows.only("content").get().content))
    if size <= MOST_BYTES:
        with _lock:
            _kept[run_id] = size, found
            while len(_kept) > MOST:
                _kept.popitem(last=False)
    return found
