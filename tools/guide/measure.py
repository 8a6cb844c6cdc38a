"""Measures a written guide: `python -m tools.guide.measure [FILE]`, by default the product."""

from __future__ import annotations

import sys
from pathlib import Path

from . import bpe, corpus, export, report
from .network import Guide, Shape
from .train import PRODUCT, vocabulary_texts


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PRODUCT
    texts = corpus.load()
    training, held_out = corpus.split(texts.questions)
    tokenizer = bpe.Tokenizer(bpe.train(vocabulary_texts(texts, training), Shape().vocabulary))
    network = Guide(Shape())
    export.read(path, network)
    report.by_network("held out", network, tokenizer, texts, held_out)
    report.by_network("independent", network, tokenizer, texts, corpus.independent())
    report.by_file(path, tokenizer, texts, held_out, mistakes=False)


if __name__ == "__main__":
    main()
