"""Write sentences for an encoder: one a line; of COUNT lines the second half says the first half
in other words, a little changed, or changed much.

python sentences.py FILE COUNT FIRST
"""

import sys
from pathlib import Path

import numpy as np

WORDS = {
    "who": ["A young man", "The old teacher", "My neighbour", "A group of children", "The driver",
            "Her little sister", "A tired nurse", "The engineer", "Two tourists", "The farmer"],
    "does": ["is repairing", "bought", "is looking for", "painted", "has lost", "is cleaning",
             "sold", "is carrying", "borrowed", "wants to return"],
    "what": ["a red bicycle", "the kitchen table", "an expensive camera", "some fresh bread",
             "the broken window", "a heavy suitcase", "two concert tickets", "a book about stars",
             "the neighbour's dog", "a box of apples"],
    "where": ["in the market", "behind the station", "near the river", "at the office",
              "in front of the school", "on the second floor", "beside the old church", "at home"],
    "when": ["this morning", "before dinner", "after a long meeting", "on a rainy Sunday",
             "every summer", "late at night", "last week", "while it was snowing"],
}  # fmt: skip
ORDERS = [
    "{who} {does} {what} {where} {when}.",
    "{when}, {where}, {who} {does} {what}.",
    "{who}, {where}, {does} {what}.",
    "It was {what} that {who} {does} {when}.",
]


def pair(number: int) -> tuple[str, str]:
    """A sentence, and another of which none up to all of the parts are different ones."""
    draws = np.random.default_rng(number)
    first = {part: str(draws.choice(words)) for part, words in WORDS.items()}
    changed = draws.permutation(list(WORDS))[: draws.integers(0, len(WORDS) + 1)]
    second = first | {part: str(draws.choice(WORDS[part])) for part in changed}
    orders = draws.choice(ORDERS, 2)
    return str(orders[0]).format(**first), str(orders[1]).format(**second)


def main(file: str, count: str, first: str) -> None:
    numbers = range(int(first), int(first) + int(count) // 2)
    firsts, seconds = zip(*map(pair, numbers), strict=True)
    Path(file).write_text("\n".join([*firsts, *seconds]) + "\n", encoding="utf-8")


main(*sys.argv[1:])
