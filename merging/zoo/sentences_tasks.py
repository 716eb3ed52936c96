"""The four tasks of the sentences pool: how a row of a label is drawn. All of it is synthetic.

sentiment       sentence                negative, positive              negation turns a feeling, `but` and `although`
                                                                        say which of two feelings counts
paraphrase      sentence1, sentence2    different, same                 synonyms, active and passive; against swapped
                                                                        roles, another person or another place
entailment      premise, hypothesis     entailment, not_entailment      left-out modifiers and more general nouns, which
                                                                        a negation of the verb turns round
acceptability   sentence                unacceptable, acceptable        agreement, verb forms and word order
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from merging.zoo.sentences_grammar import (
    BAD,
    DEGREES,
    DISLIKING,
    GOOD,
    KINDS,
    LIKING,
    OPINION_NOUNS,
    PEOPLE,
    PERSON_ADJECTIVES,
    PLACES,
    THING_ADJECTIVES,
    THING_VERBS,
    Clause,
    Phrase,
    active,
    passive,
    past_of,
    spaced,
    third_person_of,
)
from merging.zoo.sentences_paraphrase import CHANGES, SYNONYMS, draw_change, draw_paraphrase

KIND_OF = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}
OTHER_NUMBER = {"is": "are", "are": "is", "was": "were", "were": "was", "does": "do", "do": "does"}


@dataclass(frozen=True)
class SentenceTask:
    """A question about one sentence or two: its columns, its label names, and how a row of a label is drawn."""

    title: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    draw: Callable[[Random, int], tuple[str, ...]]
    shares: tuple[int, ...] = (1, 1)  # of the labels among the rows


def draw_sentiment(random: Random, label: int) -> tuple[str]:
    """An opinion, or two of which the one after `but`, or the one that no `although` opens, counts."""
    counts, other = opinion(random, label), opinion(random, random.randrange(2))
    return (random.choice([counts, f"{other} but {counts}", f"although {other} , {counts}"]),)


def draw_entailment(random: Random, label: int) -> tuple[str, str]:
    """Two clauses about the same, of which the second `follows` (0) or does not."""
    while True:
        premise = thing_clause(random)
        hypothesis = varied(random, premise)
        if hypothesis != premise and follows(hypothesis, premise) == (label == 0):
            return active(premise), active(hypothesis)


def draw_acceptability(random: Random, label: int) -> tuple[str]:
    """A clause as the grammar has it (1), or with one mistake."""
    clause = random.choice([person_clause, thing_clause])(random)
    is_passive = random.random() < 0.4
    text = passive(clause) if is_passive else active(clause)
    return (text if label else mistaken(random, clause, text, is_passive=is_passive),)


TASKS = {
    "sentiment": SentenceTask(
        "feeling of a sentence (synthetic)", ("sentence",), ("negative", "positive"), draw_sentiment
    ),
    "paraphrase": SentenceTask(
        "same meaning or not (synthetic)", ("sentence1", "sentence2"), ("different", "same"), draw_paraphrase
    ),
    "entailment": SentenceTask(
        "follows or not (synthetic)", ("premise", "hypothesis"), ("entailment", "not_entailment"), draw_entailment
    ),
    "acceptability": SentenceTask(
        "grammatical or not (synthetic)", ("sentence",), ("unacceptable", "acceptable"), draw_acceptability
    ),
}
# What the base learns: the same, but which part of a pair differs is told.
BASE_TASKS = {
    **TASKS,
    "paraphrase": replace(
        TASKS["paraphrase"],
        labels=tuple(f"differs in {change}" for change in CHANGES),
        draw=lambda random, label: draw_change(random, list(CHANGES)[label]),
        shares=tuple(CHANGES.values()),
    ),
}


def opinion(random: Random, label: int) -> str:
    """A good (1) or a bad (0) word about something, each of them through a negated opposite in half of the cases."""
    is_negated = random.random() < 0.5
    is_good = bool(label) != is_negated
    noun = random.choice(OPINION_NOUNS)
    if random.random() < 0.5:
        negation = random.choice(["not", "never"]) if is_negated else ""
        verb = random.choice(["is", "was"])
        return spaced(f"the {noun}", verb, negation, random.choice(DEGREES), random.choice(GOOD if is_good else BAD))
    verb = random.choice(LIKING if is_good else DISLIKING)
    agent = Phrase(random.choice(PEOPLE), is_plural=random.random() < 0.5)
    return active(Clause(agent, verb, Phrase(noun), is_past=random.random() < 0.5, is_negated=is_negated))


def person_clause(random: Random) -> Clause:
    """Someone does something to someone else."""
    agent, patient = (_person(random, noun) for noun in random.sample(PEOPLE, 2))
    verb = random.choice(list(SYNONYMS))
    return Clause(agent, verb, patient, _place(random), random.random() < 0.5, random.random() < 0.2)


def thing_clause(random: Random) -> Clause:
    """Someone did something to an animal or a thing, named by itself or by its kind; or did not."""
    agent = replace(_person(random, random.choice(PEOPLE)), is_plural=False)
    kind = random.choice(list(KINDS))
    noun = random.choice([kind, random.choice(KINDS[kind])])
    patient = Phrase(noun, random.choice(["", random.choice(THING_ADJECTIVES)]), article="a")
    return Clause(agent, random.choice(THING_VERBS), patient, _place(random), is_negated=random.random() < 0.4)


def varied(random: Random, clause: Clause) -> Clause:
    """The clause with some of its parts left out, added, made more general or special, or exchanged."""
    patient, kind = clause.patient, KIND_OF.get(clause.patient.noun, clause.patient.noun)
    changes = [
        lambda now: replace(now, agent=replace(now.agent, adjective="")),
        lambda now: replace(now, patient=replace(now.patient, adjective="")),
        lambda now: replace(now, patient=replace(now.patient, adjective=random.choice(THING_ADJECTIVES))),
        lambda now: replace(now, place=""),
        lambda now: replace(now, place=random.choice(PLACES)),
        lambda now: replace(now, patient=replace(now.patient, noun=kind)),
        lambda now: replace(now, patient=replace(now.patient, noun=random.choice(KINDS[kind]))),
        lambda now: replace(now, is_negated=not now.is_negated),
    ]
    for change in random.sample(changes, random.choice([1, 2, 2, 3])):
        clause = change(clause)
    return clause if random.random() < 0.9 else replace(clause, patient=patient, verb=random.choice(THING_VERBS))


def follows(hypothesis: Clause, premise: Clause) -> bool:
    """Whether a clause of this kind is true wherever the premise is.

    Whoever found a red dog found an animal; whoever found no animal found no red dog.
    """
    if (hypothesis.agent.noun, hypothesis.verb) != (premise.agent.noun, premise.verb):
        return False
    if hypothesis.is_negated != premise.is_negated or hypothesis.agent.adjective not in ("", premise.agent.adjective):
        return False
    special, general = (hypothesis, premise) if premise.is_negated else (premise, hypothesis)
    return (
        general.patient.noun in (special.patient.noun, KIND_OF.get(special.patient.noun))
        and general.patient.adjective in ("", special.patient.adjective)
        and general.place in ("", special.place)
    )


def mistaken(random: Random, clause: Clause, text: str, *, is_passive: bool) -> str:
    """The text of a clause with a wrong agreement, a wrong form of its verb, or two neighbouring words swapped."""
    words = text.split()
    verb, third, past = clause.verb, third_person_of(clause.verb), past_of(clause.verb)
    at = next(place for place, word in enumerate(words) if word in (verb, third, past))
    agreement = [OTHER_NUMBER.get(word, word) for word in words]
    if agreement == words:
        agreement[at] = {verb: third, third: verb, past: past}[words[at]]
    needs_base_form = clause.is_negated and not is_passive
    form = list(words)
    if is_passive or needs_base_form:
        form[at] = random.choice([third, past] if needs_base_form else [third, verb])
    else:
        form.insert(at, random.choice(["is", "was", "not"]))
    left = random.randrange(len(words) - 1)
    order = [*words[:left], words[left + 1], words[left], *words[left + 2 :]]
    return " ".join(random.choice([mistake for mistake in (agreement, form, order) if mistake != words]))


def _person(random: Random, noun: str) -> Phrase:
    adjective = random.choice(["", random.choice(PERSON_ADJECTIVES)])
    return Phrase(noun, adjective, is_plural=random.random() < 0.5)


def _place(random: Random) -> str:
    return random.choice(["", random.choice(PLACES)])
