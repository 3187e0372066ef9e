"""The hub: one a web process (one an event loop, to be exact), between the log and all viewers of that process.

Owns reading on: one query for all jobs that were woken; each event is rendered once, whoever looks. Holds two Postgres
connections and the ear's, however many viewers there are. Does not own who watches what: see watches.py.

Rounds are paced by what they cost. While it hears nothing the hub looks at everything once a second, else each
`conf.catchup_every_s`: a wake-up may be lost, an event may not.
"""

import asyncio
import atexit
import logging
from collections.abc import Iterable
from itertools import groupby
from weakref import WeakKeyDictionary

from llmjobs.conf import conf
from llmjobs.live.listening import Ear
from llmjobs.live.reading import DATABASE_ERRORS, Reader
from llmjobs.live.rendering import live_events, show_jobs
from llmjobs.live.sweeping import Sweeper
from llmjobs.live.threads import in_hub_thread
from llmjobs.live.watches import Watches

logger = logging.getLogger(__name__)

POLL_S = 1.0  # between two looks at everything, while the ear hears nothing
ROUND_JOBS = 100  # jobs in one query
# After a round the loop belongs to the viewers for as long as they need to send what they were handed (40 us a frame
# through daphne), so that under load rounds become fewer and larger instead of late.
PACE_S_PER_FRAME = 0.00005
PACE_MOST_S = 0.15


class Hub:
    """Runs from its making to its `close`, or to a fault of this code, which drops all viewers: they come again."""

    def __init__(self) -> None:
        self.watches = Watches()
        self.history = Reader()
        self._news = Reader()
        self._sweeper = Sweeper(self._news)
        self.ear = Ear(heard=self.watches.heard, missed=self.watches.look_at_all)
        self._task = asyncio.create_task(self._run(), name="llmjobs-hub")
        self._task.add_done_callback(self._ended)

    async def ready(self) -> None:
        """LISTEN comes before a viewer's first read: what is logged in between might be missed for a while."""
        await self.ear.tried()

    async def close(self) -> None:
        """Ends the hub and its connections; viewers are dropped, and may resume elsewhere."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.ear.run())
                tasks.create_task(self._hand_out())
        finally:
            await self._news.close()
            await self.history.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            logger.error("event=hub_failed", exc_info=task.exception())
        if _hubs.get(task.get_loop()) is self:
            del _hubs[task.get_loop()]
        for viewer in self.watches.viewers():
            viewer.buffer.drop("the server stopped following the log")

    async def _hand_out(self) -> None:
        clock = asyncio.get_running_loop().time
        looked_at_all_at = clock()
        failures = 0
        while True:
            look_at = looked_at_all_at + (conf.catchup_every_s if self.ear.is_hearing else POLL_S)
            await self._until_woken(within_s=look_at - clock())
            if clock() >= look_at:
                looked_at_all_at = clock()
                self.watches.look_at_all()
            woken = self.watches.take_woken()
            try:
                handed = await self._round(woken)
            except DATABASE_ERRORS as error:
                failures += 1
                logger.warning(
                    "event=read_failed failures=%d error=%r", failures, str(error).strip().partition("\n")[0]
                )
                self.watches.put_back(woken)
                await asyncio.sleep(min(POLL_S, 0.05 * 2 ** min(failures, 10)))
            else:
                failures = 0
                await asyncio.sleep(min(PACE_MOST_S, PACE_S_PER_FRAME * handed))

    async def _until_woken(self, *, within_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self.watches.awake.wait()
        except TimeoutError:
            pass

    async def _round(self, woken: Iterable[int]) -> int:
        """Reads on in the jobs of `woken` and hands out what there is. Returns events times viewers."""
        if self.watches.sweep_is_due:
            self.watches.heard(await self._sweeper.wakes(tuple(self.watches.feeds)))
            self.watches.sweep_is_due = False
        positions = list(self.watches.positions(woken).items())
        handed = 0
        for first in range(0, len(positions), ROUND_JOBS):
            handed += await self._read_on(dict(positions[first : first + ROUND_JOBS]))
        self.watches.forget_the_most_silent()
        return handed

    async def _read_on(self, positions: dict[int, int]) -> int:
        rows = await self._news.after(positions)
        await self._learn_public_ids({row.job_id for row in rows})
        found = []
        for job_id, of_job in groupby(rows, lambda row: row.job_id):
            if (watch := self.watches.jobs.get(job_id)) is not None:
                *_, last = log = list(of_job)
                found.append((live_events(log, watch.public_id), last.is_newest))
        await show_jobs([event for events, _ in found for event in events], in_hub_thread)
        return sum(
            self.watches.hand(events, read_from=positions[events[0].job_id], is_all=is_all) for events, is_all in found
        )

    async def _learn_public_ids(self, job_ids: Iterable[int]) -> None:
        """Of the jobs that are watched for feeds alone: a wake-up does not have them."""
        jobs = self.watches.jobs
        unknown = [job_id for job_id in job_ids if job_id in jobs and not jobs[job_id].public_id]
        if unknown:
            for job_id, public_id in (await self._news.public_ids(unknown)).items():
                if job_id in jobs:
                    jobs[job_id].public_id = public_id


_hubs: "WeakKeyDictionary[asyncio.AbstractEventLoop, Hub]" = WeakKeyDictionary()


def current_hub() -> Hub:
    """The hub of the running event loop, which begins when somebody first asks for it."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]


@atexit.register
def _end_what_is_left() -> None:
    """daphne ends its loop in the middle of everything; CPython 3.11 was seen to crash over the tasks that waited."""
    for loop, hub in list(_hubs.items()):
        if not loop.is_closed() and not loop.is_running():
            left = asyncio.all_tasks(loop)
            loop.run_until_complete(hub.close())
            ended, _ = loop.run_until_complete(asyncio.wait(left, timeout=1))
            for task in ended:
                task.cancelled() or task.exception()  # nobody else will ask, and asyncio would log that at length
