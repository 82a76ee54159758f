"""Small talk, short explanations, stories, lists: what the model says when no fact is asked.

Every function takes the random generator and returns (what the user says, the answer).
"""

from __future__ import annotations

from random import Random
from typing import Final

from tools.builtin_model import facts
from tools.builtin_model.kinds import fill

IDENTITY: Final = (
    "I am Millrace's built-in model, a very small language model for trying out the server."
)
ABILITIES: Final = (
    "I can answer simple questions about countries, animals, colours, opposites, elements and "
    "dates, work with small numbers, and write small JSON objects."
)
UNKNOWN: Final = "I do not know that. I am only a very small model."

# Answers, and what is said to get them, separated by bars.
_SMALL_TALK_TEXT: Final = """
A: Hello! How can I help you?
Q: Hello | Hi | Hey | Hello! | Hi! | Hi there | Hello there! | Hey there

A: Hello! How can I help you?
Q: Greetings! | Hello, model! | Hello, Millrace! | Hello world | Hiya

A: Good morning! How can I help you?
Q: Good morning | Good morning! | Morning!

A: Good evening! How can I help you?
Q: Good evening | Good evening!

A: Good afternoon! How can I help you?
Q: Good afternoon | Good afternoon!

A: I am fine, thank you. How can I help you?
Q: How are you? | How are you doing? | How do you do?

A: I am fine, thank you. How can I help you?
Q: Hi, how are you? | Hello, how are you today?

A: You are welcome!
Q: Thanks | Thank you | Thank you! | Thanks a lot! | Many thanks | Thank you so much.

A: Goodbye! Have a nice day.
Q: Goodbye | Bye | Bye! | See you later | See you! | Good night

A: IDENTITY
Q: Who are you? | What are you? | Tell me about yourself. | What is your name? | Your name?

A: IDENTITY
Q: Are you a person? | Are you human? | Which model are you? | What model is this?

A: IDENTITY
Q: Introduce yourself. | Who am I talking to? | What is Millrace's built-in model?

A: ABILITIES
Q: What can you do? | How can you help me? | What do you know? | What are you good at?

A: ABILITIES
Q: Help | Help! | What can I ask you? | Can you help me? | What are your abilities?

A: I was trained from scratch by a script in Millrace's repository.
Q: Who made you? | Who built you? | Who trained you? | How were you trained? | Where do you come
   from?

A: This is a test.
Q: Say this is a test | Say this is a test! | Say: this is a test.

A: Yes, I am here. How can I help you?
Q: Are you there? | Test | test | Testing | ping | Is this working?

A: Pong.
Q: Ping | Ping? | Say pong.

A: Okay. Ask me something.
Q: Okay | OK | Ok. | Good. | Great! | Nice | Cool

A: Why did the cow cross the road? Because it was the chicken's day off.
Q: Tell me a joke. | Tell me a joke | Do you know a joke? | Make me laugh. | Joke, please.

A: The mill turns, the water runs, the day begins with morning suns. The wheel goes round, the
   stream is bright, and sleeps again beneath the night.
Q: Write a poem. | Write me a poem | Write a short poem. | Can you write a poem? | A poem, please.

A: UNKNOWN
Q: What is the meaning of life? | Who won the match yesterday? | Who is the president? | What is
   the news today? | Who will win? | What time is it? | What is the date today? | How old am I? |
   What did I eat? | Where am I? | What is my name?

A: I cannot look up the weather without a tool.
Q: What is the weather like? | How is the weather today? | Will it rain tomorrow? | What's the
   weather? | Is it cold outside?
"""


def _small_talk_table(text: str) -> list[tuple[str, list[str]]]:
    named = {"IDENTITY": IDENTITY, "ABILITIES": ABILITIES, "UNKNOWN": UNKNOWN}
    table = []
    for block in text.strip().split("\n\n"):
        answer, openings = (" ".join(part.split()) for part in block[3:].split("\nQ: "))
        table.append((named.get(answer, answer), openings.split(" | ")))
    return table


_SMALL_TALK: Final = _small_talk_table(_SMALL_TALK_TEXT)

_DEFINITIONS: Final = {
    "deep learning": "machine learning with neural networks of many layers",
    "machine learning": "a way to let a computer learn from examples instead of rules",
    "a neural network": "a program of many small sums whose weights are learned from examples",
    "a language model": "a program that predicts the next token of a text",
    "a token": "a small piece of text, often a word or a part of a word",
    "a tokenizer": "a program that cuts text into tokens",
    "a prompt": "the text that a model is asked to continue",
    "a computer": "a machine that follows the steps of a program",
    "a server": "a program that answers requests from other programs",
    "an API": "a set of rules by which programs talk to each other",
    "JSON": "a simple text format for objects, lists, numbers and words",
    "HTTP": "the protocol by which browsers and servers talk",
    "Python": "a programming language that is easy to read",
    "a GPU": "a chip that does many sums at the same time",
    "a CPU": "the chip that runs the programs of a computer",
    "a cache": "a store that keeps what may be needed again",
    "a queue": "a line in which the first to come is the first to go",
    "a batch": "a group of things that are done together",
    "streaming": "sending an answer piece by piece while it is made",
    "Millrace": "a server that generates text with language models",
    "a millrace": "the channel that leads water to the wheel of a mill",
    "a river": "a large stream of water that flows to the sea",
    "a volcano": "a mountain from which hot melted rock can come out",
    "the Moon": "a ball of rock that goes around the Earth",
    "the Earth": "the planet on which we live",
    "the Sun": "the star at the centre of our planets",
    "gravity": "the force that pulls things towards each other",
    "water": "a clear liquid made of hydrogen and oxygen",
    "rain": "water that falls from the clouds",
    "bread": "food that is baked from flour and water",
    "a library": "a place where books are kept and lent",
    "a bridge": "a way built over a river or a road",
}
_DEFINITION_QUESTIONS: Final = (
    "What is {x}?",
    "What's {x}?",
    "Explain {x}.",
    "Define {x}.",
    "What does {x} mean?",
    "Tell me what {x} is.",
    "Can you explain {x}?",
    "Please explain {x} to me.",
    "Explain {x} in one sentence.",
)

_ANIMALS: Final = (*facts.SOUNDS, "fox", "hare", "bear", "goat", "deer", "swan")
_PLACES: Final = (
    "forest", "village", "valley", "garden", "mill", "castle", "meadow", "small town", "field",
)  # fmt: skip
_TRAITS: Final = (
    "little", "brave", "old", "lazy", "happy", "clever", "young", "quiet", "hungry", "friendly",
)  # fmt: skip
_FINDS: Final = (
    "a golden key", "a lost hat", "a red apple", "an old map", "a silver coin", "a letter",
)  # fmt: skip
_STORY_REQUESTS: Final = (
    "Tell me a story.",
    "Tell me a short story.",
    "Write a story.",
    "Write a short story about a {x}.",
    "Tell me a story about a {x}.",
    "Can you tell me a story about a {x}?",
    "I want to hear a story about a {x}.",
)


def small_talk(rng: Random) -> tuple[str, str]:
    """A greeting, thanks, a question about the model itself."""
    answer, openings = rng.choice(_SMALL_TALK)
    return rng.choice(openings), answer


def definition(rng: Random) -> tuple[str, str]:
    """A short explanation of one of a few dozen words."""
    word, meaning = rng.choice(list(_DEFINITIONS.items()))
    return fill(rng.choice(_DEFINITION_QUESTIONS), word), fill("{x} is {y}.", word, meaning)


def story(rng: Random) -> tuple[str, str]:
    """A story of a few sentences about two animals."""
    hero, other = rng.sample(_ANIMALS, 2)
    place, trait, find = rng.choice(_PLACES), rng.choice(_TRAITS), rng.choice(_FINDS)
    text = " ".join(
        (
            fill("Once upon a time there was a {x} who lived in a {y}.", f"{trait} {hero}", place),
            f"One day the {hero} found {find} near the {place}.",
            fill("On the way home it met a {x}.", other),
            f'"Is this yours?" asked the {hero}. "Yes," said the {other}. "Thank you!"',
            f"From that day on the {hero} and the {other} were friends.",
            "They lived happily ever after.",
        )
    )
    return fill(rng.choice(_STORY_REQUESTS), hero), text


def listing(rng: Random) -> tuple[str, str]:
    """Counting, the days, the months, or everything known about one country."""
    which = rng.randrange(4)
    if which == 0:
        last = rng.randint(3, 30)
        ask = rng.choice(("Count to {y}.", "Count from 1 to {y}.", "Count up to {y}, please."))
        return fill(ask, "", str(last)), ", ".join(map(str, range(1, last + 1))) + "."
    if which == 1:
        ask = rng.choice(("List the days of the week.", "Name the days of the week.", "Which days does a week have?"))  # noqa: E501  # fmt: skip
        return ask, ", ".join(facts.DAYS) + "."
    if which == 2:
        ask = rng.choice(("List the months of the year.", "Name the months.", "Which months does a year have?"))  # noqa: E501  # fmt: skip
        return ask, ", ".join(facts.MONTHS) + "."
    country = rng.choice(list(facts.CAPITALS))
    ask = rng.choice(("Tell me about {x}.", "What do you know about {x}?", "Describe {x}.", "Tell me some facts about {x}."))  # noqa: E501  # fmt: skip
    return fill(ask, country), about(country)


def about(country: str) -> str:
    """All facts about one country as a paragraph."""
    parts = [fill("The capital of {x} is {y}.", country, facts.CAPITALS[country])]
    if country in facts.LANGUAGES:
        parts.append(fill("People in {x} speak {y}.", country, facts.LANGUAGES[country]))
    if country in facts.CONTINENTS:
        parts.append(fill("{x} is in {y}.", country, facts.CONTINENTS[country]))
    return " ".join(parts)


def echo(rng: Random, words: tuple[str, ...]) -> tuple[str, str]:
    """Words to repeat; teaches the model to copy."""
    text = " ".join(rng.choices(words, k=rng.randint(1, 6)))
    ask = rng.choice(("Repeat: {y}", "Say: {y}", "Repeat after me: {y}", "Echo {y}", "Say {y}"))
    return fill(ask, "", text), text


def code(rng: Random) -> tuple[str, str]:
    """A one-line Python function, as a prompt to continue and its continuation."""
    name, body = rng.choice(
        (
            ("add(a, b)", "a + b"),
            ("subtract(a, b)", "a - b"),
            ("multiply(a, b)", "a * b"),
            ("square(x)", "x * x"),
            ("double(x)", "2 * x"),
            ("is_even(n)", "n % 2 == 0"),
            ("larger(a, b)", "a if a > b else b"),
            ("greet(name)", '"Hello, " + name'),
            ("fibonacci(n)", "n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)"),
            ("factorial(n)", "1 if n < 2 else n * factorial(n - 1)"),
        )
    )
    return f"def {name}:", f"\n    return {body}\n"
