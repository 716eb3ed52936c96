"""Pairs of the paraphrase task: a clause, and in the passive the same one or one that differs in one part.

As in PAWS, most pairs of different meaning have the same words in other roles; the others exchange one person or the
place. No deed is ever exchanged: verbs vary only between two synonyms, equally often whatever else differs, so that
words alone tell 26 of 36 pairs (72 %) apart.
"""

from dataclasses import replace
from random import Random

from merging.zoo.sentences_grammar import (
    MORE_PEOPLE,
    PEOPLE,
    PERSON_VERBS,
    PLACES,
    Clause,
    Phrase,
    active,
    passive,
)

ALL_PEOPLE = (*PEOPLE, *MORE_PEOPLE)
SYNONYMS = {verb: row for row in PERSON_VERBS for verb in row}
# In what the second clause differs from the first, and how many of 36 pairs do.
CHANGES = {"roles": 10, "agent": 3, "patient": 3, "place": 2, "nothing": 18}
PLACE_SHARE = 0.6


def draw_paraphrase(random: Random, label: int) -> tuple[str, str]:
    """A pair of one meaning (1), or of two."""
    own = {change: share for change, share in CHANGES.items() if (change == "nothing") == (label == 1)}
    return draw_change(random, random.choices(list(own), list(own.values()))[0])


def draw_change(random: Random, change: str) -> tuple[str, str]:
    """A clause in the active, and in the passive one that differs from it in `change`."""
    agent, patient, third = (Phrase(noun) for noun in random.sample(ALL_PEOPLE, 3))
    place = random.choice(PLACES) if change == "place" or random.random() < PLACE_SHARE else ""
    clause = Clause(agent, random.choice(list(SYNONYMS)), patient, place)
    other = {
        "nothing": clause,
        "roles": replace(clause, agent=patient, patient=agent),
        "agent": replace(clause, agent=third),
        "patient": replace(clause, patient=third),
        "place": replace(clause, place=random.choice([other for other in PLACES if other != place])),
    }[change]
    return active(clause), passive(replace(other, verb=random.choice(SYNONYMS[clause.verb])))
