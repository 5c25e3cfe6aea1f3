"""The words of the demo's texts, a few hundred; what a group is for stands with its generator."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(","))


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for phrase in _phrases(text):
        first, second = phrase.split()
        pairs.append((first, second))
    return tuple(pairs)


# Acceptability: singular and plural.
NOUNS = _pairs(
    "key keys, letter letters, picture pictures, tree trees, bottle bottles, chair chairs,"
    "lamp lamps, coat coats, stone stones, ticket tickets, basket baskets, mirror mirrors,"
    "window windows, cabinet cabinets, bridge bridges, tower towers"
)
DETERMINERS = ("this", "these")
VERBS = _pairs("is are, was were, seems seem, looks look")
PREPOSITIONS = _words("near behind under beside above below beyond against")
ENDINGS = _phrases(
    "today, again, in the end, to everyone, for a while, as people say, after so many years"
)

# Acceptability and similarity.
ADJECTIVES = _words(
    "red blue green white black small large rusty new round heavy light dusty shiny broken wooden"
)

# Polarity.
TOPICS = _words("film story music acting plot ending script cast pace humor dialogue camera")
LINKS = _words("is was feels seems looks")
JOINS = _words("and but , while yet")
NEGATIONS = _words("not never hardly")
STRENGTHENERS = _words("very truly extremely")
POSITIVE = _words(
    "good great funny clever moving fresh charming brilliant lovely warm honest sharp"
)
NEGATIVE = _words("bad awful dull boring clumsy stale weak silly ugly cold fake slow")

# Paraphrase: a concept's usual word, and its rarer synonym.
PEOPLE = _pairs(
    "doctor physician, teacher instructor, lawyer attorney, cook chef, writer author,"
    "boss manager, singer vocalist, farmer grower, soldier trooper, sailor seaman,"
    "guard watchman, clerk assistant"
)
DEEDS = _pairs(
    "bought purchased, sold peddled, sent mailed, lent loaned, showed displayed,brought delivered"
)
GOODS = _pairs(
    "car vehicle, gift present, couch sofa, phone telephone, bag sack, rug carpet, boat ship,"
    "photo snapshot"
)

# Entailment: who, and what is said of a person with the values that it can take.
NAMES = _words(
    "anna ben carla david emma felix grace henry iris jack kate liam mary noah olga paul rosa"
    " sam tina victor"
)
ATTRIBUTES = {
    "visited": _words("paris rome london madrid vienna oslo"),
    "owns": _words("dogs cats horses parrots rabbits turtles"),
    "plays": _words("piano violin guitar flute drums harp"),
}
# The words that the generators put between those above.
FUNCTION_WORDS = _words("the a there is and , .")


def vocabulary() -> tuple[str, ...]:
    """Every word that a demo text can hold, each once, in alphabetical order."""
    groups = (
        *NOUNS, DETERMINERS, *VERBS, PREPOSITIONS, ENDINGS, ADJECTIVES, TOPICS, LINKS, JOINS,
        NEGATIONS, STRENGTHENERS, POSITIVE, NEGATIVE, *PEOPLE, *DEEDS, *GOODS, NAMES, ATTRIBUTES,
        *ATTRIBUTES.values(), FUNCTION_WORDS,
    )  # fmt: skip
    return tuple(sorted({word for group in groups for text in group for word in text.split()}))
