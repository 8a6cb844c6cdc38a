"""The questions and answers of the guide, read from `data/*.txt`, and their split.

One file per topic, one block per intent:

    [name]
    en
    - a question
    > the answer
    fr
    - une question
    > la réponse

Blank lines and lines that begin with `#` are skipped. Needs the standard library only.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).parent / "data"
INDEPENDENT = Path(__file__).parent / "independent.txt"
"""Questions by somebody who had not seen the data: for measuring only, never for training."""
LANGUAGES = ("en", "fr")
OUTSIDE = "outside"
"""The intent of every question that is not about RKLLama."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A written question and the intent and language that decide its answer."""

    text: str
    intent: str
    language: str


@dataclass(slots=True, kw_only=True)
class Corpus:
    """All written questions, in file order, and the one answer per (intent, language)."""

    questions: list[Question] = field(default_factory=list)
    answers: dict[tuple[str, str], str] = field(default_factory=dict)

    def answer(self, question: Question) -> str:
        """The only right answer to `question`."""
        return self.answers[question.intent, question.language]


def normalised(text: str) -> str:
    """`text` without case, accents and punctuation: two questions that agree here are the same."""
    plain = unicodedata.normalize("NFKD", text.lower())
    return " ".join(re.findall(r"[a-z0-9_]+", plain.encode("ascii", "ignore").decode()))


def load(directory: Path = DATA) -> Corpus:
    """Read every topic file. Raises ValueError, naming file and line, for what does not parse."""
    corpus = Corpus()
    for path in sorted(directory.glob("*.txt")):
        _read_topic(path, corpus)
    return corpus


def independent(path: Path = INDEPENDENT) -> list[Question]:
    """The questions that nobody who wrote the data has seen; the file has no answers."""
    corpus = Corpus()
    _read_topic(path, corpus)
    return corpus.questions


def _read_topic(path: Path, corpus: Corpus) -> None:
    intent = language = ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            intent, language = line[1:-1], ""
        elif line in LANGUAGES and intent:
            language = line
        elif line.startswith("- ") and language:
            corpus.questions.append(Question(text=line[2:], intent=intent, language=language))
        elif line.startswith("> ") and language and (intent, language) not in corpus.answers:
            corpus.answers[intent, language] = line[2:]
        else:
            raise ValueError(f"{path.name}:{number}: cannot read {line!r}")


def split(
    questions: Iterable[Question], salt: str = "held-out", share: int = 10
) -> tuple[list[Question], list[Question]]:
    """(training, held out): of every intent and language one question in `share`, rounded up.

    Which ones depends on their text only, so adding questions hardly moves the others.
    """
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.intent, question.language), []).append(question)
    training: list[Question] = []
    held_out: list[Question] = []
    for group in groups.values():
        ranked = sorted(group, key=lambda q: _rank(q.text, salt))
        count = -(-len(group) // share)
        held_out += ranked[:count]
        training += ranked[count:]
    return training, held_out


def _rank(text: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}\0{normalised(text)}".encode()).hexdigest()


def read_lines(name: str, directory: Path = DATA) -> dict[str, list[str]]:
    """The `SECTION: text` lines of a helper file, by section, in order."""
    sections: dict[str, list[str]] = {}
    for line in (directory / name).read_text("utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            section, _, text = line.partition(": ")
            sections.setdefault(section.strip(), []).append(text.rstrip("\n"))
    return sections


def expand(templates: Sequence[str], words: dict[str, list[str]]) -> Iterator[str]:
    """Every template with its `{slot}` filled by each of the slot's words; without a slot, itself."""
    for template in templates:
        slot = re.search(r"\{(\w+)\}", template)
        if slot is None:
            yield template
            continue
        for word in words[slot[1]]:
            yield template.replace(slot[0], word)
