"""Replies as bad teachers write them, each with the texts of the rows in it that are good nevertheless.

Written by hand; labels are `cancel`, `change` and `track`. What is good is what a person would take for a row that was meant as one.
"""

from __future__ import annotations

import json
from typing import NamedTuple


class Reply(NamedTuple):
    name: str
    text: str
    kept: tuple[str, ...] = ()
    """Texts of the rows that must be accepted, and no others."""


ONE, TWO = '{"text": "one", "label": "cancel"}', '{"text": "two", "label": "track"}'
BOTH = ("one", "two")

CORPUS = (
    # Nothing, and next to nothing.
    Reply("empty", ""),
    Reply("white space", " \n\t\u00a0\u2003\u3000 "),
    Reply("null", "null"),
    Reply("empty list", "[]"),
    Reply("empty object", "{}"),
    Reply("a number", "42"),
    Reply("a string", '"one"'),
    Reply("refusal", "I am sorry, but I cannot help with that."),
    Reply("only an opening", '[{"text":'),
    Reply("brackets without end", "[" * 3000),
    Reply("braces without end", "{" * 3000),
    Reply("quotes without end", '"' * 3000),
    Reply("a loop", '{"text": "please ' * 500),
    Reply("nested without end", '{"a":' * 2000 + "1" + "}" * 2000),
    Reply("a number without end", '{"text": 1' + "0" * 6000 + ', "label": "cancel"}'),
    # Good rows in odd clothes.
    Reply("a list", f"[{ONE}, {TWO}]", BOTH),
    Reply("one row, no list", ONE, ("one",)),
    Reply("fenced", f"```json\n[{ONE},\n{TWO}]\n```", BOTH),
    Reply("prose around", f"Sure! Here are two rows:\n[{ONE}, {TWO}]\nDo you want more?", BOTH),
    Reply("prose with braces around", f"Rows {{as you asked}}: [{ONE}, {TWO}] {{done}}", BOTH),
    Reply("prose with quoted braces", f'An object begins with "{{" and ends so: [{ONE}, {TWO}]', BOTH),
    Reply("thoughts first", f"<think>I should write {{rows}} [1, 2].</think>\n[{ONE}, {TWO}]", BOTH),
    Reply("lines", f"{ONE}\n{TWO}\n", BOTH),
    Reply("numbered", f"1. {ONE}\n2. {TWO}", BOTH),
    Reply("bullets", f"- {ONE}\n- {TWO}", BOTH),
    Reply("wrapped", f'{{"rows": [{ONE}, {TWO}]}}', BOTH),
    Reply("a list in a list", f"[[{ONE}], [{TWO}]]", BOTH),
    Reply("no commas", f"[{ONE} {TWO}]", BOTH),
    Reply("two commas", f"[{ONE},, {TWO},]", BOTH),
    Reply("semicolons", f"[{ONE}; {TWO}]", BOTH),
    Reply("comments", f"[{ONE}, // the first\n{TWO} /* the second */]", BOTH),
    Reply("byte order mark", f"\ufeff[{ONE}, {TWO}]", BOTH),
    Reply("zero width between", f"[\u200b{ONE},\u200b\u2060{TWO}]", BOTH),
    Reply("line separators between", f"[{ONE},\u2028\u2029\x85{TWO}]", BOTH),
    Reply("turned around by a control character", f"\u202e[{ONE}, {TWO}]\u202c", BOTH),
    Reply("NUL between", f"[{ONE},\0{TWO}]", BOTH),
    Reply("half a surrogate pair before", f"\ud83d[{ONE}, {TWO}]", BOTH),
    Reply("other fields", '[{"id": 1, "text": "one", "label": "cancel", "why": {"a": [1, {"b": null}]}}]', ("one",)),
    Reply("fields in another order", '[{"label": "cancel", "text": "one"}]', ("one",)),
    Reply("white space around the text", '[{"text": "\\n one \\t", "label": "cancel"}]', ("one",)),
    Reply("escaped letters", '[{"text": "\\u006f\\u006e\\u0065", "label": "\\u0063ancel"}]', ("one",)),
    Reply("a row that talks of rows", json.dumps([{"text": f"[{ONE}]", "label": "change"}]), (f"[{ONE}]",)),
    # Broken rows between good ones.
    Reply("cut off", f'[{ONE}, {TWO}, {{"text": "thr', BOTH),
    Reply("cut off in an escape", f'[{ONE}, {TWO}, {{"text": "thr\\u00', BOTH),
    Reply("cut off behind a backslash", f'[{ONE}, {TWO}, {{"text": "thr\\', BOTH),
    Reply("missing colon between", f'[{ONE}, {{"text" "bad", "label": "cancel"}}, {TWO}]', BOTH),
    Reply("missing quote between", f'[{ONE}, {{"text": "bad, "label": "cancel"}}, {TWO}]', BOTH),
    Reply("missing brace between", f'[{ONE}, {{"text": "bad", "label": "cancel", {TWO}]', BOTH),
    Reply("one brace too many between", f'[{ONE}}}, {{"text": "bad"}}}}, {TWO}]', BOTH),
    Reply("unescaped quotes between", f'[{ONE}, {{"text": "she said "no"", "label": "cancel"}}, {TWO}]', BOTH),
    Reply("a line break in a string between", f'[{ONE}, {{"text": "b\nd", "label": "cancel"}}, {TWO}]', BOTH),
    Reply("single quotes between", f"[{ONE}, {{'text': 'bad', 'label': 'cancel'}}, {TWO}]", BOTH),
    Reply("curly quotes between", f"[{ONE}, {{“text”: “bad”, “label”: “cancel”}}, {TWO}]", BOTH),
    Reply("full width between", f"[{ONE}, \uff5b\uff02text\uff02\uff1a\uff02bad\uff02\uff5d, {TWO}]", BOTH),
    Reply("Python between", f'[{ONE}, {{"text": None, "label": True}}, dict(text=\'bad\'), {TWO}]', BOTH),
    Reply("NaN between", f'[{ONE}, {{"text": NaN, "label": -Infinity}}, {TWO}]', BOTH),
    Reply(
        "other types between",
        f'[{ONE}, 3, null, "x", {{"text": 3, "label": "cancel"}}, {{"text": ["x"], "label": {{}}}}, {TWO}]',
        BOTH,
    ),
    Reply("fields missing between", f'[{ONE}, {{"text": "bad"}}, {{"label": "cancel"}}, {{}}, {TWO}]', BOTH),
    Reply("other names between", f'[{ONE}, {{"Text": "bad", "Label": "cancel"}}, {{"txt": "bad", "lbl": "x"}}, {TWO}]', BOTH),
    Reply("nested too deeply between", f'[{ONE}, {{"text": {"[" * 3000}{"]" * 3000}}}, {TWO}]', BOTH),
    # Rows that are rows, and refused.
    Reply("empty text", f'[{ONE}, {{"text": "", "label": "cancel"}}, {{"text": " \\u2003 ", "label": "cancel"}}, {TWO}]', BOTH),
    Reply("too long", f'[{ONE}, {{"text": "{"x" * 101}", "label": "cancel"}}, {TWO}]', BOTH),
    Reply("label in other case", f'[{ONE}, {{"text": "bad", "label": "Cancel"}}, {TWO}]', BOTH),
    Reply("label with a space", f'[{ONE}, {{"text": "bad", "label": "cancel "}}, {TWO}]', BOTH),
    Reply("label with a Cyrillic letter", f'[{ONE}, {{"text": "bad", "label": "\u0441ancel"}}, {TWO}]', BOTH),
    Reply("label with a zero width space", f'[{ONE}, {{"text": "bad", "label": "can\u200bcel"}}, {TWO}]', BOTH),
    Reply("no such label", f'[{ONE}, {{"text": "bad", "label": "refund"}}, {TWO}]', BOTH),
    Reply("several labels", f'[{ONE}, {{"text": "bad", "label": ["cancel", "track"]}}, {TWO}]', BOTH),
    Reply("a label by number", f'[{ONE}, {{"text": "bad", "label": 0}}, {TWO}]', BOTH),
    Reply("twice the same", f'[{ONE}, {ONE}, {{"text": "ONE!", "label": "track"}}, {TWO}]', BOTH),
    Reply("a seed row", f'[{ONE}, {{"text": "Seed text 0, about cancel.", "label": "cancel"}}, {TWO}]', BOTH),
    Reply("a validation row", f'[{ONE}, {{"text": "Validation text 0 about cancel", "label": "cancel"}}, {TWO}]', BOTH),
    Reply(
        "a test row in full width letters",
        f'[{ONE}, {{"text": "\uff54\uff45\uff53\uff54 text 0 about cancel", "label": "cancel"}}, {TWO}]',
        BOTH,
    ),
    Reply("the same field twice", '[{"text": "bad", "label": "no", "text": "one", "label": "cancel"}]', ("one",)),
)
