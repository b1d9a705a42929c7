"""Which lesson teaches which of the project's prompts, and how often each is drawn; a test holds it against `prompts/`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from entity_lessons import EntityLessons
from lessons import Chats, Lesson


class MethodLessons(EntityLessons):
    """An endless supply of all of them, determined by the seed."""

    def of(self, template: str) -> Lesson:
        """A lesson in one template."""
        return Lesson(template, TAUGHT[template](self))

    def lessons(self) -> Iterator[Lesson]:
        while True:
            yield self.of(self._random.choices([*SHARES], [*SHARES.values()])[0])


TAUGHT: Mapping[str, Callable[[MethodLessons], Chats]] = {
    "pgkd/generate": MethodLessons.with_report,
    "zerogen/generate": MethodLessons.class_conditional,
    "labelling/label": MethodLessons.labelling,
    "labelling/code": MethodLessons.codes,
    "labelling/batch": MethodLessons.batches,
    "unguided/generate": MethodLessons.unguided,
    "auggpt/rephrase": MethodLessons.rephrasings,
    "llm2llm/variants": MethodLessons.variants,
    "attrprompt/values": MethodLessons.values,
    "attrprompt/write": MethodLessons.with_attributes,
    "hybrid/write": MethodLessons.hybrid,
    "evokd/analyse": MethodLessons.analysis,
    "ner/labelling/label": MethodLessons.entity_labels,
    "ner/labelling/batch": MethodLessons.entity_batches,
    "ner/zerogen/generate": MethodLessons.entity_rows_of_type,
    "ner/unguided/generate": MethodLessons.entity_unguided,
    "ner/pgkd/generate": MethodLessons.entity_report_rows,
    "ner/hybrid/write": MethodLessons.entity_hybrid,
    "ner/auggpt/rephrase": MethodLessons.entity_rephrasings,
    "ner/llm2llm/variants": MethodLessons.entity_variants,
    "ner/attrprompt/values": MethodLessons.entity_values,
    "ner/attrprompt/write": MethodLessons.entity_attributes,
    "ner/evokd/analyse": MethodLessons.entity_analysis,
}
"""By template."""

LATER_TURNS: Mapping[str, str] = {"evokd/write": "evokd/analyse", "ner/evokd/write": "ner/evokd/analyse"}
"""Templates that go on with a conversation, and the one whose lessons they are in."""

SHARES: Mapping[str, float] = {
    "pgkd/generate": 1.5,
    "zerogen/generate": 1.0,
    "labelling/label": 2.0,
    "labelling/code": 2.0,
    "labelling/batch": 2.0,
    "unguided/generate": 0.7,
    "auggpt/rephrase": 0.7,
    "llm2llm/variants": 0.5,
    "attrprompt/values": 0.3,
    "attrprompt/write": 0.7,
    "hybrid/write": 1.2,
    "evokd/analyse": 1.0,
    "ner/labelling/label": 1.5,
    "ner/labelling/batch": 1.0,
    "ner/zerogen/generate": 0.6,
    "ner/unguided/generate": 0.6,
    "ner/pgkd/generate": 0.8,
    "ner/hybrid/write": 0.7,
    "ner/auggpt/rephrase": 0.4,
    "ner/llm2llm/variants": 0.4,
    "ner/attrprompt/values": 0.2,
    "ner/attrprompt/write": 0.4,
    "ner/evokd/analyse": 0.7,
}
"""How often each is drawn."""
