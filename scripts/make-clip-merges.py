#!/usr/bin/env python3
"""CLIP's vocabulary as evenset carries it, for models in single files, which hold none.

  make-clip-merges.py BPE [OUT]     BPE is OpenAI's bpe_simple_vocab_16e6.txt.gz (it also comes with the package
                                    open_clip_torch); OUT is the file in crates/nn by default

Behind a header BPE has 262,144 pairs of pieces, of which CLIP joins the first 48,894; those are kept, a pair a line. The
words follow from them. The same bytes every time.
"""
import gzip, pathlib, sys

USED = 49152 - 256 - 2
DEFAULT = pathlib.Path(__file__).parent.parent / "crates/nn/src/models/clip/vocabulary/merges.txt.gz"


def main(bpe, out):
    lines = gzip.open(bpe, "rt", encoding="utf-8").read().split("\n")
    pairs = lines[1:1 + USED]
    assert "#version" in lines[0] and len(pairs) == USED and all(len(pair.split(" ")) == 2 for pair in pairs)
    out.write_bytes(gzip.compress(("\n".join(pairs) + "\n").encode(), 9, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else DEFAULT)
