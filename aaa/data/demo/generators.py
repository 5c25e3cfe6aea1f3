"""The demo's generators: each draws one example, a text or a pair of texts and its label.

They stand for the kinds of tasks of GLUE and, the longest, of Long Range Arena, small enough to
be learned from scratch within a few hundred steps. The single texts ask for little: words that are
near, or a sum over the text. The pairs ask for words of one text to be compared with those of the
other, dozens of tokens away,
*together with* what stands beside them there. In every pair task some examples can be told by
the words alone (from which the harder rest is then learned), the others only by who has what.

No label is to be read off the length: both follow from draws that are independent of each other.
Only methods of ``random.Random`` are used whose results do not differ between Python versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from aaa.data.demo import lexicon

Example = tuple[tuple[str, ...], float]
Event = tuple[tuple[str, str], ...]  # who, did, what: each a word and its synonym


def acceptability(rng: Random) -> Example:
    """Do numbers agree? Like CoLA; 1 for acceptable.

    ``near these towers , this rusty key behind these lamps is red .`` What is wrong is either
    one determiner next to its noun or (half) the verb, which may stand far from its subject. Nouns
    after a preposition are of either number and the verb does not ask for theirs.
    """
    acceptable, wrong_verb, number = rng.random() < 0.5, rng.random() < 0.5, rng.randrange(2)
    num_before, num_behind = int(rng.random() < 0.3), rng.randrange(3)
    num_nouns = num_before + 1 + num_behind
    wrong_noun = None if acceptable or wrong_verb else rng.randrange(num_nouns)
    words = []
    for place in range(num_nouns):
        if place == num_before:
            words += _noun_phrase(rng, number, wrong_noun == place)
        else:
            words += [rng.choice(lexicon.PREPOSITIONS)]
            words += _noun_phrase(rng, rng.randrange(2), wrong_noun == place)
        words += [","] * (place < num_before)
    verb_disagrees = wrong_verb and not acceptable
    words += [rng.choice(lexicon.VERBS)[number ^ verb_disagrees], rng.choice(lexicon.ADJECTIVES)]
    if rng.random() < 0.8:
        words += [rng.choice(lexicon.ENDINGS)]
    return (_sentence(words),), int(acceptable)


def _noun_phrase(rng: Random, number: int, determiner_disagrees: bool) -> list[str]:
    adjective = [rng.choice(lexicon.ADJECTIVES)] if rng.random() < 0.3 else []
    determiner = lexicon.DETERMINERS[number ^ determiner_disagrees]
    return [determiner, *adjective, rng.choice(lexicon.NOUNS)[number]]


def polarity(rng: Random) -> Example:
    """Is there more praise than blame? Like SST-2; 1 for praise.

    ``the film is not good but the cast was very funny .`` Each of 2 to 4 clauses counts as +1 or
    -1; a negation turns it round and a strengthener doubles it. The sum is never 0.
    """
    while True:
        clauses, total = [], 0
        for _ in range(rng.randint(2, 4)):
            value = rng.choice((-1, 1))
            adjective = rng.choice(lexicon.POSITIVE if value > 0 else lexicon.NEGATIVE)
            words = ["the", rng.choice(lexicon.TOPICS), rng.choice(lexicon.LINKS)]
            if rng.random() < 0.2:
                words.append(rng.choice(lexicon.NEGATIONS))
                value = -value
            if rng.random() < 0.2:
                words.append(rng.choice(lexicon.STRENGTHENERS))
                value *= 2
            clauses.append(" ".join([*words, adjective]))
            total += value
        if total != 0:
            joined = [clauses[0]]
            for clause in clauses[1:]:
                joined += [rng.choice(lexicon.JOINS), clause]
            return (_sentence(joined),), int(total > 0)


def review(rng: Random) -> Example:
    """Is there more praise than blame in a long text? Like IMDb; 1 for praise.

    ``the film is good . the cast was dull . ...`` Five, seven or nine sentences, 160 bytes on
    average, that praise or blame by the toss of a coin: what tells is the whole text, every part
    of it a little.
    """
    values = [rng.randrange(2) for _ in range(rng.choice((5, 7, 9)))]
    sentences = [
        f"the {rng.choice(lexicon.TOPICS)} {rng.choice(lexicon.LINKS)} "
        f"{rng.choice((lexicon.POSITIVE if value else lexicon.NEGATIVE)[:4])} ."
        for value in values
    ]
    return (" ".join(sentences),), int(2 * sum(values) > len(values))


def paraphrase(rng: Random) -> Example:
    """Do both texts tell of the same events? Like MRPC; 1 for the same.

    ``the cook sold a car , the guard sent a bag .`` / ``the guard mailed a bag , the chef sold a
    car .`` The second text tells the 2 to 4 events in another order, with a synonym here and
    there. If they are not the same, then either the people or the things have been replaced by
    others, or (a fifth) have only changed places among the events.
    """
    same = rng.random() < 0.5
    count = rng.randint(2, 4)
    roles = (lexicon.PEOPLE, lexicon.DEEDS, lexicon.GOODS)
    columns = [rng.sample(role, count) for role in roles]
    first = _events(rng, columns)
    if not same:
        changed = rng.choice((0, 2))
        columns[changed] = _other(rng, columns[changed], roles[changed])
    return (first, _events(rng, columns)), int(same)


def _other(
    rng: Random, concepts: list[tuple[str, str]], known: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The concepts moved on by one place, or one or more of them replaced."""
    if rng.random() < 0.2:
        return concepts[1:] + concepts[:1]
    places = rng.sample(range(len(concepts)), rng.randint(1, len(concepts)))
    strangers = rng.sample([concept for concept in known if concept not in concepts], len(places))
    replaced = list(concepts)
    for place, stranger in zip(places, strangers, strict=True):
        replaced[place] = stranger
    return replaced


def _events(rng: Random, columns: list[list[tuple[str, str]]]) -> str:
    events: list[Event] = list(zip(*columns, strict=True))
    rng.shuffle(events)
    told = []
    for event in events:
        who, did, what = (concept[rng.random() < 0.1] for concept in event)
        told.append(f"the {who} {did} a {what}")
    return _sentence([" , ".join(told)])


def similarity(rng: Random) -> Example:
    """How many things are in both texts? Like STS-B; 5 for all of them, 0 for none.

    ``there is a red key , a small lamp and a new coat .`` A thing is an adjective with a noun.
    The second list repeats some things of the first in another order. The others it replaces, or
    (one in seven) it hands their adjectives on to each other's nouns.
    """
    count = rng.randint(2, 4)
    nouns = [singular for singular, _ in rng.sample(lexicon.NOUNS, 2 * count)]
    things = list(zip(rng.sample(lexicon.ADJECTIVES, 2 * count), nouns, strict=True))
    first, spare = things[:count], things[count:]
    num_shared = rng.randint(0, count)
    shared, lost = first[:num_shared], first[num_shared:]
    changed = spare[: len(lost)]
    if len(lost) > 1 and rng.random() < 1 / 7:
        next_ones = lost[1:] + lost[:1]
        changed = [
            (adjective, noun) for (adjective, _), (_, noun) in zip(lost, next_ones, strict=True)
        ]
    return (_things(rng, first), _things(rng, shared + changed)), 5 * num_shared / count


def _things(rng: Random, things: list[tuple[str, str]]) -> str:
    told = [f"a {adjective} {noun}" for adjective, noun in rng.sample(things, len(things))]
    return _sentence(["there is", " , ".join(told[:-1]), "and", told[-1]])


def entailment(rng: Random) -> Example:
    """Does the second text follow from the first? Like MNLI; 0 yes, 1 open, 2 contradicted.

    ``anna owns dogs , ben visited rome , kate plays harp .`` / ``ben visited rome .`` A
    contradiction names another value for what is told of the person. Open is a claim of a
    stranger, or of another kind than what is told of the person. In a fifth of both, every word
    of the claim is in the first text, and only who goes with what tells.
    """
    label, only_binding, count = rng.randrange(3), rng.random() < 0.2, rng.randint(3, 6)
    while True:  # with the same count, or lengths would tell labels
        *names, stranger = rng.sample(lexicon.NAMES, count + 1)
        facts = [(name, *_attribute(rng)) for name in names]
        name, verb, value = rng.choice(facts)
        told = {fact[1:] for fact in facts}
        claims = [(name, verb, value)]
        if label == 1:
            claims = [(stranger, verb, value)]
            if only_binding:
                claims = [(name, *other) for other in sorted(told) if other[0] != verb]
        elif label == 2:
            values = [other for other in lexicon.ATTRIBUTES[verb] if other != value]
            claims = [
                (name, verb, other) for other in values if ((verb, other) in told) == only_binding
            ]
        if claims:
            premise = " , ".join(" ".join(fact) for fact in facts)
            return (_sentence([premise]), _sentence(rng.choice(claims))), label


def _attribute(rng: Random) -> tuple[str, str]:
    verb = rng.choice(tuple(lexicon.ATTRIBUTES))
    return verb, rng.choice(lexicon.ATTRIBUTES[verb])


def _sentence(words: Sequence[str]) -> str:
    return " ".join([*words, "."])
