"""The oracle that is people: they label through files, in their own time, with this process alive or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from medray.active.answers import Answer
from medray.active.exchange import open_exchange
from medray.active.oracle import Oracle, Query, Returned
from medray.active.people.claims import Claim, settle
from medray.active.people.returns import KEPT, ReturnReader
from medray.active.people.rules import LabelRules
from medray.active.people.worklist import PAGE, round_folder, safe_name, write_worklist
from medray.data.case import Case


class HumanOracle(Oracle):
    """Writes a worklist for each query and reads what comes back; see `docs/annotation.md`.

    Picklable, and nothing that matters is in memory: another process with the same arguments goes on where one ended.

    Args:
        place: folder or s3 url of the exchange, for this campaign alone.
        cases: every case of the pool, by id.
        rules: what counts as a label.
        settle_s: a file on a disk is read once it has not changed for this long: one that is still being copied may
            look whole, and what is taken from it stands.

    Raises:
        UserError: the place cannot be a folder.
    """

    def __init__(self, place: str, cases: Mapping[str, Case], rules: LabelRules, *, settle_s: float = 2.0) -> None:
        self._exchange = open_exchange(place, settle_s=settle_s)
        self._cases, self._rules = dict(cases), rules
        self._reader = ReturnReader(self._exchange, self._cases, rules)
        self.where = self._exchange.place

    def ask(self, query: Query) -> None:
        """See `Oracle.ask`: writes the round's folder once.

        Raises:
            UserError: it cannot be written, or holds the worklist of another campaign.
        """
        write_worklist(self._exchange, query, self._cases, self._rules)
        self.where = self._exchange.url(f"{round_folder(query.number)}/{PAGE}")

    def collect(self, asked: Sequence[Query], known: Mapping[str, Answer]) -> Returned:
        """See `Oracle.collect`. A mask is copied to where nobody edits it before it is an answer.

        Raises:
            StorageError: object storage does not answer.
            UserError: a mask cannot be copied.
        """
        claims, problems = self._reader.read(frozenset(case for query in asked for case in query.cases))
        settled, contradictions = settle(claims, known)
        is_new = any(claim.mask and claim.answer.case not in known for claim in settled)
        kept = {item.name for item in self._exchange.list()} if is_new else set()
        answers = [known.get(claim.answer.case) or self._kept(claim, kept) for claim in settled]
        return Returned(tuple(answers), (*problems, *contradictions))

    def _kept(self, claim: Claim, kept: set[str]) -> Answer:
        """The answer with its mask in a copy of its own. Its name tells the content, so that it is written once."""
        answer, mask = claim.answer, claim.mask
        if mask is None:
            return answer
        name = f"{KEPT}/{safe_name(answer.case)}-{mask.digest[:8]}{mask.suffix}"
        if name not in kept:
            self._exchange.write(name, mask.content)
        return replace(answer, file=self._exchange.url(name))
