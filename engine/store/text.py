"""Any Python string as valid Unicode, and back.

JSON may spell half a surrogate pair (`"\\ud800"`), and a language model now and then does. Such a string has no UTF-8, so Arrow, msgpack
and DuckDB refuse it. It is stored inert: a lone surrogate becomes U+FDD0 and its four hex digits. U+FDD0 is a noncharacter that no text
uses; where one does, it is written the same way, so that every string comes back exactly.
"""

from __future__ import annotations

import re

MARK = "\ufdd0"
"""Stands in no stored string but where one was escaped."""
_UNSTORABLE = re.compile(f"[\ud800-\udfff{MARK}]")
_STORED = re.compile(f"{MARK}([0-9a-f]{{4}})")


def escape(text: str) -> str:
    if text.isascii():
        return text
    if MARK not in text:
        # Ten times as fast as the pattern, and nearly every text ends here.
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _UNSTORABLE.sub(lambda found: f"{MARK}{ord(found[0]):04x}", text)


def unescape(text: str) -> str:
    return text if MARK not in text else _STORED.sub(lambda found: chr(int(found[1], 16)), text)
