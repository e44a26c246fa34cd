"""Words of questions: vocabulary of comparisons and rankings, stems, days and comparison signs."""

from __future__ import annotations

import datetime
import re

AVERAGE, SUM = "average mean typical typically", "total sum altogether combined"
HIGH, LOW = (
    "highest largest maximum most biggest greatest max top best",
    "lowest smallest minimum least fewest min bottom worst",
)
COMMON, RARE = (
    "common frequent frequently often popular biggest largest most",
    "rare rarest seldom uncommon smallest least fewest",
)
SCALES = (
    (
        "newest latest recent recently youngest last",
        "oldest earliest first older old",
        "year date time day month born birth founded built release released created added",
    ),
    ("oldest eldest older", "youngest younger", "age"),
    ("heaviest", "lightest", "weight mass weigh"),
    ("longest", "shortest", "length duration minute second hour night day stay"),
    ("tallest highest", "shortest lowest", "height altitude elevation"),
    ("expensive costliest dearest priciest", "cheapest cheap", "price cost fare fee amount"),
    ("fastest quickest", "slowest", "speed velocity pace horsepower"),
    ("hottest warmest", "coldest coolest", "temperature"),
    ("best", "worst", "rating score grade star accuracy"),
    ("largest biggest", "smallest", "size area population"),
    ("richest", "poorest", "income salary wage gdp wealth"),
    ("deepest", "shallowest", "depth"),
    ("strongest powerful", "weakest", "strength power horsepower"),
    ("loudest", "quietest", "loudness volume"),
    ("widest", "narrowest", "width breadth"),
    ("efficient economical", "thirstiest", "mpg mileage efficiency gallon"),
    ("windiest", "calmest", "wind"),
    ("wettest rainiest", "driest", "precipitation rain"),
)
"""Words for the upper and for the lower end of a scale, and of what columns' names."""
ABOVE = (
    r"\b(after|above|over|more than|greater|exceed\w*|since|at least|from \d+ on|"
    r"or (?:later|more|above|higher|over|older)|beyond|"
    r"(?:higher|longer|heavier|larger|bigger|later|newer|older|taller|faster|hotter|warmer|stronger) than)\b"
)
BELOW = (
    r"\b(before|below|under|less than|fewer than|at most|until|up to|"
    r"or (?:earlier|less|fewer|below|lower|under|younger)|"
    r"(?:lower|shorter|lighter|smaller|earlier|younger|slower|colder|cooler|cheaper|weaker) than)\b"
)
SHARP = (
    r"\b(at least|at most|since|until|up to|from \d+ on|"
    r"or (?:later|more|above|higher|over|older|earlier|less|fewer|below|lower|under|younger))\b"
)
"""Words that compare, upwards and downwards, and those that let the number itself in."""
THAN = r"\b(at least|at most|more than|less than|fewer than)\b"
NOT = r"\b(not|except|other than|outside|besides|without|isn t|aren t|wasn t|weren t|excluding)\b"
MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
ASKING = (
    "which what who where is are was were there the a an of in on for do does did we i have has had with how many much "
    "number count list show give me all tell name find by per each every and or than that this ones one "
    "from to it its their they be at as any"
)
"""Words that are no names of columns or values."""
PLAIN = frozenset(ASKING.split(" "))
DAY = re.compile(
    rf"\b(?:(\d{{4}})-(\d{{2}})-(\d{{2}})|({'|'.join(MONTHS)}) (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}})|"
    rf"(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({'|'.join(MONTHS)}),? (\d{{4}}))\b",
    re.IGNORECASE,
)


def folded(text: object) -> str:
    """Text folded to its words, in lower case, with a space between."""
    return re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(text))).strip().lower()


def stem(word: str) -> str:
    """Stem of a word: without a plural's end."""
    return (
        word[:-3] + "y"
        if word.endswith("ies") and len(word) > 4
        else word[:-1]
        if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
        else word
    )


def stems(text: object) -> list[str]:
    """Stems of a text's words, in order."""
    return [stem(word) for word in folded(text).split()]


def same_word(word_given: str, word: str) -> bool:
    """True if a question's word means a word of a column's name.

    It is the same, or one of them begins with the other, or is short for it.
    """
    if word_given == word:
        return True
    if word_given in PLAIN or word in PLAIN:
        return False
    if word in ("max", "min", "avg", "num") and word_given.startswith(word):
        return True
    same = next((at for at, (a, b) in enumerate(zip(word_given, word)) if a != b), min(len(word_given), len(word)))
    return same >= 4 and (
        same in (len(word_given), len(word)) or (same >= 6 and max(len(word_given), len(word)) - same <= 2)
    )


def day_of(found: re.Match[str]) -> datetime.date | None:
    """Parse a day that is written in one of three formats; None where there is no such day."""
    year, month, day, name_1, day_1, year_1, day_2, name_2, year_2 = found.groups()
    named = name_1 or name_2
    try:
        return datetime.date(
            int(year or year_1 or year_2),
            MONTHS.index(named.lower()) + 1 if named else int(month),
            int(day or day_1 or day_2),
        )
    except ValueError:
        return None


def sign_of(text: str, start: int, end: int) -> str:
    """Comparison sign of a number or a day at a place of a text.

    It is told by the words since the number before it, or right after it.
    """
    before = folded(re.split(r"\d", text[:start])[-1])
    after = re.match(
        r"or (later|more|above|higher|over|older|newer|earlier|less|fewer|below|lower|under|younger)\b",
        folded(text[end:]),
    )
    up, down = (
        [found.end() for found in re.finditer(ABOVE, before)],
        [found.end() for found in re.finditer(BELOW, before)],
    )
    if re.search(r"\bbetween( \w+)?$", before):
        return ">="
    if before == "and" and re.search(r"\bbetween\b[^\d]*[\d.]+\W+and\W*$", text[:start].lower()):
        return "<="
    if after:
        return "<=" if after[1] in ("earlier", "less", "fewer", "below", "lower", "under", "younger") else ">="
    if not up and not down:
        return "="
    return (">" if max(up, default=-1) > max(down, default=-1) else "<") + ("=" if re.search(SHARP, before) else "")
