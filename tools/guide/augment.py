"""Variations of a written question: politeness, synonyms, case, accents, punctuation, typing errors."""

from __future__ import annotations

import random
import re
import unicodedata

from .corpus import read_lines

KEYS = "abcdefghijklmnopqrstuvwxyz"
FILLERS = {
    "en": re.compile(r"the|an?|to|do|i|of|my|is|it|in|on|with|for|can|this|that"),
    "fr": re.compile(r"l[ea]s?|une?|des?|du|je|est|ce|que|mon|ma|dans|sur|avec|pour"),
}


class Variations:
    """Draws variations; the word lists are `openings.lines` and `synonyms.lines` of the data."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        phrases = read_lines("phrases.lines")
        self._openings = {lang: phrases[f"{lang} before"] for lang in ("en", "fr")}
        self._endings = {lang: phrases[f"{lang} after"] for lang in ("en", "fr")}
        self._synonyms = {lang: _synonym_table(phrases[f"{lang} same"]) for lang in ("en", "fr")}

    def vary(self, text: str, language: str) -> str:
        """A variation of `text`, quite often `text` itself in another case."""
        rng = self._rng
        if rng.random() < 0.35:
            text = self._synonym(text, language)
        if rng.random() < 0.12:
            text = self._without_filler(text, language)
        if rng.random() < 0.25:
            text = self._wrapped(text, language)
        if language == "fr" and rng.random() < 0.2:
            text = without_accents(text)
        if rng.random() < 0.2:
            text = self._mistyped(text)
        return self._dressed(text)

    def _synonym(self, text: str, language: str) -> str:
        table, lowered = self._synonyms[language], text.lower()
        found = [
            phrase
            for phrase in table
            if phrase in lowered and re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", lowered)
        ]
        for phrase in self._rng.sample(found, min(len(found), self._rng.randint(1, 2))):
            other = self._rng.choice(table[phrase])
            pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
            text = re.sub(pattern, other, text, count=1, flags=re.IGNORECASE)
        return text

    def _without_filler(self, text: str, language: str) -> str:
        words = text.split(" ")
        fillers = [i for i, word in enumerate(words) if FILLERS[language].fullmatch(word.lower())]
        if len(words) > 3 and fillers:
            del words[self._rng.choice(fillers)]
        return " ".join(words)

    def _wrapped(self, text: str, language: str) -> str:
        if self._rng.random() < 0.6:
            opening = self._rng.choice(self._openings[language])
            first = text[0] if text[:2] in ("I ", "I'") or text[:1] == "/" else text[0].lower()
            return f"{opening} {first}{text[1:]}"
        ending = self._rng.choice(self._endings[language])
        return re.sub(r"\s*([?!.]*)$", lambda mark: f" {ending}{mark[1]}", text, count=1)

    def _mistyped(self, text: str) -> str:
        rng = self._rng
        for _ in range(rng.choice((1, 1, 2))):
            places = [m.start() for m in re.finditer(r"(?<=\w)\w(?=\w)", text)]
            if not places:
                break
            at = rng.choice(places)
            kind = rng.randrange(4)
            if kind == 0:
                text = text[:at] + text[at + 1 :]
            elif kind == 1:
                text = text[:at] + text[at] + text[at:]
            elif kind == 2:
                text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            else:
                text = text[:at] + rng.choice(KEYS) + text[at + 1 :]
        return text

    def _dressed(self, text: str) -> str:
        rng = self._rng
        if rng.random() < 0.4:
            text = re.sub(r"\s*[?!.]+$", "", text)
        elif rng.random() < 0.1:
            text = re.sub(r"\s*[?!.]*$", rng.choice((" ?", "??", " !", "...", ".")), text)
        kind = rng.random()
        if kind < 0.4:
            text = text.lower()
        elif kind < 0.43:
            text = text.upper()
        elif kind < 0.6:
            text = text[:1].upper() + text[1:]
        return text


def without_accents(text: str) -> str:
    """`text` as typed on a keyboard without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _synonym_table(lines: list[str]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for line in lines:
        words = [word.strip() for word in line.split("|")]
        for word in words:
            table.setdefault(word.lower(), []).extend(other for other in words if other != word)
    return table
