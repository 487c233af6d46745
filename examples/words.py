"""User skills: one decorated function, used in a graph that is written in Python.

python examples/words.py examples/logs
"""

import re
import sys
from collections import Counter

from asterism import File, Graph, Resources, run, skill


@skill(name="words.top", effect="pure", needs=Resources(cpu=1), timeout="30s")
def top_words(file: File, limit: int = 5) -> dict[str, int]:
    """The most frequent words of a text file, with how often each occurs."""
    words = re.findall(r"[a-z]{3,}", file.read_text().lower())
    return dict(Counter(words).most_common(limit))


def graph(folder: str) -> Graph:
    """Find the files, count the words of each, one child a file."""
    g = Graph(inputs={"dir": folder})
    scan = g.add("fs.find", path=g.input("dir"), glob="*.log", on="here")
    top = g.add(top_words, id="top", file=scan["files"].each()["file"], limit=3)
    g.output("files", scan["files"])
    g.output("words", top)
    return g


if __name__ == "__main__":  # a worker loads this file for its skills: what runs things stays below this line
    result = run(graph(sys.argv[1] if len(sys.argv) > 1 else "."))
    for found, words in zip(result["files"], result["words"], strict=True):
        print(found["name"], words)
