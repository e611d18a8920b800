"""Whether a large file is read through the system's cache or past it, found out by trying.

Reading a file a second time is cheap where the first reading left it in the cache. It may be dear
to leave it there, though: where memory is lent to a virtual machine when it is first touched, a
gigabyte that stays takes seconds of processor time. Nothing tells beforehand, so that a few blocks
are read in each way.
"""

from __future__ import annotations

import statistics

SETTLED = 4  # blocks before times count: some of them are of the way before
COUNTED = 5  # blocks whose times make a figure
WORTH = 5 * (SETTLED + COUNTED)  # blocks that a file must have for a trial to pay
DEAR = 2.0  # times as long as past the cache: a second reading past it is paid for


class Keeping:
    """Decides block by block whether it is read through the cache, where it stays, or past it.

    The first blocks stay, then some are read past the cache. If those took at most half the time,
    the second reading is paid for by what the first one saves, and all others are read so as well.
    If not, blocks stay, until they take twice as long as those that did not: memory that was in
    use just before is not dear, until there is no more of it.

    Parameters
    ----------
    blocks
        How many blocks a reading has. Few of them stay.

    Attributes
    ----------
    stays
        Whether the next block goes through the cache.
    decided
        Whether that is settled for all that follow.
    """

    def __init__(self, blocks: int) -> None:
        self.stays = True
        self.decided = blocks < WORTH
        self._seconds: list[float] = []
        self._stayed = self._past = 0.0

    def took(self, seconds: float, *, stayed: bool) -> None:
        """Note how long a block took to read, and whether through the cache, where it stays."""
        if self.decided or stayed != self.stays:
            return
        times = self._seconds
        times.append(seconds)
        if len(times) < SETTLED + COUNTED:
            return
        figure = statistics.median(times[-COUNTED:])
        if self.stays:
            if figure >= DEAR * self._past:
                self._stayed, self.stays, self._seconds = figure, False, []
            return
        self._past = figure
        self.decided = DEAR * figure <= self._stayed
        if not self.decided:
            self.stays, self._seconds = True, []

    def never(self) -> None:
        """Read nothing past the cache from now on: it can't be done."""
        self.stays = self.decided = True
