"""In which script a text is written: by that it is seen when a teacher slips into another language.

The language of a message of five words is guessed wrong too often to refuse rows by it. Its script never is; and those teachers that slip
mostly slip from one script into another.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

LATIN = "LATIN"
_KANA = "KANA"
_ALIKE = {"HIRAGANA": _KANA, "KATAKANA": _KANA, "KATAKANA-HIRAGANA": _KANA}


def main_script(text: str) -> str | None:
    """The script of most letters, by the name that Unicode begins theirs with (`CYRILLIC`); None where there is no letter."""
    if text.isascii():
        return LATIN if any(map(str.isalpha, text)) else None
    counts = Counter(filter(None, map(_script, unicodedata.normalize("NFKC", text))))
    return max(counts, key=counts.__getitem__) if counts else None


def main_scripts(texts: Iterable[str]) -> frozenset[str]:
    """Those that texts are mainly written in. Who writes kana writes whole messages without them too."""
    found = {script for script in map(main_script, texts) if script is not None}
    return frozenset(found | {"CJK"} if _KANA in found else found)


@lru_cache(maxsize=4096)
def _script(character: str) -> str | None:
    if not character.isalpha():
        return None
    name = unicodedata.name(character, "").partition(" ")[0]
    return _ALIKE.get(name, name)
