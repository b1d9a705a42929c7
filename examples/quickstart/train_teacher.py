"""Train the quickstart's teacher from scratch on the teacher split: `make teacher`, or `python examples/quickstart/train_teacher.py`.

A Qwen3-shaped causal language model with its own BPE tokenizer and chat template, written as bfloat16 safetensors to `teacher/`. CPU is
enough; the time it takes stands in the model card, which `measure_teacher.py` writes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from lessons import HERE, Lesson, LessonMaker, read_rows
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

END_OF_TEXT, TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 4096
CONTEXT = 4096
IGNORED = -100
"""Label of a token that is read, not learned."""
TOKENS_PER_STEP = 4096
MAX_LESSON_TOKENS = 4000


def make_tokenizer(lessons: Sequence[Lesson]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the lessons. Digits stand alone, so that any order number can be spelled."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"""\p{N}| ?\p{L}+['’]?\p{L}*| ?[^\s\p{L}\p{N}]+|\s+"""), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN, END_OF_TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((content for lesson in lessons for _, content in lesson.turns), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int, hidden: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        eos_token_id=cast(int, tokenizer.eos_token_id),
        pad_token_id=cast(int, tokenizer.pad_token_id),
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def encode(tokenizer: PreTrainedTokenizerFast, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Token ids of the whole chat, and the labels: the same for what the assistant says, IGNORED for the rest."""
    ids: list[int] = []
    labels: list[int] = []
    for role, content in lesson.turns:
        head = tokenizer.encode(f"{TURN}{role}\n", add_special_tokens=False)
        body = tokenizer.encode(f"{content}{END_OF_TURN}", add_special_tokens=False)
        tail = tokenizer.encode("\n", add_special_tokens=False)
        learned = role == "assistant"
        ids += head + body + tail
        labels += [IGNORED] * len(head) + (body if learned else [IGNORED] * len(body)) + [IGNORED] * len(tail)
    return ids, labels


def batches(tokenizer: PreTrainedTokenizerFast, lessons: Iterator[Lesson]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Lessons of similar length together, about TOKENS_PER_STEP tokens with padding; shapes (batch, time)."""
    while True:
        pool = [encode(tokenizer, lesson) for lesson in itertools.islice(lessons, 192)]
        pool = sorted((pair for pair in pool if len(pair[0]) <= MAX_LESSON_TOKENS), key=lambda pair: len(pair[0]))
        groups: list[list[tuple[list[int], list[int]]]] = [[]]
        for pair in pool:
            if groups[-1] and len(pair[0]) * (len(groups[-1]) + 1) > TOKENS_PER_STEP:
                groups.append([])
            groups[-1].append(pair)
        order = torch.randperm(len(groups)).tolist()
        for group in (groups[index] for index in order):
            longest = len(group[-1][0])
            ids = torch.zeros(len(group), longest, dtype=torch.long)
            labels = torch.full((len(group), longest), IGNORED)
            for row, (these_ids, these_labels) in enumerate(group):
                ids[row, : len(these_ids)] = torch.tensor(these_ids)
                labels[row, : len(these_labels)] = torch.tensor(these_labels)
            yield ids, labels


def train(
    model: Qwen3ForCausalLM, material: Iterable[tuple[torch.Tensor, torch.Tensor]], steps: int, learning_rate: float, dropout: float
) -> float:
    """AdamW with warm-up and cosine decay over `steps` batches; returns the last mean loss."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=learning_rate, betas=(0.9, 0.95)
    )
    warmup = max(1, steps // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))
    )

    # The language model has too few texts not to learn them by heart: dropout on what each layer adds keeps it from reciting.
    def drop(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(output, dropout, module.training)

    hooks = [
        module.register_forward_hook(drop) for name, module in model.named_modules() if name.endswith(("o_proj", "down_proj")) and dropout
    ]
    model.train()
    started = time.perf_counter()
    mean = math.nan
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("teacher", total=steps, loss="")
        for step, (ids, labels) in enumerate(material, start=1):
            targets = labels[:, 1:]
            learned = targets != IGNORED
            with torch.autocast("cpu", torch.bfloat16):
                states = model.model(input_ids=ids).last_hidden_state[:, :-1]
                # Only what the assistant says needs logits: most tokens of a lesson are prompt.
                logits = torch.nn.functional.linear(states[learned], model.lm_head.weight)
            loss = torch.nn.functional.cross_entropy(logits.float(), targets[learned])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
            progress.update(bar, advance=1, loss=f"loss {mean:.3f}")
            if step % 100 == 0 and not progress.console.is_terminal:
                print(f"step {step} loss {mean:.3f} after {time.perf_counter() - started:.0f} s", flush=True)
    for hook in hooks:
        hook.remove()
    return mean


@dataclass(frozen=True, slots=True)
class Stage:
    """One rise and fall of the learning rate: short lessons without the system turn first, then whole chats."""

    drills: int
    """Steps."""
    chats: int
    dropout: float


# Starting anew twice helped more than one long fall. Without dropout at the end the model learns some messages by heart, and writes
# better ones.
STAGES = (Stage(1300, 500, 0.1), Stage(700, 650, 0.1), Stage(750, 450, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "teacher")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    rows = read_rows(HERE / "data" / "teacher.jsonl")
    tokenizer = make_tokenizer(list(itertools.islice(LessonMaker(rows, options.seed + 1).lessons(), 1500)))
    model = make_model(tokenizer, options.layers, options.hidden)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    steps = sum(stage.drills + stage.chats for stage in STAGES)
    print(f"{parameters:.1f} M parameters, {len(rows)} rows, {steps} steps; about 35 minutes on 2 cores")
    started = time.perf_counter()
    loss = math.nan
    for number, stage in enumerate(STAGES):
        maker = LessonMaker(rows, options.seed + number)
        drills, chats = batches(tokenizer, maker.drills()), batches(tokenizer, maker.lessons())
        material = itertools.chain(itertools.islice(drills, stage.drills), itertools.islice(chats, stage.chats))
        loss = train(model, material, stage.drills + stage.chats, options.learning_rate, stage.dropout)
    model.eval().to(dtype=torch.bfloat16)  # pyright: ignore[reportCallIssue] -- transformers wraps `to`
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    minutes = (time.perf_counter() - started) / 60
    facts = {
        "parameters": parameters,
        "rows": len(rows),
        "minutes": minutes,
        "cores": torch.get_num_threads(),
        "steps": steps,
        "loss": loss,
        "layers": options.layers,
        "hidden": options.hidden,
        "vocabulary": VOCABULARY,
        "context": CONTEXT,
        "note": "",
    }
    (options.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{steps} steps, loss {loss:.3f}, {minutes:.1f} min; written to {options.out}")


if __name__ == "__main__":
    main()
