"""The generated English of the sentences pool: its words, and clauses that are written in several ways.

All words are lower case and stand between spaces, punctuation too, so that a word-level tokenizer knows every one.
"""

from dataclasses import dataclass

PEOPLE = ("farmer", "teacher", "doctor", "singer", "baker", "nurse")
MORE_PEOPLE = ("writer", "painter", "driver", "pilot", "sailor", "soldier")  # of the pairs only
KINDS = {
    "animal": ("dog", "cat", "horse", "goat"),
    "vehicle": ("car", "bus", "boat", "train"),
    "fruit": ("pear", "plum", "melon", "lemon"),
    "flower": ("rose", "tulip", "lily", "daisy"),
}
IRREGULAR_PLURALS = {"bus": "buses", "lily": "lilies", "daisy": "daisies"}
OPINION_NOUNS = ("film", "song", "meal", "book", "show", "cake", "trip", "play")

# Two words of one row mean the same.
PERSON_VERBS = (
    ("help", "assist"),
    ("watch", "observe"),
    ("call", "phone"),
    ("hire", "employ"),
    ("scare", "frighten"),
    ("cure", "heal"),
)
THING_VERBS = ("find", "want", "paint", "sell", "wash", "carry")
PERSON_ADJECTIVES = ("clever", "rich", "strong", "quiet", "brave", "cheerful")
THING_ADJECTIVES = ("big", "small", "red", "white", "new", "pretty")
PLACES = ("in the garden", "near the river", "at the station", "behind the school", "on the bridge", "in the kitchen")

GOOD = ("great", "lovely", "brilliant", "delightful", "superb", "charming")
BAD = ("awful", "boring", "terrible", "dull", "dreadful", "poor")
LIKING = ("enjoy", "love", "like")
DISLIKING = ("hate", "dislike", "regret")
DEGREES = ("", "", "very", "really", "quite")

IRREGULAR_PASTS = {"find": "found", "sell": "sold", "carry": "carried", "regret": "regretted"}
IRREGULAR_THIRD_PERSONS = {"carry": "carries"}


@dataclass(frozen=True)
class Phrase:
    """A noun with an article and perhaps an adjective."""

    noun: str
    adjective: str = ""
    article: str = "the"
    is_plural: bool = False

    def text(self) -> str:
        """For example `the brave farmers`."""
        noun = plural_of(self.noun) if self.is_plural else self.noun
        first = self.adjective or noun
        article = "an" if self.article == "a" and first[0] in "aeiou" else self.article
        return spaced(article, self.adjective, noun)


@dataclass(frozen=True)
class Clause:
    """Who does what to whom, and perhaps where."""

    agent: Phrase
    verb: str
    patient: Phrase
    place: str = ""
    is_past: bool = True
    is_negated: bool = False


def active(clause: Clause) -> str:
    """For example `the farmer helps the nurse near the river`."""
    return spaced(clause.agent.text(), finite(clause), clause.patient.text(), clause.place)


def passive(clause: Clause) -> str:
    """For example `the nurse is helped by the farmer near the river`."""
    auxiliary = ("were" if clause.is_past else "are") if clause.patient.is_plural else None
    auxiliary = auxiliary or ("was" if clause.is_past else "is")
    negation = "not" if clause.is_negated else ""
    action = spaced(auxiliary, negation, past_of(clause.verb))
    return spaced(clause.patient.text(), action, "by", clause.agent.text(), clause.place)


def finite(clause: Clause) -> str:
    """The active verb with its auxiliary and negation, agreeing with the agent."""
    if clause.is_negated:
        auxiliary = "did" if clause.is_past else ("do" if clause.agent.is_plural else "does")
        return f"{auxiliary} not {clause.verb}"
    if clause.is_past:
        return past_of(clause.verb)
    return clause.verb if clause.agent.is_plural else third_person_of(clause.verb)


def plural_of(noun: str) -> str:
    """More than one of them."""
    return IRREGULAR_PLURALS.get(noun, f"{noun}s")


def past_of(verb: str) -> str:
    """The past, which is also the participle of every verb here."""
    return IRREGULAR_PASTS.get(verb, f"{verb}d" if verb.endswith("e") else f"{verb}ed")


def third_person_of(verb: str) -> str:
    """What one other does, in the present."""
    regular = f"{verb}es" if verb.endswith(("ch", "sh")) else f"{verb}s"
    return IRREGULAR_THIRD_PERSONS.get(verb, regular)


def spaced(*words: str) -> str:
    """The words that are not empty, with one space between them."""
    return " ".join(word for word in words if word)


def vocabulary() -> list[str]:
    """Every word that can occur, sorted."""
    verbs = [verb for row in PERSON_VERBS for verb in row] + [*THING_VERBS, *LIKING, *DISLIKING]
    nouns = [*PEOPLE, *MORE_PEOPLE, *KINDS, *(noun for kind in KINDS.values() for noun in kind), *OPINION_NOUNS]
    words = {form for verb in verbs for form in (verb, past_of(verb), third_person_of(verb))}
    words |= {form for noun in nouns for form in (noun, plural_of(noun))}
    words |= {*PERSON_ADJECTIVES, *THING_ADJECTIVES, *GOOD, *BAD, *DEGREES}
    words |= {word for place in PLACES for word in place.split()}
    words |= set(
        [
            "a",
            "an",
            "the",
            "did",
            "do",
            "does",
            "is",
            "are",
            "was",
            "were",
            "not",
            "never",
            "by",
            "but",
            "although",
            ",",
        ]
    )
    return sorted(words - {""})
