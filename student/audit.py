"""The training rows of a run looked at as a whole: labels that are probably wrong, copies, and how teacher rows differ from real ones.

Every part looks at a bounded number of rows, so that an audit takes seconds whatever the run's size. Pure: rows and predictions in, values
out; what it finds of validation rows are totals, never texts.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import ks_2samp, mannwhitneyu, rankdata
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from engine.gates.gates import comparable
from engine.records import Example, TaskKind
from engine.reports import Audit, ClassDrift, ClassNoise, Copies, Copy, Drift, LabelNoise
from engine.text import parts, whole
from student.diagnosis import Mined, stratum

NUM_EXAMPLES = 10
"""Suspects and copies that are shown."""
COMPARED_ROWS = 4000
"""Teacher rows, and seed rows, among which copies are looked for: two seconds."""
DRAWN_ROWS = 1000
"""Rows of each side that are told apart: two seconds."""
FEW_ROWS = 20
"""With fewer on a side, how well rows can be told apart is not asked."""
FEW_CLASS_ROWS = 5
"""The same for one label."""
NO_NOISE: Mapping[TaskKind, str] = {"multi_label": "not looked for, as confident learning asks which one label a row has"}
"""By kind of task, why one part of an audit is left out."""
_NUM_FOLDS = 4
_CHUNK_ROWS = 500
_WORD = re.compile(r"[^\W\u3040-\u30ff\u3400-\u9fff]+|[\u3040-\u30ff\u3400-\u9fff]")
"""Where words are not spaced (Chinese, Japanese), each character is one."""


def audit(
    seed_rows: Sequence[Example],
    teacher_rows: Sequence[Example],
    real_rows: Sequence[Example],
    predictions: Sequence[Mined],
    clean: Sequence[Mined],
    similarity: float,
    seed: int,
    *,
    without_noise: str = "",
) -> Audit:
    """`predictions` are out of fold, of seed and teacher rows; `clean` are those of validation rows; `real_rows` are the latter.
    `without_noise`: why label noise is not to be looked for, if it is not.
    """
    started = time.perf_counter()
    return Audit(
        noise=None if without_noise else estimate_noise(predictions, clean),
        copies=find_copies(seed_rows, teacher_rows, similarity, seed),
        drift=measure_drift(real_rows, teacher_rows, seed),
        audit_s=time.perf_counter() - started,
        without_noise=without_noise,
    )


def estimate_noise(predictions: Sequence[Mined], clean: Sequence[Mined] = ()) -> LabelNoise | None:
    """Confident learning (Northcutt, Jiang and Chuang, JAIR 2021): a row is suspected when a student that has not seen it predicts another
    label, at least as surely as it predicts that label of the rows that have it. A text with marked spans is suspected when it predicts
    others, at least as surely as it predicts the right ones on average.

    Only the predictions of students that had learned a quarter of what the last one had are asked: what a beginner is sure of says nothing.
    """
    learned_most = max((prediction.learned for prediction in predictions), default=0)
    asked = [prediction for prediction in predictions if 4 * prediction.learned >= learned_most]
    if not asked:
        return None
    by_label: defaultdict[str, list[Mined]] = defaultdict(list)
    for prediction in asked:
        by_label[prediction.row.label].append(prediction)
    usual = {label: float(np.mean([row.own for row in rows])) for label, rows in by_label.items()}
    suspects = [prediction for prediction in asked if _is_suspect(prediction, usual)]
    suspected: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for suspect in suspects:
        suspected[suspect.row.label][suspect.row.predicted] += 1
    classes = [
        ClassNoise(label, counts.total() / len(by_label[label]), counts.total(), len(by_label[label]), counts.most_common(1)[0][0])
        for label, counts in suspected.items()
        if label  # marked spans are suspected a text at a time
    ]
    suspects.sort(key=lambda suspect: suspect.own - suspect.row.confidence)
    return LabelNoise(
        num_rows=len(asked),
        suspected=len(suspects),
        clean_share=float(np.mean([_is_suspect(row, usual) for row in clean])) if clean else None,
        classes=tuple(sorted(classes, key=lambda found: (-found.share, -found.suspected, found.label))),
        suspects=tuple(suspect.row for suspect in suspects[:NUM_EXAMPLES]),
    )


def _is_suspect(prediction: Mined, usual: dict[str, float]) -> bool:
    """A label that no row has is one that nothing can be surer of than usual."""
    return not prediction.is_right and prediction.row.confidence >= usual.get(prediction.row.predicted, 1.0)


def find_copies(seed_rows: Sequence[Example], teacher_rows: Sequence[Example], similarity: float, seed: int) -> Copies | None:
    """Every pair is compared, unlike at the gate, which estimates, and forgets in the largest runs."""
    if not teacher_rows:
        return None
    teacher = [row.content for row in _draw(teacher_rows, COMPARED_ROWS, seed)]
    originals = [row.content for row in _draw(seed_rows, COMPARED_ROWS, seed)]
    sides = [_count_pieces(side) for side in zip(*map(parts, [*originals, *teacher]), strict=True)]
    sizes = [np.asarray(pieces.sum(axis=1)).ravel() for pieces in sides]
    copies: list[Copy] = []
    of_seed = of_teacher = 0
    for start in range(len(originals), len(originals) + len(teacher), _CHUNK_ROWS):
        stop = min(start + _CHUNK_ROWS, len(originals) + len(teacher))
        # Each row with those before it: a pair of teacher rows counts once, for the later of them. Where rows are pairs, both texts count
        # alike, as at the gate.
        alike = np.mean([_jaccard(pieces, counts, start, stop) for pieces, counts in zip(sides, sizes, strict=True)], axis=0)
        alike[np.arange(stop)[None, :] >= np.arange(start, stop)[:, None]] = 0
        best_seed = alike[:, : len(originals)].max(axis=1, initial=0)
        best = alike.max(axis=1, initial=0)
        of_seed += int((best_seed >= similarity).sum())
        of_teacher += int(((best >= similarity) & (best_seed < similarity)).sum())
        for row in np.flatnonzero(best >= similarity).tolist():
            nearest = int(alike[row].argmax())
            original = originals[nearest] if nearest < len(originals) else teacher[nearest - len(originals)]
            copies.append(Copy(whole(teacher[start + row - len(originals)]), whole(original), float(best[row])))
    copies.sort(key=lambda copy: -copy.similarity)
    return Copies(len(teacher), similarity, of_seed, of_teacher, tuple(copies[:NUM_EXAMPLES]))


def _count_pieces(texts: Sequence[str]) -> csr_array:
    counter = CountVectorizer(analyzer=_pieces, binary=True)  # pyright: ignore[reportArgumentType] -- stubs leave functions out
    return csr_array(counter.fit_transform(texts), dtype=np.float32)


def _jaccard(pieces: csr_array, sizes: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
    """Of the rows from `start` to `stop`, with all up to `stop`; `sizes`: how many pieces each has."""
    common = (pieces[start:stop] @ pieces[:stop].T).toarray()
    return common / (sizes[start:stop, None] + sizes[None, :stop] - common)


def _pieces(text: str) -> set[str]:
    """As the gate's sketch counts them: runs of four characters; the spaces make the first and the last word count as much as others."""
    padded = f" {comparable(text)} ".ljust(4)
    return {padded[start : start + 4] for start in range(len(padded) - 3)}


def measure_drift(real_rows: Sequence[Example], teacher_rows: Sequence[Example], seed: int) -> Drift | None:
    """None where one side has no rows."""
    if not real_rows or not teacher_rows:
        return None
    real_labels, teacher_labels = (Counter(map(_label, rows)) for rows in (real_rows, teacher_rows))
    labels = sorted({*real_labels, *teacher_labels})
    shares = [np.array([counts[label] for label in labels]) / counts.total() for counts in (real_labels, teacher_labels)]
    # Of what is counted word by word more rows are affordable than of what is learned, but not all of a million.
    real_words, teacher_words = (
        [_words(whole(row.content)) for row in _draw(rows, 50 * DRAWN_ROWS, seed)] for rows in (real_rows, teacher_rows)
    )
    real_lengths, teacher_lengths = ([len(words) for words in rows] for rows in (real_words, teacher_words))
    separability, p_value, by_label = _tell_apart(real_rows, teacher_rows, seed)
    classes = [ClassDrift(label, real_labels[label], teacher_labels[label], by_label.get(label)) for label in labels]
    return Drift(
        num_real=len(real_rows),
        num_synthetic=len(teacher_rows),
        separability=separability,
        p_value=p_value,
        mix_distance=float(np.abs(shares[0] - shares[1]).sum() / 2),
        real_words=float(np.median(real_lengths)),
        synthetic_words=float(np.median(teacher_lengths)),
        length_distance=float(ks_2samp(real_lengths, teacher_lengths, method="asymp").statistic),  # pyright: ignore[reportAttributeAccessIssue]
        new_words=_share_outside(teacher_words, real_words),
        missing_words=_share_outside(real_words, teacher_words),
        classes=tuple(
            sorted(classes, key=lambda drift: (-(drift.separability or 0.0), -abs(_surplus(drift, real_labels, teacher_labels))))
        ),
    )


def _label(row: Example) -> str:
    """Of a text with several labels the first; with marked spans the type of the first."""
    return stratum(row) or "(none)"


def _surplus(drift: ClassDrift, real: Counter[str], teacher: Counter[str]) -> float:
    return drift.synthetic / teacher.total() - drift.real / real.total()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _share_outside(rows: Sequence[Sequence[str]], others: Sequence[Sequence[str]]) -> float:
    known = {word for words in others for word in words}
    counts = Counter(word for words in rows for word in words)
    return sum(count for word, count in counts.items() if word not in known) / (counts.total() or 1)


def _tell_apart(
    real_rows: Sequence[Example], teacher_rows: Sequence[Example], seed: int
) -> tuple[float | None, float | None, dict[str, float]]:
    """A classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017), over all rows and by label.

    Both sides get the same rows a label, so that wording is what differs, not which labels the teacher was asked for.
    """
    real, teacher = _same_mix(real_rows, teacher_rows, seed)
    if len(real) < FEW_ROWS:
        return None, None, {}
    rows = [*real, *teacher]
    is_teacher = np.repeat([False, True], [len(real), len(teacher)])
    scores = _out_of_fold_scores([whole(row.content) for row in rows], is_teacher, seed)
    labels = np.array([_label(row) for row in rows])
    by_label = {
        label: float(roc_auc_score(is_teacher[labels == label], scores[labels == label]))
        for label, count in Counter(map(_label, real)).items()
        if count >= FEW_CLASS_ROWS
    }
    p_value = mannwhitneyu(scores[is_teacher], scores[~is_teacher], alternative="greater").pvalue
    return float(roc_auc_score(is_teacher, scores)), float(p_value), by_label


def _same_mix(real_rows: Sequence[Example], teacher_rows: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """As many rows of each label on both sides, and DRAWN_ROWS in all at most."""
    sides: list[defaultdict[str, list[Example]]] = []
    for rows in (real_rows, teacher_rows):
        by_label: defaultdict[str, list[Example]] = defaultdict(list)
        for row in _draw(rows, len(rows), seed):
            by_label[_label(row)].append(row)
        sides.append(by_label)
    both = {label: min(len(sides[0][label]), len(sides[1][label])) for label in sorted({*sides[0]} & {*sides[1]})}
    keep = min(1.0, DRAWN_ROWS / max(1, sum(both.values())))
    counts = {label: max(1, int(count * keep)) for label, count in both.items()}
    first, second = ([row for label, count in counts.items() for row in side[label][:count]] for side in sides)
    return first, second


def _out_of_fold_scores(texts: Sequence[str], is_teacher: NDArray[np.bool_], seed: int) -> NDArray[np.float64]:
    """The higher, the more a text looks like the teacher's."""
    vectoriser = TfidfVectorizer(analyzer=_words_in_order, sublinear_tf=True)  # pyright: ignore[reportArgumentType] -- as above
    features = csr_array(vectoriser.fit_transform(texts))
    scores = np.zeros(len(texts))
    for inside, outside in StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=seed % 2**32).split(features, is_teacher):
        model = RidgeClassifier(solver="sparse_cg").fit(features[inside], is_teacher[inside])
        # As ranks, for the four models disagree about what score is high.
        scores[outside] = rankdata(model.decision_function(features[outside])) / len(outside)
    return scores


def _words_in_order(text: str) -> list[str]:
    """Words and neighbouring words. Pieces of words in their place learn the rows by heart: rows with shuffled words then look real."""
    words = _words(text)
    return [*words, *(" ".join(pair) for pair in pairwise(["", *words, ""]))]


def _draw(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    """In random order; the same rows for the same seed."""
    return random.Random(f"{seed} audit").sample(rows, min(count, len(rows)))
