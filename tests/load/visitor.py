"""One visitor: comes, moves sliders, estimates, explores, exports, reloads, leaves; and checks all that comes back."""

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from components.tables import PREVIEW
from tests.load.expected import Case
from tests.load.record import Record
from tests.load.session import Refused, Session

WIDTH_PX = 1280.0
POLL_S = 0.4  # as the page's timer
PICTURE = slice(1, 5)  # of what `merge` and its likes answer: sentence, chart, table, shares
# Weighted: what a visitor does next.
DOINGS = {"drag": 12, "estimate": 3, "merge": 2, "explore": 2, "export": 2, "reload": 2, "leave": 2}


@dataclass
class Visitor:
    """`cases` are all there are, by study; `pause_s` is the mean time between what one does."""

    http: httpx.AsyncClient
    url: str
    cases: Mapping[str, Sequence[Case]]
    record: Record
    random: random.Random
    pause_s: float

    async def stay(self, until_s: float) -> None:
        """Visits until the time is over; a visitor who has left comes back as somebody else."""
        # They do not come all at once.
        await asyncio.sleep(self.random.uniform(0, self.pause_s))
        while time.monotonic() < until_s:
            await self._guarded(self._visit, until_s)

    async def _guarded(self, doing: Callable[..., object], *given: object) -> None:
        try:
            await doing(*given)
        except Refused as refusal:
            self.record.refused(str(refusal))
            await asyncio.sleep(self.pause_s / 4)
        except (httpx.HTTPError, TimeoutError) as problem:
            self.record.error(f"{type(problem).__name__} while {doing.__name__.strip('_')}", str(problem))
            await asyncio.sleep(self.pause_s / 4)

    async def _visit(self, until_s: float) -> None:
        self.session = Session(self.http, self.url)
        self.case = next(iter(self.cases.values()))[0]
        self.visit = ""
        await self._open()
        while time.monotonic() < until_s:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * self.pause_s)
            doing = self.random.choices(list(DOINGS), list(DOINGS.values()))[0]
            self.record.doings[doing] += 1
            await self._guarded(getattr(self, f"_{doing}"))
            if doing == "leave":
                return

    async def _open(self) -> None:
        await self.session.load()
        answer = await self._timed("open_page", [WIDTH_PX, "", self.visit, "", *self._first().values])
        # The page's first picture: from an earlier merge, or where the models are still being opened, none yet.
        sentence, figure, table, shares = answer[-4:]
        if "<b>" in str(sentence):
            self.record.check("open_page", self._first().wrong_in_picture(sentence, figure, table, shares))

    async def _drag(self) -> None:
        """Some moves of the hand, each of them previewed and then shown on all rows, as the page does."""
        for _ in range(self.random.randint(2, 5)):
            self.case = self.random.choice(self.cases[self.case.study])
            sent = [WIDTH_PX, *self.case.values]
            answer = await self._timed("move_weights", sent)
            picture = answer[PICTURE]
            if not self._has_picture(answer):
                return
            if PREVIEW in picture[0]:
                self.record.previews += 1
                self.record.check("move_weights", self.case.wrong_in_shares(picture[3]))
                picture = (await self._timed("settle_weights", ["a preview", *sent]))[PICTURE]
            self.record.check("move_weights, settled", self.case.wrong_in_picture(*picture))
            await asyncio.sleep(self.random.uniform(0.2, 1.0))

    async def _estimate(self) -> None:
        """Another choice of models or settings: its Fishers are estimated, or taken from the cache, and it is merged."""
        self.case = self.random.choice(self.cases[self.random.choice(list(self.cases))])
        answer = await self._timed("estimate_fisher", self.case.values)
        job_id = answer[4]
        if not self._is_fine("estimate_fisher", answer[2]) or not isinstance(job_id, str):
            return
        begun = time.monotonic()
        while _is_active(answer[3]):
            await asyncio.sleep(POLL_S)
            answer = await self._timed("progress", [job_id])
            if not self._is_fine("progress", answer[2]):
                return
        self.record.took("estimate, to its end", time.monotonic() - begun)
        self.record.check("progress", "" if "Ready" in str(answer[2]) else f"the job ended with {answer[2]!r:.200}")
        await self._merge()

    async def _merge(self) -> None:
        answer = await self._timed("merge", [WIDTH_PX, *self.case.values])
        if self._has_picture(answer):
            self.record.check("merge", self.case.wrong_in_picture(*answer[PICTURE]))
            kept = await self._timed("keep_merge", [self.visit, "", *self.case.values])
            self.visit = kept[0] if isinstance(kept[0], str) else self.visit

    async def _explore(self) -> None:
        """A few merges of the own models are tried, looked at, and stopped."""
        asked = ["mean", 10, WIDTH_PX, *self.case.values]
        answer = await self._timed("explore_start", ["", *asked])
        job_id = answer[6]
        for _ in range(3):
            if not self._is_fine("explore", answer[0]) or not isinstance(job_id, str):
                return
            await asyncio.sleep(POLL_S)
            await self._timed("explore_progress", [job_id, WIDTH_PX])
            answer = await self._timed("explore_step", [job_id, *asked])
        tasks = [value.removeprefix("task:") for _, value in answer[1].get("choices", []) if value.startswith("task:")]
        if tasks:
            self.record.check("explore", "" if tasks == list(self.case.table) else f"the tasks of another: {tasks}")
        await self._timed("explore_stop", [job_id, *asked])

    async def _export(self) -> None:
        answer = await self._timed("download_merged_model", self.case.values)
        if self._is_fine("download_merged_model", answer[0]):
            if "url" in answer[1]:
                self.record.exports += 1
                self.record.check(
                    "download_merged_model", self.case.wrong_in_export(await self.session.fetch(answer[1]))
                )
            else:
                self.record.waiting += 1
        described = await self._timed("recipe", self.case.values)
        lines = re.findall(r"^  weight: (.*)$", str(described[1]), re.MULTILINE)
        self.record.check("recipe", "" if [float(one) for one in lines] == self.case.recipe.weights else str(lines))

    async def _reload(self) -> None:
        self.session = Session(self.http, self.url)
        self.case = self._first()
        await self._open()

    async def _leave(self) -> None:
        """Closes the tab in the middle of an answer."""
        name = self.random.choice(["merge", "move_weights", "download_merged_model"])
        values = self.case.values if name.startswith("download") else [WIDTH_PX, *self.case.values]
        await self.session.leave_while_waiting(name, values)

    def _first(self) -> Case:
        return next(iter(self.cases.values()))[0]

    async def _timed(self, name: str, values: Sequence[object]) -> list[object]:
        begun = time.monotonic()
        answer = await self.session.call(name, values)
        self.record.took(name, time.monotonic() - begun)
        return answer

    def _has_picture(self, answer: Sequence[object]) -> bool:
        """Whether there is one; else it is told why, which is no error while the models are being opened."""
        if not self._is_fine("picture", answer[0]):
            return False
        if "<b>" not in str(answer[1]):
            self.record.waiting += 1
            return False
        return True

    def _is_fine(self, where: str, told: object) -> bool:
        if isinstance(told, str) and 'role="alert"' in told:
            self.record.refused(re.sub(r"<[^>]*>", "", told), where=where)
            return False
        return True


def _is_active(timer: object) -> bool:
    return isinstance(timer, dict) and bool(timer.get("active"))
